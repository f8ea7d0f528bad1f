package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"postern/backend"
)

// aliveTime is how long /healthz waits for the program to come round.
const aliveTime = 10 * time.Second

// healthz says that the program works. A failing check here means: start it anew.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.opts.Alive != nil {
		ctx, cancel := context.WithTimeout(r.Context(), aliveTime)
		defer cancel()
		if err := s.opts.Alive(ctx); err != nil && r.Context().Err() == nil {
			s.log.Error("health check failed", "err", err)
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintf(w, "hangs: %v\n", err) // nobody to tell
			return
		}
	}
	_, _ = w.Write([]byte("ok\n")) // nobody to tell
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready    bool            `json:"ready"`
	Problem  string          `json:"problem,omitempty"`  // of the program itself: starting, stopping, or its state
	Accounts []accountStatus `json:"accounts,omitempty"` // for this machine and administrators
}

// accountStatus is one mailbox in it.
type accountStatus struct {
	Address  string     `json:"address"`
	Ready    bool       `json:"ready"`
	LastSync *time.Time `json:"last_sync"` // null: none yet
	Problem  string     `json:"problem,omitempty"`
	Advice   string     `json:"advice,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
}

// readyz says whether clients should be sent here: 200, or 503 while the program starts or stops, its state folder
// cannot be written, or a mailbox was never read or needs a person. What passes by itself, such as a busy Graph, does not
// count: the copy on disk goes on serving. A mailbox that the app may only send from, and nobody reads, is as it should be.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	answer := readinessOf(s.accounts())
	if s.opts.Check != nil {
		ctx, cancel := context.WithTimeout(r.Context(), aliveTime)
		defer cancel()
		if err := s.opts.Check(ctx); err != nil {
			answer.Ready, answer.Problem = false, err.Error()
		}
	}
	if !fromHere(r) && s.sessions.of(r, s.opts.Backend) == nil {
		answer.Accounts = nil
	}
	w.Header().Set("Content-Type", "application/json")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(answer) // nobody to tell
}

func readinessOf(accounts []backend.AccountState) readiness {
	answer := readiness{Ready: true, Accounts: []accountStatus{}}
	for _, a := range accounts {
		st := accountStatus{Address: a.Address, Ready: usable(a), LastSync: known(a.LastSync), Problem: a.LastError, Advice: a.Advice}
		if a.SendOnly {
			st.Problem, st.Advice = "", ""
		} else if a.LastError != "" {
			st.Since = known(a.Since)
		}
		answer.Ready = answer.Ready && st.Ready
		answer.Accounts = append(answer.Accounts, st)
	}
	return answer
}

// accounts returns the states, each problem without the advice that many errors end with: it is shown beside it.
func (s *Server) accounts() []backend.AccountState {
	var list []backend.AccountState
	for _, a := range s.opts.Backend.Accounts() {
		list = append(list, tidy(a.State()))
	}
	return list
}

func tidy(a backend.AccountState) backend.AccountState {
	a.LastError = withoutAdvice(a.LastError, a.Advice)
	return a
}

func withoutAdvice(problem, advice string) string {
	if advice == "" {
		return problem
	}
	return strings.TrimSuffix(problem, ": "+advice)
}

func usable(a backend.AccountState) bool {
	return a.SendOnly || a.Ready && !(a.LastError != "" && (a.Kind == backend.SignInNeeded || a.Kind == backend.Denied))
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
