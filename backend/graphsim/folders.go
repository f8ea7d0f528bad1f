package graphsim

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// folderOptions are the options of folder lists. $orderby by displayName is all that is kept.
const folderOptions = "$select $expand $filter $orderby $top $skip $count"

var folderProps = []string{"id", "displayName", "parentFolderId", "childFolderCount", "unreadItemCount", "totalItemCount", "isHidden"}

// resolveFolderSelect refuses wellKnownName and sizeInBytes, which are not in v1.0.
func resolveFolderSelect(names []string) ([]string, *apiError) {
	if len(names) == 0 {
		return folderProps, nil
	}
	out := []string{"id"}
next:
	for _, n := range names {
		switch strings.ToLower(n) {
		case "*":
			return folderProps, nil
		case "id", "singlevalueextendedproperties", "childfolders":
			continue
		}
		for _, p := range folderProps {
			if strings.EqualFold(p, n) {
				out = append(out, p)
				continue next
			}
		}
		return nil, errQuery("Could not find a property named '%s' on type 'microsoft.graph.mailFolder'.", n)
	}
	return out, nil
}

func (c *call) folderRow(f *folder, names []string, expand []expansion) object {
	var o object
	if f.search {
		o = append(o, property{"@odata.type", "#microsoft.graph.mailSearchFolder"})
	}
	for _, n := range names {
		o = append(o, property{n, f.get(n)})
	}
	for _, e := range expand {
		if e.name == "singlevalueextendedproperties" {
			if rows := expandSingle(e.ids, f.extValue); rows != nil {
				o = append(o, property{"singleValueExtendedProperties", rows})
			}
		}
	}
	return o
}

func (f *folder) get(name string) any {
	switch name {
	case "id":
		return f.id()
	case "displayName":
		return f.name
	case "parentFolderId":
		if f.parent == nil {
			// The root's parent is outside of what can be reached, but it has an id.
			return f.box.formatID(idFolder, itemRef{num: 1<<32 - 1})
		}
		return f.parent.id()
	case "childFolderCount":
		n := 0
		for _, ch := range f.children {
			n += boolInt(!ch.hidden)
		}
		return n
	case "unreadItemCount":
		return f.unread
	case "totalItemCount":
		return len(f.messages)
	case "isHidden":
		return f.hidden
	}
	return nil
}

// property implements scope.
func (f *folder) property(path string) (value, bool) {
	switch strings.ToLower(path) {
	case "id":
		return value{kind: litString, text: f.id()}, true
	case "displayname":
		return value{kind: litString, text: f.name}, true
	case "parentfolderid":
		return value{kind: litString, text: f.get("parentFolderId").(string)}, true
	case "ishidden":
		return truth(f.hidden), true
	case "totalitemcount":
		return value{kind: litNumber, num: float64(len(f.messages))}, true
	case "unreaditemcount":
		return value{kind: litNumber, num: float64(f.unread)}, true
	case "childfoldercount":
		return value{kind: litNumber, num: float64(len(f.children))}, true
	}
	return value{}, false
}

func (f *folder) collection(string, string, expr) ([]scope, *apiError) { return nil, errFilter() }

// listFolders gives direct children only, ten to a page unless asked otherwise.
func (c *call) listFolders(parent *folder, root bool) (*reply, *apiError) {
	q, err := parseQuery(c.rawQuery, folderOptions)
	if err != nil {
		return nil, err
	}
	names, err := resolveFolderSelect(q.selects)
	if err != nil {
		return nil, err
	}
	var list []*folder
	for _, f := range parent.children {
		if f.hidden && !q.hidden {
			continue
		}
		if q.filter != nil {
			ok, err := q.filter.eval(f)
			if err != nil {
				return nil, err
			}
			if !ok.isTrue() {
				continue
			}
		}
		list = append(list, f)
	}
	size := c.pageSize(q)
	rows := []object{}
	pos := min(q.skip, len(list))
	for ; pos < len(list) && len(rows) < size; pos++ {
		rows = append(rows, c.folderRow(list[pos], names, q.expand))
	}
	kind := "mailFolders"
	if !root {
		kind = "mailFolders('" + parent.id() + "')/childFolders"
	}
	o := object{{"@odata.context", c.context(kind, nil, q)}}
	if q.count {
		o = append(o, property{"@odata.count", len(list)})
	}
	o = append(o, property{"value", rows})
	if pos < len(list) {
		o = append(o, property{"@odata.nextLink", c.base + c.path + "?" + q.link(param{"$skip", strconv.Itoa(pos)})})
	}
	return jsonReply(200, o), nil
}

