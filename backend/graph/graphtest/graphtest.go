// Package graphtest helps to test what uses package graph: a transport that holds every request against Microsoft's
// published description of Graph.
package graphtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// Transport returns a transport that checks each request before it passes it to next (nil: http.DefaultTransport), and
// reports what is wrong to t: paths, methods, query options, property names and types that the description does not
// have; and what it does not tell, but the documents do, such as the immutable-id preference on every request. Where
// the description is not at hand (File), it says so and checks the second kind only.
//
// Known differences between description and documents are allowed for: text/plain bodies with base64 MIME, action
// parameters in lower camel case, $batch, beta's importMime, and reading the directory's user.
func Transport(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	if next == nil {
		next = http.DefaultTransport
	}
	d, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if d == nil {
		t.Logf("%s is not here: requests are not checked against it", File)
	}
	return &transport{t: t, next: next, d: d}
}

type transport struct {
	t    testing.TB
	next http.RoundTripper
	d    *description
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(strings.ToLower(r.URL.Path), "/oauth2/v2.0/") {
		return tr.next.RoundTrip(r)
	}
	if r.Body != nil && r.Body != http.NoBody {
		// The body is looked at while it is sent on, so that streaming and failures stay as they are.
		kept := &keep{ReadCloser: r.Body}
		out := r.Clone(r.Context())
		out.Body = kept
		kept.done = func(body []byte) { tr.report(r, Check(r, body)) }
		return tr.next.RoundTrip(out)
	}
	tr.report(r, Check(r, nil))
	return tr.next.RoundTrip(r)
}

func (tr *transport) report(r *http.Request, wrong []string) {
	for _, w := range wrong {
		tr.t.Errorf("%s %s: %s", r.Method, r.URL.Path, w)
	}
}

// keep collects a body and hands it over when all of it was read.
type keep struct {
	io.ReadCloser
	buf  bytes.Buffer
	done func([]byte)
}

func (k *keep) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	k.buf.Write(p[:n])
	if err == io.EOF && k.done != nil {
		k.done(k.buf.Bytes())
		k.done = nil
	}
	return n, err
}

// Check returns what is wrong with a request that has the body.
func Check(r *http.Request, body []byte) []string {
	var wrong []string
	path := r.URL.EscapedPath()
	if r.URL.Opaque != "" {
		path, _, _ = strings.Cut(strings.TrimPrefix(r.URL.Opaque, "//"+r.URL.Host), "?")
	}
	version, rest := "", ""
	for _, v := range []string{"/v1.0/", "/beta/"} {
		if _, after, ok := strings.Cut(path, v); ok {
			version, rest = strings.Trim(v, "/"), after
			break
		}
	}
	if version == "" {
		return checkUpload(r)
	}
	if r.Header.Get("Authorization") == "" {
		wrong = append(wrong, "no token")
	}
	if !strings.Contains(r.Header.Get("Prefer"), `IdType="ImmutableId"`) {
		wrong = append(wrong, "does not ask for immutable ids")
	}
	if r.Header.Get("client-request-id") == "" {
		wrong = append(wrong, "no client-request-id")
	}
	if r.ContentLength < 0 || r.Body != nil && r.Body != http.NoBody && r.ContentLength == 0 {
		wrong = append(wrong, "no Content-Length")
	}
	if rest == "$batch" {
		return append(wrong, checkBatch(body)...)
	}
	return append(wrong, checkCall(version, r.Method, rest, requestQuery(r), r.Header.Get("Content-Type"), body)...)
}

func requestQuery(r *http.Request) string {
	if r.URL.Opaque != "" {
		_, q, _ := strings.Cut(r.URL.Opaque, "?")
		return q
	}
	return r.URL.RawQuery
}

// checkUpload is for addresses of upload sessions, whose form is Graph's own affair.
func checkUpload(r *http.Request) []string {
	var wrong []string
	if r.Header.Get("Authorization") != "" {
		wrong = append(wrong, "token sent to an upload session")
	}
	if r.Method == http.MethodPut && r.Header.Get("Content-Range") == "" {
		wrong = append(wrong, "no Content-Range")
	}
	return wrong
}

