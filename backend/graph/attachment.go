package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// SessionSize is the size in bytes from which attachments go by an upload session. Smaller ones are refused there, and
// larger ones by POST. Graph: outlook-large-attachments.
const SessionSize = 3_000_000

// Sessions take up to 4 MB at once; a multiple of 320 KiB suits all of Microsoft's upload services.
const chunkSize = 12 * 320 << 10

// MarshalJSON writes a fileAttachment.
func (a NewAttachment) MarshalJSON() ([]byte, error) {
	j := map[string]any{"@odata.type": "#microsoft.graph.fileAttachment", "name": a.Name, "contentBytes": a.content()}
	put(j, "contentType", a.ContentType, a.ContentType != "")
	put(j, "contentId", a.ContentID, a.ContentID != "")
	put(j, "isInline", true, a.IsInline)
	return json.Marshal(j)
}

// content is never nil: null bytes are refused.
func (a NewAttachment) content() []byte { return append([]byte{}, a.Content...) }

// AddAttachment attaches a file of less than SessionSize, its bytes in Content, and returns its id. It works on messages
// that are no drafts, too. Graph: message-post-attachments.
func (c *Client) AddAttachment(ctx context.Context, msgID string, a NewAttachment) (id string, err error) {
	const op = "add attachment"
	p, err := itemPath("messages", msgID, "/attachments")
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	body, err := jsonPayload(a)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	var answer struct {
		ID string `json:"id"`
	}
	err = c.do(ctx, call{op: op, kind: "attachment", method: http.MethodPost, url: c.address(p), body: body, repeat: repeatRefused, changes: true}, into(&answer))
	return answer.ID, err
}

// UploadAttachment attaches a file of a.Size bytes and returns its id where Graph tells it. open gives the bytes from an
// offset on; it is called for every piece. Less than SessionSize goes by one POST, more by an upload session, which
// continues after a broken connection where the server stands, is begun anew where the server does not tell, and is given
// up on failure. After Unclear the attachment may be there; the way out is then to delete the message.
func (c *Client) UploadAttachment(ctx context.Context, msgID string, a NewAttachment, open func(offset int64) (io.ReadCloser, error)) (id string, err error) {
	const op = "upload attachment"
	if a.Size < SessionSize {
		return c.postFile(ctx, msgID, a, open)
	}
	p, err := itemPath("messages", msgID, "/attachments/createUploadSession")
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	item := map[string]any{"attachmentType": "file", "name": a.Name, "size": a.Size}
	put(item, "contentType", a.ContentType, a.ContentType != "")
	put(item, "contentId", a.ContentID, a.ContentID != "")
	put(item, "isInline", true, a.IsInline)
	body, err := jsonPayload(map[string]any{"AttachmentItem": item})
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	for try := 1; ; try++ {
		var answer sessionState
		// An unused session ends by itself, so a repeat is harmless.
		err = c.do(ctx, call{op: op, kind: "attachment", method: http.MethodPost, url: c.address(p), body: body, repeat: repeatAlways}, into(&answer))
		if IsCode(err, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize") {
			return c.postFile(ctx, msgID, a, open) // 3 MB or 3 MiB: the service decides
		}
		if err != nil {
			return "", err
		}
		s := &session{c: c, url: answer.UploadURL, size: a.Size, open: open}
		if err := s.check(); err != nil {
			return "", fmt.Errorf("%s: %w", op, err)
		}
		if id, err = s.run(ctx); err == nil {
			return id, nil
		}
		s.giveUp(ctx)
		if !errors.Is(err, errSessionLost) || try == maxSessions {
			return "", err
		}
	}
}

// postFile attaches a small file by POST.
func (c *Client) postFile(ctx context.Context, msgID string, a NewAttachment, open func(int64) (io.ReadCloser, error)) (string, error) {
	src, err := open(0)
	if err != nil {
		return "", fmt.Errorf("add attachment: %w", err)
	}
	defer src.Close()
	content, err := io.ReadAll(io.LimitReader(src, a.Size+1))
	if err == nil && int64(len(content)) != a.Size {
		err = errSize
	}
	if err != nil {
		return "", fmt.Errorf("add attachment: %w", err)
	}
	a.Content = content
	return c.AddAttachment(ctx, msgID, a)
}

// sessionState is what a session's answers say; keys match in any case, as they come in two.
type sessionState struct {
	UploadURL          string   `json:"uploadUrl"`
	NextExpectedRanges []string `json:"nextExpectedRanges"`
}

// session uploads one file. Its address carries its own permission and must get neither our token nor into a log.
type session struct {
	c    *Client
	url  string
	size int64
	open func(offset int64) (io.ReadCloser, error)
}

const opUpload = "upload attachment"

func (s *session) check() error {
	u, err := url.Parse(s.url)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != s.c.endpoint.Load().base.Scheme {
		return errors.New("upload session without a usable address")
	}
	return nil
}

