package wire

import (
	"bytes"
	"io"
	"math"
)

const (
	smallBuffer = 512      // what an idle connection holds; most commands are shorter
	pipeBuffer  = 4 << 10  // what it grows to for a client that sends many commands ahead
	keepBuffer  = 64 << 10 // a buffer that grew over this is given back after the command
	maxTag      = 256
)

// Decoder reads commands. Its parsing methods keep the first error: after it
// they return zero values and read nothing, so that a command is parsed in
// straight lines and the error looked at once, by End or Err. Loops that parse
// must look at Err themselves.
//
// A Decoder is used by one goroutine at a time.
type Decoder struct {
	r      io.Reader
	before func() error // runs before each read that may block
	cont   func() error // sends a command continuation request and flushes
	lim    Limits
	utf8   bool // names are UTF-8 (RFC 6855, RFC 9051)

	buf        []byte
	start, end int  // buf[start:end] is unread input
	filled     bool // the last read took all the room there was

	line  []byte // the current line without its end; dead once more input is read
	pos   int
	lit   announced // the literal that the line ends with
	litAt int       // where in line its announcement starts; -1 without one

	inCommand bool
	needLine  bool  // a literal was taken, the command goes on in the next line
	remain    int64 // bytes of the literal being read that are still to come
	held      int64
	depth     int
	err       error
	dead      error // of the connection, as opposed to the command
}

// announced is a literal's announcement: {12}, {12+} or ~{12}.
type announced struct {
	size    int64
	nonSync bool
	binary  bool
}

// NewDecoder returns a Decoder of r. before, which may be nil, runs before each
// read of r, so that output can be flushed exactly when input runs out. cont
// must send a continuation request and flush it.
func NewDecoder(r io.Reader, lim Limits, before, cont func() error) *Decoder {
	return &Decoder{r: r, lim: lim, before: before, cont: cont, litAt: -1}
}

// SetLimits replaces the limits, from the next command on.
func (d *Decoder) SetLimits(lim Limits) { d.lim = lim }

// SetUTF8 says that mailbox names are UTF-8 from now on and no longer modified UTF-7.
func (d *Decoder) SetUTF8(on bool) { d.utf8 = on }

// Reset makes d read from r, as after STARTTLS or COMPRESS. Input not yet read
// is thrown away: what was sent in plain text must not be taken for something
// that came over the new layer.
func (d *Decoder) Reset(r io.Reader) {
	d.r = r
	d.start, d.end = 0, 0
	d.clear()
}

// Buffered returns how many bytes have been read from the connection and not
// been used yet.
func (d *Decoder) Buffered() int { return d.end - d.start }

// Ahead yields the lines that have come behind the current command, without their ends, until yield returns false. They
// stay unread, and are good during the call only. It ends before a line that announces a literal.
func (d *Decoder) Ahead(yield func(line []byte) bool) {
	for rest := d.buf[d.start:d.end]; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return
		}
		line := trimCR(rest[:i])
		if _, at := parseAnnouncement(line); at >= 0 || !yield(line) {
			return
		}
		rest = rest[i+1:]
	}
}

// Release gives the buffer's memory back if nothing waits in it, before a wait that may be long.
func (d *Decoder) Release() {
	if d.start == d.end {
		d.buf, d.start, d.end = nil, 0, 0
	}
}

// Err returns the first error since the start of the command.
func (d *Decoder) Err() error { return d.err }

// Fail makes err the command's error unless it has one already.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// die makes err, which is one of the connection, the error of this command and
// of all that follow.
func (d *Decoder) die(err error) {
	if d.dead == nil {
		d.dead = err
	}
	d.Fail(err)
}

// input keeps an error of reading: a LimitError for the command, others for good.
func (d *Decoder) input(err error) {
	if Recoverable(err) {
		d.Fail(err)
	} else {
		d.die(err)
	}
}

func (d *Decoder) clear() {
	d.line, d.pos, d.litAt = nil, 0, -1
	d.inCommand, d.needLine, d.remain, d.held, d.depth, d.err = false, false, 0, 0, 0, nil
}

