package backend

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"os"
	"strings"
	"time"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/outbox"
)

// maxReturned is the largest message that a notice carries whole, where RET=FULL asks for it.
const maxReturned = 1 << 20

// Notify puts a delivery status notification (RFC 3464) into the Inbox of the mailbox
// the message was sent from. It is filed there, not sent: nothing else needs to work.
func (s *sender) Notify(ctx context.Context, job *outbox.Job, n outbox.Notice) error {
	a, err := s.account(job.Mailbox)
	if err != nil {
		return err
	}
	var original []byte
	full := job.DSN.Ret == "FULL" && n.Kind == outbox.Failed && job.Size <= maxReturned
	if f, err := os.Open(job.Path); err == nil {
		defer f.Close()
		if full {
			original, err = io.ReadAll(f)
		} else {
			original, _, err = readHeader(f)
		}
		if err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.removeNotice(ctx, a, noticeID(job, n.Kind)); err != nil {
		return classify(err, job)
	}
	text := buildNotice(job, n, s.b.hostname(), original, full)
	_, err = a.Deliver(ctx, "INBOX", nil, time.Now(), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	}, int64(len(text)))
	if err == nil {
		return nil
	}
	if k := KindOf(err); k == Refused || k == TooLarge {
		return &outbox.Error{Outcome: outbox.Permanent, Err: err}
	}
	return err
}

