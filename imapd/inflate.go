package imapd

import (
	"errors"
	"io"
	"math/bits"
)

// inflater decompresses DEFLATE (RFC 1951) from a connection. compress/flate does
// not do for that: where a client ends its data with zlib's partial flush, as mbsync
// does, it waits for the next bytes before it gives out what it has, and both sides
// wait for ever. This one gives out all that can be decoded from what has come
// before it waits. It takes some 45 KB.
type inflater struct {
	r        io.Reader
	in       []byte // [inPos:inEnd] has come and is not used
	inPos    int
	inEnd    int
	bits     uint64
	nbits    uint
	buf      []byte // history and output; [rd:wr] is not given out
	rd, wr   int
	state    inflateState
	final    bool
	stored   int // bytes left of a stored block
	lit      huffman
	dist     huffman
	lengths  [maxLitCodes + maxDistCodes]uint8
	err      error
	starving bool // bits ran out at a place where output is to be given out first
}

type inflateState uint8

const (
	inflateHeader inflateState = iota // between blocks
	inflateStored
	inflateCodes
)

const (
	inflateWindow = 32 << 10
	inflateOutput = 8 << 10 // given out at once
	maxMatch      = 258
	maxLitCodes   = 288
	maxDistCodes  = 32
	maxCodeLen    = 15
	fastBits      = 9
)

var errDeflate = errors.New("invalid compressed data")

func newInflater(r io.Reader) *inflater {
	return &inflater{r: r, in: make([]byte, 4<<10), buf: make([]byte, inflateWindow+inflateOutput+maxMatch)}
}

// Read implements io.Reader.
func (z *inflater) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.rd == z.wr {
		if z.err != nil {
			return 0, z.err
		}
		if z.wr >= inflateWindow {
			n := copy(z.buf, z.buf[z.wr-inflateWindow:z.wr])
			z.rd, z.wr = n, n
		}
		z.err = z.decode()
	}
	n := copy(p, z.buf[z.rd:z.wr])
	z.rd += n
	return n, nil
}

// room reports whether another match fits behind wr.
func (z *inflater) room() bool { return z.wr+maxMatch <= len(z.buf) }

// decode goes on until the buffer is full, or something is in it and the input has run out.
func (z *inflater) decode() error {
	z.starving = false
	for z.room() {
		var err error
		switch z.state {
		case inflateHeader:
			if z.final {
				return io.EOF
			}
			if !z.has(3) {
				return z.err
			}
			err = z.header()
		case inflateStored:
			err = z.copyStored()
		case inflateCodes:
			err = z.codes()
		}
		if err != nil || z.starving {
			return err
		}
	}
	return nil
}

// has reports whether n bits are there, waiting for input only if nothing can be
// given out. If not, either z.err says why or z.starving is set.
func (z *inflater) has(n uint) bool {
	for z.nbits < n {
		if z.inPos == z.inEnd {
			if z.rd != z.wr {
				z.starving = true
				return false
			}
			if z.err = z.fill(); z.err != nil {
				return false
			}
		}
		z.bits |= uint64(z.in[z.inPos]) << z.nbits
		z.inPos++
		z.nbits += 8
	}
	return true
}

