package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Replies that end a connection outside go-smtp's own flow.
const (
	lineStopping = "421 4.3.2 The server is shutting down, try again later\r\n"
	lineIdle     = "421 4.4.2 Nothing received for too long, closing the connection\r\n"
	lineChunks   = "421 4.5.0 A message was given up between chunks, connect again\r\n"
	lineRevoked  = "421 4.7.0 The login was changed or revoked, log in again\r\n"
	lineLogin    = "421 4.7.0 Not logged in within the time allowed, closing the connection\r\n"
)

// errEnded is what Read returns once a connection is over, however it ended. It is
// never io.EOF: go-smtp takes an EOF inside a BDAT chunk for the chunk's proper end
// and would accept a message cut short. As a net.ErrClosed it ends the command loop quietly.
var errEnded = fmt.Errorf("smtp connection ended: %w", net.ErrClosed)

// conn is a client's connection as go-smtp sees it: always plain text, encryption
// being done below by conn itself, with STARTTLS answered here. That leaves one
// place for what go-smtp does not do: deadlines that move with the transfer, a
// deadline for handshakes, an input that stays shut after its first error, replies
// to a client that is idle, and one write for one reply of many lines.
type conn struct {
	server *Server
	remote netip.Addr
	opened time.Time

	raw net.Conn

	// Touched only by the goroutine that reads: go-smtp's for this connection, and
	// never two at once.
	held    []byte // read but not handed out, while STARTTLS is looked for
	midLine bool   // held begins inside a line
	ready   []byte // device profile: put right, to be handed out before anything else
	authing bool   // device profile: the next line answers a challenge
	bareLF  bool   // device profile: the client ends lines with LF alone
	afterCR bool
	chunk   int64 // device profile: bytes of a BDAT chunk still to come
	greeted bool  // device profile: the client has said HELO or EHLO, or it was said for it
	alone   bool  // the last that go-smtp was given is DATA's line, and nothing before or behind it
	behind  bool  // a message has been read past go-smtp: its last line is what go-smtp gets next

	mu        sync.Mutex
	inner     net.Conn // raw, or the TLS connection over it
	encrypted bool
	shaken    bool // implicit TLS: the handshake has been made or has failed
	loggedIn  bool
	trusted   bool // known by its network, no log-in needed
	reading   bool // go-smtp waits for input
	inData    int  // Data calls running
	dataMode  bool // input is a message: from Data's begin to its reply
	dataSince time.Time
	unsure    string // queue id of a message whose reply the client may not have seen
	draining  bool   // the server stops: end at the next command
	hanging   bool   // end behind the next reply
	last      string // if not empty, end with this line instead of reading on
	ended     bool
	hush      bool   // device profile: the next reply is not for the client
	reply     []byte // lines of a reply whose last line is still to come

	closeOnce sync.Once
}

func newConn(s *Server, raw net.Conn, remote netip.Addr) *conn {
	return &conn{server: s, raw: raw, inner: raw, remote: remote, opened: time.Now()}
}

// Read waits for input under the deadline that belongs to the session's state. Any
// error ends the connection for good.
func (c *conn) Read(p []byte) (int, error) {
	if c.behind {
		c.behind = false
		return copy(p, lastLine), nil
	}
	for {
		n, upgrade, err := c.readUnder(p, c.read)
		if err != nil {
			return 0, err
		}
		if !upgrade {
			c.alone = n > 0 && p[n-1] == '\n' && bytes.EqualFold(bytes.TrimSpace(p[:n]), []byte("DATA"))
			return n, nil
		}
		if err := c.startTLS(); err != nil {
			return 0, err
		}
	}
}

// readUnder calls read under the deadline of the session's state.
func (c *conn) readUnder(p []byte, read func([]byte) (int, bool, error)) (n int, upgrade bool, err error) {
	if err := c.beginRead(); err != nil {
		return 0, false, err
	}
	waited := len(c.held) == 0 && len(c.ready) == 0 // for the client, who has had time to read what it was sent
	n, upgrade, err = read(p)
	c.endRead()
	if err != nil {
		return 0, false, c.readFailed(err)
	}
	if upgrade {
		return 0, true, nil
	}
	c.mu.Lock()
	ended, seen := c.ended, ""
	if waited {
		seen, c.unsure = c.unsure, ""
	}
	c.mu.Unlock()
	if seen != "" {
		c.server.mail.Answered(seen)
	}
	if ended {
		// What came in the very moment may be the end of a message: it must not be accepted without an answer.
		return 0, false, errEnded
	}
	return n, false, nil
}

// message returns a reader of the message whose DATA has just been answered, nil where go-smtp's own must be used: because it may
// hold the message's beginning already, or the client's line ends are mended.
func (c *conn) message(limit int64) *messageReader {
	if !c.alone || c.bareLF || len(c.ready) > 0 {
		return nil
	}
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return &messageReader{c: c, room: limit, most: c.server.limits.LineLength}
}

