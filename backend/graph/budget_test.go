package graph

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hold acquires or fails the test.
func hold(t *testing.T, b *Budget, d demand) func() {
	t.Helper()
	release, _, err := b.acquire(t.Context(), d, time.Now().Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return release
}

func TestConcurrency(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(Limits{})
		var mu sync.Mutex
		running, others, most, mostOthers := 0, 0, 0, 0
		var wg sync.WaitGroup
		for i := range 200 {
			lane := Lane(i % 3)
			wg.Go(func() {
				release := hold(t, b, demand{lane: lane, requests: 1, slots: 1})
				mu.Lock()
				running++
				if lane != Interactive {
					others++
				}
				most, mostOthers = max(most, running), max(mostOthers, others)
				mu.Unlock()
				time.Sleep(time.Duration(1+rand.IntN(100)) * time.Millisecond)
				mu.Lock()
				running--
				if lane != Interactive {
					others--
				}
				mu.Unlock()
				release()
				release() // a second time does nothing
			})
		}
		wg.Wait()
		if most != 4 || mostOthers != 3 {
			t.Errorf("at most %d at once, %d of them not interactive", most, mostOthers)
		}
		if u := b.Usage(); u.Running != 0 || u.Waiting != 0 || u.Requests != 200 {
			t.Errorf("usage %+v", u)
		}
	})
}

func TestLanes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(Limits{Concurrent: 1})
		first := hold(t, b, demand{lane: Interactive, requests: 1})
		var order []Lane
		var wg sync.WaitGroup
		for _, lane := range []Lane{Background, Sending, Interactive, Background, Interactive} {
			wg.Go(func() {
				release := hold(t, b, demand{lane: lane, requests: 1})
				order = append(order, lane)
				release()
			})
			synctest.Wait()
		}
		first()
		wg.Wait()
		want := []Lane{Interactive, Interactive, Sending, Background, Background}
		for i := range want {
			if order[i] != want[i] {
				t.Fatalf("order %v, want %v", order, want)
			}
		}
	})
}

// Background calls start at last, however many clients keep coming.
func TestNoStarvation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(Limits{Concurrent: 1})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 { // there is always one waiting
			wg.Go(func() {
				for ctx.Err() == nil {
					release := hold(t, b, demand{lane: Interactive, requests: 1})
					time.Sleep(time.Second)
					release()
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		hold(t, b, demand{lane: Background, requests: 1})()
		if took := time.Since(began); took > 40*time.Second || took < 20*time.Second {
			t.Errorf("background waited %v", took)
		}
		cancel()
		wg.Wait()
	})
}

func TestWindows(t *testing.T) {
	for _, tt := range []struct {
		name  string
		each  demand
		n     int // how many start at once
		again time.Duration
	}{
		{"requests", demand{lane: Sending, requests: 10}, 960, 10 * time.Minute},
		{"background leaves some", demand{lane: Background, requests: 10}, 880, 10 * time.Minute},
		{"patient calls leave more", demand{lane: Interactive, patient: true, requests: 10}, 820, 10 * time.Minute},
		{"upload", demand{lane: Sending, requests: 1, upload: 5_000_000}, 29, 5 * time.Minute},
		{"sends", demand{lane: Sending, requests: 1, sends: 1}, 30, 62 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := NewBudget(DefaultLimits())
				began := time.Now()
				for range tt.n {
					hold(t, b, tt.each)()
				}
				if took := time.Since(began); took != 0 {
					t.Fatalf("the first %d took %v", tt.n, took)
				}
				// One that may not wait that long is told how long it would be.
				_, _, err := b.acquire(t.Context(), tt.each, time.Now().Add(time.Minute))
				if !IsThrottled(err) || RetryAfter(err) != tt.again || time.Since(began) != 0 {
					t.Errorf("%v", err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, _, err := b.acquire(ctx, tt.each, time.Now().Add(time.Hour)); !IsThrottled(err) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				hold(t, b, tt.each)()
				if took := time.Since(began); took != tt.again {
					t.Errorf("the next started after %v, want %v", took, tt.again)
				}
			})
		})
	}
}

// Mail clients that work as fast as they can are slowed down, and none is refused: not when the window is nearly used up, and
// not while others of the mailbox work, too.
func TestPace(t *testing.T) {
	for _, tt := range []struct{ clients, batch int }{{1, 1}, {10, 1}, {50, 1}, {50, 5}} {
		t.Run(fmt.Sprintf("%d clients, %d at once", tt.clients, tt.batch), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := NewBudget(DefaultLimits())
				began := time.Now()
				var mu sync.Mutex
				var starts []time.Time
				var longest time.Duration
				work := func(d demand, every time.Duration) {
					for time.Since(began) < 40*time.Minute {
						asked := time.Now()
						release, _, err := b.acquire(t.Context(), d, asked.Add(45*time.Second))
						if err != nil {
							if d.ofClient() {
								t.Errorf("after %v: %v", time.Since(began), err)
								return
							}
							time.Sleep(RetryAfter(err))
							continue
						}
						mu.Lock()
						for range d.requests {
							starts = append(starts, time.Now())
						}
						if d.ofClient() {
							longest = max(longest, time.Since(asked))
						}
						mu.Unlock()
						time.Sleep(20 * time.Millisecond)
						release()
						time.Sleep(every)
					}
				}
				var wg sync.WaitGroup
				for range tt.clients {
					wg.Go(func() { work(demand{lane: Interactive, requests: tt.batch, slots: 1}, 0) })
				}
				wg.Go(func() { work(demand{lane: Background, requests: 1, slots: 1}, 2*time.Second) })
				wg.Wait()
				before := slices.IndexFunc(starts, func(s time.Time) bool { return s.Sub(began) > 2*time.Minute })
				if before < 4000 {
					t.Errorf("%d requests in the first two minutes", before)
				}
				for i := 9600; i < len(starts); i++ {
					if starts[i].Sub(starts[i-9600]) < 10*time.Minute {
						t.Fatalf("more than 9,600 requests in the ten minutes up to %v", starts[i].Sub(began))
					}
				}
				perWindow := len(starts) / 4
				t.Logf("%d requests in ten minutes, longest wait %v", perWindow, longest)
				if perWindow < 6000 {
					t.Errorf("%d requests in ten minutes", perWindow)
				}
			})
		})
	}
}

