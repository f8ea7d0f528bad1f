package graph

import (
	"encoding/base64"
	"io"
)

// base64Reader encodes a source of a known size while it is read. It checks that the source has just that size before it
// gives out the end, so that no cut-off mail goes out under a Content-Length that looks right.
type base64Reader struct {
	src  io.ReadCloser
	left int64 // of the source
	raw  [3 * 4096]byte
	enc  [4 * 4096]byte
	out  []byte // of enc, not yet read
	err  error
}

func newBase64Reader(src io.ReadCloser, size int64) *base64Reader {
	return &base64Reader{src: src, left: size}
}

func (r *base64Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.out) == 0 {
		if r.err == nil {
			r.fill()
		}
		if r.err != nil && len(r.out) == 0 {
			return 0, r.err
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

func (r *base64Reader) fill() {
	if r.left == 0 {
		r.err = io.EOF
		return
	}
	chunk := r.raw[:min(int64(len(r.raw)), r.left)]
	n, err := io.ReadFull(r.src, chunk)
	r.left -= int64(n)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		r.err = errSize
		return
	case err != nil:
		r.err = err
		return
	}
	if r.left == 0 {
		var one [1]byte
		if more, err := io.ReadFull(r.src, one[:]); more > 0 {
			r.err = errSize
			return
		} else if err != io.EOF {
			r.err = err
			return
		}
	}
	base64.StdEncoding.Encode(r.enc[:], chunk)
	r.out = r.enc[:base64.StdEncoding.EncodedLen(len(chunk))]
}

func (r *base64Reader) Close() error { return r.src.Close() }
