package backend

import (
	"strings"
	"testing"
	"time"

	"postern/backend/outbox"
	"postern/backend/store"
)

// A notice keeps to seven bits where it must, and to short lines, whatever the message had.
func TestNoticeFields(t *testing.T) {
	job := &outbox.Job{Submission: store.Submission{
		ID: "id", Mailbox: alice, EnvelopeFrom: alice, MessageID: "<m@x>", Created: time.Now(), Expires: time.Now().Add(time.Hour),
	}}
	original := []byte("Subject: " + strings.Repeat("word ", 600) + "\r\n\r\n")
	n := outbox.Notice{Kind: outbox.Delayed, Status: "4.4.7", Text: "Nicht für immer, " + strings.Repeat("but for some time ", 20),
		Recipients: []store.Recipient{{Address: "jürgen+x@exämple.test"}}}
	text := string(buildNotice(job, n, "host", original, false))
	before, report, _ := strings.Cut(text, "Content-Type: message/delivery-status")
	report, _, _ = strings.Cut(report, "\r\n--")
	for _, want := range []string{"Final-Recipient: utf-8; j\\x{FC}rgen\\x{2B}x@ex\\x{E4}mple.test\r\n", "Will-Retry-Until: ", "Diagnostic-Code: X-Postern; Nicht f?r immer,"} {
		if !strings.Contains(report, want) {
			t.Errorf("no %q in\n%s", want, report)
		}
	}
	if !isASCII(report) {
		t.Errorf("not of seven bits:\n%s", report)
	}
	for _, l := range strings.Split(before+report, "\r\n") {
		if len(l) > 100 {
			t.Errorf("line of %d bytes: %.60s", len(l), l)
		}
		if strings.Trim(l, " ") == "" && l != "" {
			t.Errorf("line of blanks")
		}
	}
}
