package graph

import (
	"context"
	"io"
	"net/http"
)

type answeredKey struct{}

// WithAnswered returns a context in which SendMIME and Send tell fn the id of the request that Graph has taken.
func WithAnswered(ctx context.Context, fn func(requestID string)) context.Context {
	return context.WithValue(ctx, answeredKey{}, fn)
}

type uploadedKey struct{}

// WithUploaded returns a context in which UploadAttachment tells fn how many bytes of the attachment Graph has taken, as
// they get more. Small attachments go in one piece, and fn hears of them at their end or not at all.
func WithUploaded(ctx context.Context, fn func(bytes int64)) context.Context {
	return context.WithValue(ctx, uploadedKey{}, fn)
}

// uploaded tells that so many bytes have been taken.
func uploaded(ctx context.Context, n int64) {
	if fn, _ := ctx.Value(uploadedKey{}).(func(int64)); fn != nil {
		fn(n)
	}
}

// answered returns what a sending call does with its answer, nil for nothing.
func answered(ctx context.Context) func(*http.Response) error {
	fn, _ := ctx.Value(answeredKey{}).(func(string))
	if fn == nil {
		return nil
	}
	return func(resp *http.Response) error {
		fn(resp.Header.Get("request-id"))
		// Read to the end, so that the connection can serve again; the status has said all.
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 256<<10))
		return nil
	}
}
