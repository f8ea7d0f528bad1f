package token

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

const (
	// A token is not handed out in its last margin, so that it outlives the call it is used for.
	margin = 2 * time.Minute
	// assumedLife is that of a token whose answer does not tell.
	assumedLife = 5 * time.Minute
	// A token that replaced a refused one is kept for a while although Graph refuses it too: asking once more would hardly
	// help, and each mail call would ask. At first for a second, for tokens may be revoked twice; the more of them are
	// refused one after the other, the longer.
	firstRest  = time.Second
	forcedRest = time.Minute

	firstBackoff   = time.Second
	maxBackoff     = 5 * time.Minute
	firstPermanent = 5 * time.Minute
	maxPermanent   = time.Hour
)

// entry is the cached token of one credential.
type entry struct {
	m     *Manager
	cred  Credential
	grant grant

	mu       sync.Mutex
	stopped  bool
	retired  bool // not renewed ahead of time any more
	tok      *oauth2.Token
	deadline time.Time     // tok is handed out until then
	forced   time.Time     // when tok replaced a refused one; else zero
	rest     time.Duration // how long tok is kept from then on
	refused  string        // the access token that Graph refused last
	used     bool          // since tok came: an unused credential is not renewed
	flight   *flight
	failure  *Error    // of the last request, nil after a success
	failures int       // in a row
	retryAt  time.Time // no request before, while failure is set
	timer    *time.Timer

	received, failed uint64 // requests that ended so, for State
}

// flight is a request under way.
type flight struct {
	done chan struct{}
	tok  *oauth2.Token
	err  error
}

func (e *entry) token(ctx context.Context) (*oauth2.Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	if e.stopped {
		e.mu.Unlock()
		return nil, &Error{Err: ErrClosed}
	}
	now := time.Now()
	if e.tok != nil && now.Before(e.deadline) {
		tok := e.tok
		if !e.used {
			e.used = true
			if e.timer == nil && e.flight == nil && e.failure == nil && !e.retired {
				e.renewLocked() // the renewal passed by while nobody used the credential
			}
		}
		e.mu.Unlock()
		return tok, nil
	}
	if e.flight == nil && e.failure != nil && now.Before(e.retryAt) {
		again := *e.failure
		again.RetryAfter = e.retryAt.Sub(now)
		e.mu.Unlock()
		return nil, &again
	}
	f := e.flight
	if f == nil {
		f = e.renewLocked()
	}
	e.mu.Unlock()
	if f == nil {
		return nil, &Error{Err: ErrClosed}
	}
	select {
	case <-f.done:
		return f.tok, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// renewLocked starts a request unless one is under way; nil after Close.
func (e *entry) renewLocked() *flight {
	if e.flight != nil {
		return e.flight
	}
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	f := &flight{done: make(chan struct{})}
	if e.stopped || !e.m.start(func() { e.run(f) }) {
		return nil
	}
	e.flight = f
	return f
}

func (e *entry) run(f *flight) {
	ctx, cancel := context.WithTimeout(e.m.ctx, requestTimeout)
	defer cancel()
	tok, err := e.grant.fetch(ctx, e.m.clients)
	if err == nil && strings.ContainsFunc(tok.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
		// RFC 6750 section 2.1; it goes into a header field.
		tok, err = nil, errors.New("the answer's access token holds what no token may")
	}
	if err == nil && !strings.EqualFold(tok.Type(), "Bearer") {
		tok, err = nil, errors.New("answer is no bearer token")
	}
	if err != nil && e.m.ctx.Err() != nil {
		err = ErrClosed
	}
	e.finish(f, tok, err)
}

func (e *entry) finish(f *flight, tok *oauth2.Token, err error) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flight = nil
	if err == nil {
		e.succeedLocked(tok, now)
		f.tok = tok
	} else {
		f.err = e.failLocked(err, now)
	}
	close(f.done)
}

func (e *entry) succeedLocked(tok *oauth2.Token, now time.Time) {
	life := tok.Expiry.Sub(now)
	if tok.Expiry.IsZero() {
		life = assumedLife
	}
	life = max(life, 0)
	e.forced = time.Time{}
	if e.refused != "" {
		e.forced = now
		e.rest = min(max(2*e.rest, firstRest), forcedRest)
		if tok.AccessToken != e.refused {
			e.refused = ""
		}
	}
	if e.failure != nil {
		e.m.log.Info("signed in to Microsoft again", "credential", e.cred.Name)
	}
	e.received++
	e.tok, e.deadline = tok, now.Add(life-min(margin, life/4))
	e.failure, e.failures, e.used = nil, 0, false
	e.scheduleLocked(renewAfter(tok, life))
	e.m.log.Debug("token received", "credential", e.cred.Name, "kind", e.cred.Kind(), "life", life.Round(time.Second))
}

// renewAfter returns when to ask for the next token: at refresh_in where the service says it, else at half of its life.
func renewAfter(tok *oauth2.Token, life time.Duration) time.Duration {
	after := life / 2
	var in float64
	switch v := tok.Extra("refresh_in").(type) {
	case float64:
		in = v
	case int64: // as the library gives form-encoded answers
		in = float64(v)
	}
	if in > 0 && in < life.Seconds() {
		after = time.Duration(in * float64(time.Second))
	}
	// Spread, so that many credentials started together do not stay together.
	return after - rand.N(after/20+1)
}

func (e *entry) failLocked(err error, now time.Time) *Error {
	failure := newError(err, now)
	if errors.Is(err, ErrClosed) {
		return failure
	}
	e.failed++
	first, most := firstBackoff, maxBackoff
	if failure.Permanent {
		first, most = firstPermanent, maxPermanent
	}
	wait := most
	if e.failures < 12 {
		wait = min(first<<e.failures, most)
	}
	wait = wait - rand.N(wait/4+1)
	wait = max(wait, failure.RetryAfter)
	e.failures++
	e.failure, e.retryAt = failure, now.Add(wait)
	failure.RetryAfter = wait
	e.m.log.Warn("sign-in to Microsoft failed", "credential", e.cred.Name, "err", failure, "status", failure.Status,
		"correlation_id", failure.CorrelationID, "retry_in", wait.Round(time.Millisecond))
	if e.tok != nil && now.Before(e.deadline) {
		e.scheduleLocked(wait) // a renewal that failed: the old token still serves
	}
	return failure
}

func (e *entry) scheduleLocked(after time.Duration) {
	if e.stopped || e.retired {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	var t *time.Timer
	t = time.AfterFunc(after, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.timer != t {
			return // replaced meanwhile
		}
		e.timer = nil
		if e.used {
			e.renewLocked()
		}
	})
	e.timer = t
}

func (e *entry) invalidate(accessToken string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tok == nil || e.tok.AccessToken != accessToken || accessToken == e.refused {
		return
	}
	if !e.forced.IsZero() {
		switch kept := time.Since(e.forced); {
		case kept < e.rest:
			return
		case kept >= 2*forcedRest:
			e.rest = 0 // it has served
		}
	}
	e.refused, e.tok = accessToken, nil
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	e.m.log.Info("Graph refused the token, asking for another", "credential", e.cred.Name)
}

// forgive forgets a remembered refusal, so that the next Token asks at once.
func (e *entry) forgive() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures, e.retryAt = 0, time.Time{}
}

// retire ends renewals ahead of time.
func (e *entry) retire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retired = true
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

// stop ends the entry for good.
func (e *entry) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped, e.tok = true, nil
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}
