package store

import "context"

// SetSubscribed notes what a client wants with a name, whether or not there is
// such a folder: subscriptions outlive folders (RFC 9051 section 6.3.7).
func (s *Store) SetSubscribed(ctx context.Context, account AccountID, name string, on bool) error {
	return s.db.write(ctx, "write subscription", func(t *tx) error {
		_, err := t.exec(`INSERT INTO subscriptions (account, name, subscribed) VALUES (?, ?, ?)
			ON CONFLICT (account, name) DO UPDATE SET subscribed = excluded.subscribed`, int64(account), name, intOf(on))
		return err
	})
}

// Subscriptions returns the names that count as subscribed, sorted: those a client
// subscribed to, and all visible folders it did not unsubscribe from, so that
// folders made in Outlook show up in clients that list subscriptions only.
func (s *Store) Subscriptions(ctx context.Context, account AccountID) ([]string, error) {
	rows, err := s.db.query(ctx, `SELECT name FROM subscriptions WHERE account = ? AND subscribed <> 0
		UNION SELECT name FROM folders WHERE account = ? AND hidden = 0 AND NOT EXISTS
			(SELECT 1 FROM subscriptions s WHERE s.account = folders.account AND s.name = folders.name AND s.subscribed = 0)
		ORDER BY name`, int64(account), int64(account))
	if err != nil {
		return nil, s.db.explain("list subscriptions", err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, s.db.explain("list subscriptions", err)
		}
		names = append(names, name)
	}
	return names, s.db.explain("list subscriptions", rows.Err())
}
