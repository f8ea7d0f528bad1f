package httpd

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// Check is one finding of postern doctor.
type Check struct {
	Name   string
	Status string // ok, warning or failed
	Detail string
	Remedy string
}

// Tone is for templates.
func (c Check) Tone() Tone {
	switch c.Status {
	case "ok":
		return Good
	case "warning":
		return Warn
	}
	return Bad
}

// Bounds of a run of the checks. They ask Microsoft a few things for each mailbox, outside the mailboxes' budgets.
const (
	doctorTime = 3 * time.Minute
	doctorRest = 15 * time.Second // between the end of one run and the next
	maxChecks  = 2000
)

// doctor runs the checks in a goroutine of its own, one run at a time, and keeps the last result.
type doctor struct {
	run func(ctx context.Context, tell func(Check)) // nil: not possible here

	mu      sync.Mutex
	checks  []Check
	began   time.Time // zero: never
	ended   time.Time // zero while it runs
	cut     bool      // the time was over
	cancel  context.CancelFunc
	stopped bool
	wg      sync.WaitGroup
}

// start begins a run unless one is under way or has just ended. It reports whether it did.
func (d *doctor) start() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	running := !d.began.IsZero() && d.ended.IsZero()
	if d.run == nil || d.stopped || running || time.Since(d.ended) < doctorRest {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), doctorTime)
	d.checks, d.began, d.ended, d.cut, d.cancel = nil, time.Now(), time.Time{}, false, cancel
	d.wg.Go(func() {
		defer cancel()
		d.run(ctx, func(c Check) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if len(d.checks) < maxChecks {
				d.checks = append(d.checks, c)
			}
		})
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ended, d.cut = time.Now(), ctx.Err() != nil
	})
	return true
}

func (d *doctor) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	if d.cancel != nil {
		d.cancel()
	}
}

func (d *doctor) wait() { d.wg.Wait() }

type checksData struct {
	Possible, Running, Cut bool
	Began, Ended           time.Time
	Checks                 []Check
	Failed, Warnings, Good int
}

func (s *Server) checks(*http.Request) (string, any, error) {
	d := &s.doctor
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &checksData{Possible: d.run != nil, Running: !d.began.IsZero() && d.ended.IsZero(), Cut: d.cut, Began: d.began, Ended: d.ended}
	// What needs somebody first.
	for _, tone := range []Tone{Bad, Warn, Good} {
		for _, c := range d.checks {
			if c.Tone() == tone {
				out.Checks = append(out.Checks, c)
				switch tone {
				case Bad:
					out.Failed++
				case Warn:
					out.Warnings++
				default:
					out.Good++
				}
			}
		}
	}
	return "Checks", out, nil
}

func (s *Server) doctorStart(w http.ResponseWriter, r *http.Request) {
	if s.doctor.start() {
		s.log.Info("checks started", "by", sessionOf(r.Context()).login.Username)
	} else {
		sessionOf(r.Context()).say(flash{Error: true, Text: "The checks run already, or have just ended. Wait a few seconds before starting them again."})
	}
	http.Redirect(w, r, "/checks", http.StatusSeeOther)
}