func checkBatch(body []byte) []string {
	var b struct {
		Requests []struct {
			ID      string            `json:"id"`
			Method  string            `json:"method"`
			URL     string            `json:"url"`
			Headers map[string]string `json:"headers"`
			Body    json.RawMessage   `json:"body"`
		} `json:"requests"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return []string{"batch: " + err.Error()}
	}
	var wrong []string
	if n := len(b.Requests); n == 0 || n > 20 {
		wrong = append(wrong, fmt.Sprintf("batch of %d requests", n))
	}
	ids := make(map[string]bool)
	for _, item := range b.Requests {
		at := "batch item " + item.ID + ": "
		if item.ID == "" || ids[item.ID] {
			wrong = append(wrong, at+"id is not unique")
		}
		ids[item.ID] = true
		if !strings.HasPrefix(item.URL, "/users") {
			wrong = append(wrong, at+"address is not relative")
		}
		if !strings.Contains(item.Headers["Prefer"], `IdType="ImmutableId"`) {
			wrong = append(wrong, at+"does not ask for immutable ids")
		}
		if len(item.Body) > 0 && item.Headers["Content-Type"] == "" {
			wrong = append(wrong, at+"body without Content-Type")
		}
		path, query, _ := strings.Cut(strings.TrimPrefix(item.URL, "/"), "?")
		for _, w := range checkCall("v1.0", item.Method, path, query, item.Headers["Content-Type"], item.Body) {
			wrong = append(wrong, at+w)
		}
	}
	return wrong
}

// checkCall holds one call against the description.
func checkCall(version, method, path, query, contentType string, body []byte) []string {
	d, err := load()
	if d == nil || err != nil {
		return nil
	}
	segments := split(path)
	for i, s := range segments {
		if s == "" {
			return []string{fmt.Sprintf("segment %d of the path is empty", i)}
		}
	}
	last := segments[len(segments)-1]
	if version == "beta" {
		if last == "importMime" && method == http.MethodPost {
			return checkMIME(contentType, body)
		}
		return []string{"beta call " + last}
	}
	if len(segments) == 2 && strings.EqualFold(segments[0], "users") && method == http.MethodGet {
		return nil // the directory's user: the description here is cut to mail
	}
	item, ok := d.find(segments)
	if !ok {
		return []string{"no such path"}
	}
	op, ok := operation(item, method)
	if !ok {
		return []string{"no method " + method + " there"}
	}
	wrong := checkQuery(op, item, query, last == "delta")
	if strings.HasPrefix(contentType, "text/plain") {
		if last != "sendMail" && !(last == "messages" && len(segments) == 3) {
			return append(wrong, "MIME is taken by /messages and /sendMail only")
		}
		return append(wrong, checkMIME(contentType, body)...)
	}
	schema := jsonBody(op)
	switch {
	case schema == nil && len(body) > 0:
		wrong = append(wrong, "takes no body")
	case schema != nil && len(body) == 0:
		wrong = append(wrong, "needs a body")
	case len(body) > 0:
		if !strings.HasPrefix(contentType, "application/json") {
			return append(wrong, "Content-Type "+contentType)
		}
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			return append(wrong, err.Error())
		}
		wrong = append(wrong, d.check("body", schema, v, isAction(op))...)
	}
	return wrong
}

// split cuts a path into decoded segments; name('id') is two.
func split(path string) []string {
	var out []string
	for _, s := range strings.Split(path, "/") {
		s, err := url.PathUnescape(s)
		if err != nil {
			s = ""
		}
		if name, id, ok := strings.Cut(s, "('"); ok && strings.HasSuffix(id, "')") {
			out = append(out, name, strings.TrimSuffix(id, "')"))
			continue
		}
		out = append(out, strings.TrimSuffix(s, "()"))
	}
	return out
}

func checkMIME(contentType string, body []byte) []string {
	if !strings.HasPrefix(contentType, "text/plain") {
		return []string{"MIME as " + contentType}
	}
	mime, err := base64.StdEncoding.DecodeString(string(body))
	if err != nil {
		return []string{"MIME is not base64"}
	}
	for i, ch := range mime {
		if ch == '\n' && (i == 0 || mime[i-1] != '\r') {
			return []string{"MIME has a bare LF"}
		}
	}
	return nil
}

// checkQuery looks at the options' names, and at the properties that $select names.
func checkQuery(op *openapi3.Operation, item *openapi3.PathItem, query string, delta bool) []string {
	values, err := url.ParseQuery(query)
	if err != nil {
		return []string{"query: " + err.Error()}
	}
	var wrong []string
	for name, vs := range values {
		switch name {
		case "$skiptoken", "$deltatoken", "$skip", "changeType":
			continue // of links, and of delta
		case "$expand":
			if delta {
				wrong = append(wrong, "delta takes no $expand")
			}
		case "$select":
			props := make(openapi3.Schemas)
			responseProperties(op, props)
			for _, p := range strings.Split(strings.Join(vs, ","), ",") {
				if _, ok := props[p]; !ok {
					wrong = append(wrong, "$select of unknown "+p)
				}
			}
		}
		if op.Parameters.GetByInAndName(openapi3.ParameterInQuery, name) == nil &&
			item.Parameters.GetByInAndName(openapi3.ParameterInQuery, name) == nil {
			wrong = append(wrong, "unknown option "+name)
		}
	}
	return wrong
}

// responseProperties collects the properties of what a call returns, or of the items it lists.
func responseProperties(op *openapi3.Operation, into openapi3.Schemas) {
	r := op.Responses.Value("2XX")
	if r == nil || r.Value == nil {
		return
	}
	properties(jsonSchema(r.Value.Content), into)
	if list := into["value"]; list != nil && list.Value.Type.Is(openapi3.TypeArray) {
		properties(list.Value.Items.Value, into)
	}
}
