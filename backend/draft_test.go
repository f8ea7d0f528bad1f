package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/backend/graph"
	"postern/backend/graphsim"
	"postern/backend/outbox"
	"postern/backend/store"
)

// A draft that was made without its attachments, by a request whose answer was lost, is never sent as it is. The
// message is just small enough to go in one call, and no more so with its Bcc fields.
func TestSkeletonIsNotTheMessage(t *testing.T) {
	quickly(t)
	sim, url := newSim(t, graphsim.Options{})
	// Sending is unclear, then refused for a while; the next draft's id is lost.
	inject(t, sim, graphsim.Fault{Path: "/send$", Times: 1, Status: 504})
	inject(t, sim, graphsim.Fault{Path: "/send$", Times: 1, Status: 507, Code: "ErrorQuotaExceeded"})
	inject(t, sim, graphsim.Fault{Method: "POST", Path: "/messages$", Skip: 1, Times: 1, DropAfter: true})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	text, files := largeMessage("mixed", 1_000_000, 1_150_000)
	text += strings.Repeat("x", 2_990_000-len(text)) + "\r\n"
	env := envelope()
	for i := range 400 {
		env.Recipients = append(env.Recipients, Recipient{Address: fmt.Sprintf("a.rather.long.name.of.somebody.%d@department.fabrikam.example", i)})
	}
	id, err := submit(t, b, loginOf(t, b, alice), env, text)
	if err != nil {
		t.Fatal(err)
	}
	if row := settledRow(t, b, id); row.State != store.StateSent || graph.EncodedSize(row.Size) > graph.MaxRequest {
		t.Fatalf("%s, %d bytes: %s", row.State, row.Size, row.LastError)
	}
	d := sim.Delivered()
	if len(d) != 1 || len(d[0].MIME) < len(files[0])+len(files[1]) {
		t.Fatalf("%d deliveries, the first of %d bytes", len(d), len(d[0].MIME))
	}
	if n := len(sim.Messages(alice, "drafts")); n != 0 {
		t.Errorf("%d drafts left", n)
	}
}

// A draft that somebody deletes while it waits to be sent is made again: nobody has taken it.
func TestDraftDeletedMeanwhile(t *testing.T) {
	adjustOutbox = func(o *outbox.Options) { o.Retries = []time.Duration{time.Hour} }
	t.Cleanup(func() { adjustOutbox = nil })
	sim, url := newSim(t, graphsim.Options{})
	inject(t, sim, graphsim.Fault{Path: "/send$", Times: 1, Status: 423})
	cfg := testConfig(t, url, t.TempDir())
	b, _ := start(t, cfg)
	text, _ := largeMessage("mixed", 5<<20)
	id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), text)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, nil, "sending refused for now", func() bool {
		row, err := b.store.Outbox().Get(t.Context(), id)
		return err == nil && row.State == store.StateQueued && row.Attempts == 1
	})
	drafts := sim.Messages(alice, "drafts")
	if len(drafts) != 1 {
		t.Fatalf("%d drafts", len(drafts))
	}
	if err := accountOf(t, b, alice).graph.PermanentDelete(t.Context(), drafts[0].ID); err != nil {
		t.Fatal(err)
	}
	box, _, err := store.OpenOutbox(t.Context(), cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	eventually(t, nil, "message sent", func() bool {
		_, _ = outbox.Ask(t.Context(), box, id, outbox.Retry, "") // not possible while it is being sent
		row, err := box.Get(t.Context(), id)
		return err == nil && row.State == store.StateSent
	})
	if d := sim.Delivered(); len(d) != 1 || len(sim.Messages(alice, "drafts")) != 0 {
		t.Errorf("%d deliveries, %d drafts", len(d), len(sim.Messages(alice, "drafts")))
	}
}

// What cannot be removed at once when a message is given up is removed later.
func TestDraftOfRefusedMessage(t *testing.T) {
	quickly(t)
	sim, url := newSim(t, graphsim.Options{})
	inject(t, sim, graphsim.Fault{Method: "PUT", Times: 1, Status: 400, Code: "ErrorMessageSizeExceeded"})
	inject(t, sim, graphsim.Fault{Path: "/permanentDelete$", Times: 1, Status: 500})
	inject(t, sim, graphsim.Fault{Path: "/permanentDelete$", Times: 1, Status: 503})
	inject(t, sim, graphsim.Fault{Method: "DELETE", Path: "/messages/", Times: 1, Status: 500})
	cfg := testConfig(t, url, t.TempDir())
	cfg.SendWait = time.Minute // the refusal is the answer, however slow the machine
	b, _ := start(t, cfg)
	text, _ := largeMessage("mixed", 5<<20)
	if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), text); KindOf(err) != TooLarge {
		t.Fatalf("submit: %v", err)
	}
	eventually(t, nil, "draft removed", func() bool { return len(sim.Messages(alice, "drafts")) == 0 && spoolFiles(t, b) == 0 })
	if len(sim.Delivered()) != 0 {
		t.Error("delivered")
	}
}

// Two large messages of one mailbox go one after the other: together they would use up what Graph takes in five minutes,
// and both begin anew.
func TestLargeOneAfterTheOther(t *testing.T) {
	adjustOutbox = func(o *outbox.Options) { o.Retries = []time.Duration{20 * time.Millisecond} }
	t.Cleanup(func() { adjustOutbox = nil })
	sim, url := newSim(t, graphsim.Options{})
	inject(t, sim, graphsim.Fault{Path: "/attachments$|createUploadSession", Delay: 300 * time.Millisecond})
	cfg := testConfig(t, url, t.TempDir())
	cfg.SendWait = 0
	b, _ := start(t, cfg)
	text, _ := largeMessage("mixed", 4<<20)
	var ids []string
	for range 2 {
		id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), text)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	eventually(t, nil, "one sent", func() bool { return len(sim.Delivered()) == 1 })
	for _, id := range ids {
		row, err := b.store.Outbox().Get(t.Context(), id)
		if err != nil || row.State != store.StateQueued {
			continue
		}
		if row.Attempts != 0 || row.NextAttempt.IsZero() {
			t.Errorf("row %+v", row)
		}
		box, _, err := store.OpenOutbox(t.Context(), cfg.State)
		if err != nil {
			t.Fatal(err)
		}
		defer box.Close()
		if _, err := outbox.Ask(t.Context(), box, id, outbox.Retry, ""); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, nil, "both sent", func() bool { return len(sim.Delivered()) == 2 })
	if n := len(sim.Messages(alice, "drafts")); n != 0 {
		t.Errorf("%d drafts left", n)
	}
}
