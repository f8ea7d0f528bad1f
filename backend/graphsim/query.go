package graphsim

import (
	"net/url"
	"strconv"
	"strings"
)

// query holds the OData options of a request.
type query struct {
	params []param // in order, decoded, for making links

	selects   []string
	top       int // 0: not given
	skip      int
	count     bool
	filter    expr
	filterRaw string
	order     []orderKey
	orderRaw  string
	search    string
	hasSearch bool
	expand    []expansion
	hidden    bool
	change    string // changeType of delta
	skipToken string
	delta     string
	hasDelta  bool
}

type param struct{ name, value string }

type orderKey struct {
	prop string
	desc bool
}

// expansion is one item of $expand: attachments, or extended properties by id.
type expansion struct {
	name    string // lower case
	ids     []extID
	selects []string
}

// parseQuery reads the options; one that Graph does not know, or that the endpoint does not take, is refused.
func parseQuery(raw, allowed string) (*query, *apiError) {
	q := &query{}
	seen := map[string]bool{}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		if err1 != nil || err2 != nil {
			return nil, errBadRequest("The request URI is not valid since the segment '%s' is not correctly encoded.", pair)
		}
		q.params = append(q.params, param{name, value})
		key := strings.ToLower(name)
		if seen[key] {
			return nil, errQuery("Query option '%s' was specified more than once, but it must be specified at most once.", name)
		}
		seen[key] = true
		if strings.HasPrefix(key, "$") && !strings.Contains(" "+allowed+" ", " "+key+" ") {
			return nil, errQuery("The query parameter '%s' is not supported.", name)
		}
		if err := q.option(key, value); err != nil {
			return nil, err
		}
	}
	if q.hasSearch && len(q.order) > 0 {
		return nil, fail(400, "SearchWithOrderBy", "The query parameter '$orderBy' is not supported with '$search'.")
	}
	if q.hasSearch && q.filter != nil {
		return nil, fail(400, "SearchWithFilter", "The query parameter '$filter' is not supported with '$search'.")
	}
	return q, q.checkOrder()
}

func (q *query) option(key, value string) *apiError {
	var err *apiError
	switch key {
	case "$select":
		for _, name := range strings.Split(value, ",") {
			if name = strings.TrimSpace(name); name == "" {
				return errQuery("Term '%s' is not valid in a $select or $expand expression.", value)
			}
			q.selects = append(q.selects, name)
		}
	case "$top":
		q.top, err = wholeNumber(key, value)
		if err == nil && (q.top < 1 || q.top > 1000) {
			return errQuery("Invalid value '%s' for $top query option found. The $top query option requires a value between 1 and 1000.", value)
		}
	case "$skip":
		q.skip, err = wholeNumber(key, value)
	case "$count":
		switch strings.ToLower(value) {
		case "true":
			q.count = true
		case "false":
		default:
			return errQuery("Invalid value '%s' for $count query option found. Valid values are 'true' and 'false'.", value)
		}
	case "$filter":
		q.filterRaw = value
		q.filter, err = parseFilter(value)
	case "$orderby":
		q.orderRaw = value
		q.order, err = parseOrder(value)
	case "$search":
		q.search, q.hasSearch = value, true
	case "$expand":
		q.expand, err = parseExpand(value)
	case "$skiptoken":
		q.skipToken = value
	case "$deltatoken":
		q.delta, q.hasDelta = value, true
	case "includehiddenfolders", "includehiddenmessages":
		q.hidden = strings.EqualFold(value, "true")
	case "changetype":
		switch strings.ToLower(value) {
		case "created", "updated", "deleted":
			q.change = strings.ToLower(value)
		default:
			return errBadRequest("The value '%s' of changeType is not valid.", value)
		}
	case "select", "filter", "top", "skip", "orderby", "expand", "search":
		return errQuery("The query parameter '%s' is not supported: write '$%s'.", key, key)
	}
	return err
}

func wholeNumber(key, value string) (int, *apiError) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return 0, errQuery("Invalid value '%s' for %s query option found. The %s query option requires a non-negative integer value.", value, key, key)
	}
	return n, nil
}