// fill reads more input into the buffer, which must have room.
func (d *Decoder) fill() error {
	if d.before != nil {
		if err := d.before(); err != nil {
			return err
		}
	}
	for range 100 {
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		d.filled = d.end == len(d.buf)
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// makeRoom moves unread input to the front, and grows the buffer up to limit
// bytes if it is full. It reports false when it may not grow any more.
func (d *Decoder) makeRoom(limit int) bool {
	if d.end < len(d.buf) {
		return true
	}
	if d.start > 0 {
		if d.filled && len(d.buf) < pipeBuffer {
			d.buf = append(make([]byte, 0, pipeBuffer), d.buf...)[:pipeBuffer]
		}
		copy(d.buf, d.buf[d.start:d.end])
		d.end -= d.start
		d.start = 0
		return true
	}
	if len(d.buf) >= limit {
		return false
	}
	grown := make([]byte, min(max(2*len(d.buf), smallBuffer), max(limit, smallBuffer)))
	copy(grown, d.buf[:d.end])
	d.buf = grown
	return true
}

// readLine makes the next line the current one. It ends with CRLF; a bare LF is
// taken as well. A line over limit is read past: the current line is then its
// first maxTag bytes, and the error a LimitError, but a literal announced at
// its end is known all the same.
func (d *Decoder) readLine(limit int) error {
	d.line, d.pos, d.litAt = nil, 0, -1
	scanned := 0
	for {
		if i := bytes.IndexByte(d.buf[d.start+scanned:d.end], '\n'); i >= 0 {
			line := d.buf[d.start : d.start+scanned+i]
			d.start += scanned + i + 1
			d.line = trimCR(line)
			if len(d.line) > limit {
				d.lit, d.litAt = parseAnnouncement(d.line)
				if d.litAt >= 0 {
					d.litAt = len(d.line) // never reached by parsing, so Finish sees it unread
				}
				d.line = d.line[:min(len(d.line), maxTag)]
				return &LimitError{Text: "line too long"}
			}
			d.lit, d.litAt = parseAnnouncement(d.line)
			d.held += int64(len(d.line))
			return nil
		}
		scanned = d.end - d.start
		if scanned > limit+1 || !d.makeRoom(limit+2) {
			return d.skipLine()
		}
		if err := d.fill(); err != nil {
			return lineEOF(err, scanned)
		}
	}
}

// skipLine reads past the rest of a line that is too long, keeping its head for
// the tag and its tail for the announcement of a literal.
func (d *Decoder) skipLine() error {
	const tailSize = 32 // enough for ~{20 digits+} and CR
	head := bytes.Clone(d.buf[d.start:min(d.start+maxTag, d.end)])
	tail := make([]byte, 0, 2*tailSize)
	budget := d.lim.Drain
	for {
		chunk := d.buf[d.start:d.end]
		i := bytes.IndexByte(chunk, '\n')
		if i >= 0 {
			chunk = chunk[:i]
			d.start += i + 1
		} else {
			d.start, d.end = 0, 0
		}
		tail = append(tail, chunk[max(0, len(chunk)-tailSize):]...)
		tail = tail[max(0, len(tail)-tailSize):]
		if i >= 0 {
			break
		}
		if budget -= int64(len(chunk)); budget < 0 {
			return ErrLost
		}
		if err := d.fill(); err != nil {
			return lineEOF(err, 1)
		}
	}
	lit, at := parseAnnouncement(trimCR(tail))
	d.line, d.lit = head, lit
	if at >= 0 {
		d.litAt = len(head) + 1
	}
	return &LimitError{Text: "line too long"}
}

// lineEOF tells the end of input between lines from that within one.
func lineEOF(err error, got int) error {
	if err == io.EOF && got > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// parseAnnouncement finds a literal announced at the end of line: where it
// starts, or -1. A size over 63 bits is taken for the largest.
func parseAnnouncement(line []byte) (announced, int) {
	n := len(line)
	if n < 3 || line[n-1] != '}' {
		return announced{}, -1
	}
	var a announced
	i := n - 2
	if line[i] == '+' {
		a.nonSync = true
		i--
	}
	last := i
	for i >= 0 && line[i] >= '0' && line[i] <= '9' {
		i--
	}
	if i < 0 || i == last || line[i] != '{' {
		return announced{}, -1
	}
	for _, c := range line[i+1 : last+1] {
		if a.size > (math.MaxInt64-9)/10 {
			a.size = math.MaxInt64
			break
		}
		a.size = a.size*10 + int64(c-'0')
	}
	if i > 0 && line[i-1] == '~' {
		a.binary = true
		i--
	}
	return a, i
}

// ReadCommand reads up to and including the name of the next command, which it
// returns in upper case. Empty lines are passed over. An error that is
// Recoverable comes with the tag, or with "" where there is no valid one.
func (d *Decoder) ReadCommand() (tag, name string, err error) {
	d.clear()
	for {
		lineErr := d.readLine(d.lim.Line)
		if lineErr != nil && !Recoverable(lineErr) {
			d.die(lineErr)
			return "", "", lineErr
		}
		if len(bytes.TrimLeft(d.line, " \t")) == 0 && d.litAt < 0 {
			continue
		}
		d.inCommand = true
		tag = d.tag()
		if lineErr != nil {
			d.err = nil
			d.Fail(lineErr)
			return tag, "", d.err
		}
		break
	}
	if tag == "" {
		return "", "", d.err
	}
	d.Space()
	name = d.Word()
	if d.err != nil {
		d.err = syntaxErrorf("missing command name")
	}
	return tag, name, d.err
}

func (d *Decoder) tag() string {
	i := 0
	for i < len(d.line) && class[d.line[i]]&classTag != 0 {
		i++
	}
	if i == 0 || i >= maxTag || (i < len(d.line) && d.line[i] != ' ') {
		d.Fail(syntaxErrorf("invalid tag"))
		return ""
	}
	d.pos = i
	return string(d.line[:i])
}

// End checks that the command ends here and returns its first error. Blanks at
// its end are forgiven.
func (d *Decoder) End() error {
	if d.err != nil {
		return d.err
	}
	for d.pos < len(d.line) && d.line[d.pos] == ' ' {
		d.pos++
	}
	if d.pos < len(d.line) {
		d.Fail(syntaxErrorf("unexpected characters after the arguments"))
	}
	return d.err
}

// Finish reads past whatever is left of the current command, so that the next
// ReadCommand starts at a command. Literals announced in what is left are read
// past too, if the client sends them without asking. The error, if any, is one
// of the connection.
func (d *Decoder) Finish() error {
	if d.dead != nil {
		return d.dead
	}
	budget := d.lim.Drain
	for d.inCommand {
		if d.needLine {
			if err := d.drain(d.remain, &budget); err != nil {
				return err
			}
		} else if d.litAt < 0 {
			break
		} else if !d.lit.nonSync {
			// A client must not send anything behind the announcement before it is
			// answered. One that did will send the content too, or has already.
			if d.Buffered() > 0 {
				return ErrLost
			}
			break
		} else if err := d.drain(d.lit.size, &budget); err != nil {
			return err
		}
		d.needLine, d.remain = false, 0
		if err := d.readLine(d.lim.Line); err != nil && !Recoverable(err) {
			return err
		}
		if budget -= int64(len(d.line)) + 1; budget < 0 {
			return ErrLost
		}
	}
	d.clear()
	if len(d.buf) > keepBuffer && d.Buffered() <= smallBuffer {
		small := make([]byte, smallBuffer)
		d.end = copy(small, d.buf[d.start:d.end])
		d.start = 0
		d.buf = small
	}
	return nil
}

// drain reads past n bytes.
func (d *Decoder) drain(n int64, budget *int64) error {
	if n > *budget {
		return ErrLost
	}
	*budget -= n
	for n > 0 {
		if d.start == d.end {
			d.start, d.end = 0, 0
			if !d.makeRoom(keepBuffer) {
				return ErrLost
			}
			if err := d.fill(); err != nil {
				return lineEOF(err, 1)
			}
		}
		k := int(min(n, int64(d.end-d.start)))
		d.start += k
		n -= int64(k)
	}
	return nil
}

// ReadLine reads one line outside of a command's grammar, such as the DONE of
// IDLE or the answer to an authentication challenge. It is at most limit bytes
// long, without its end; one that is longer is read past and gives a
// LimitError. Bytes announced at its end are not looked for.
func (d *Decoder) ReadLine(limit int) (string, error) {
	in, need, remain := d.inCommand, d.needLine, d.remain
	err := d.readLine(limit)
	line := string(d.line)
	d.line, d.pos, d.litAt = nil, 0, -1
	d.inCommand, d.needLine, d.remain = in, need, remain
	if err != nil {
		if !Recoverable(err) {
			d.die(err)
		}
		return "", err
	}
	return line, nil
}
