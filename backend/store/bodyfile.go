package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A body file is a row of zstd frames, each of frameSize bytes of the message (the
// last one shorter), and at the end a table of their sizes in a skippable frame:
// the "zstd seekable format" of the zstd project, so that plain zstd reads it too.
// Any part can be read by decompressing only the frames it lies in. A file of at most smallFile bytes, which is read as a
// whole, has a checksum of its frames in another skippable frame before that.
const (
	frameSize = 256 << 10

	seekTableMagic  = 0x184D2A5E
	seekFooterMagic = 0x8F92EAB1
	seekFooterSize  = 9
	skippableHeader = 8

	sumMagic = 0x184D2A50
	sumSize  = skippableHeader + 4 // with the CRC-32C of all that stands before

	maxFrames = 1 << 20 // 256 GB; a bound for damaged files
)

// errDamaged is returned when a body file is not what was written.
var errDamaged = errors.New("body file is damaged")

// codec packs and unpacks headers and frames. It is safe for concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder

	unchecked *zstd.Decoder // for what was checked otherwise
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(frameSize),
		zstd.WithEncoderCRC(true), zstd.WithEncoderConcurrency(2),
		zstd.WithAllLitEntropyCompression(true)) // base64 has few matches, and loses a quarter all the same
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, err
	}
	unchecked, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(64<<20), zstd.IgnoreChecksum(true))
	if err != nil {
		return nil, err
	}
	return &codec{enc, dec, unchecked}, nil
}

func (c *codec) pack(b []byte) []byte { return c.enc.EncodeAll(b, make([]byte, 0, len(b)/2+64)) }

func (c *codec) unpack(b []byte) ([]byte, error) {
	out, err := c.dec.DecodeAll(b, []byte{})
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return out, nil
}

// frameWriter writes a body file.
type frameWriter struct {
	c      *codec
	w      io.Writer
	plain  []byte // not yet written, less than a frame
	packed []byte
	table  []byte // the entries of the seek table
	size   int64  // bytes of the message
	stored int64  // bytes of the file
	sum    uint32 // of the frames
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (fw *frameWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if fw.plain == nil {
			fw.plain = make([]byte, 0, frameSize)
		}
		part := p[:min(len(p), frameSize-len(fw.plain))]
		fw.plain = append(fw.plain, part...)
		p = p[len(part):]
		if len(fw.plain) == frameSize {
			if err := fw.flush(); err != nil {
				return n - len(p), err
			}
		}
	}
	fw.size += int64(n)
	return n, nil
}

func (fw *frameWriter) flush() error {
	fw.packed = fw.c.enc.EncodeAll(fw.plain, fw.packed[:0])
	fw.table = binary.LittleEndian.AppendUint32(fw.table, uint32(len(fw.packed)))
	fw.table = binary.LittleEndian.AppendUint32(fw.table, uint32(len(fw.plain)))
	fw.plain = fw.plain[:0]
	fw.sum = crc32.Update(fw.sum, castagnoli, fw.packed)
	n, err := fw.w.Write(fw.packed)
	fw.stored += int64(n)
	return err
}

// finish writes what is left, and the seek table.
func (fw *frameWriter) finish() error {
	if len(fw.plain) > 0 {
		if err := fw.flush(); err != nil {
			return err
		}
	}
	var b []byte
	if fw.stored+sumSize+skippableHeader+int64(len(fw.table))+seekFooterSize <= smallFile {
		b = binary.LittleEndian.AppendUint32(b, sumMagic)
		b = binary.LittleEndian.AppendUint32(b, sumSize-skippableHeader)
		b = binary.LittleEndian.AppendUint32(b, fw.sum)
	}
	b = binary.LittleEndian.AppendUint32(b, seekTableMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(fw.table)+seekFooterSize))
	b = append(b, fw.table...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(fw.table)/8))
	b = append(b, 0) // descriptor: no checksums here, the frames have theirs
	b = binary.LittleEndian.AppendUint32(b, seekFooterMagic)
	n, err := fw.w.Write(b)
	fw.stored += int64(n)
	fw.plain, fw.packed = nil, nil
	return err
}

// frameReader reads a body file at random. It keeps the frames read last.
type frameReader struct {
	dec    *zstd.Decoder
	f      *os.File // nil if whole is the file
	starts []int64  // where each frame begins in the file, and where the last ends
	size   int64
	whole  []byte // the file, if it is small

	mu     sync.Mutex
	cached []cachedFrame // most recent first
	packed []byte
}

type cachedFrame struct {
	n     int
	plain []byte
}