func parseOrder(value string) ([]orderKey, *apiError) {
	var keys []orderKey
	for _, item := range strings.Split(value, ",") {
		f := strings.Fields(item)
		if len(f) == 0 || len(f) > 2 {
			return nil, errQuery("Syntax error in $orderby '%s'.", value)
		}
		k := orderKey{prop: f[0]}
		if len(f) == 2 {
			switch strings.ToLower(f[1]) {
			case "desc":
				k.desc = true
			case "asc":
			default:
				return nil, errQuery("Syntax error in $orderby '%s'.", value)
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// checkOrder keeps the rule that what is sorted by must be filtered by first. Graph: user-list-messages.
func (q *query) checkOrder() *apiError {
	if q.filter == nil || len(q.order) == 0 {
		return nil
	}
	props := q.filter.props(nil)
	for i, k := range q.order {
		if i >= len(props) || !strings.EqualFold(props[i], k.prop) {
			return fail(400, "InefficientFilter", "The restriction or sort order is too complex for this operation.")
		}
	}
	return nil
}

// parseExpand reads $expand: attachments and extended properties, with their own options in parentheses.
func parseExpand(value string) ([]expansion, *apiError) {
	var list []expansion
	for _, item := range splitTop(value, ',') {
		item = strings.TrimSpace(item)
		name, inner, has := strings.Cut(item, "(")
		e := expansion{name: strings.ToLower(strings.TrimSpace(name))}
		if has {
			if !strings.HasSuffix(inner, ")") {
				return nil, errQuery("Syntax error in $expand '%s'.", value)
			}
			inner = strings.TrimSuffix(inner, ")")
		}
		for _, opt := range splitTop(inner, ';') {
			if opt = strings.TrimSpace(opt); opt == "" {
				continue
			}
			k, v, _ := strings.Cut(opt, "=")
			switch strings.ToLower(strings.TrimSpace(k)) {
			case "$filter":
				ids, err := parseIDFilter(v)
				if err != nil {
					return nil, err
				}
				e.ids = ids
			case "$select":
				for _, s := range strings.Split(v, ",") {
					e.selects = append(e.selects, strings.TrimSpace(s))
				}
			default:
				return nil, errQuery("The query option '%s' is not supported in $expand.", k)
			}
		}
		switch e.name {
		case "attachments":
		case "singlevalueextendedproperties", "multivalueextendedproperties":
			if len(e.ids) == 0 {
				return nil, fail(400, "ErrorInvalidProperty", "An extended property expansion needs a $filter on id.")
			}
		default:
			return nil, errQuery("Could not find a property named '%s' on type 'microsoft.graph.message'.", name)
		}
		list = append(list, e)
	}
	return list, nil
}

// splitTop splits at sep outside of parentheses and quotes.
func splitTop(s string, sep byte) []string {
	var out []string
	depth, quoted, start := 0, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == sep && depth == 0:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// parseIDFilter reads "id eq 'Integer 0x0E08' or id eq 'String 0x007D'".
func parseIDFilter(v string) ([]extID, *apiError) {
	e, err := parseFilter(v)
	if err != nil {
		return nil, err
	}
	var ids []extID
	var walk func(e expr) *apiError
	walk = func(e expr) *apiError {
		switch e := e.(type) {
		case logical:
			if !e.or {
				break
			}
			if err := walk(e.a); err != nil {
				return err
			}
			return walk(e.b)
		case comparison:
			p, ok := e.left.(propExpr)
			lit, ok2 := e.right.(literal)
			if !ok || !ok2 || e.op != "eq" || !strings.EqualFold(string(p), "id") || lit.kind != litString {
				break
			}
			id, err := parseExtID(lit.text)
			if err != nil {
				return err
			}
			ids = append(ids, id)
			return nil
		}
		return fail(400, "ErrorInvalidUrlQueryFilter", "The query filter contains one or more invalid nodes.")
	}
	return ids, walk(e)
}

// link writes the request's own options again with changes; an empty value drops the option.
func (q *query) link(changes ...param) string {
	var b strings.Builder
	write := func(p param) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(p.name) + "=" + url.QueryEscape(p.value))
	}
next:
	for _, p := range q.params {
		for _, ch := range changes {
			if strings.EqualFold(p.name, ch.name) {
				continue next
			}
		}
		write(p)
	}
	for _, ch := range changes {
		if ch.value != "" {
			write(ch)
		}
	}
	return b.String()
}
