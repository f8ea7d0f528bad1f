package backend

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// A long first listing tells how far it has come and how long it will take, and asks Graph nothing more for it.
func TestListingProgress(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddSynthetic(alice, "inbox", 4200, graphsim.Synthetic{Seed: 1})
	inject(t, sim, graphsim.Fault{Path: "mailFolders/[^/]+/messages", Delay: 150 * time.Millisecond})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	inbox := func() FolderState {
		t.Helper()
		list, err := a.Folders(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(f FolderState) bool { return f.Name == "INBOX" })
		if i < 0 {
			return FolderState{}
		}
		return list[i]
	}
	eventually(t, nil, "the folder tree", func() bool { return a.State().Ready })
	if f := inbox(); f.Phase != FolderUnread || f.Total != 4200 || a.State().Filling != nil {
		t.Errorf("before anybody asks: %+v", f)
	}
	var asked sync.WaitGroup
	asked.Go(func() {
		if _, err := a.Status(t.Context(), "INBOX"); err != nil {
			t.Error(err)
		}
	})
	var last FolderState
	eventually(t, nil, "a listing in the middle", func() bool {
		if f := inbox(); f.Phase == FolderListing {
			if f.Done < last.Done || f.Total != 4200 {
				t.Errorf("%+v after %+v", f, last)
			}
			last = f
		}
		return last.Done > 0 && last.Done < 4200 && last.Remaining > 0
	})
	if f := a.State().Filling; f != nil && (f.Folders != 1 || f.Total != 4200 || f.Done == 0) {
		t.Errorf("filling %+v", f)
	}
	asked.Wait()
	eventually(t, nil, "the folder in step", func() bool {
		f := inbox()
		return f.Phase == FolderInStep && f.Messages == 4200 && !f.LastSync.IsZero() && a.State().Filling == nil
	})
}

// A message that goes up in pieces tells how much has gone.
func TestUploadProgress(t *testing.T) {
	quickly(t)
	sim, url := newSim(t, graphsim.Options{})
	inject(t, sim, graphsim.Fault{Method: "PUT", Delay: 100 * time.Millisecond})
	cfg := testConfig(t, url, t.TempDir())
	cfg.SendWait = 0
	b, _ := start(t, cfg)
	text, _ := largeMessage("mixed", 9<<20, 5<<20)
	id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), text)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int64]bool)
	eventually(t, nil, "the message to be sent", func() bool {
		m, _, err := b.QueueMessage(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if m.UploadSize > 0 {
			if m.Uploaded > m.UploadSize || m.UploadSize < 14<<20 {
				t.Errorf("%d of %d bytes", m.Uploaded, m.UploadSize)
			}
			seen[m.Uploaded] = true
		}
		return m.State == "sent"
	})
	if len(seen) < 3 {
		t.Errorf("seen %v", seen)
	}
	if m, _, _ := b.QueueMessage(t.Context(), id); m.UploadSize != 0 {
		t.Errorf("still uploading: %+v", m)
	}
}

func TestCallHistory(t *testing.T) {
	var h callHistory
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i := range 10 {
		at := noon.Add(time.Duration(i) * 20 * time.Second)
		h.add(at, 200, false)
		h.add(at, 429, i == 9) // the last one as a whole batch that was refused
		h.add(at, 503, false)
		h.add(at, 0, false)
		h.add(at, 200, true) // its items count
	}
	got := h.last(noon.Add(4*time.Minute+59*time.Second), 6)
	want := []int{0, 12, 12, 12, 4, 0}
	for i, m := range got {
		if m.Calls != want[i] || m.Throttled != want[i]/4 || m.Failed != want[i]/2 || !m.At.Equal(noon.Add(time.Duration(i-1)*time.Minute)) {
			t.Errorf("minute %d: %+v, want %d calls", i, m, want[i])
		}
	}
	// What is older than the ring is not taken for news.
	h.add(noon.Add(historyMinutes*time.Minute), 200, false)
	if m := h.last(noon.Add(historyMinutes*time.Minute), 1)[0]; m.Calls != 1 || m.Throttled != 0 {
		t.Errorf("%+v", m)
	}
	if n := len(h.last(noon, 10_000)); n != historyMinutes {
		t.Errorf("%d minutes", n)
	}
}

// The observer is told of what happens, batch items and attempts among it.
func TestObserver(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 3 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	var mu sync.Mutex
	told := make(map[string]int)
	tell := func(parts ...string) {
		mu.Lock()
		defer mu.Unlock()
		told[strings.Join(parts, " ")]++
	}
	cfg := testConfig(t, url, t.TempDir())
	cfg.Observer = Observer{
		GraphRequest: func(mailbox, kind string, status int, took time.Duration) {
			if mailbox != alice && mailbox != bob || took <= 0 {
				t.Errorf("request of %s took %v", mailbox, took)
			}
			if status == 202 {
				tell(kind, "202")
			}
		},
		GraphItem: func(string, int) { tell("item") },
		Attempt:   func(mailbox, outcome string) { tell("attempt", mailbox, outcome) },
		Login:     func(protocol, outcome string) { tell("login", protocol, outcome) },
		Body:      func(kept bool) { tell("body", map[bool]string{true: "kept", false: "read"}[kept]) },
	}
	b, _ := start(t, cfg)
	m := open(t, accountOf(t, b, alice), "INBOX")
	readBody(t, m, 1)
	readBody(t, m, 1)
	if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "From: "+alice+"\n\nhi\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = b.Authenticate(t.Context(), Attempt{Protocol: "imap", Username: "nobody", Password: "x"})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(told)
		}
	})
	eventually(t, nil, "all to be told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told["send 202"] == 1 && told["attempt "+alice+" sent"] == 1 && told["login imap wrong"] == 1 && told["body kept"] >= 1 && told["item"] > 0
	})
	if signIns := b.SignIns(); len(signIns) != 1 || signIns[0].Credential != "contoso" || signIns[0].Received != 1 || signIns[0].Problem != "" ||
		time.Until(signIns[0].Expires) < time.Minute {
		t.Errorf("sign-ins %+v", signIns)
	}
}
