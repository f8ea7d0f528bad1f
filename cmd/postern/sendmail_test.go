package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/fuzzcorpus"
)

// runSendmail runs the command and returns the file it dropped, with its exit status.
func runSendmail(t *testing.T, message string, args ...string) (dropped string, status int) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("POSTERN_DROP", dir)
	cmd := rootCommand()
	cmd.SetArgs(append([]string{"sendmail"}, args...))
	cmd.SetIn(strings.NewReader(message))
	var out bytes.Buffer
	cmd.SetErr(&out)
	cmd.SetOut(&out)
	if err := cmd.Execute(); err != nil {
		e, ok := errors.AsType[*exitError](err)
		if !ok {
			t.Fatal(err)
		}
		status = e.status
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) > 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	if len(files) == 1 {
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		dropped = string(b)
	}
	return dropped, status
}

func TestSendmail(t *testing.T) {
	const to = "To: A <a@x.example>, b@x.example\nBcc: c@x.example\nFrom: root@host.example\nSubject: s\n\nbody\n"
	for _, tt := range []struct {
		name, message string
		args          []string
		want          string // whole
		status        int
	}{
		{"recipients named", "Subject: s\n\nbody\n", []string{"-f", "me@x.example", "a@x.example", "b@x.example"},
			`{"from":"me@x.example","recipients":[{"address":"a@x.example"},{"address":"b@x.example"}]}` + "\nSubject: s\n\nbody\n", 0},
		{"-t", to, []string{"-t", "-i"},
			`{"from":"root@host.example","recipients":[{"address":"a@x.example"},{"address":"b@x.example"},{"address":"c@x.example"}]}` + "\nTo: A <a@x.example>, b@x.example\nFrom: root@host.example\nSubject: s\n\nbody\n", 0},
		{"-t, sent again", "Resent-From: me@x.example\nResent-To: r@x.example\nResent-Bcc: h@x.example\n" + to, []string{"-t", "-fme@x.example"},
			`{"from":"me@x.example","recipients":[{"address":"r@x.example"},{"address":"h@x.example"}]}` + "\nResent-From: me@x.example\nResent-To: r@x.example\nTo: A <a@x.example>, b@x.example\nFrom: root@host.example\nSubject: s\n\nbody\n", 0},
		{"-ti together, PHP's manner", to, []string{"-ti", "-fwww@x.example"},
			`{"from":"www@x.example","recipients":[{"address":"a@x.example"},{"address":"b@x.example"},{"address":"c@x.example"}]}` + "\nTo: A <a@x.example>, b@x.example\nFrom: root@host.example\nSubject: s\n\nbody\n", 0},
		{"cron's manner", "From: root@host.example\nTo: a@x.example\n\nx\n", []string{"-FCronDaemon", "-i", "-B8BITMIME", "-oem", "a@x.example"},
			`{"from":"root@host.example","recipients":[{"address":"a@x.example"}]}` + "\nFrom: root@host.example\nTo: a@x.example\n\nx\n", 0},
		{"--", "\nx\n", []string{"-f", "", "--", "-odd@x.example"}, `{"from":"","recipients":[{"address":"-odd@x.example"}]}` + "\n\nx\n", 0},
		{"a dot ends", "Subject: s\n\na\n.\nb\n", []string{"-f", "m@x", "a@x.example"}, `{"from":"m@x","recipients":[{"address":"a@x.example"}]}` + "\nSubject: s\n\na\n", 0},
		{"-i", "Subject: s\n\na\n.\nb\n", []string{"-i", "-f", "m@x", "a@x.example"}, `{"from":"m@x","recipients":[{"address":"a@x.example"}]}` + "\nSubject: s\n\na\n.\nb\n", 0},
		{"-oi", "\n.\nb", []string{"-oi", "-f", "m@x", "a@x.example"}, `{"from":"m@x","recipients":[{"address":"a@x.example"}]}` + "\n\n.\nb", 0},
		{"name for From", "Subject: s\n\nx\n", []string{"-f", "m@x", "-F", "The \"Daemon\"", "a@x.example"}, `{"from":"m@x","recipients":[{"address":"a@x.example"}]}` + "\nFrom: \"The \\\"Daemon\\\"\" <m@x>\nSubject: s\n\nx\n", 0},
		{"no header", "just text\nmore\n", []string{"-f", "m@x", "a@x.example"}, `{"from":"m@x","recipients":[{"address":"a@x.example"}]}` + "\n\njust text\nmore\n", 0},
		{"notices", "\nx\n", []string{"-f", "m@x", "-N", "success,delay", "-R", "hdrs", "-V", "e1", "a@x.example"},
			`{"from":"m@x","recipients":[{"address":"a@x.example","notify":["SUCCESS","DELAY"]}],"ret":"HDRS","envid":"e1"}` + "\n\nx\n", 0},
		{"nobody", "Subject: s\n\nx\n", []string{"-t"}, "", exNoUser},
		{"local user", "\nx\n", []string{"-f", "m@x", "root"}, `{"from":"m@x","recipients":[{"address":"root"}]}` + "\n\nx\n", 0},
		{"local users in the header", "To: root, Bob <bob>\n\nx\n", []string{"-t", "-f", "m@x"}, `{"from":"m@x","recipients":[{"address":"root"},{"address":"bob"}]}` + "\nTo: root, Bob <bob>\n\nx\n", 0},
		{"no name", "\nx\n", []string{"ro ot"}, "", exNoUser},
		{"two in one", "\nx\n", []string{"a@x.example> <b@y"}, "", exNoUser},
		{"unknown option", "\nx\n", []string{"-y", "a@x.example"}, "", exUsage},
		{"SMTP mode", "", []string{"-bs"}, "", exUsage},
		{"queue run", "", []string{"-q"}, "", exUsage},
		{"no value", "", []string{"-f"}, "", exUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, status := runSendmail(t, tt.message, tt.args...)
			if got != tt.want || status != tt.status {
				t.Errorf("status %d, dropped\n%s\nwant %d\n%s", status, got, tt.status, tt.want)
			}
		})
	}
}

func FuzzReadMessageHeader(f *testing.F) {
	f.Add([]byte("A: b\n c\n\nbody"))
	f.Add([]byte("From x\nnot a field\n"))
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		header, err := readMessageHeader(r)
		if err != nil {
			return
		}
		rest, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		// Nothing is lost but mbox separators, and nothing added but one blank line.
		if got := len(header) + len(rest); got > len(b)+1 {
			t.Errorf("%d bytes of %d", got, len(b))
		}
		a := &sendmailArgs{}
		a.recipients(header)
	})
}
