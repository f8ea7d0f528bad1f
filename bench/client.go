package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// client is an IMAP client that does nothing but read.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	n    int
	read int64
}

func dial(addr, user, password string) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, r: bufio.NewReaderSize(conn, 256<<10)}
	if _, err := c.line(); err != nil {
		return nil, err
	}
	if _, err := c.do("LOGIN %s %s", user, password); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// line reads one line, with the literals in it, and returns its beginning.
func (c *client) line() (string, error) {
	first := ""
	for {
		b, err := c.r.ReadSlice('\n')
		c.read += int64(len(b))
		if err == bufio.ErrBufferFull {
			if first == "" {
				first = string(b[:80])
			}
			continue
		}
		if err != nil {
			return "", err
		}
		if first == "" {
			first = string(b[:min(len(b), 200)])
		}
		if n := len(b); n > 4 && b[n-3] == '}' {
			size, i := 0, strings.LastIndexByte(string(b), '{')
			if _, err := fmt.Sscan(string(b[i+1:n-3]), &size); err == nil {
				if _, err := io.CopyN(io.Discard, c.r, int64(size)); err != nil {
					return "", err
				}
				c.read += int64(size)
				continue
			}
		}
		return first, nil
	}
}

// do sends a command and reads the answer; it returns how many untagged lines there were.
func (c *client) do(format string, args ...any) (lines int, err error) {
	c.n++
	tag := fmt.Sprintf("b%d ", c.n)
	if _, err := fmt.Fprintf(c.conn, tag+format+"\r\n", args...); err != nil {
		return 0, err
	}
	for {
		l, err := c.line()
		if err != nil {
			return lines, err
		}
		if rest, ok := strings.CutPrefix(l, tag); ok {
			if !strings.HasPrefix(rest, "OK") {
				return lines, fmt.Errorf("%s: %s", fmt.Sprintf(format, args...), strings.TrimSpace(rest))
			}
			return lines, nil
		}
		lines++
	}
}

func (c *client) close() { c.conn.Close() }

// timed runs do and returns how long it took.
func timed(do func() error) (time.Duration, error) {
	began := time.Now()
	err := do()
	return time.Since(began), err
}
