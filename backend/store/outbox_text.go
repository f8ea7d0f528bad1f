package store

import "context"

// putText keeps the text that an insert carries, and forgets it when nothing is left to do for the message.
func (t *tx) putText(s *Submission) error {
	switch {
	case len(s.Text) > 0:
		_, err := t.exec("INSERT INTO texts (submission, text) VALUES (?, ?)", s.ID, s.Text)
		return err
	case s.State.Settled() && s.NextAttempt.IsZero():
		_, err := t.exec("DELETE FROM texts WHERE submission = ?", s.ID)
		return err
	}
	return nil
}

// Texts calls fn with each text that Add has kept and the name of the file it belongs in, until fn fails. fn must not
// keep the text.
func (o *Outbox) Texts(ctx context.Context, fn func(spool string, text []byte) error) error {
	rows, err := o.db.query(ctx, "SELECT submissions.spool, texts.text FROM texts JOIN submissions ON submissions.id = texts.submission ORDER BY texts.submission")
	if err != nil {
		return o.db.explain("read texts", err)
	}
	defer rows.Close()
	for rows.Next() {
		var spool string
		var text []byte
		if err := rows.Scan(&spool, &text); err != nil {
			return o.db.explain("read texts", err)
		}
		if err := fn(spool, text); err != nil {
			return err
		}
	}
	return o.db.explain("read texts", rows.Err())
}
