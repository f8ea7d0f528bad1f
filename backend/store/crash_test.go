package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/internal/faultrun"
)

// crashDirEnv makes the test binary the program that TestCrash kills.
const crashDirEnv = "STORE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// crashChild works without end and prints what it was told, each line in one write.
func crashChild(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, Options{Dir: dir, BodyBudget: 1 << 20})
	if err != nil {
		return err
	}
	a, err := s.Account(ctx, "alice@contoso.example")
	if err != nil {
		return err
	}
	f, err := s.PutFolder(ctx, Folder{Account: a, GraphID: "inbox", Name: "INBOX"})
	if err != nil {
		return err
	}
	fmt.Printf("folder %d %d\n", f.ID, f.UIDValidity)
	for n := int(f.UIDNext); ; n += 3 {
		rows := []Remote{remote(n), remote(n + 1), remote(n + 2)}
		ch, err := s.Apply(ctx, f.ID, rows, []GraphID{graphID(n - 3), graphID(n - 5)}, &SyncUpdate{DeltaLink: ptr(fmt.Sprint(n))})
		if err != nil {
			return err
		}
		for _, m := range ch.Added {
			fmt.Printf("added %d %s\n", m.UID, m.GraphID)
		}
		for _, r := range ch.Removed {
			fmt.Printf("removed %d %s\n", r.UID, r.GraphID)
		}
		fmt.Printf("modseq %d %d\n", ch.HighestModSeq, n)
		if len(ch.Added) == 0 {
			continue
		}
		last := ch.Added[len(ch.Added)-1]
		if _, _, err := s.ChangeFlags(ctx, f.ID, []FlagChange{{UID: last.UID, Set: FlagDeleted}}); err != nil {
			return err
		}
		fmt.Printf("deleted %d %s\n", last.UID, last.GraphID)
		w, err := s.NewBody()
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, strings.Repeat(string(last.GraphID), 3000)); err != nil {
			return err
		}
		if _, err := w.Commit(ctx, last.ID, nil, false); err != nil {
			return err
		}
		fmt.Printf("body %d %s\n", last.UID, last.GraphID)
		sub, err := s.Outbox().Insert(ctx, Submission{Mailbox: "alice@contoso.example", MessageID: string(last.GraphID)})
		if err != nil {
			return err
		}
		fmt.Printf("queued %d %s\n", last.UID, sub.ID)
	}
}

// TestCrash kills the child at some moment, again and again, and looks whether
// anything it was told is lost or taken back.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := filepath.Join(t.TempDir(), "state")
	rnd := rand.New(rand.NewPCG(faultrun.Seed(t, 1), 2))
	end := time.Now().Add(faultrun.Length(t, 0))
	told := &crashTold{added: map[imap.UID]GraphID{}, removed: map[imap.UID]bool{}, deleted: map[imap.UID]bool{}, bodies: map[imap.UID]bool{}}
	for round := 0; round < 6 || time.Now().Before(end); round++ {
		told.run(t, dir, 20+rnd.IntN(400))
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		told.check(t, dir)
		if t.Failed() {
			t.Fatalf("after round %d", round)
		}
	}
	if len(told.added) < 50 || len(told.removed) < 10 {
		t.Errorf("only %d added and %d removed", len(told.added), len(told.removed))
	}
}

// crashTold is what the children were told.
type crashTold struct {
	folder   FolderID
	validity uint32
	added    map[imap.UID]GraphID
	removed  map[imap.UID]bool
	deleted  map[imap.UID]bool
	bodies   map[imap.UID]bool
	queued   []string
	modSeq   uint64
	link     int
}

func (c *crashTold) run(t *testing.T, dir string, lines int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	n := 0
	for scanner.Scan() {
		c.line(t, scanner.Text())
		if n++; n == lines {
			// What is still in the pipe was told as well, and is read on.
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if n < lines {
		t.Errorf("child ended by itself after %d lines: %s", n, stderr.String())
	}
}

func (c *crashTold) line(t *testing.T, line string) {
	t.Helper()
	var what, text string
	var n uint64
	if _, err := fmt.Sscan(line, &what, &n, &text); err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	uid := imap.UID(n)
	switch what {
	case "folder":
		var validity uint32
		fmt.Sscan(text, &validity)
		if c.folder != 0 && (c.folder != FolderID(n) || c.validity != validity) {
			t.Errorf("folder became %d %d", n, validity)
		}
		c.folder, c.validity = FolderID(n), validity
	case "added":
		if old, ok := c.added[uid]; ok {
			t.Errorf("uid %d was %s and is given to %s", uid, old, text)
		}
		c.added[uid] = GraphID(text)
	case "removed":
		c.removed[uid] = true
	case "deleted":
		c.deleted[uid] = true
	case "body":
		c.bodies[uid] = true
	case "queued":
		c.queued = append(c.queued, text)
	case "modseq":
		if n < c.modSeq {
			t.Errorf("modseq went back from %d to %d", c.modSeq, n)
		}
		c.modSeq = n
		fmt.Sscan(text, &c.link)
	}
}

func (c *crashTold) check(t *testing.T, dir string) {
	t.Helper()
	ctx := t.Context()
	s, err := Open(ctx, Options{Dir: dir, BodyBudget: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := s.Folder(ctx, c.folder)
	if err != nil {
		t.Fatal(err)
	}
	var link int
	fmt.Sscan(f.DeltaLink, &link)
	if f.HighestModSeq < c.modSeq || link < c.link {
		t.Errorf("folder is at %d %d, told %d %d", f.HighestModSeq, link, c.modSeq, c.link)
	}
	here := map[imap.UID]Message{}
	for _, m := range messages(t, s, f.ID) {
		here[m.UID] = m
	}
	journal, err := s.RemovedSince(ctx, f.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone := map[imap.UID]bool{}
	for _, r := range journal {
		gone[r.UID] = true
	}
	for uid, id := range c.added {
		if uid >= f.UIDNext {
			t.Errorf("uid %d was told and will be given again", uid)
		}
		m, ok := here[uid]
		if ok == gone[uid] || (ok && m.GraphID != id) || (c.removed[uid] && ok) || (c.deleted[uid] && ok && m.Flags&m.Pending&FlagDeleted == 0) {
			t.Errorf("uid %d: here %v, in journal %v, told removed %v: %+v", uid, ok, gone[uid], c.removed[uid], m)
		}
	}
	bodies := 0
	for uid := range c.bodies {
		m := here[uid]
		body, err := s.Body(ctx, m.ID)
		if errors.Is(err, ErrNoBody) {
			continue // evicted, or removed
		}
		if err != nil {
			t.Error(err)
			continue
		}
		b, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
		if err != nil || string(b) != strings.Repeat(string(m.GraphID), 3000) {
			t.Errorf("body of %d is another: %v", uid, err)
		}
		body.Close()
		bodies++
	}
	if bodies == 0 && len(c.bodies) > 0 {
		t.Error("no body is left")
	}
	if left, err := os.ReadDir(s.bodies.tmp); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v %v", left, err)
	}
	checkBodies(t, s)
	for _, id := range c.queued {
		if _, err := s.Outbox().Get(ctx, id); err != nil {
			t.Errorf("submission %s: %v", id, err)
		}
	}
}