// fill reads more of a message into held.
func (c *conn) fill() error {
	buf := make([]byte, messageChunk)
	n, _, err := c.readUnder(buf, func(p []byte) (int, bool, error) {
		c.mu.Lock()
		inner := c.inner
		c.mu.Unlock()
		n, err := inner.Read(p)
		if n > 0 {
			err = nil // it comes again
		}
		return n, false, err
	})
	if err != nil {
		return err
	}
	if len(c.held) == 0 {
		c.held = buf[:n]
	} else {
		c.held = append(c.held[:len(c.held):len(c.held)], buf[:n]...)
	}
	return nil
}

func (c *conn) beginRead() error {
	if err := c.handshakeFirst(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended || c.hanging:
		return errEnded
	case c.last != "":
		c.endLocked(c.last)
		return errEnded
	case c.draining && c.inData == 0:
		c.endLocked(lineStopping)
		return errEnded
	}
	deadline := time.Now().Add(c.server.limits.IdleTimeout)
	if end := c.opened.Add(c.server.limits.LoginTimeout); !c.loggedIn && !c.trusted && end.Before(deadline) {
		deadline = end
	}
	if end := c.dataSince.Add(c.server.limits.MessageTimeout); c.dataMode && end.Before(deadline) {
		deadline = end
	}
	c.reading = true
	return c.inner.SetReadDeadline(deadline)
}

func (c *conn) endRead() {
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
}

// readFailed ends the connection after a read error, telling a client that is only slow.
func (c *conn) readFailed(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	line := ""
	if errors.Is(err, os.ErrDeadlineExceeded) {
		line = lineIdle
		if !c.loggedIn && !c.trusted && !time.Now().Before(c.opened.Add(c.server.limits.LoginTimeout)) {
			line = lineLogin
		}
	}
	c.endLocked(line)
	return errEnded
}

// maxSTARTTLS is more than the longest line that can be a STARTTLS command.
const maxSTARTTLS = 64

// read fills p, or reports that the client's next line is STARTTLS. While that is
// possible it hands out no more than one line, so go-smtp never holds input that was
// sent in plain text behind STARTTLS.
func (c *conn) read(p []byte) (n int, upgrade bool, err error) {
	if c.server.opts.Device {
		return c.readDevice(p)
	}
	c.mu.Lock()
	inner := c.inner
	look := c.server.opts.TLS == TLSStart && !c.encrypted && !c.loggedIn
	raw := c.dataMode
	c.mu.Unlock()
	if !look {
		if len(c.held) == 0 {
			buf := p
			if !raw && len(p) < 4096 {
				buf = make([]byte, 4096)
			}
			if n, err = inner.Read(buf); n == 0 {
				return 0, false, err
			} // another error comes again
			if raw {
				return n, false, nil
			}
			c.held = append(c.held, buf[:n]...)
		}
		// Commands line by line, so that go-smtp does not hold the message when DATA comes.
		out := c.held
		if i := bytes.IndexByte(out, '\n'); i >= 0 && !raw {
			out = out[:i+1]
		}
		n = copy(p, out)
		c.held = c.held[n:]
		return n, false, nil
	}
	for {
		end := bytes.IndexByte(c.held, '\n') + 1
		if end == 0 && (c.midLine || len(c.held) >= maxSTARTTLS) {
			end = len(c.held)
		}
		if end > 0 {
			line := c.held[:end]
			if !c.midLine && bytes.EqualFold(bytes.TrimSpace(line), []byte("STARTTLS")) {
				c.held = c.held[end:]
				return 0, true, nil
			}
			n = copy(p, line)
			c.midLine = line[n-1] != '\n'
			c.held = c.held[n:]
			return n, false, nil
		}
		buf := make([]byte, 4096)
		n, err := inner.Read(buf)
		if n == 0 && err != nil {
			return 0, false, err
		}
		c.held = append(c.held, buf[:n]...)
	}
}

// startTLS answers STARTTLS and makes the handshake. Commands sent in plain text
// behind STARTTLS could come from somebody in the middle; the connection ends there.
func (c *conn) startTLS() error {
	if len(c.held) > 0 || len(c.ready) > 0 {
		c.held, c.ready = nil, nil
		c.end("501 5.5.1 Wait for the reply to STARTTLS before sending more\r\n")
		return errEnded
	}
	if _, err := c.Write([]byte("220 2.0.0 Ready to start TLS\r\n")); err != nil {
		return errEnded
	}
	return c.handshake()
}

func (c *conn) handshakeFirst() error {
	c.mu.Lock()
	first := c.server.opts.TLS == TLSImplicit && !c.shaken
	c.mu.Unlock()
	if !first {
		return nil
	}
	return c.handshake()
}

