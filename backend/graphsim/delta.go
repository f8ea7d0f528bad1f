package graphsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"
)

// deltaState is what a delta or skip token carries: the options of the first request, and a place in the log. No state is
// kept per client, so tokens can be used again and in any order.
type deltaState struct {
	Box     string   `json:"m"` // the mailbox
	Folder  uint32   `json:"f"` // 0: the folder tree
	Gen     uint32   `json:"g,omitempty"`
	Selects []string `json:"s,omitempty"`
	Filter  string   `json:"w,omitempty"`
	Change  string   `json:"c,omitempty"`
	Top     int      `json:"t,omitempty"`
	Issued  int64    `json:"i"`

	// First round: the log place where it began, and the last row given.
	First    bool   `json:"r,omitempty"`
	Received int64  `json:"a,omitempty"`
	Num      uint64 `json:"n,omitempty"`
	Begun    bool   `json:"b,omitempty"`
	Given    int    `json:"k,omitempty"`

	Log int `json:"l"`
	// Until is the end of the log when a later round began. Its further pages tell of nothing that came after: whether the
	// service's do is not documented, and a client must not count on it.
	Until int `json:"u,omitempty"`
}

// filterLimit is how many messages a delta with a filter gives at most. Graph: delta-query-messages.
const filterLimit = 5000

func (s *Sim) sealToken(st deltaState) string {
	st.Issued = s.now().Unix()
	raw, err := json.Marshal(st)
	if err != nil {
		return "" // a struct of plain fields: cannot happen
	}
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write(raw)
	// Standard base64 with its + / and =: a client that takes links apart and joins them carelessly breaks them, as with the
	// service's own.
	return base64.StdEncoding.EncodeToString(append(mac.Sum(nil)[:9], raw...))
}

func (s *Sim) openToken(tok string) (deltaState, *apiError) {
	var st deltaState
	raw, err := base64.StdEncoding.DecodeString(tok)
	if err != nil || len(raw) < 9 {
		return st, errSyncState()
	}
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write(raw[9:])
	if !hmac.Equal(mac.Sum(nil)[:9], raw[:9]) || json.Unmarshal(raw[9:], &st) != nil {
		return st, errSyncState()
	}
	return st, nil
}

func errSyncState() *apiError {
	return fail(400, "SyncStateInvalid", "The sync state generation is invalid.")
}

// errResync tells the client to start over; Location has an empty token.
func (c *call) errResync() *apiError {
	return fail(http.StatusGone, "SyncStateNotFound", "The sync state generation is not found; a full synchronization is required.").
		with("Location", c.base+c.path+"?$deltatoken=")
}

// beginDelta reads the token or the options of a delta request.
func (c *call) beginDelta(folder uint32, gen uint32, allowed string) (deltaState, *query, *apiError) {
	q, err := parseQuery(c.rawQuery, allowed+" $skiptoken $deltatoken")
	if err != nil {
		return deltaState{}, nil, err
	}
	if c.box.overQuota {
		// Plain lists go on working. Observed, not documented.
		return deltaState{}, nil, errQuota(c.sim.opts.OverQuotaStatus)
	}
	tok := q.skipToken
	if tok == "" {
		tok = q.delta
	}
	if tok == "" || strings.EqualFold(tok, "latest") {
		st := deltaState{
			Box: c.box.user.ID, Folder: folder, Gen: gen, Selects: q.selects, Filter: q.filterRaw, Change: q.change, Top: q.top, First: tok == "",
		}
		return st, q, nil
	}
	st, err := c.sim.openToken(tok)
	if err != nil {
		return st, nil, err
	}
	if st.Folder != folder || st.Box != c.box.user.ID {
		return st, nil, errSyncState()
	}
	if st.Gen != gen || c.sim.opts.DeltaLifetime > 0 && c.sim.now().Sub(time.Unix(st.Issued, 0)) > c.sim.opts.DeltaLifetime {
		return st, nil, c.errResync()
	}
	return st, q, nil
}

// emptyPage reports whether this page is to come empty, which clients must bear.
func (c *call) emptyPage() bool {
	n := c.sim.opts.EmptyPageEvery
	c.sim.deltaPages++
	return n > 0 && c.sim.deltaPages%n == 0
}

func (c *call) deltaReply(kind string, st deltaState, rows []object, done bool) *reply {
	name, link := "$skiptoken", "@odata.nextLink"
	if done {
		name, link = "$deltatoken", "@odata.deltaLink"
	}
	if rows == nil {
		rows = []object{}
	}
	return jsonReply(200, object{
		{"@odata.context", c.base + "/v1.0/$metadata#Collection(" + kind + ")"},
		{link, c.base + c.path + "?" + name + "=" + url.QueryEscape(c.sim.sealToken(st))},
		{"value", rows},
	})
}