// maxStalls is how many pieces in a row may bring the session no further.
const maxStalls = 4

// maxSessions is how often a file is begun anew because its session was lost.
const maxSessions = 3

// errSessionLost means that a session has ended, or stands nobody knows where, without the attachment being complete.
var errSessionLost = errors.New("upload session is lost")

func (s *session) run(ctx context.Context) (id string, err error) {
	var offset int64
	stalls := 0
	ending := false // the last piece may have been taken: then the attachment may be complete
	for offset < s.size {
		n := min(chunkSize, s.size-offset)
		next, done, id, err := s.put(ctx, offset, n)
		if done {
			return id, nil
		}
		ending = ending || Unclear(err) && offset+n == s.size
		if err != nil {
			var local *localError
			if ctx.Err() != nil || errors.As(err, &local) || !IsTemporary(err) && !outOfStep(err) || stalls+1 >= maxStalls {
				return "", err
			}
			if sleep(ctx, backoff(stalls)) != nil {
				return "", err
			}
			at, ok, gone := s.ask(ctx)
			switch {
			case ok:
				next = at
			case ending && (gone || outOfStep(err)):
				return "", &unclearError{&transportError{opUpload, fmt.Errorf("session has ended, perhaps with the whole file: %w", withoutAnswer(err))}}
			case gone || outOfStep(err):
				return "", &transportError{opUpload, fmt.Errorf("%w: %w", errSessionLost, withoutAnswer(err))}
			default:
				next = offset // this server does not tell: repeat the piece
			}
		}
		if next > s.size {
			return "", &transportError{opUpload, errors.New("session expects bytes beyond the end")}
		}
		if next > offset {
			stalls = 0
			uploaded(ctx, next)
		} else if stalls++; stalls >= maxStalls {
			if err == nil {
				err = &transportError{opUpload, errors.New("session does not get on")}
			}
			return "", err
		}
		offset = next
	}
	return "", &transportError{opUpload, errors.New("session took all bytes and did not end")}
}

// outOfStep reports that the session stands elsewhere than we thought, or is no more. Whether it tells where by GET is not
// documented for attachments.
func outOfStep(err error) bool {
	switch StatusOf(err) {
	case http.StatusRequestedRangeNotSatisfiable, http.StatusConflict, http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// withoutAnswer keeps what an answer said and not that it was one: a session that is refused is no refusal of the file.
func withoutAnswer(err error) error { return errors.New(err.Error()) }

// put sends n bytes from offset. It returns where the session stands, or that the attachment is complete.
func (s *session) put(ctx context.Context, offset, n int64) (next int64, done bool, id string, err error) {
	body := &payload{size: n, contentType: "application/octet-stream", open: func() (io.ReadCloser, error) {
		src, err := s.open(offset)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.LimitReader(src, n), src}, nil
	}}
	r := call{op: opUpload, kind: "attachment", method: http.MethodPut, url: s.url, body: body, foreign: true, repeat: repeatRefused, changes: true,
		header: map[string]string{"Content-Range": fmt.Sprintf("bytes %d-%d/%d", offset, offset+n-1, s.size)}}
	last := offset+n == s.size
	next = offset + n
	err = s.c.do(ctx, r, func(resp *http.Response) error {
		if resp.StatusCode == http.StatusCreated {
			done, id = true, attachmentID(resp.Header.Get("Location"))
			return nil
		}
		var state sessionState
		if err := readJSON(resp, &state); err != nil && !last {
			return err
		}
		if at, ok := nextOffset(state.NextExpectedRanges); ok {
			next = at
		} else if last {
			done = true
		}
		return nil
	})
	return next, done, id, err
}

// ask reads where the session stands. gone is true when it is no more.
func (s *session) ask(ctx context.Context) (offset int64, ok, gone bool) {
	var state sessionState
	r := call{op: opUpload, kind: "attachment", method: http.MethodGet, url: s.url, foreign: true, repeat: repeatRefused}
	err := s.c.do(ctx, r, into(&state))
	if err != nil {
		status := StatusOf(err)
		return 0, false, status == http.StatusNotFound || status == http.StatusGone
	}
	offset, ok = nextOffset(state.NextExpectedRanges)
	return offset, ok, false
}

// giveUp frees what the server keeps of the session, also when the caller has gone.
func (s *session) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = s.c.do(ctx, call{op: "give up upload", kind: "attachment", method: http.MethodDelete, url: s.url, foreign: true, repeat: repeatUnsent}, nil)
}

// attachmentID takes the id out of a session's Location, .../Attachments('id') or .../attachments/id.
func attachmentID(location string) string {
	u, err := url.Parse(location)
	if err != nil || location == "" {
		return ""
	}
	last := path.Base(u.Path)
	if _, id, ok := strings.Cut(last, "('"); ok {
		return strings.TrimSuffix(id, "')")
	}
	return last
}