// removeNotice removes what an earlier try, which was killed or saw no answer, may have filed of a notice: it may lack its
// attachments.
func (s *sender) removeNotice(ctx context.Context, a *Account, messageID string) error {
	var ids []string
	err := a.graph.ListMessages(graph.WithLane(ctx, graph.Background), "", graph.ListOptions{
		Select: []string{"id"}, Filter: "internetMessageId eq '" + strings.ReplaceAll(messageID, "'", "''") + "'",
	}, "", func(page []graph.Message, _ string) error {
		for _, m := range page {
			ids = append(ids, m.ID)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for notice: %w", err)
	}
	for _, id := range ids {
		if err := s.removeDraft(ctx, a, id); err != nil {
			return fmt.Errorf("remove notice: %w", err)
		}
	}
	return nil
}

// noticeID is the Message-ID of a notice, the same at each try.
func noticeID(job *outbox.Job, kind outbox.NoticeKind) string {
	return fmt.Sprintf("<%s.%s.%s>", job.ID, kind, messageIDDomain(job.Mailbox))
}

// hostname is the reporting MTA's name in notices.
func (b *Backend) hostname() string {
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "localhost"
}

// noticeWords are the human part of each kind of notice.
var noticeWords = map[outbox.NoticeKind]struct{ subject, lead string }{
	outbox.Failed:  {"Not delivered: ", "Your message could not be sent to:"},
	outbox.Relayed: {"Handed over: ", "Your message was handed to Microsoft 365, which will give no further notice, for:"},
	outbox.Delayed: {"Delayed: ", "Your message has not been sent yet, and will be tried further, to:"},
}

// buildNotice writes the report: a text for people, the fields for programs, and the
// message's header, or with full all of it.
func buildNotice(job *outbox.Job, n outbox.Notice, host string, original []byte, full bool) []byte {
	w := noticeWriter{job: job, notice: n, boundary: "postern-" + job.ID + "-" + string(n.Kind), now: time.Now()}
	w.subject, _ = message.FieldValue(original, "Subject")
	if w.subject = message.DecodeWords(w.subject); w.subject == "" {
		w.subject = "(no subject)"
	}
	w.header()
	w.line("--%s", w.boundary)
	w.text()
	w.line("--%s", w.boundary)
	w.status(host)
	w.line("--%s", w.boundary)
	w.original(original, full)
	w.line("--%s--", w.boundary)
	return w.out.Bytes()
}

// noticeWriter puts one report together.
type noticeWriter struct {
	out      bytes.Buffer
	job      *outbox.Job
	notice   outbox.Notice
	subject  string // of the original, decoded
	boundary string
	now      time.Time
}

func (w *noticeWriter) line(format string, args ...any) {
	fmt.Fprintf(&w.out, format+"\r\n", args...)
}

func (w *noticeWriter) header() {
	w.line("From: Mail Delivery System <mailer-daemon@%s>", domainOf(w.job.Mailbox))
	w.line("To: %s", headerAddress(w.job.EnvelopeFrom))
	w.line("%s", foldField("Subject: "+mime.QEncoding.Encode("utf-8", shorten(noticeWords[w.notice.Kind].subject+w.subject, maxNoticeSubject))))
	w.line("Date: %s", w.now.Format(time.RFC1123Z))
	w.line("Message-ID: %s", noticeID(w.job, w.notice.Kind))
	if w.job.MessageID != "" {
		w.line("In-Reply-To: %s", singleLine(w.job.MessageID))
		w.line("References: %s", singleLine(w.job.MessageID))
	}
	w.line("Auto-Submitted: auto-replied")
	w.line("MIME-Version: 1.0")
	w.line("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"%s\"", w.boundary)
	w.line("")
}

// text is the part for people.
func (w *noticeWriter) text() {
	w.line("Content-Type: text/plain; charset=utf-8")
	w.line("Content-Transfer-Encoding: quoted-printable")
	w.line("")
	qp := quotedprintable.NewWriter(&w.out)
	fmt.Fprintf(qp, "%s\r\n\r\n", noticeWords[w.notice.Kind].lead)
	for _, r := range w.notice.Recipients {
		fmt.Fprintf(qp, "    %s\r\n", singleLine(r.Address))
	}
	if w.notice.Text != "" {
		fmt.Fprintf(qp, "\r\nThe reason: %s\r\n", singleLine(w.notice.Text))
	}
	fmt.Fprintf(qp, "\r\nSubject: %s\r\nSubmitted: %s\r\nQueue id: %s\r\n", singleLine(w.subject), w.job.Created.Local().Format(time.RFC1123Z), w.job.ID)
	if w.notice.Kind == outbox.Failed {
		fmt.Fprintf(qp, "\r\nThe message was not sent to these addresses and will not be tried again.\r\n")
	}
	qp.Close()
	w.line("")
}

// status is the part for programs. RFC 3464.
func (w *noticeWriter) status(host string) {
	w.line("Content-Type: message/delivery-status")
	w.line("")
	if w.job.DSN.EnvID != "" {
		w.line("Original-Envelope-Id: %s", singleLine(w.job.DSN.EnvID))
	}
	w.line("Reporting-MTA: dns; %s", singleLine(host))
	w.line("Arrival-Date: %s", w.job.Created.Format(time.RFC1123Z))
	status := w.notice.Status
	if status == "" {
		status = map[outbox.NoticeKind]string{outbox.Failed: "5.0.0", outbox.Relayed: "2.0.0", outbox.Delayed: "4.0.0"}[w.notice.Kind]
	}
	for _, r := range w.notice.Recipients {
		w.line("")
		if typ, addr, ok := strings.Cut(r.Orcpt, ";"); ok {
			w.line("Original-Recipient: %s; %s", singleLine(typ), singleLine(addr))
		}
		addrType, addr := "rfc822", singleLine(r.Address)
		if !isASCII(addr) {
			addrType, addr = "utf-8", utf8Xtext(addr)
		}
		w.line("Final-Recipient: %s; %s", addrType, addr)
		w.line("Action: %s", w.notice.Kind)
		w.line("Status: %s", status)
		if w.notice.Text != "" {
			w.line("%s", foldField("Diagnostic-Code: X-Postern; "+onlyASCII(singleLine(w.notice.Text))))
		}
		if w.notice.Kind == outbox.Delayed {
			w.line("Will-Retry-Until: %s", w.job.Expires.Format(time.RFC1123Z))
		}
		w.line("Last-Attempt-Date: %s", w.now.Format(time.RFC1123Z))
	}
	w.line("")
}

// original is the message, or its header, in a form that every mail program reads.
func (w *noticeWriter) original(original []byte, full bool) {
	ascii := isASCII(string(original))
	switch {
	case full:
		w.line("Content-Type: message/rfc822")
		if !ascii {
			w.line("Content-Transfer-Encoding: 8bit") // needs no other within message/rfc822, but must be announced
		}
		w.line("")
		w.out.Write(original)
	case ascii:
		w.line("Content-Type: text/rfc822-headers")
		w.line("")
		w.out.Write(original)
	default:
		w.line("Content-Type: text/rfc822-headers; charset=utf-8")
		w.line("Content-Transfer-Encoding: base64")
		w.line("")
		enc := base64.StdEncoding.EncodeToString(original)
		for len(enc) > 76 {
			w.line("%s", enc[:76])
			enc = enc[76:]
		}
		w.line("%s", enc)
	}
	w.line("")
}

// maxNoticeSubject is how many bytes of the original's subject a notice repeats in its own.
const maxNoticeSubject = 400

// foldField breaks a field at blanks, so that no line is longer than need be. RFC 5322 section 2.1.1.
func foldField(s string) string {
	var b strings.Builder
	length := 0
	for i, word := range strings.Split(s, " ") {
		if i > 0 {
			if i > 1 && word != "" && length+1+len(word) > 76 {
				b.WriteString("\r\n")
				length = 0
			}
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String()
}

// utf8Xtext writes an international address in the form for reports of seven bits. RFC 6533 section 3.
func utf8Xtext(addr string) string {
	var b strings.Builder
	for _, r := range addr {
		if r < 0x80 && r != '\\' && r != '+' && r != '=' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\x{%X}", r)
		}
	}
	return b.String()
}

func onlyASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return '?'
		}
		return r
	}, s)
}

func domainOf(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 && at+1 < len(address) {
		return singleLine(address[at+1:])
	}
	return "postern.invalid"
}

// singleLine keeps text from outside within its field.
func singleLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
