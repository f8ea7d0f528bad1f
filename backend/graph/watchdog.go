package graph

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// watchdog ends a request that makes no progress. It runs while we wait for the other side only, so that neither a long
// transfer nor a slow reader of ours trips it.
type watchdog struct {
	timeout time.Duration
	timer   *time.Timer
}

func (d *watchdog) kick() { d.timer.Reset(d.timeout) }
func (d *watchdog) stop() { d.timer.Stop() }

// watchedBody is an answer's body.
type watchedBody struct {
	io.ReadCloser
	dog    *watchdog
	ctx    context.Context // of the request
	parent context.Context // of the caller
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.dog.kick()
	n, err := b.ReadCloser.Read(p)
	b.dog.stop()
	if err != nil && err != io.EOF && b.parent.Err() == nil && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// errSize says that a source is not as long as was said: the file changed, or the caller was wrong.
var errSize = errors.New("body is not of the size announced")

// watchedPayload reads a request's body from its source and remembers how that went: a request whose body never ended
// cannot have been carried out, and a source's failure is not the network's.
type watchedPayload struct {
	p   *payload
	dog *watchdog

	mu     *sync.Mutex // shared by the repeats that the transport makes by itself
	state  *payloadState
	src    io.ReadCloser
	left   int64
	closed bool
}

type payloadState struct {
	failed error
	ended  bool
}

func openPayload(p *payload, dog *watchdog) (*watchedPayload, error) {
	src, err := p.open()
	if err != nil {
		return nil, err
	}
	return &watchedPayload{p: p, dog: dog, mu: new(sync.Mutex), state: new(payloadState), src: src, left: p.size}, nil
}

// again opens the source once more, for the same attempt.
func (b *watchedPayload) again() (io.ReadCloser, error) {
	src, err := b.p.open()
	if err != nil {
		return nil, err
	}
	return &watchedPayload{p: b.p, dog: b.dog, mu: b.mu, state: b.state, src: src, left: b.p.size}, nil
}

func (b *watchedPayload) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errors.New("read of a closed body")
	}
	if b.state.failed != nil {
		return 0, b.state.failed
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	b.dog.kick()
	n, err := b.src.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.left == 0 && (err == nil || err == io.EOF) {
		// Before the last bytes go out and the request is complete: does the source end here, too?
		if more, _ := io.ReadFull(b.src, make([]byte, 1)); more > 0 {
			n, err = 0, errSize
		} else {
			b.state.ended = true
			return n, nil
		}
	}
	if err == io.EOF {
		err = errSize
	}
	b.state.failed = err
	return n, err
}

func (b *watchedPayload) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.src.Close()
}

// err returns what was wrong with the source, nil if nothing was.
func (b *watchedPayload) err() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.failed
}

// whole reports whether all of the body was handed to the connection.
func (b *watchedPayload) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.ended
}
