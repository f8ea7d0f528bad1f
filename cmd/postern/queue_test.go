package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"postern/backend/store"
)

// runCommand runs postern with args and returns what it prints.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := rootCommand()
	cmd.SetArgs(args)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.Execute()
	return out.String(), err
}

func TestQueueCommands(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, s := range []store.Submission{
		{ID: "q1", Mailbox: "a@x", EnvelopeFrom: "a@x", Login: "app", Recipients: []store.Recipient{{Address: "Bob@y"}}, MessageID: "<1@x>", NextAttempt: now.Add(time.Hour), Expires: now.Add(time.Hour)},
		{ID: "q2", Mailbox: "b@x", EnvelopeFrom: "b@x", Recipients: []store.Recipient{{Address: "carl@y"}}, State: store.StateUnclear, Created: now.Add(-3 * time.Hour)},
		{ID: "s1", Mailbox: "a@x", EnvelopeFrom: "a@x", Recipients: []store.Recipient{{Address: "bob@y"}}, State: store.StateSent, Subject: "Invoice 7",
			Events: []store.Event{{What: "accepted"}, {What: "sent", RequestID: "r-1"}}},
	} {
		if _, err := st.Outbox().Insert(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	ids := func(args ...string) string {
		t.Helper()
		out, err := runCommand(t, append([]string{"queue", "list", "--json", "--state-dir", dir}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		var rows []queueRow
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, r := range rows {
			ids = append(ids, r.ID)
		}
		return strings.Join(ids, " ")
	}
	for _, tt := range []struct{ args, want string }{
		{"", "q1 q2"}, {"--all", "q1 q2 s1"}, {"--all --to bob", "q1 s1"}, {"--mailbox A@X", "q1"}, {"--from b@", "q2"},
		{"--login app", "q1"}, {"--message-id 1@x", "q1"}, {"--older 1h", "q2"}, {"--newer 1h", "q1"}, {"--in sent", "s1"},
		{"--all --subject invoice", "s1"}, {"--in held", ""}, {"--all --limit 2", "q1 q2"},
	} {
		if got := ids(strings.Fields(tt.args)...); got != tt.want {
			t.Errorf("list %s: %s, want %s", tt.args, got, tt.want)
		}
	}
	do := func(fails bool, want string, args ...string) {
		t.Helper()
		out, err := runCommand(t, append(append([]string{"queue"}, args...), "--state-dir", dir)...)
		if (err != nil) != fails || !strings.Contains(out, want) && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	do(true, "which messages?", "hold")
	do(true, "keep one", "hold", "q1", "--all")
	do(false, "1 message held", "hold", "q1", "--reason", "too many")
	do(true, "held already", "hold", "q1")
	do(true, "release it", "retry", "q1")
	do(false, "No server is running", "release", "--all")
	do(false, "2 messages tried at once", "retry", "--all")
	do(false, "1 message returned to its sender", "bounce", "--mailbox", "b@x", "--reason", "wrong list")
	do(true, "bounced already", "purge", "q2")
	do(true, "no such message", "purge", "zz")
	do(false, `"done": true`, "purge", "q1", "--json")
	do(false, "r-1", "show", "s1")
	do(true, "there is no message", "show", "zz")
	do(true, "is unknown", "list", "--in", "nowhere")
	out, err := runCommand(t, "queue", "show", "q2", "--json", "--state-dir", dir)
	var details []queueDetail
	if err != nil || json.Unmarshal([]byte(out), &details) != nil || len(details) != 1 || details[0].State != "bounced" || details[0].LastError != "wrong list" || len(details[0].Log) != 2 {
		t.Errorf("show: %v\n%s", err, out)
	}
	if got := ids("--all", "--in", "purged"); got != "q1" {
		t.Errorf("purged: %s", got)
	}
}
