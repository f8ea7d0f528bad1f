package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"golang.org/x/sys/unix"

	"postern/backend/graphsim"
	"postern/internal/faultrun"
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
			rnd := rand.New(rand.NewPCG(faultrun.Seed(t, 1), 6))
			f := &fullDisk{rig: r, t: t, rnd: rnd, toTheLast: tt.config == "min_free: 0", accepted: make(map[string]bool)}
			end := time.Now().Add(faultrun.Length(t, 0))
			for round := 0; round == 0 || time.Now().Before(end) && !t.Failed(); round++ {
				if round > 0 {
					r.remount(t, 0, r.used(t)+6) // it was made larger; now there is little room again
				}
				f.round(round, size)
			}
			r.stop()
		})
	}
}

// fullDisk is a server whose disk fills up.
type fullDisk struct {
	*rig
	t         *testing.T
	rnd       *rand.Rand
	toTheLast bool
	accepted  map[string]bool
	refusals  int
}

// submit reports whether a message of about so many bytes was taken.
func (f *fullDisk) submit(bytes int) bool {
	f.t.Helper()
	n := len(f.accepted)
	id := fmt.Sprintf("<full.%d@e2e.example>", n)
	code, err := submitSized(f.addr["smtp/none"], f.users[n%len(f.users)], id, bytes)
	switch {
	case err != nil:
		f.t.Errorf("submit: %v", err)
	case code/100 == 5:
		f.t.Errorf("a full disk is said to be for good: %d", code)
	case code != 0:
		f.refusals++
	}
	f.accepted[id] = err == nil && code == 0
	return f.accepted[id]
}

func (f *fullDisk) allAccepted() (n int) {
	for _, ok := range f.accepted {
		if ok {
			n++
		}
	}
	return n
}

// used is how many megabytes of the small disk are taken.
func (r *rig) used(t *testing.T) int {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Join(r.dir, "state"), &st); err != nil {
		t.Fatal(err)
	}
	return int(int64(st.Blocks-st.Bfree)*int64(st.Bsize)>>20) + 1
}

// round fills the disk, looks what works, and makes room again.
func (f *fullDisk) round(round, size int) {
	r, t := f.rig, f.t
	t.Helper()
	before := r.snapshot(t, sampleUser, "INBOX")
	if err := r.sim.Inject(graphsim.Fault{Path: "/send(Mail)?$", Status: 503}); err != nil {
		t.Fatal(err)
	}
	f.refusals = 0
	for i := 0; i < 40 && f.refusals < 2; i++ {
		f.submit(500_000 + f.rnd.IntN(1_000_000))
	}
	for range 60 { // the last gaps, too
		f.submit(20_000 + f.rnd.IntN(20_000))
		if f.toTheLast {
			f.submit(f.rnd.IntN(5_000))
		}
	}
	if f.refusals < 5 {
		t.Fatalf("%d refusals: the disk was not full", f.refusals)
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
	mark := fmt.Sprintf("kept%d", round)
	flagged := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.Flag(mark)}}, nil).Close() == nil
	id := fmt.Sprintf("full.appended.%d@e2e.example", round)
	mime := "From: alice@contoso.example\r\nTo: bob@contoso.example\r\nSubject: appended\r\nMessage-ID: <" + id + ">\r\n\r\n" + strings.Repeat("kept\r\n", 1000)
	appended := appendText(c, "Archive", mime) == nil
	t.Logf("%d of %d accepted, %d refused in this round; flag kept: %v, message appended: %v", f.allAccepted(), len(f.accepted), f.refusals, flagged, appended)

	r.sim.ClearFaults()
	r.remount(t, 0, 10*size)
	later := fmt.Sprintf("later.%d@e2e.example", round)
	r.sim.DeliverMessage(sampleUser, []byte("From: x@y.example\r\nTo: alice@contoso.example\r\nSubject: later\r\nMessage-ID: <"+later+">\r\n\r\nlater\r\n"))
	within(t, 30*time.Second, "mail is taken again", func() bool {
		return f.submit(1000)
	})
	within(t, 30*time.Second, "new mail is seen", func() bool {
		return slices.Contains(slices.Collect(maps.Values(r.snapshot(t, sampleUser, "INBOX").messages)), later)
	})
	r.drain(t)
	r.onceEach(t, f.accepted)
	if flagged {
		within(t, 30*time.Second, "the flag is in Graph", func() bool {
			for _, m := range r.sim.Messages(sampleUser, "inbox") {
				if strings.Contains(strings.Join(m.Categories, " "), mark) {
					return true
				}
			}
			return false
		})
	}
	copies := 0
	for _, m := range r.sim.Messages(sampleUser, "archive") {
		if m.MessageID == "<"+id+">" {
			copies++
		}
	}
	if want := map[bool]int{true: 1}[appended]; copies != want {
		t.Errorf("%d copies of the appended message, want %d", copies, want)
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
