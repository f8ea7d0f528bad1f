package imapd

import (
	"compress/flate"
	"crypto/tls"
	"net"
	"sync"

	"github.com/emersion/go-imap/v2"
)

// compress is COMPRESS. RFC 4978. Nothing may have been sent behind it before its
// answer: the bytes that follow are compressed.
func (s *session) compress(c *command) error {
	s.dec.Space()
	mechanism := s.dec.Word()
	if err := s.dec.End(); err != nil {
		return err
	}
	switch {
	case mechanism != "DEFLATE":
		return no(imap.ResponseCodeCannot, "Only DEFLATE is known")
	case s.compressed:
		return no("COMPRESSIONACTIVE", "Compression is on already")
	case s.dec.Buffered() > 0:
		return bye("Commands behind COMPRESS are not allowed")
	}
	if s.view != nil {
		if err := s.tellChanges(true); err != nil {
			return err
		}
	}
	c.answered = true
	s.enc.Raw(c.tag).Raw(" OK Compression is on").CRLF()
	if err := s.enc.Flush(); err != nil {
		return err
	}
	s.conn, s.compressed = &deflated{Conn: s.conn, in: newInflater(s.conn)}, true
	s.dec.Reset(reader{s})
	return nil
}

// deflated is a connection with COMPRESS=DEFLATE over it. What one Write takes can be
// read at the other side before the next.
type deflated struct {
	net.Conn
	in *inflater
}

// deflaters are shared by all connections: one takes several hundred KB, and most
// connections are silent most of the time. None keeps history from one Write to the
// next, which costs little where much is sent, for then a Write has 32 KB.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// Read implements net.Conn.
func (d *deflated) Read(p []byte) (int, error) { return d.in.Read(p) }

// Write implements net.Conn.
func (d *deflated) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	defer w.Reset(nil) // the pool must not hold the connection
	w.Reset(d.Conn)
	if _, err := w.Write(p); err != nil {
		return 0, err
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite ends TLS in good order, if there is some.
func (d *deflated) CloseWrite() error {
	if c, ok := d.Conn.(*tls.Conn); ok {
		return c.CloseWrite()
	}
	return nil
}
