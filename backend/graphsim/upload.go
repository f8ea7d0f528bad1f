package graphsim

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// uploadPrefix begins the URLs of upload sessions, which look as if they were of another service, and need no Authorization.
const uploadPrefix = "/api/v2.0/"

const (
	maxUpload   = 150 << 20
	uploadLife  = time.Hour // undocumented; that it does not move with each chunk is known
	uploadLimit = 1000      // open sessions; the oldest expire
)

// upload is an upload session.
type upload struct {
	id      string
	token   string
	box     *mailbox
	app     string
	message uint64
	file    attachment
	size    int64
	data    []byte
	expires time.Time
}

// createUploadSession answers POST .../attachments/createUploadSession.
func (c *call) createUploadSession(m *message) (*reply, *apiError) {
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	var item *struct {
		Type           string  `json:"@odata.type"`
		AttachmentType string  `json:"attachmentType"`
		Name           string  `json:"name"`
		Size           *int64  `json:"size"`
		ContentType    *string `json:"contentType"`
		IsInline       *bool   `json:"isInline"`
		ContentID      *string `json:"contentId"`
	}
	for k, v := range body {
		if !strings.EqualFold(k, "AttachmentItem") {
			return nil, errBody("the parameter '%s'.", k)
		}
		if strictJSON(v, &item) != nil {
			return nil, errBody("the parameter 'AttachmentItem'.")
		}
	}
	if item == nil || item.Size == nil || item.Name == "" || !strings.EqualFold(item.AttachmentType, "file") {
		return nil, fail(400, "ErrorInvalidRequest", "AttachmentItem needs attachmentType, name and size.")
	}
	if least := c.sim.opts.MinUpload; *item.Size < least {
		return nil, fail(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", "The attachment size should be greater than the minimum size %d.", least)
	}
	if *item.Size > maxUpload {
		return nil, fail(400, "ErrorAttachmentSizeLimitExceeded", "The attachment size exceeds the maximum size %d.", maxUpload)
	}
	if err := c.box.room(); err != nil {
		return nil, err
	}
	now := c.sim.now()
	u := &upload{
		id: newGUID(), token: encodeURL(randomBytes(48)), box: c.box, app: c.token.app.clientID, message: m.num,
		size: *item.Size, expires: now.Add(uploadLife),
		file: attachment{name: item.Name, contentType: "application/octet-stream", modified: now.Unix()},
	}
	if item.ContentType != nil && *item.ContentType != "" {
		u.file.contentType = *item.ContentType
	}
	if item.IsInline != nil {
		u.file.inline = *item.IsInline
	}
	if item.ContentID != nil {
		u.file.contentID = *item.ContentID
	}
	c.sim.dropUploadsLocked(now)
	c.sim.uploads[u.id] = u
	link := c.base + uploadPrefix + "Users('" + url.PathEscape(c.box.user.ID+"@"+c.box.tenant.id) + "')/Messages('" + m.id(c.immutable) +
		"')/AttachmentSessions('" + u.id + "')?authtoken=" + u.token
	return jsonReply(http.StatusCreated, object{
		{"@odata.context", c.base + "/v1.0/$metadata#microsoft.graph.uploadSession"},
		{"uploadUrl", link}, {"expirationDateTime", u.expires.UTC().Format("2006-01-02T15:04:05.9999999Z")}, {"nextExpectedRanges", []string{"0-"}},
	}), nil
}

func (s *Sim) dropUploadsLocked(now time.Time) {
	for id, u := range s.uploads {
		if now.After(u.expires) || len(s.uploads) >= uploadLimit {
			delete(s.uploads, id)
		}
	}
}

// serveUpload answers PUT and DELETE of an upload URL. Others are documented for drives only. Graph: attachment-createuploadsession.
func (s *Sim) serveUpload(w http.ResponseWriter, r *http.Request) {
	requestID := newGUID()
	c := &call{
		sim: s, ctx: r.Context(), method: r.Method, path: r.URL.EscapedPath(), rawQuery: r.URL.RawQuery, header: r.Header,
		base: baseURL(r), requestID: requestID, clientID: nameOr(r.Header.Get("client-request-id"), requestID), start: s.now(),
		template: "/api/v2.0/Users('{u}')/Messages('{m}')/AttachmentSessions('{s}')",
	}
	body, tooLarge, err := readBody(r, s.opts.MaxRequest)
	c.body, c.tooLarge = body, tooLarge
	seg, _ := splitPath(c.path)
	s.mu.Lock()
	if u := s.uploads[lastOf(seg)]; u != nil {
		c.mailboxID = u.box.user.UPN
	}
	s.mu.Unlock()
	p := s.withFaults(c, func() *reply {
		if err != nil && !tooLarge {
			return c.failure(fail(400, "BadRequest", "IO error during request payload read"))
		}
		return s.uploadCall(c, lastOf(seg), r)
	})
	s.record(c, p.status)
	if p.ends != nil {
		p.ends(w)
		return
	}
	p.write(w, c.requestID, c.clientID)
}

func lastOf(seg []string) string {
	if len(seg) == 0 {
		return ""
	}
	return seg[len(seg)-1]
}

func (s *Sim) uploadCall(c *call, id string, r *http.Request) *reply {
	s.mu.Lock()
	u := s.uploads[id]
	if u == nil || r.URL.Query().Get("authtoken") != u.token || s.now().After(u.expires) {
		s.mu.Unlock()
		return c.failure(errItemNotFound())
	}
	if r.Header.Get("Authorization") != "" {
		s.mu.Unlock()
		// The URL holds its own token; a bearer token of Graph is of another audience.
		return c.failure(unauthorized("Access token validation failure. Invalid audience."))
	}
	release, refused := s.admitLocked(limitKey{u.app, strings.ToLower(u.box.user.UPN)}, c.method, int64(len(c.body)))
	s.mu.Unlock()
	if refused != nil {
		return c.failure(refused)
	}
	defer release()
	if !s.wait(c.ctx, s.opts.Latency) {
		return c.failure(fail(504, "UnknownError", ""))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	switch c.method {
	case http.MethodDelete:
		delete(s.uploads, id)
		return emptyReply(http.StatusNoContent)
	case http.MethodPut:
		p, err := s.putLocked(c, u, r)
		if err != nil {
			return c.failure(err)
		}
		return p
	}
	return c.failure(errMethod())
}

// progress answers in capitals and without "-", unlike the first answer.
func (u *upload) progress() *reply {
	return jsonReply(200, object{
		{"@odata.context", "https://outlook.office.com/api/v2.0/$metadata#Users/Messages/AttachmentSessions/$entity"},
		{"ExpirationDateTime", u.expires.UTC().Format("2006-01-02T15:04:05.9999999Z")},
		{"NextExpectedRanges", []string{strconv.Itoa(len(u.data))}},
	})
}

// putLocked takes a chunk; they come in order, each of at most 4 MB.
func (s *Sim) putLocked(c *call, u *upload, r *http.Request) (*reply, *apiError) {
	if c.tooLarge {
		return nil, fail(413, "RequestEntityTooLarge", "The chunk is larger than 4 MB.")
	}
	from, to, total, ok := parseRange(r.Header.Get("Content-Range"))
	if !ok || to-from+1 != int64(len(c.body)) {
		return nil, fail(400, "ErrorInvalidRequest", "Content-Range is missing or does not match Content-Length.")
	}
	if total != u.size || to >= total {
		return nil, fail(400, "ErrorInvalidRequest", "The total size differs from the one the session was made for.")
	}
	if from != int64(len(u.data)) {
		return nil, fail(416, "ErrorInvalidRange", "The range is not the one expected next: %d.", len(u.data))
	}
	m := u.box.messages[u.message]
	if m == nil {
		return nil, errItemNotFound()
	}
	u.data = append(u.data, c.body...)
	if int64(len(u.data)) < u.size {
		return u.progress(), nil
	}
	a := u.file
	a.data = u.data
	a.modified = s.now().Unix()
	u.box.attachLocked(m, &a)
	delete(s.uploads, u.id)
	id := m.attachmentID(&a, true)
	return emptyReply(http.StatusCreated).set("Location", c.base+uploadPrefix+"Users('"+url.PathEscape(u.box.user.ID+"@"+u.box.tenant.id)+
		"')/Messages('"+m.id(true)+"')/Attachments('"+id+"')"), nil
}

// parseRange reads "bytes 0-2097151/3483322".
func parseRange(v string) (from, to, total int64, ok bool) {
	rest, found := strings.CutPrefix(strings.TrimSpace(v), "bytes ")
	span, size, found2 := strings.Cut(rest, "/")
	a, b, found3 := strings.Cut(span, "-")
	if !found || !found2 || !found3 {
		return 0, 0, 0, false
	}
	var err [3]error
	from, err[0] = strconv.ParseInt(a, 10, 64)
	to, err[1] = strconv.ParseInt(b, 10, 64)
	total, err[2] = strconv.ParseInt(size, 10, 64)
	return from, to, total, err == [3]error{} && from >= 0 && to >= from && total > 0
}