// messageDelta answers GET .../mailFolders/{f}/messages/delta. Graph: message-delta, delta-query-messages.
func (c *call) messageDelta(f *folder) (*reply, *apiError) {
	if f == nil {
		return nil, errBadRequest("Change tracking is not supported against 'microsoft.graph.message' without a folder.")
	}
	if strings.Contains(strings.ToLower(c.rawQuery), "expand=") {
		return nil, errBadRequest("The query parameter '$expand' is not supported.")
	}
	st, q, err := c.beginDelta(f.num, f.generation, "$select $filter $orderby $top")
	if err != nil {
		return nil, err
	}
	if len(q.order) > 0 && (len(q.order) > 1 || !strings.EqualFold(q.order[0].prop, "receivedDateTime") || !q.order[0].desc) {
		return nil, errBadRequest("The query parameter '$orderby' is only supported with 'receivedDateTime desc'.")
	}
	sel, err := resolveSelect(st.Selects)
	if err != nil {
		return nil, err
	}
	since, err := deltaFilter(st.Filter)
	if err != nil {
		return nil, err
	}
	size := defaultPage
	if st.Top > 0 {
		size = st.Top
	}
	if c.maxPageSize > 0 {
		size = c.maxPageSize
	}
	size = min(size, maxPage)
	var rows []object
	var done bool
	switch {
	case q.skipToken == "" && q.delta != "" && strings.EqualFold(q.delta, "latest"):
		st.Log, done = len(f.log), true
	case st.First:
		rows, done = c.firstRound(f, &st, sel, since, size)
	default:
		if q.skipToken == "" {
			st.Until = len(f.log)
		}
		rows, done = c.laterRound(f, &st, sel, since, size)
	}
	return c.deltaReply("microsoft.graph.message", st, rows, done), nil
}

// deltaFilter takes receivedDateTime with ge or gt only.
func deltaFilter(raw string) (since int64, err *apiError) {
	if raw == "" {
		return 0, nil
	}
	e, err := parseFilter(raw)
	if err != nil {
		return 0, err
	}
	c, ok := e.(comparison)
	if ok && (c.op == "ge" || c.op == "gt") {
		p, ok := c.left.(propExpr)
		l, ok2 := c.right.(literal)
		if ok && ok2 && strings.EqualFold(string(p), "receivedDateTime") && l.kind == litTime {
			return int64(l.num) + int64(boolInt(c.op == "gt")), nil
		}
	}
	return 0, errBadRequest("The query parameter '$filter' is only supported with 'receivedDateTime ge' and 'receivedDateTime gt'.")
}

// firstRound gives what is in the folder, newest first, by the place of the last row: what is added or removed meanwhile
// shifts nothing. Changes since the beginning come in the next round.
func (c *call) firstRound(f *folder, st *deltaState, sel *selection, since int64, size int) (rows []object, done bool) {
	list := f.messages
	end := len(list)
	if !st.Begun {
		st.Begun, st.Log = true, len(f.log)
	} else {
		end = sort.Search(len(list), func(i int) bool {
			return list[i].received > st.Received || list[i].received == st.Received && list[i].num >= st.Num
		})
		if c.emptyPage() {
			return nil, false
		}
	}
	for end > 0 && len(rows) < size {
		m := list[end-1]
		if m.received < since || since != 0 && st.Given >= filterLimit {
			end = 0
			break
		}
		end--
		st.Received, st.Num = m.received, m.num
		st.Given++
		if st.Change == "" || st.Change == "created" {
			rows = append(rows, c.row(m, sel))
		}
	}
	if end > 0 {
		return rows, false
	}
	st.First, st.Begun, st.Received, st.Num, st.Given = false, false, 0, 0, 0
	return rows, true
}

// laterRound gives what has changed since the token, one row per message and page, as it is now.
func (c *call) laterRound(f *folder, st *deltaState, sel *selection, since int64, size int) (rows []object, done bool) {
	type seen struct {
		props    propSet
		created  bool
		kind     changeKind
		location uint32
	}
	changed := map[uint64]*seen{}
	var order []uint64
	end := min(max(st.Until, 0), len(f.log))
	pos := min(max(st.Log, 0), end)
	if pos < end && c.emptyPage() {
		return nil, false
	}
	for ; pos < end; pos++ {
		ch := f.log[pos]
		s := changed[ch.num]
		if s == nil {
			if len(order) == size {
				break
			}
			s = &seen{}
			changed[ch.num] = s
			order = append(order, ch.num)
		}
		s.props |= ch.props
		s.kind = ch.kind
		s.location = max(s.location, ch.location)
		s.created = s.created || ch.kind == changeCreated
	}
	st.Log = pos
	for _, num := range order {
		s := changed[num]
		m := c.box.messages[num]
		if m == nil || m.folder != f {
			if st.Change != "" && st.Change != "deleted" {
				continue
			}
			reason := "deleted"
			if s.kind == changeMoved {
				reason = "changed"
			}
			id := c.box.formatID(idMessage, itemRef{num: num, immutable: c.immutable, location: s.location})
			rows = append(rows, object{{"@odata.type", "#microsoft.graph.message"}, {"id", id}, {"@removed", object{{"reason", reason}}}})
			continue
		}
		if m.received < since {
			continue
		}
		if s.created {
			if s.location != 0 && !c.immutable && (st.Change == "" || st.Change == "deleted") {
				// Moved out and in again: its classic id of before is gone.
				id := c.box.formatID(idMessage, itemRef{num: num, location: s.location})
				rows = append(rows, object{{"@odata.type", "#microsoft.graph.message"}, {"id", id}, {"@removed", object{{"reason", "deleted"}}}})
			}
			if st.Change == "" || st.Change == "created" {
				rows = append(rows, c.row(m, sel))
			}
			continue
		}
		if st.Change == "" || st.Change == "updated" {
			rows = append(rows, c.partialRow(m, s.props, sel))
		}
	}
	return rows, pos >= end
}

