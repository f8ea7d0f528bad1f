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

// Sessions take up to 4 MB at once; a multiple of 320 KiB suits all of Microsoft's upload services. Where even that is
// refused, as by a gateway on the way, it goes on in smaller pieces.
const (
	chunkSize  = 12 * 320 << 10
	smallChunk = 3 * 320 << 10
)

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

// UploadAttachment attaches a file of a.Size bytes and returns its id where Graph tells it. open gives the bytes from an
// offset on; it is called for every piece. It works on messages that are no drafts, too. After Unclear the attachment may
// be there; the way out is then to delete the message.
//
// A file goes by one POST if the whole request stays within MaxRequest, else by an upload session, which continues after a
// broken connection where the server stands, is begun anew where that cannot be found out, and is given up on failure.
// The documents draw the line at a file of 3 MB, "MB" being nowhere defined: what one way refuses for its size goes
// the other. Graph: message-post-attachments, outlook-large-attachments.
func (c *Client) UploadAttachment(ctx context.Context, msgID string, a NewAttachment, open func(offset int64) (io.ReadCloser, error)) (id string, err error) {
	rest, err := itemPath("messages", msgID, "/attachments")
	if err != nil {
		return "", fmt.Errorf("%s: %w", opUpload, err)
	}
	request, err := a.requestSize()
	if err != nil {
		return "", fmt.Errorf("%s: %w", opUpload, err)
	}
	if request <= MaxRequest {
		id, err = c.postFile(ctx, rest, a, open)
		if StatusOf(err) != http.StatusRequestEntityTooLarge {
			return id, err
		}
		sid, serr := c.uploadFile(ctx, rest, a, open)
		if tooSmall(serr) {
			return "", err // neither way takes it
		}
		return sid, serr
	}
	id, err = c.uploadFile(ctx, rest, a, open)
	if tooSmall(err) {
		return c.postFile(ctx, rest, a, open)
	}
	return id, err
}

// tooSmall reports that Graph makes no upload session for a file so small.
func tooSmall(err error) bool {
	return IsCode(err, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
}

// requestSize is the size of the POST's body, content and all.
func (a NewAttachment) requestSize() (int64, error) {
	a.Content = nil
	b, err := json.Marshal(a)
	return int64(len(b)) + EncodedSize(a.Size), err
}

// postFile attaches a file by POST.
func (c *Client) postFile(ctx context.Context, attachments string, a NewAttachment, open func(int64) (io.ReadCloser, error)) (id string, err error) {
	const op = "add attachment"
	src, err := open(0)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	defer src.Close()
	content, err := io.ReadAll(io.LimitReader(src, a.Size+1))
	if err == nil && int64(len(content)) != a.Size {
		err = errSize
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	a.Content = content
	body, err := jsonPayload(a)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	var answer struct {
		ID string `json:"id"`
	}
	err = c.do(ctx, call{op: op, kind: "attachment", method: http.MethodPost, url: c.address(attachments), body: body, repeat: repeatRefused, changes: true}, func(resp *http.Response) error {
		if err := readJSON(resp, &answer); err != nil {
			return err
		}
		if answer.ID == "" {
			return errors.New("answer holds no attachment")
		}
		return nil
	})
	return answer.ID, err
}

// uploadFile attaches a file by an upload session.
func (c *Client) uploadFile(ctx context.Context, attachments string, a NewAttachment, open func(int64) (io.ReadCloser, error)) (id string, err error) {
	item := map[string]any{"attachmentType": "file", "name": a.Name, "size": a.Size}
	put(item, "contentType", a.ContentType, a.ContentType != "")
	put(item, "contentId", a.ContentID, a.ContentID != "")
	put(item, "isInline", true, a.IsInline)
	body, err := jsonPayload(map[string]any{"AttachmentItem": item})
	if err != nil {
		return "", fmt.Errorf("%s: %w", opUpload, err)
	}
	for try := 1; ; try++ {
		var answer sessionState
		// An unused session ends by itself, so a repeat is harmless.
		err = c.do(ctx, call{op: opUpload, kind: "attachment", method: http.MethodPost, url: c.address(attachments + "/createUploadSession"), body: body, repeat: repeatAlways}, into(&answer))
		if err != nil {
			return "", err
		}
		s := &session{c: c, url: answer.UploadURL, size: a.Size, open: open}
		if err := s.check(); err != nil {
			if try < maxSessions {
				continue
			}
			return "", &transportError{opUpload, err}
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

// sessionState is what a session's answers say; keys match in any case, as they come in two.
type sessionState struct {
	ID                 string    `json:"id"` // of the attachment, from who answers the last piece with it
	UploadURL          string    `json:"uploadUrl"`
	NextExpectedRanges *[]string `json:"nextExpectedRanges"`
}

func (s *sessionState) ranges() []string {
	if s.NextExpectedRanges == nil {
		return nil
	}
	return *s.NextExpectedRanges
}

// errNoWord is the end of a last piece whose answer says neither that the attachment is there nor what is missing.
var errNoWord = errors.New("answer does not say that the attachment is complete")

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

// run sends the pieces in order. Each answer says where the session stands. After a lost answer nobody does: only PUT and
// DELETE are documented. The piece is sent again then; if the session does not want it, it has had it.
func (s *session) run(ctx context.Context) (id string, err error) {
	var offset int64
	chunk := int64(chunkSize)
	stalls := 0
	doubt := false  // the piece at offset may have been taken
	ending := false // the last piece may have been: then the attachment may be complete
	for offset < s.size {
		n := min(chunk, s.size-offset)
		last := offset+n == s.size
		next, done, id, err := s.put(ctx, offset, n)
		if done {
			return id, nil
		}
		switch {
		case err == nil:
			doubt = false
		case ctx.Err() != nil:
			return "", err
		case outOfStep(err) || doubt && StatusOf(err) == http.StatusBadRequest:
			if doubt && !last && StatusOf(err) != http.StatusNotFound && StatusOf(err) != http.StatusGone {
				doubt, next = false, offset+n
				break
			}
			if ending {
				return "", &unclearError{&transportError{opUpload, fmt.Errorf("session has ended, perhaps with the whole file: %w", withoutAnswer(err))}}
			}
			return "", &transportError{opUpload, fmt.Errorf("%w: %w", errSessionLost, withoutAnswer(err))}
		case StatusOf(err) == http.StatusRequestEntityTooLarge && chunk > smallChunk && !doubt:
			chunk = smallChunk
			continue
		default:
			var local *localError
			if errors.As(err, &local) || !IsTemporary(err) || stalls+1 >= maxStalls || sleep(ctx, backoff(stalls)) != nil {
				return "", err
			}
			doubt = doubt || Unclear(err)
			ending = ending || doubt && last
			next = offset
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

// outOfStep reports that the session stands elsewhere than we thought, or is no more.
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
		at, ok := nextOffset(state.ranges())
		switch {
		case ok:
			next = at
		case !last:
		case state.ID != "" || state.NextExpectedRanges != nil:
			done, id = true, state.ID
		default:
			return errNoWord // 201 is what says so
		}
		return nil
	})
	return next, done, id, err
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