// handshake turns the connection into an encrypted one within the time allowed.
func (c *conn) handshake() error {
	t := tls.Server(c.raw, serverTLS(c.server.opts.TLSConfig))
	ctx, cancel := context.WithTimeout(c.server.ctx, c.server.limits.HandshakeTimeout)
	defer cancel()
	err := t.HandshakeContext(ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.shaken = true
	if err != nil {
		c.server.log.Info("smtp tls handshake failed", "remote", c.remote, "err", err)
		c.endLocked("")
		return errEnded
	}
	if c.ended {
		return errEnded
	}
	c.inner, c.encrypted = t, true
	return nil
}

// Write sends replies. Lines that announce another one wait for it, so that a reply
// is one packet. go-smtp writes each line by itself.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.handshakeFirst(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return 0, errEnded
	}
	c.dataMode = c.inData > 0
	if c.server.opts.Device && string(p) == "250-CHUNKING\r\n" {
		return len(p), nil // go-smtp cannot be told to leave it out, and devices have no use for it
	}
	if c.hush {
		c.hush = len(p) > 3 && p[3] == '-'
		return len(p), nil // to a greeting the client has not sent
	}
	c.reply = append(c.reply, c.reword(p)...)
	// EHLO's answer: STARTTLS is conn's, so go-smtp does not know to list it.
	if c.server.opts.TLS == TLSStart && !c.encrypted && !c.loggedIn && string(p) == "250-ENHANCEDSTATUSCODES\r\n" {
		c.reply = append(c.reply, "250-STARTTLS\r\n"...)
	}
	if len(p) > 3 && p[3] == '-' && len(c.reply) < 1<<16 {
		return len(p), nil
	}
	out := c.reply
	c.reply = c.reply[:0]
	c.inner.SetWriteDeadline(time.Now().Add(c.server.limits.WriteTimeout))
	if _, err := c.inner.Write(out); err != nil {
		c.endLocked("")
		return 0, err
	}
	if c.hanging {
		c.endLocked("")
	}
	return len(p), nil
}

// hangUp ends the connection behind the next reply; until then nothing more is read.
func (c *conn) hangUp() {
	c.mu.Lock()
	c.hanging = true
	c.mu.Unlock()
}

// endNext ends the connection with line once what has been received is answered.
func (c *conn) endNext(line string) {
	c.mu.Lock()
	c.last = line
	c.mu.Unlock()
}

// revoke ends the connection because its login no longer holds: with 421 at once if input is waited for, else before
// more is read. A message that has been received whole is still answered.
func (c *conn) revoke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = lineRevoked
	if c.reading {
		c.endLocked(lineRevoked)
	}
}

// drain ends the connection with 421 at once if the client is idle between commands,
// else before its next command.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.reading && c.inData == 0 {
		c.endLocked(lineStopping)
	}
}

// abort ends the connection whatever it does.
func (c *conn) abort() { c.end(lineStopping) }

func (c *conn) end(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(line)
}

// endLocked writes a last line, if any, and shuts the connection.
func (c *conn) endLocked(line string) {
	if c.ended {
		return
	}
	c.ended = true
	if line != "" {
		c.inner.SetWriteDeadline(time.Now().Add(time.Second))
		io.WriteString(c.inner, line)
	}
	c.shut()
}

// lingering is how long input is thrown away behind a last reply. Closing a socket
// that holds unread input resets it, and the client may never see the reply.
const lingering = time.Second

func (c *conn) shut() {
	c.closeOnce.Do(func() {
		defer c.server.release(c)
		if id := c.unsure; id != "" {
			go c.server.mail.Unanswered(id)
		}
		inner, raw := c.inner, c.raw
		if t, ok := inner.(*tls.Conn); ok {
			raw.SetWriteDeadline(time.Now().Add(lingering))
			t.CloseWrite() // close_notify; fails before a handshake, which is fine
		}
		half, ok := raw.(interface{ CloseWrite() error })
		if !ok || half.CloseWrite() != nil {
			raw.Close()
			return
		}
		go func() {
			defer raw.Close()
			raw.SetReadDeadline(time.Now().Add(lingering))
			io.Copy(io.Discard, io.LimitReader(raw, 8<<20))
		}()
	})
}

// Close ends the connection. go-smtp calls it when it is done.
func (c *conn) Close() error {
	c.end("")
	return nil
}

// LocalAddr returns the address the client connected to.
func (c *conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the client's address.
func (c *conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline does nothing, like its two siblings: go-smtp sets one deadline per
// command, in which a whole message would have to arrive. Read and Write set their own.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// mayLogIn reports whether a password may be sent over this connection.
func (c *conn) mayLogIn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.encrypted || c.server.opts.AllowPlainAuth || c.remote.IsLoopback()
}

// answering notes that the reply to a message is on its way: should the connection end before the client says
// anything more, it may not have seen it.
func (c *conn) answering(queueID string) {
	c.mu.Lock()
	ended := c.ended
	c.unsure = queueID
	c.mu.Unlock()
	if ended {
		go c.server.mail.Unanswered(queueID)
	}
}

func (c *conn) setTrusted() {
	c.mu.Lock()
	c.trusted = true
	c.mu.Unlock()
}

func (c *conn) setLoggedIn() {
	c.mu.Lock()
	c.loggedIn = true
	c.mu.Unlock()
}

// known reports whether the client has logged in or need not.
func (c *conn) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loggedIn || c.trusted
}

// enterData marks a message as under way; the function it returns ends that.
func (c *conn) enterData() (leave func()) {
	c.mu.Lock()
	c.inData++
	c.dataMode, c.dataSince = true, time.Now()
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		c.inData--
		c.mu.Unlock()
	}
}