func (c *call) countFolders(parent *folder) (*reply, *apiError) {
	q, err := parseQuery(c.rawQuery, "$filter")
	if err != nil {
		return nil, err
	}
	n := 0
	for _, f := range parent.children {
		n += boolInt(!f.hidden || q.hidden)
	}
	return (&reply{status: 200, body: []byte(strconv.Itoa(n))}).set("Content-Type", "text/plain"), nil
}

func (c *call) getFolder(f *folder) (*reply, *apiError) {
	q, err := parseQuery(c.rawQuery, "$select $expand")
	if err != nil {
		return nil, err
	}
	names, err := resolveFolderSelect(q.selects)
	if err != nil {
		return nil, err
	}
	return c.folderReply(200, f, names, q.expand), nil
}

func (c *call) folderReply(status int, f *folder, names []string, expand []expansion) *reply {
	o := object{{"@odata.context", c.base + "/v1.0/$metadata#users('" + c.user + "')/mailFolders/$entity"}}
	return jsonReply(status, append(o, c.folderRow(f, names, expand)...))
}

func errFolderExists(status int, name string) *apiError {
	return fail(status, "ErrorFolderExists",
		"A folder with the specified name already exists., Could not create folder '%s'.", name)
}

// taken reports whether a child of that name exists; hidden and search folders count.
func (f *folder) taken(name string, except *folder) bool {
	for _, ch := range f.children {
		if ch != except && strings.EqualFold(ch.name, name) {
			return true
		}
	}
	return false
}

// folderInput is what POST and PATCH of a folder take.
func (c *call) folderInput() (name string, hidden *bool, ext []extInput, err *apiError) {
	body, err := c.jsonBody()
	if err != nil {
		return "", nil, nil, err
	}
	for k, v := range body {
		var jerr error
		switch {
		case strings.HasPrefix(k, "@") || strings.Contains(k, "@odata."):
		case k == "displayName":
			jerr = json.Unmarshal(v, &name)
		case k == "isHidden":
			jerr = json.Unmarshal(v, &hidden)
		case k == "singleValueExtendedProperties":
			if ext, err = parseExtInputs(v, false); err != nil {
				return "", nil, nil, err
			}
		case k == "id" || k == "parentFolderId" || k == "childFolderCount" || k == "unreadItemCount" || k == "totalItemCount":
		default:
			return "", nil, nil, errBody("the property '%s', which does not exist on type 'microsoft.graph.mailFolder'.", k)
		}
		if jerr != nil {
			return "", nil, nil, errBody("the property '%s'.", k)
		}
	}
	return name, hidden, ext, nil
}

func checkFolderName(name string) *apiError {
	if strings.TrimSpace(name) == "" {
		return fail(400, "ErrorInvalidFolderName", "The folder name cannot be empty.")
	}
	if len([]rune(name)) > 255 {
		return fail(400, "ErrorInvalidFolderName", "The folder name is too long.")
	}
	return nil
}

func (c *call) createFolder(parent *folder) (*reply, *apiError) {
	name, hidden, ext, err := c.folderInput()
	if err == nil {
		err = checkFolderName(name)
	}
	if err == nil && parent.taken(name, nil) {
		err = errFolderExists(c.sim.opts.FolderExistsStatus, name)
	}
	if err != nil {
		return nil, err
	}
	f := c.box.newFolderLocked(parent, name)
	f.hidden = hidden != nil && *hidden
	f.setExt(ext)
	return c.folderReply(201, f, folderProps, nil), nil
}

func (f *folder) setExt(list []extInput) {
	for _, in := range list {
		if f.ext == nil {
			f.ext = map[extTag]string{}
		}
		f.ext[in.id.tag] = in.value
	}
}

func (c *call) renameFolder(f *folder) (*reply, *apiError) {
	name, _, ext, err := c.folderInput()
	if err != nil {
		return nil, err
	}
	if err := c.ifMatch(""); err != nil {
		return nil, err
	}
	if name != "" && name != f.name {
		if f.parent == nil || f.known != "" {
			return nil, fail(400, "ErrorInvalidOperation", "A default folder cannot be renamed.")
		}
		if err := checkFolderName(name); err != nil {
			return nil, err
		}
		if f.parent.taken(name, f) {
			return nil, fail(c.sim.opts.FolderExistsStatus, "ErrorFolderExists", "A folder with the specified name already exists.")
		}
		f.name = name
	}
	f.setExt(ext)
	f.countedLocked()
	return c.folderReply(200, f, folderProps, nil), nil
}

