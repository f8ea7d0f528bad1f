package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"golang.org/x/sys/unix"

	"postern/backend/graphsim"
)

// smallDisk puts a file system of so many megabytes below the state folder of a stopped server.
func (r *rig) smallDisk(t *testing.T, megabytes int) {
	t.Helper()
	state := filepath.Join(r.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("postern-test", state, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", megabytes)); err != nil {
		t.Skipf("a small file system cannot be mounted here (that takes root): %v", err)
	}
	t.Cleanup(func() {
		if r.cmd != nil {
			r.kill()
		}
		if err := unix.Unmount(state, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

func (r *rig) remount(t *testing.T, flags uintptr, megabytes int) {
	t.Helper()
	if err := unix.Mount("postern-test", filepath.Join(r.dir, "state"), "tmpfs", unix.MS_REMOUNT|flags, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Fatal(err)
	}
}

// setQueue adds a key to the queue section of a stopped server's configuration.
func (r *rig) setQueue(t *testing.T, key string) {
	t.Helper()
	path := filepath.Join(r.dir, "postern.yaml")
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(src), "queue: {", "queue: {"+key+", ", 1)
	if changed == string(src) {
		t.Fatal("the configuration has no queue section")
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A disk that fills up makes Postern refuse for now, and nothing that was accepted is lost. Reading goes on, and when there is
// room again everything does, without a restart.
func TestE2EDiskFull(t *testing.T) {
	for _, tt := range []struct{ name, config string }{
		{"with room kept free", "min_free: 2MB"},
		{"to the last byte", "min_free: 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.stop()
			const size = 10
			r.smallDisk(t, size)
			r.setQueue(t, tt.config)
			r.start()
			before := r.snapshot(t, sampleUser, "INBOX")
			if err := r.sim.Inject(graphsim.Fault{Path: "/send(Mail)?$", Status: 503}); err != nil {
				t.Fatal(err)
			}
			accepted := make(map[string]bool)
			n, refusals := 0, 0
			submit := func(bytes int) {
				t.Helper()
				id := fmt.Sprintf("<full.%d@e2e.example>", n)
				user := r.users[n%len(r.users)]
				n++
				code, err := submitSized(r.addr["smtp/none"], user, id, bytes)
				switch {
				case err != nil:
					t.Errorf("submit: %v", err)
				case code/100 == 5:
					t.Errorf("a full disk is said to be for good: %d", code)
				case code != 0:
					refusals++
				}
				accepted[id] = err == nil && code == 0
			}
			for n < 30 && refusals < 2 {
				submit(900_000)
			}
			for range 60 { // the last gaps, too
				submit(30_000)
				if tt.config == "min_free: 0" {
					submit(3_000)
				}
			}
			if refusals < 5 {
				t.Fatalf("%d refusals: the disk was not full", refusals)
			}

			// Reading goes on. A message that is not kept yet cannot be, and the client is told why.
			if after := r.snapshot(t, sampleUser, "INBOX"); len(after.messages) != len(before.messages) {
				t.Errorf("%d messages with a full disk, %d before", len(after.messages), len(before.messages))
			}
			var dialogue bytes.Buffer
			reader, err := imapclient.DialInsecure(r.addr["imap/none"], &imapclient.Options{DebugWriter: &dialogue})
			if err != nil {
				t.Fatal(err)
			}
			if err := reader.Login(sampleUser, e2ePassword).Wait(); err != nil {
				t.Fatal(err)
			}
			if _, err := reader.Select("INBOX", nil).Wait(); err != nil {
				t.Errorf("select with a full disk: %v", err)
			}
			text, err := reader.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Collect()
			reader.Close()
			if told := strings.Contains(dialogue.String(), "disk is full"); !told && (err != nil || len(text) != 1) {
				t.Errorf("fetch of a message with a full disk: %v\n%s", err, dialogue.String())
			}
			c := r.imap(t, sampleUser)
			if _, err := c.Select("INBOX", nil).Wait(); err != nil {
				t.Fatal(err)
			}
			// A change is either refused or kept.
			flagged := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{"kept"}}, nil).Close() == nil
			mime := "From: alice@contoso.example\r\nTo: bob@contoso.example\r\nSubject: appended\r\nMessage-ID: <full@e2e.example>\r\n\r\n" + strings.Repeat("kept\r\n", 1000)
			appended := appendText(c, "Archive", mime) == nil
			t.Logf("%d of %d accepted, %d refused; flag kept: %v, message appended: %v", len(accepted)-refusals, len(accepted), refusals, flagged, appended)

			r.sim.ClearFaults()
			r.remount(t, 0, 10*size)
			r.sim.DeliverMessage(sampleUser, []byte("From: x@y.example\r\nTo: alice@contoso.example\r\nSubject: later\r\nMessage-ID: <later@e2e.example>\r\n\r\nlater\r\n"))
			within(t, 30*time.Second, "mail is taken again", func() bool {
				id := fmt.Sprintf("<full.%d@e2e.example>", n)
				n++
				code, err := submitSized(r.addr["smtp/none"], sampleOther, id, 1000)
				accepted[id] = err == nil && code == 0
				return accepted[id]
			})
			within(t, 30*time.Second, "new mail is seen", func() bool {
				for _, id := range r.snapshot(t, sampleUser, "INBOX").messages {
					if id == "later@e2e.example" {
						return true
					}
				}
				return false
			})
			r.drain(t)
			r.onceEach(t, accepted)
			if flagged {
				within(t, 30*time.Second, "the flag is in Graph", func() bool {
					for _, m := range r.sim.Messages(sampleUser, "inbox") {
						if strings.Contains(strings.Join(m.Categories, " "), "kept") {
							return true
						}
					}
					return false
				})
			}
			copies := 0
			for _, m := range r.sim.Messages(sampleUser, "archive") {
				if m.MessageID == "<full@e2e.example>" {
					copies++
				}
			}
			if want := map[bool]int{true: 1}[appended]; copies != want {
				t.Errorf("%d copies of the appended message, want %d", copies, want)
			}
			r.stop()
		})
	}
}

func appendText(c *imapclient.Client, mailbox, mime string) error {
	cmd := c.Append(mailbox, int64(len(mime)), nil)
	if _, err := cmd.Write([]byte(mime)); err != nil {
		return err
	}
	if err := cmd.Close(); err != nil {
		return err
	}
	_, err := cmd.Wait()
	return err
}

// A state folder that cannot be written is told at the start; when it comes about later, sending is refused for now and
// reading goes on.
func TestE2EStateReadOnly(t *testing.T) {
	r := newRig(t, nil)
	r.stop()
	r.smallDisk(t, 20)
	r.setQueue(t, "min_free: 0")
	r.start()
	before := r.snapshot(t, sampleUser, "INBOX")
	// The databases and the lock are open for writing, which a file system that is made read-only would refuse to
	// become; that it turns read-only by itself after an error cannot be had here. Nothing can be made in these folders:
	for _, dir := range []string{"spool", "bodies"} {
		if err := unix.Mount(filepath.Join(r.dir, "state", dir), filepath.Join(r.dir, "state", dir), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		undo := func() { _ = unix.Unmount(filepath.Join(r.dir, "state", dir), unix.MNT_DETACH) } // twice at the end
		t.Cleanup(undo)
		if err := unix.Mount("", filepath.Join(r.dir, "state", dir), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	code, err := submitSized(r.addr["smtp/none"], sampleUser, "<readonly@e2e.example>", 1000)
	if err != nil || code/100 != 4 {
		t.Errorf("submit: %d %v, want a refusal for now", code, err)
	}
	if after := r.snapshot(t, sampleUser, "INBOX"); len(after.messages) != len(before.messages) {
		t.Errorf("%d messages, %d before", len(after.messages), len(before.messages))
	}
	c := r.imap(t, sampleUser)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := appendText(c, "Archive", "Subject: x\r\n\r\n"+strings.Repeat("no room\r\n", 100)); err != nil {
		var no *imap.Error
		if !errors.As(err, &no) {
			t.Errorf("append: %v", err)
		}
	}
	for _, dir := range []string{"spool", "bodies"} {
		if err := unix.Unmount(filepath.Join(r.dir, "state", dir), unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if code, err := submitSized(r.addr["smtp/none"], sampleUser, "<writable@e2e.example>", 1000); err != nil || code != 0 {
		t.Errorf("submit when it can be written again: %d %v", code, err)
	}
	r.stop()

	r.remount(t, unix.MS_RDONLY, 20)
	text := r.startFails(t)
	if !strings.Contains(text, "read-only") || !strings.Contains(text, filepath.Join(r.dir, "state")) {
		t.Errorf("the error does not say what is wrong and where:\n%s", text)
	}
	r.remount(t, 0, 20)
	r.start()
	r.stop()
}