// smallFile is the size up to which a body file is read at once.
const smallFile = 64 << 10

// cachedFrames per open body: clients read in order, or two parts in turn.
const cachedFrames = 4

// openFrames opens a body file that should have so many bytes.
func openFrames(c *codec, path string, stored int64) (*frameReader, error) {
	if stored <= smallFile {
		whole, err := readSmall(path, stored)
		if err != nil {
			return nil, err
		}
		return newFrameReader(c, nil, whole, stored)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != stored {
		err = errDamaged
	}
	var r *frameReader
	if err == nil {
		r, err = newFrameReader(c, f, nil, stored)
	}
	if err != nil {
		f.Close()
	}
	return r, err
}

// newFrameReader reads a file, or whole where that is it.
func newFrameReader(c *codec, f *os.File, whole []byte, stored int64) (*frameReader, error) {
	r := &frameReader{dec: c.dec, f: f, whole: whole}
	at := stored - seekFooterSize
	if at < skippableHeader {
		return nil, errDamaged
	}
	footer, err := r.bytes(nil, at, seekFooterSize)
	if err != nil {
		return nil, err
	}
	frames := int64(binary.LittleEndian.Uint32(footer[:]))
	at -= frames*8 + skippableHeader
	if binary.LittleEndian.Uint32(footer[5:]) != seekFooterMagic || footer[4] != 0 || frames > maxFrames || at < 0 {
		return nil, errDamaged
	}
	table, err := r.bytes(nil, at, int(skippableHeader+frames*8))
	if err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(table) != seekTableMagic || int64(binary.LittleEndian.Uint32(table[4:])) != frames*8+seekFooterSize {
		return nil, errDamaged
	}
	r.starts = make([]int64, 1, frames+1)
	for i := range frames {
		e := table[skippableHeader+i*8:]
		packed, plain := int64(binary.LittleEndian.Uint32(e)), int64(binary.LittleEndian.Uint32(e[4:]))
		if plain == 0 || plain > frameSize || (plain < frameSize && i < frames-1) || packed > 2*frameSize {
			return nil, errDamaged
		}
		r.starts = append(r.starts, r.starts[i]+packed)
		r.size += plain
	}
	switch end := r.starts[frames]; {
	case end == at: // without a sum
	case end != at-sumSize || r.whole == nil:
		return nil, errDamaged
	default:
		sum := r.whole[end:at]
		if binary.LittleEndian.Uint32(sum) != sumMagic || binary.LittleEndian.Uint32(sum[4:]) != sumSize-skippableHeader ||
			binary.LittleEndian.Uint32(sum[8:]) != crc32.Checksum(r.whole[:end], castagnoli) {
			return nil, errDamaged
		}
		r.dec = c.unchecked
	}
	return r, nil
}

func (r *frameReader) close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}

// bytes returns n bytes of the file, in buf if it has room.
func (r *frameReader) bytes(buf []byte, off int64, n int) ([]byte, error) {
	if r.whole != nil {
		return r.whole[off:][:n], nil
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := r.f.ReadAt(buf, off)
	return buf, err
}

// ReadAt implements [io.ReaderAt].
func (r *frameReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read body: negative offset")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for n < len(p) {
		if off >= r.size {
			return n, io.EOF
		}
		plain, err := r.frameLocked(int(off / frameSize))
		if err != nil {
			return n, err
		}
		c := copy(p[n:], plain[off%frameSize:])
		n += c
		off += int64(c)
	}
	return n, nil
}

func (r *frameReader) frameLocked(n int) ([]byte, error) {
	for i, c := range r.cached {
		if c.n == n {
			copy(r.cached[1:i+1], r.cached[:i])
			r.cached[0] = c
			return c.plain, nil
		}
	}
	var plain []byte
	if len(r.cached) < cachedFrames {
		r.cached = append(r.cached, cachedFrame{})
	} else {
		plain = r.cached[len(r.cached)-1].plain
	}
	copy(r.cached[1:], r.cached)
	r.cached[0] = cachedFrame{n: -1}
	size := int(r.starts[n+1] - r.starts[n])
	packed, err := r.bytes(r.packed, r.starts[n], size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if r.whole == nil {
		r.packed = packed
	}
	want := int(min(frameSize, r.size-int64(n)*frameSize))
	if cap(plain) < want {
		plain = make([]byte, 0, want)
	}
	plain, err = r.dec.DecodeAll(packed, plain[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if len(plain) != want {
		return nil, errDamaged
	}
	r.cached[0] = cachedFrame{n, plain}
	return plain, nil
}
