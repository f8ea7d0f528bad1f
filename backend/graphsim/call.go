package graphsim

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// call is one Graph request: on its own, or an item of a batch.
type call struct {
	sim       *Sim
	ctx       context.Context
	method    string
	path      string // escaped, from / on, as the client wrote it
	rawQuery  string
	header    http.Header
	body      []byte
	base      string // scheme and host
	requestID string
	clientID  string
	start     time.Time
	tooLarge  bool
	noLength  bool
	inBatch   bool

	// Found on the way.
	segments    []string
	template    string
	token       *accessToken
	user        string // as the client wrote it
	mailboxID   string // UPN, for the log
	box         *mailbox
	immutable   bool
	maxPageSize int
	bodyType    string // text, html or ""
	preferences []string
}

// splitPath takes a path apart: /users('x')/mailFolders/y gives users, x, mailFolders, y.
func splitPath(escaped string) ([]string, *apiError) {
	var out []string
	for _, piece := range strings.Split(strings.Trim(escaped, "/"), "/") {
		s, err := url.PathUnescape(piece)
		if err != nil {
			return nil, errBadRequest("The request URI is not valid since the segment '%s' is not correctly encoded.", piece)
		}
		if name, key, ok := strings.Cut(s, "('"); ok && strings.HasSuffix(key, "')") && name != "" {
			out = append(out, name, strings.ReplaceAll(key[:len(key)-2], "''", "'"))
			continue
		}
		out = append(out, strings.TrimSuffix(s, "()"))
	}
	return out, nil
}

// handle runs a call and records it.
func (s *Sim) handle(c *call) *reply {
	segs, perr := splitPath(c.path)
	if perr == nil {
		c.segments = segs
		c.template = templateOf(segs)
		if len(segs) > 2 && strings.EqualFold(segs[1], "users") {
			c.user = segs[2]
			c.mailboxID = segs[2]
		}
	}
	p := s.withFaults(c, func() *reply {
		if perr != nil {
			return c.failure(perr)
		}
		release, refused := s.admit(c)
		if refused != nil {
			return c.failure(refused)
		}
		defer release()
		if !s.wait(c.ctx, s.opts.Latency) {
			return c.failure(fail(504, "UnknownError", ""))
		}
		return s.perform(c)
	})
	s.record(c, p.status)
	return p
}