// partialRow has the changed properties and no more: "at least the changed properties" is all that is promised.
func (c *call) partialRow(m *message, props propSet, sel *selection) object {
	part := &selection{}
	for i, p := range messageProps {
		bit := propSet(1) << i
		switch {
		case p.name == "id" || p.name == "parentFolderId" && sel == nil:
		case props&bit == 0 || p.asked:
			continue
		case sel != nil && sel.set&bit == 0:
			continue
		}
		part.props = append(part.props, i)
		part.set |= bit
	}
	return append(object{{"@odata.type", "#microsoft.graph.message"}}, c.row(m, part)...)
}

// folderDelta answers GET /mailFolders/delta: the whole tree, flat; below a folder its subtree.
func (c *call) folderDelta(at *folder, root bool) (*reply, *apiError) {
	b := c.box
	if strings.Contains(strings.ToLower(c.rawQuery), "expand=") {
		return nil, errBadRequest("The query parameter '$expand' is not supported.")
	}
	key := at.num
	if root {
		key = 0
	}
	st, q, err := c.beginDelta(key, at.generation, "$select $top")
	if err != nil {
		return nil, err
	}
	names, err := resolveFolderSelect(st.Selects)
	if err != nil {
		return nil, err
	}
	size := defaultPage
	if st.Top > 0 {
		size = st.Top
	}
	if c.maxPageSize > 0 {
		size = c.maxPageSize
	}
	visible := func(f *folder) bool { return f != b.root && f != at && f.within(at) && !f.underHidden() }
	var rows []object
	done := false
	switch {
	case strings.EqualFold(q.delta, "latest"):
		st.Log, done = len(b.treeLog), true
	case st.First:
		if !st.Begun {
			st.Begun, st.Log = true, len(b.treeLog)
		} else if c.emptyPage() {
			return c.deltaReply("microsoft.graph.mailFolder", st, nil, false), nil
		}
		// By descending number: children before their parents as often as not.
		last := uint32(st.Num)
		if last == 0 {
			last = b.nextDir + 1
		}
		num := last
		for num > 1 && len(rows) < size {
			num--
			if f := b.folders[num]; f != nil && visible(f) {
				rows = append(rows, c.folderRow(f, names, nil))
			}
		}
		st.Num = uint64(num)
		if num <= 1 {
			done = true
			st.First, st.Begun, st.Num = false, false, 0
		}
	default:
		if q.skipToken == "" {
			st.Until = len(b.treeLog)
		}
		end := min(max(st.Until, 0), len(b.treeLog))
		pos := min(max(st.Log, 0), end)
		if pos < end && c.emptyPage() {
			return c.deltaReply("microsoft.graph.mailFolder", st, nil, false), nil
		}
		seen := map[uint32]bool{}
		for ; pos < end; pos++ {
			num := b.treeLog[pos].num
			if seen[num] {
				continue
			}
			if len(rows) >= size {
				break
			}
			seen[num] = true
			switch f := b.folders[num]; {
			case f == nil, f != b.root && f != at && (!f.within(at) || f.underHidden()) && !f.hidden:
				id := b.formatID(idFolder, itemRef{num: uint64(num)})
				rows = append(rows, object{{"id", id}, {"@removed", object{{"reason", "deleted"}}}})
			case visible(f):
				rows = append(rows, c.folderRow(f, names, nil))
			}
		}
		st.Log = pos
		done = pos >= end
	}
	b.treeSeen = max(b.treeSeen, len(b.treeLog))
	return c.deltaReply("microsoft.graph.mailFolder", st, rows, done), nil
}

func (f *folder) underHidden() bool {
	for at := f; at != nil; at = at.parent {
		if at.hidden {
			return true
		}
	}
	return false
}
