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
