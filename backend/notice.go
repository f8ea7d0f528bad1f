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
	now := time.Now()
	words := noticeWords[n.Kind]
	subject, _ := message.FieldValue(original, "Subject")
	subject = message.DecodeWords(subject)
	if subject == "" {
		subject = "(no subject)"
	}
	boundary := "postern-" + job.ID + "-" + string(n.Kind)

	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail Delivery System <mailer-daemon@%s>", domainOf(job.Mailbox))
	line("To: %s", headerAddress(job.EnvelopeFrom))
	line("%s", foldField("Subject: "+mime.QEncoding.Encode("utf-8", shorten(words.subject+subject, maxNoticeSubject))))
	line("Date: %s", now.Format(time.RFC1123Z))
	line("Message-ID: %s", noticeID(job, n.Kind))
	if job.MessageID != "" {
		line("In-Reply-To: %s", singleLine(job.MessageID))
		line("References: %s", singleLine(job.MessageID))
	}
	line("Auto-Submitted: auto-replied")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"%s\"", boundary)
	line("")

	line("--%s", boundary)
	line("Content-Type: text/plain; charset=utf-8")
	line("Content-Transfer-Encoding: quoted-printable")
	line("")
	qp := quotedprintable.NewWriter(&b)
	fmt.Fprintf(qp, "%s\r\n\r\n", words.lead)
	for _, r := range n.Recipients {
		fmt.Fprintf(qp, "    %s\r\n", singleLine(r.Address))
	}
	if n.Text != "" {
		fmt.Fprintf(qp, "\r\nThe reason: %s\r\n", singleLine(n.Text))
	}
	fmt.Fprintf(qp, "\r\nSubject: %s\r\nSubmitted: %s\r\nQueue id: %s\r\n", singleLine(subject), job.Created.Local().Format(time.RFC1123Z), job.ID)
	if n.Kind == outbox.Failed {
		fmt.Fprintf(qp, "\r\nThe message was not sent to these addresses and will not be tried again.\r\n")
	}
	qp.Close()
	line("")

	line("--%s", boundary)
	line("Content-Type: message/delivery-status")
	line("")
	if job.DSN.EnvID != "" {
		line("Original-Envelope-Id: %s", singleLine(job.DSN.EnvID))
	}
	line("Reporting-MTA: dns; %s", singleLine(host))
	line("Arrival-Date: %s", job.Created.Format(time.RFC1123Z))
	for _, r := range n.Recipients {
		line("")
		if r.Orcpt != "" {
			if typ, addr, ok := strings.Cut(r.Orcpt, ";"); ok {
				line("Original-Recipient: %s; %s", singleLine(typ), singleLine(addr))
			}
		}
		addrType, addr := "rfc822", singleLine(r.Address)
		if !isASCII(addr) {
			addrType, addr = "utf-8", utf8Xtext(addr)
		}
		line("Final-Recipient: %s; %s", addrType, addr)
		line("Action: %s", n.Kind)
		status := n.Status
		if status == "" {
			status = map[outbox.NoticeKind]string{outbox.Failed: "5.0.0", outbox.Relayed: "2.0.0", outbox.Delayed: "4.0.0"}[n.Kind]
		}
		line("Status: %s", status)
		if n.Text != "" {
			line("%s", foldField("Diagnostic-Code: X-Postern; "+onlyASCII(singleLine(n.Text))))
		}
		if n.Kind == outbox.Delayed {
			line("Will-Retry-Until: %s", job.Expires.Format(time.RFC1123Z))
		}
		line("Last-Attempt-Date: %s", now.Format(time.RFC1123Z))
	}
	line("")

	line("--%s", boundary)
	switch {
	case full && isASCII(string(original)):
		line("Content-Type: message/rfc822")
		line("")
		b.Write(original)
	case full:
		// 8-bit content inside message/rfc822 needs no encoding but must be announced.
		line("Content-Type: message/rfc822")
		line("Content-Transfer-Encoding: 8bit")
		line("")
		b.Write(original)
	case isASCII(string(original)):
		line("Content-Type: text/rfc822-headers")
		line("")
		b.Write(original)
	default:
		line("Content-Type: text/rfc822-headers; charset=utf-8")
		line("Content-Transfer-Encoding: base64")
		line("")
		enc := base64.StdEncoding.EncodeToString(original)
		for len(enc) > 76 {
			line("%s", enc[:76])
			enc = enc[76:]
		}
		line("%s", enc)
	}
	line("")
	line("--%s--", boundary)
	return b.Bytes()
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