// wait lets latency pass; false when the client went away.
func (s *Sim) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// perform does the work of a call under the lock.
func (s *Sim) perform(c *call) *reply {
	if isBatch(c.segments) {
		return s.batch(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	p, err := c.dispatch()
	if err != nil {
		return c.failure(err)
	}
	if len(c.preferences) > 0 && p.status < 300 {
		p.set("Preference-Applied", strings.Join(c.preferences, ", "))
	}
	return p
}

// dispatch checks what all calls have in common and finds the handler.
func (c *call) dispatch() (*reply, *apiError) {
	seg := c.segments
	if len(seg) == 0 || seg[0] != "v1.0" && seg[0] != "beta" {
		return nil, fail(400, "BadRequest", "Invalid version: %s", strings.Join(seg[:min(1, len(seg))], ""))
	}
	if err := c.sim.authenticateLocked(c); err != nil {
		return nil, err
	}
	if c.tooLarge {
		return nil, fail(413, "RequestEntityTooLarge", "The request body is too large. The maximum size is %d bytes.", c.sim.opts.MaxRequest)
	}
	if c.noLength {
		return nil, fail(411, "LengthRequired", "A message body or Content-Length header is required.")
	}
	c.parsePrefer()
	if seg[0] == "beta" {
		return c.beta(seg[1:])
	}
	seg = seg[1:]
	if len(seg) > 0 && strings.HasPrefix(seg[0], "applications(") {
		return c.application(seg)
	}
	if len(seg) == 0 || seg[0] == "" {
		return nil, errSegment("")
	}
	switch strings.ToLower(seg[0]) {
	case "users":
		return c.users(seg[1:])
	case "me":
		return nil, errBadRequest("/me request is only valid with delegated authentication flow.")
	case "subscriptions":
		return c.subscriptions(seg[1:])
	}
	return nil, errSegment(seg[0])
}

// beta has only what is used of it: importMime. Everything else of beta is left out on purpose.
func (c *call) beta(seg []string) (*reply, *apiError) {
	if len(seg) == 5 && strings.EqualFold(seg[0], "users") && strings.EqualFold(seg[2], "mailFolders") &&
		strings.EqualFold(seg[4], "importMime") && c.method == http.MethodPost {
		if err := c.openMailbox(seg[1], []string{"Mail-Advanced.ReadWrite.All", "Mail-Advanced.ReadWrite"}); err != nil {
			return nil, err
		}
		f, err := c.box.folderByID(seg[3])
		if err != nil {
			return nil, err
		}
		return c.importMIME(f)
	}
	return nil, errSegment(strings.Join(seg, "/"))
}

// parsePrefer reads the Prefer header: several preferences, comma-separated, in one or more lines.
func (c *call) parsePrefer() {
	for _, line := range c.header.Values("Prefer") {
		for _, p := range strings.Split(line, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
			v = strings.Trim(strings.TrimSpace(v), `"`)
			switch strings.ToLower(strings.TrimSpace(k)) {
			case "idtype":
				if strings.EqualFold(v, "ImmutableId") {
					c.immutable = true
					c.preferences = append(c.preferences, `IdType="ImmutableId"`)
				}
			case "odata.maxpagesize", "maxpagesize":
				if n, err := strconv.Atoi(v); err == nil && n > 0 {
					c.maxPageSize = n
					c.preferences = append(c.preferences, "odata.maxpagesize="+v)
				}
			case "outlook.body-content-type":
				if v = strings.ToLower(v); v == "text" || v == "html" {
					c.bodyType = v
					c.preferences = append(c.preferences, `outlook.body-content-type="`+v+`"`)
				}
			}
		}
	}
}

// users routes /users/{u}/….
func (c *call) users(seg []string) (*reply, *apiError) {
	if len(seg) <= 1 {
		return c.directory(seg)
	}
	rest := seg[1:]
	roles := c.rolesFor(rest)
	if roles == nil {
		return nil, errSegment(rest[0])
	}
	if err := c.openMailbox(seg[0], roles); err != nil {
		return nil, err
	}
	switch strings.ToLower(rest[0]) {
	case "messages":
		return c.messages(nil, rest[1:])
	case "mailfolders":
		return c.folders(nil, rest[1:])
	case "sendmail", "microsoft.graph.sendmail":
		if len(rest) > 1 {
			return nil, errSegment(rest[1])
		}
		if c.method != http.MethodPost {
			return nil, errMethod()
		}
		return c.sendMail()
	case "translateexchangeids", "microsoft.graph.translateexchangeids":
		if c.method != http.MethodPost {
			return nil, errMethod()
		}
		return c.translateIDs()
	}
	return nil, errSegment(rest[0])
}

// rolesFor says which permissions a call needs, nil for one there is not.
func (c *call) rolesFor(rest []string) []string {
	switch strings.ToLower(rest[0]) {
	case "sendmail", "microsoft.graph.sendmail":
		return maySend
	case "translateexchangeids", "microsoft.graph.translateexchangeids":
		return []string{"User.Read.All", "Mail.ReadWrite", "Mail.Read"}
	case "messages", "mailfolders":
		switch last := actionName(rest[len(rest)-1]); {
		case c.method == http.MethodGet:
			return mayRead
		case last == "send" || last == "reply" || last == "replyall" || last == "forward":
			return maySend
		}
		return mayWrite
	}
	return nil
}

func actionName(s string) string { return strings.TrimPrefix(strings.ToLower(s), "microsoft.graph.") }

// messages routes what follows /messages, below a folder or the mailbox itself (f is nil).
func (c *call) messages(f *folder, seg []string) (*reply, *apiError) {
	if len(seg) == 0 {
		switch c.method {
		case http.MethodGet:
			return c.listMessages(f)
		case http.MethodPost:
			return c.createMessage(f)
		}
		return nil, errMethod()
	}
	switch actionName(seg[0]) {
	case "$count":
		return c.countMessages(f)
	case "delta":
		if c.method != http.MethodGet {
			return nil, errMethod()
		}
		return c.messageDelta(f)
	}
	m, err := c.box.messageByID(seg[0])
	if err != nil {
		return nil, err
	}
	if f != nil && m.folder != f {
		return nil, errItemNotFound()
	}
	if len(seg) == 1 {
		switch c.method {
		case http.MethodGet:
			return c.getMessage(m)
		case http.MethodPatch:
			return c.updateMessage(m)
		case http.MethodDelete:
			return c.deleteMessage(m)
		}
		return nil, errMethod()
	}
	if strings.EqualFold(seg[1], "attachments") {
		return c.attachments(m, seg[2:])
	}
	if len(seg) > 2 {
		return nil, errSegment(seg[2])
	}
	action := actionName(seg[1])
	if action == "$value" {
		if c.method != http.MethodGet {
			return nil, errMethod()
		}
		return c.messageValue(m), nil
	}
	var run func(*message) (*reply, *apiError)
	switch action {
	case "move":
		run = c.moveMessage
	case "copy":
		run = c.copyMessage
	case "permanentdelete":
		run = c.purgeMessage
	case "send":
		run = c.sendDraft
	case "reply", "replyall", "forward", "createreply", "createreplyall", "createforward":
		run = func(m *message) (*reply, *apiError) { return c.respond(m, action) }
	default:
		return nil, errSegment(seg[1])
	}
	if c.method != http.MethodPost {
		return nil, errMethod()
	}
	return run(m)
}

// folders routes what follows /mailFolders or /childFolders of parent (nil: the root's).
func (c *call) folders(parent *folder, seg []string) (*reply, *apiError) {
	at := parent
	if at == nil {
		at = c.box.root
	}
	if len(seg) == 0 {
		switch c.method {
		case http.MethodGet:
			return c.listFolders(at, parent == nil)
		case http.MethodPost:
			return c.createFolder(at)
		}
		return nil, errMethod()
	}
	switch actionName(seg[0]) {
	case "$count":
		return c.countFolders(at)
	case "delta":
		if c.method != http.MethodGet {
			return nil, errMethod()
		}
		return c.folderDelta(at, parent == nil)
	}
	f, err := c.box.folderByID(seg[0])
	if err != nil {
		if len(seg) == 3 && actionName(seg[2]) == "delta" && err.status == 404 {
			err = fail(404, "ErrorSyncFolderNotFound", "The folder to be synchronized could not be found.")
		}
		return nil, err
	}
	if parent != nil && f.parent != parent {
		return nil, errFolderNotFound()
	}
	if len(seg) == 1 {
		switch c.method {
		case http.MethodGet:
			return c.getFolder(f)
		case http.MethodPatch:
			return c.renameFolder(f)
		case http.MethodDelete:
			return c.deleteFolder(f)
		}
		return nil, errMethod()
	}
	switch action := actionName(seg[1]); action {
	case "messages":
		return c.messages(f, seg[2:])
	case "childfolders":
		return c.folders(f, seg[2:])
	case "move", "copy", "permanentdelete":
		if c.method != http.MethodPost {
			return nil, errMethod()
		}
		return c.folderAction(f, action)
	}
	return nil, errSegment(seg[1])
}

// templateOf is the path with the ids replaced, for counters: /v1.0/users/{u}/mailFolders/{f}/messages/{m}/$value.
func templateOf(segs []string) string {
	var b strings.Builder
	prev := ""
	for _, s := range segs {
		b.WriteByte('/')
		switch low := actionName(s); {
		case prev == "users":
			b.WriteString("{u}")
		case low == "$count" || low == "delta":
			b.WriteString(low)
		case prev == "mailfolders" || prev == "childfolders":
			b.WriteString("{f}")
		case prev == "messages":
			b.WriteString("{m}")
		case prev == "attachments" && low != "createuploadsession":
			b.WriteString("{a}")
		case prev == "subscriptions":
			b.WriteString("{s}")
		default:
			if canon, ok := canonical[low]; ok {
				s = canon
			}
			b.WriteString(s)
			prev = low
			continue
		}
		prev = ""
	}
	return b.String()
}

// canonical spells segments the way the documentation does; their case does not matter in requests.
var canonical = map[string]string{
	"users": "users", "mailfolders": "mailFolders", "childfolders": "childFolders", "messages": "messages",
	"attachments": "attachments", "sendmail": "sendMail", "createuploadsession": "createUploadSession", "move": "move",
	"copy": "copy", "send": "send", "permanentdelete": "permanentDelete", "translateexchangeids": "translateExchangeIds",
	"reply": "reply", "replyall": "replyAll", "forward": "forward", "createreply": "createReply",
	"createreplyall": "createReplyAll", "createforward": "createForward", "subscriptions": "subscriptions",
	"importmime": "importMime",
}