// within reports whether f is at, or below, other.
func (f *folder) within(other *folder) bool {
	for at := f; at != nil; at = at.parent {
		if at == other {
			return true
		}
	}
	return false
}

func (f *folder) unlink() {
	p := f.parent
	for i, ch := range p.children {
		if ch == f {
			p.children = append(p.children[:i:i], p.children[i+1:]...)
			break
		}
	}
	p.countedLocked()
	f.parent = nil
}

func (f *folder) linkTo(parent *folder) {
	f.parent = parent
	parent.children = append(parent.children, f)
	parent.countedLocked()
	f.countedLocked()
}

// hasDefault reports whether f or a folder below it is a default one.
func (f *folder) hasDefault() bool {
	if f.known != "" {
		return true
	}
	for _, ch := range f.children {
		if ch.hasDefault() {
			return true
		}
	}
	return false
}

// deleteFolder moves a folder with its content to Deleted Items; from there it goes for good.
func (c *call) deleteFolder(f *folder) (*reply, *apiError) {
	if f.hasDefault() {
		return nil, fail(403, "ErrorDeleteDistinguishedFolder", "Distinguished folders cannot be deleted.")
	}
	trash := c.box.wellKnown["deleteditems"]
	if f.within(trash) {
		c.box.purgeFolderLocked(f)
		return emptyReply(http.StatusNoContent), nil
	}
	f.unlink()
	for base, n := f.name, 1; trash.taken(f.name, nil); n++ {
		f.name = base + strconv.Itoa(n)
	}
	f.linkTo(trash)
	return emptyReply(http.StatusNoContent), nil
}

func (b *mailbox) purgeFolderLocked(f *folder) {
	for len(f.children) > 0 {
		b.purgeFolderLocked(f.children[0])
	}
	for len(f.messages) > 0 {
		b.purgeLocked(f.messages[len(f.messages)-1])
	}
	f.unlink()
	delete(b.folders, f.num)
	b.treeLog = append(b.treeLog, folderChange{num: f.num, removed: true})
}

func (c *call) folderAction(f *folder, action string) (*reply, *apiError) {
	if action == "permanentdelete" {
		if f.hasDefault() {
			return nil, fail(403, "ErrorDeleteDistinguishedFolder", "Distinguished folders cannot be deleted.")
		}
		c.box.purgeFolderLocked(f)
		return emptyReply(http.StatusNoContent), nil
	}
	to, err := c.destination()
	if err != nil {
		return nil, err
	}
	if action == "move" && (f.known != "" || f.parent == nil) {
		return nil, fail(403, "ErrorMoveDistinguishedFolder", "Distinguished folders cannot be moved.")
	}
	if to.within(f) {
		return nil, fail(400, "ErrorMoveCopyFailed", "The move or copy operation failed.")
	}
	if to.taken(f.name, f) || action == "copy" && to.taken(f.name, nil) {
		return nil, fail(c.sim.opts.FolderExistsStatus, "ErrorFolderExists", "A folder with the specified name already exists.")
	}
	if action == "move" {
		f.unlink()
		f.linkTo(to)
		return c.folderReply(200, f, folderProps, nil), nil
	}
	return c.folderReply(200, c.box.copyFolderLocked(f, to), folderProps, nil), nil
}

func (b *mailbox) copyFolderLocked(f, parent *folder) *folder {
	children, messages := f.children, f.messages
	n := b.newFolderLocked(parent, f.name)
	n.hidden = f.hidden
	for _, m := range messages {
		b.copyLocked(m, n)
	}
	for _, ch := range children {
		b.copyFolderLocked(ch, n)
	}
	return n
}

// destination reads {"destinationId": …}; the description spells it with a capital.
func (c *call) destination() (*folder, *apiError) {
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	var id string
	for k, v := range body {
		if !strings.EqualFold(k, "destinationId") {
			return nil, errBody("the parameter '%s'.", k)
		}
		if json.Unmarshal(v, &id) != nil {
			return nil, errBody("the parameter 'destinationId'.")
		}
	}
	if id == "" {
		return nil, fail(400, "ErrorInvalidRequest", "The parameter 'destinationId' is missing.")
	}
	return c.box.folderByID(id)
}