// In no window of time more happens than is allowed.
func TestSlidingWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := window{span: 10 * time.Minute, limit: 50}
		var times []time.Time
		for range 2000 {
			time.Sleep(time.Duration(rand.IntN(20_000)) * time.Millisecond)
			now := time.Now()
			if at := w.when(now, 1, w.limit); at.After(now) {
				time.Sleep(at.Sub(now))
				now = time.Now()
				if w.when(now, 1, w.limit).After(now) {
					t.Fatal("not free at the time told")
				}
			}
			w.add(now, 1)
			times = append(times, now)
			if n := len(times); n > 50 && now.Sub(times[n-51]) < w.span {
				t.Fatalf("51 in %v", now.Sub(times[n-51]))
			}
		}
		if len(w.steps) > 700 {
			t.Errorf("%d steps", len(w.steps))
		}
	})
}

func TestDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(DefaultLimits())
		for range 30 {
			hold(t, b, demand{lane: Sending, requests: 1, sends: 1})()
		}
		if i, s, g := b.Delay(Interactive), b.Delay(Sending), b.Delay(Background); i != 0 || s != 62*time.Second || g != 0 {
			t.Errorf("delays %v %v %v", i, s, g)
		}
		b.pause(5 * time.Second)
		b.pause(2 * time.Second) // a shorter one does not cut it short
		if i := b.Delay(Interactive); i != 5*time.Second {
			t.Errorf("delay %v", i)
		}
		began := time.Now()
		hold(t, b, demand{lane: Interactive, requests: 1})()
		if time.Since(began) != 5*time.Second {
			t.Errorf("started after %v", time.Since(began))
		}
		if b.Remaining(Background) != b.limits.Background-31 {
			t.Errorf("remaining %d", b.Remaining(Background))
		}
	})
}

// A pause that comes while a call waits counts for it, too.
func TestPauseWhileWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(Limits{Concurrent: 1})
		release := hold(t, b, demand{lane: Interactive, requests: 1})
		done := make(chan error)
		go func() {
			_, _, err := b.acquire(t.Context(), demand{lane: Interactive, requests: 1}, time.Now().Add(10*time.Second))
			done <- err
		}()
		synctest.Wait()
		b.pause(time.Minute)
		if err := <-done; RetryAfter(err) != time.Minute {
			t.Errorf("%v", err)
		}
		release()
	})
}

func TestWaiterGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(Limits{Concurrent: 1})
		release := hold(t, b, demand{requests: 1})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := b.acquire(ctx, demand{requests: 1}, time.Now().Add(time.Hour))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		release()
		if u := b.Usage(); u.Waiting != 0 || u.Running != 0 {
			t.Errorf("%+v", u)
		}
	})
}

// A batch waits a little for all slots, and takes fewer when a long download keeps one.
func TestBatchGathers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(Limits{})
		long := hold(t, b, demand{lane: Interactive, requests: 1})
		began := time.Now()
		release, got, err := b.acquire(t.Context(), demand{lane: Background, requests: 20, slots: 20}, time.Now().Add(time.Hour))
		if err != nil || got != 3 || time.Since(began) != b.limits.BatchGatherTime {
			t.Errorf("got %d slots after %v, %v", got, time.Since(began), err)
		}
		if u := b.Usage(); u.Requests != 4 || u.Running != 4 {
			t.Errorf("%+v", u)
		}
		release()
		long()
		began = time.Now()
		release, got, _ = b.acquire(t.Context(), demand{lane: Background, requests: 20, slots: 20}, time.Now().Add(time.Hour))
		if got != 4 || time.Since(began) != 0 {
			t.Errorf("got %d slots after %v", got, time.Since(began))
		}
		release()
	})
}

// A budget made anew after a restart goes on with the pace and the wait of the one before.
func TestBudgetRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(Limits{Sends: 3, SendWindow: time.Minute})
		now := time.Now()
		b.Restore([]time.Time{now.Add(-2 * time.Minute), now.Add(-50 * time.Second), now.Add(-20 * time.Second), now.Add(time.Hour)}, now.Add(5*time.Second))
		if d := b.Delay(Background); d != 5*time.Second {
			t.Errorf("paused for %v", d)
		}
		if d := b.Delay(Sending); d != 10*time.Second {
			t.Errorf("next send in %v", d)
		}
		var told []time.Time
		b.OnPause(func(until time.Time) { told = append(told, until) })
		b.pause(2 * time.Second) // nothing new
		b.pause(20 * time.Second)
		if len(told) != 1 || !told[0].Equal(now.Add(20*time.Second)) {
			t.Errorf("told %v", told)
		}
		b = NewBudget(Limits{})
		b.Restore(nil, now.Add(24*time.Hour))
		if d := b.Delay(Background); d != 0 {
			t.Errorf("a wrong clock stops the mailbox for %v", d)
		}
	})
}