func (z *inflater) fill() error {
	for range 100 {
		n, err := z.r.Read(z.in)
		z.inPos, z.inEnd = 0, n
		if n > 0 {
			return nil
		}
		if err != nil {
			if err == io.EOF && (z.state != inflateHeader || z.nbits > 7) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return io.ErrNoProgress
}

// take returns n bits, waiting for them: a flush never ends where this is called.
func (z *inflater) take(n uint) (int, error) {
	for z.nbits < n {
		if z.inPos == z.inEnd {
			if err := z.fill(); err != nil {
				return 0, unexpected(err)
			}
		}
		z.bits |= uint64(z.in[z.inPos]) << z.nbits
		z.inPos++
		z.nbits += 8
	}
	v := int(z.bits & (1<<n - 1))
	z.drop(n)
	return v, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (z *inflater) drop(n uint) {
	z.bits >>= n
	z.nbits -= n
}

// header reads the start of a block.
func (z *inflater) header() error {
	head, err := z.take(3)
	if err != nil {
		return err
	}
	z.final = head&1 != 0
	switch head >> 1 {
	case 0:
		z.drop(z.nbits % 8)
		size, err := z.take(16)
		if err != nil {
			return err
		}
		check, err := z.take(16)
		if err != nil {
			return err
		}
		if size != check^0xffff {
			return errDeflate
		}
		z.state, z.stored = inflateStored, size
		return nil
	case 1:
		for i := range z.lengths {
			switch {
			case i < 144:
				z.lengths[i] = 8
			case i < 256:
				z.lengths[i] = 9
			case i < 280:
				z.lengths[i] = 7
			case i < maxLitCodes:
				z.lengths[i] = 8
			default:
				z.lengths[i] = 5
			}
		}
		return z.makeCodes(maxLitCodes, maxDistCodes)
	case 2:
		return z.dynamic()
	}
	return errDeflate
}

// makeCodes makes the codes of the block from the lengths of both.
func (z *inflater) makeCodes(lits, dists int) error {
	if z.lengths[256] == 0 || !z.lit.make(z.lengths[:lits]) || !z.dist.make(z.lengths[lits:lits+dists]) {
		return errDeflate
	}
	z.state = inflateCodes
	return nil
}

var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block that brings its own. RFC 1951 section 3.2.7.
func (z *inflater) dynamic() error {
	counts, err := z.take(14)
	if err != nil {
		return err
	}
	lits, dists, codes := counts&31+257, counts>>5&31+1, counts>>10+4
	if lits > 286 || dists > 30 {
		return errDeflate
	}
	var lengths [19]uint8
	for _, i := range codeOrder[:codes] {
		n, err := z.take(3)
		if err != nil {
			return err
		}
		lengths[i] = uint8(n)
	}
	if !z.lit.make(lengths[:]) {
		return errDeflate
	}
	for i := 0; i < lits+dists; {
		sym, err := z.symbol(&z.lit)
		if err != nil {
			return err
		}
		if sym < 16 {
			z.lengths[i] = uint8(sym)
			i++
			continue
		}
		repeat, last := 0, uint8(0)
		switch sym {
		case 16:
			if i == 0 {
				return errDeflate
			}
			last = z.lengths[i-1]
			repeat, err = z.take(2)
			repeat += 3
		case 17:
			repeat, err = z.take(3)
			repeat += 3
		default:
			repeat, err = z.take(7)
			repeat += 11
		}
		if err != nil {
			return err
		}
		if i+repeat > lits+dists {
			return errDeflate
		}
		for ; repeat > 0; repeat-- {
			z.lengths[i] = last
			i++
		}
	}
	return z.makeCodes(lits, dists)
}

// symbol reads one symbol, waiting for it.
func (z *inflater) symbol(h *huffman) (int, error) {
	for {
		sym, n := h.lookup(z.bits, z.nbits)
		if n > 0 {
			z.drop(n)
			return sym, nil
		}
		if z.nbits >= maxCodeLen {
			return 0, errDeflate
		}
		if z.inPos == z.inEnd {
			if err := z.fill(); err != nil {
				return 0, unexpected(err)
			}
		}
		z.bits |= uint64(z.in[z.inPos]) << z.nbits
		z.inPos++
		z.nbits += 8
	}
}

func (z *inflater) copyStored() error {
	for z.stored > 0 && z.room() {
		if z.nbits >= 8 { // read ahead
			z.buf[z.wr] = byte(z.bits)
			z.drop(8)
			z.wr++
			z.stored--
			continue
		}
		if z.inPos == z.inEnd {
			if z.rd != z.wr {
				z.starving = true
				return nil
			}
			if err := z.fill(); err != nil {
				return unexpected(err)
			}
		}
		n := copy(z.buf[z.wr:min(len(z.buf), z.wr+z.stored)], z.in[z.inPos:z.inEnd])
		z.inPos += n
		z.wr += n
		z.stored -= n
	}
	if z.stored == 0 {
		z.state = inflateHeader
	}
	return nil
}

// Base values and extra bits of lengths and distances. RFC 1951 section 3.2.5.
var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// codes decodes literals and matches. Between two of them it can stop for want of input:
// after a partial flush part of an empty block is still with the client.
func (z *inflater) codes() error {
	for z.room() {
		// What is buffered goes into bits as far as it fits, so that mostly one
		// look decodes a match.
		for z.nbits <= 56 && z.inPos < z.inEnd {
			z.bits |= uint64(z.in[z.inPos]) << z.nbits
			z.inPos++
			z.nbits += 8
		}
		sym, n := z.lit.lookup(z.bits, z.nbits)
		if n == 0 {
			if z.nbits >= maxCodeLen {
				return errDeflate
			}
			if !z.has(z.nbits + 1) {
				return z.err
			}
			continue
		}
		z.drop(n)
		switch {
		case sym < 256:
			z.buf[z.wr] = byte(sym)
			z.wr++
			continue
		case sym == 256:
			z.state = inflateHeader
			return nil
		case sym > 285:
			return errDeflate
		}
		extra, err := z.take(uint(lengthExtra[sym-257]))
		if err != nil {
			return err
		}
		length := int(lengthBase[sym-257]) + extra
		if sym, err = z.symbol(&z.dist); err != nil {
			return err
		}
		if sym >= len(distBase) {
			return errDeflate
		}
		if extra, err = z.take(uint(distExtra[sym])); err != nil {
			return err
		}
		dist := int(distBase[sym]) + extra
		if dist > z.wr {
			return errDeflate
		}
		if from := z.wr - dist; dist >= length {
			copy(z.buf[z.wr:z.wr+length], z.buf[from:from+length])
		} else {
			for i := range length {
				z.buf[z.wr+i] = z.buf[from+i]
			}
		}
		z.wr += length
	}
	return nil
}

// huffman is a canonical code. Codes of up to fastBits are looked up, longer ones are
// found length by length.
type huffman struct {
	fast    [1 << fastBits]uint16 // symbol<<4 | length; 0: longer, or none
	count   [maxCodeLen + 1]uint16
	symbols [maxLitCodes]uint16 // in the order of their codes
}

// make sets the code with the given lengths, and reports false if there is none. As in
// zlib one code alone may leave the other half unused.
func (h *huffman) make(lengths []uint8) bool {
	h.count = [maxCodeLen + 1]uint16{}
	clear(h.fast[:])
	for _, n := range lengths {
		h.count[n]++
	}
	used := len(lengths) - int(h.count[0])
	h.count[0] = 0
	left := 1
	for n := 1; n <= maxCodeLen; n++ {
		if left = left<<1 - int(h.count[n]); left < 0 {
			return false
		}
	}
	if left > 0 && (used > 1 || used == 1 && h.count[1] != 1) {
		return false
	}
	var next, at [maxCodeLen + 2]uint16 // code and place in symbols
	for n := 1; n <= maxCodeLen; n++ {
		at[n+1] = at[n] + h.count[n]
		next[n+1] = (next[n] + h.count[n]) << 1
	}
	for sym, n := range lengths {
		if n == 0 {
			continue
		}
		h.symbols[at[n]] = uint16(sym)
		at[n]++
		code := next[n]
		next[n]++
		if n > fastBits {
			continue
		}
		for i := int(bits.Reverse16(code) >> (16 - n)); i < len(h.fast); i += 1 << n {
			h.fast[i] = uint16(sym)<<4 | uint16(n)
		}
	}
	return true
}

// lookup returns the symbol that b starts with, of which n bits are known, and the
// length of its code; 0 if the bits do not suffice or are no code.
func (h *huffman) lookup(b uint64, n uint) (sym int, length uint) {
	if e := h.fast[b&(1<<fastBits-1)]; e != 0 {
		if length = uint(e & 15); length > n {
			return 0, 0
		}
		return int(e >> 4), length
	}
	code, first, index := 0, 0, 0
	for length = 1; length <= min(n, maxCodeLen); length++ {
		code |= int(b & 1)
		b >>= 1
		count := int(h.count[length])
		if code-count < first {
			return int(h.symbols[index+code-first]), length
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return 0, 0
}
