package backend

import (
	"fmt"
	"testing"
	"time"

	"postern/backend/graph"
	"postern/backend/graphsim"
)

// A server that is started again keeps to the pace and the waits that the one before was told.
func TestPaceAfterRestart(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	b, stop := start(t, cfg)
	for i := range 30 {
		if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), fmt.Sprintf("From: %s\nSubject: %d\n\nbody\n", alice, i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(sim.Delivered()); n != 30 {
		t.Fatalf("%d deliveries", n)
	}
	inject(t, sim, graphsim.Fault{Path: "/sendMail$", Times: 1, Status: 429, RetryAfter: "600"})
	if _, err := submit(t, b, loginOf(t, b, bob), Envelope{From: bob, Recipients: []Recipient{{Address: alice}}}, "From: "+bob+"\n\nbody\n"); err != nil {
		t.Fatal(err)
	}
	stop()

	b, _ = start(t, cfg)
	budget := accountOf(t, b, alice).budget
	if d := budget.Delay(graph.Sending); d < 10*time.Second || d > 62*time.Second {
		t.Errorf("the next message of alice may go in %v", d)
	}
	if d := budget.Delay(graph.Interactive); d != 0 {
		t.Errorf("alice's mail programs wait %v", d)
	}
	for _, lane := range []graph.Lane{graph.Sending, graph.Interactive} {
		if d := accountOf(t, b, bob).budget.Delay(lane); d < 9*time.Minute {
			t.Errorf("bob's mailbox is asked again after %v", d)
		}
	}
}
