package graph

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// MaxRequest is the size in bytes from which Graph refuses a request (413). Graph: outlook-send-mime-message.
const MaxRequest = 4_000_000

// maxMIME is the size in bytes of the longest message text that is read. Exchange Online carries at most 150 MB, and what it makes of
// that as base64 is a third more; a compressed answer could go on for as long as the disk takes it. A variable for tests alone.
var maxMIME int64 = 512 << 20

// EncodedSize returns the size of size bytes of MIME as base64, which is how they travel.
func EncodedSize(size int64) int64 { return (size + 2) / 3 * 4 }

// MIME writes a message's RFC 5322 text to w and returns its length. On an error w may have had a part of it; a body cut
// off on the way is always an error. Exchange builds the text anew on each call, so two calls may differ.
// Graph: outlook-get-mime-message.
func (c *Client) MIME(ctx context.Context, id string, w io.Writer) (int64, error) {
	const op = "read message text"
	path, err := itemPath("messages", id, "/$value")
	if err != nil {
		return 0, fmt.Errorf("%s: %w", op, err)
	}
	r := call{op: op, kind: "mime", method: http.MethodGet, url: c.address(path), status: http.StatusOK, repeat: repeatAlways,
		header: map[string]string{"Accept": "text/plain, */*"}}
	var n int64
	err = c.do(ctx, r, func(resp *http.Response) error {
		if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == "application/json" || t == "text/html" {
			// A gateway's page or an error under a wrong status: neither is mail.
			return &localError{&transportError{op, fmt.Errorf("answer is %s, not a message", t)}}
		}
		out := &sink{w: w}
		var err error
		n, err = io.Copy(out, io.LimitReader(resp.Body, maxMIME+1))
		switch {
		case n > maxMIME:
			return &localError{fmt.Errorf("%s: the text is longer than %d bytes", op, maxMIME)}
		case out.err != nil:
			return &localError{fmt.Errorf("%s: %w", op, out.err)}
		case err == nil && (n == 0 || resp.ContentLength >= 0 && n != resp.ContentLength):
			err = io.ErrUnexpectedEOF // no message is empty
		}
		if err != nil && n > 0 {
			// What w has had cannot be taken back, so no repeat here.
			return &localError{&transportError{op, err}}
		}
		return err
	})
	return n, err
}

// sink hides other methods of a writer, so that no copy goes past the reader that watches for progress, and keeps the
// writer's error apart from the reader's.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	s.err = err
	return n, err
}

// mimePayload streams size bytes of MIME as base64.
func mimePayload(open func() (io.ReadCloser, error), size int64) (*payload, error) {
	if size <= 0 {
		return nil, errors.New("empty message")
	}
	return &payload{
		open: func() (io.ReadCloser, error) {
			src, err := open()
			if err != nil {
				return nil, err
			}
			return newBase64Reader(src, size), nil
		},
		size:        EncodedSize(size),
		contentType: "text/plain",
	}, nil
}

// CreateFromMIME makes a draft in Drafts; Graph takes MIME nowhere else, and the message stays a draft whatever is done
// to it. open is called for each attempt and must give size bytes, with CRLF line ends. Graph: user-post-messages.
func (c *Client) CreateFromMIME(ctx context.Context, open func() (io.ReadCloser, error), size int64) (*Message, error) {
	return c.postMIME(ctx, "create draft", c.address("/messages"), open, size)
}

// ImportMIME puts a message into a folder as it is and not as a draft, by the beta interface. It needs the permission
// Mail-Advanced.ReadWrite.All. Graph beta: mailfolder-importmime.
func (c *Client) ImportMIME(ctx context.Context, folderID string, open func() (io.ReadCloser, error), size int64) (*Message, error) {
	const op = "import message"
	path, err := itemPath("mailFolders", folderID, "/importMime")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.postMIME(ctx, op, c.endpoint.Load().root+"/beta"+c.user+path, open, size)
}

func (c *Client) postMIME(ctx context.Context, op, url string, open func() (io.ReadCloser, error), size int64) (*Message, error) {
	p, err := mimePayload(open, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.messageCall(ctx, call{op: op, kind: "upload", method: http.MethodPost, url: url, body: p, repeat: repeatRefused, changes: true})
}

// SendMIME submits a message and keeps it in Sent Items, which MIME cannot prevent. Its To, Cc and Bcc fields are the
// recipients. Nil means that Exchange has taken it (202); after an unclear end it may have been sent. open is called for
// each attempt and must give size bytes, with CRLF line ends. Graph: user-sendmail.
func (c *Client) SendMIME(ctx context.Context, open func() (io.ReadCloser, error), size int64) error {
	const op = "send message"
	p, err := mimePayload(open, size)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.do(ctx, call{op: op, kind: "send", method: http.MethodPost, url: c.address("/sendMail"), body: p,
		status: http.StatusAccepted, repeat: repeatUnsent, changes: true, sends: 1}, answered(ctx))
}
