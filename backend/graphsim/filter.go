package graphsim

import (
	"strconv"
	"strings"
	"time"
)

// The part of OData's filter language that mail clients use. OData 4.0 part 2, section 5.1.1.

// value is what an expression gives: nothing, a text, a number (of seconds for times), or a truth value.
type value struct {
	kind valueKind
	text string
	num  float64
}

type valueKind uint8

const (
	litNull valueKind = iota
	litString
	litNumber
	litTime
	litBool
)

// scope gives the properties of the thing that is filtered.
type scope interface {
	// property returns the value at a path such as from/emailAddress/address; false when there is no such property.
	property(path string) (value, bool)
	// collection gives a scope per element for any(); the expression is there because extended properties are found by it.
	collection(path string, variable string, body expr) ([]scope, *apiError)
}

type expr interface {
	eval(s scope) (value, *apiError)
	// props appends the names of the properties used, in order, each once.
	props(list []string) []string
}

type literal value

type propExpr string

type logical struct {
	or   bool
	a, b expr
}

type negation struct{ e expr }

type comparison struct {
	op          string
	left, right expr
}

type function struct {
	name string
	args []expr
}

type lambda struct {
	path, variable string
	body           expr
	all            bool
}

func errFilter() *apiError {
	return fail(400, "ErrorInvalidUrlQueryFilter", "The query filter contains one or more invalid nodes.")
}

func (l literal) eval(scope) (value, *apiError) { return value(l), nil }
func (l literal) props(list []string) []string  { return list }

func (p propExpr) eval(s scope) (value, *apiError) {
	v, ok := s.property(string(p))
	if !ok {
		return value{}, errQuery("Could not find a property named '%s' on type 'microsoft.graph.message'.", string(p))
	}
	return v, nil
}

func (p propExpr) props(list []string) []string {
	for _, have := range list {
		if strings.EqualFold(have, string(p)) {
			return list
		}
	}
	return append(list, string(p))
}

func truth(b bool) value {
	if b {
		return value{kind: litBool, num: 1}
	}
	return value{kind: litBool}
}

func (v value) isTrue() bool { return v.kind == litBool && v.num != 0 }

func (l logical) eval(s scope) (value, *apiError) {
	a, err := l.a.eval(s)
	if err != nil || a.isTrue() == l.or {
		return truth(a.isTrue()), err
	}
	b, err := l.b.eval(s)
	return truth(b.isTrue()), err
}

func (l logical) props(list []string) []string { return l.b.props(l.a.props(list)) }

func (n negation) eval(s scope) (value, *apiError) {
	v, err := n.e.eval(s)
	return truth(!v.isTrue()), err
}

func (n negation) props(list []string) []string { return n.e.props(list) }

func (c comparison) eval(s scope) (value, *apiError) {
	a, err := c.left.eval(s)
	if err != nil {
		return a, err
	}
	b, err := c.right.eval(s)
	if err != nil {
		return b, err
	}
	if a.kind == litNull || b.kind == litNull {
		same := a.kind == b.kind
		return truth(c.op == "eq" && same || c.op == "ne" && !same), nil
	}
	if a.kind != b.kind {
		return value{}, errQuery("A binary operator with incompatible types was detected for operator kind '%s'.", c.op)
	}
	var sign int
	if a.kind == litString {
		sign = strings.Compare(strings.ToLower(a.text), strings.ToLower(b.text))
	} else if a.num < b.num {
		sign = -1
	} else if a.num > b.num {
		sign = 1
	}
	switch c.op {
	case "eq":
		return truth(sign == 0), nil
	case "ne":
		return truth(sign != 0), nil
	case "gt":
		return truth(sign > 0), nil
	case "ge":
		return truth(sign >= 0), nil
	case "lt":
		return truth(sign < 0), nil
	}
	return truth(sign <= 0), nil
}

func (c comparison) props(list []string) []string { return c.right.props(c.left.props(list)) }

func (f function) eval(s scope) (value, *apiError) {
	var v []value
	for _, a := range f.args {
		x, err := a.eval(s)
		if err != nil {
			return x, err
		}
		v = append(v, x)
	}
	switch f.name {
	case "contains", "startswith", "endswith":
		if v[0].kind == litNull {
			return truth(false), nil
		}
		if v[0].kind != litString || v[1].kind != litString {
			return value{}, errFilter()
		}
		a, b := strings.ToLower(v[0].text), strings.ToLower(v[1].text)
		switch f.name {
		case "contains":
			return truth(strings.Contains(a, b)), nil
		case "startswith":
			return truth(strings.HasPrefix(a, b)), nil
		}
		return truth(strings.HasSuffix(a, b)), nil
	case "tolower":
		return value{kind: v[0].kind, text: strings.ToLower(v[0].text)}, nil
	case "toupper":
		return value{kind: v[0].kind, text: strings.ToUpper(v[0].text)}, nil
	}
	// cast(value, Edm.X): the second argument is a type name.
	if v[0].kind == litNull {
		return v[0], nil
	}
	switch v[1].text {
	case "Edm.Int16", "Edm.Int32", "Edm.Int64", "Edm.Double":
		n, err := strconv.ParseFloat(v[0].text, 64)
		if err != nil {
			return value{}, nil
		}
		return value{kind: litNumber, num: n}, nil
	case "Edm.DateTimeOffset":
		if t, err := time.Parse(time.RFC3339, v[0].text); err == nil {
			return value{kind: litTime, num: float64(t.Unix())}, nil
		}
		return value{}, nil
	case "Edm.Boolean":
		return truth(strings.EqualFold(v[0].text, "true")), nil
	}
	return v[0], nil
}

func (f function) props(list []string) []string {
	for _, a := range f.args {
		list = a.props(list)
	}
	return list
}

func (l lambda) eval(s scope) (value, *apiError) {
	items, err := s.collection(l.path, l.variable, l.body)
	if err != nil {
		return value{}, err
	}
	for _, item := range items {
		v, err := l.body.eval(item)
		if err != nil {
			return v, err
		}
		if v.isTrue() != l.all {
			return truth(!l.all), nil
		}
	}
	return truth(l.all), nil
}

func (l lambda) props(list []string) []string { return propExpr(l.path).props(list) }

// filterParser is a recursive-descent parser over tokens.
type filterParser struct {
	toks  []filterToken
	pos   int
	depth int
}

type filterToken struct {
	kind byte // 'n' name, 's' string, '#' number or date, or the sign itself
	text string
}

func parseFilter(s string) (expr, *apiError) {
	toks, err := lexFilter(s)
	if err != nil {
		return nil, err
	}
	p := &filterParser{toks: toks}
	e, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.pos != len(p.toks) {
		return nil, errQuery("Syntax error at position %d in '%s'.", p.pos, s)
	}
	return e, nil
}

func lexFilter(s string) ([]filterToken, *apiError) {
	var toks []filterToken
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t':
			i++
		case c == '(' || c == ')' || c == ',' || c == ':':
			toks = append(toks, filterToken{c, string(c)})
			i++
		case c == '\'':
			var b strings.Builder
			i++
			closed := false
			for i < len(s) {
				if s[i] == '\'' {
					if i+1 < len(s) && s[i+1] == '\'' { // a quote is doubled
						b.WriteByte('\'')
						i += 2
						continue
					}
					closed = true
					i++
					break
				}
				b.WriteByte(s[i])
				i++
			}
			if !closed {
				return nil, errQuery("There is an unterminated string literal at position %d in '%s'.", i, s)
			}
			toks = append(toks, filterToken{'s', b.String()})
		case c >= '0' && c <= '9' || c == '-' || c == '+':
			j := i + 1
			for j < len(s) && !strings.ContainsRune(" \t(),", rune(s[j])) {
				j++
			}
			toks = append(toks, filterToken{'#', s[i:j]})
			i = j
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '@':
			j := i + 1
			for j < len(s) && (s[j] >= 'a' && s[j] <= 'z' || s[j] >= 'A' && s[j] <= 'Z' || s[j] >= '0' && s[j] <= '9' || strings.IndexByte("_/.@$", s[j]) >= 0) {
				j++
			}
			toks = append(toks, filterToken{'n', s[i:j]})
			i = j
		default:
			return nil, errQuery("Syntax error: character '%c' is not valid at position %d in '%s'.", c, i, s)
		}
	}
	return toks, nil
}

func (p *filterParser) peek() filterToken {
	if p.pos < len(p.toks) {
		return p.toks[p.pos]
	}
	return filterToken{}
}

func (p *filterParser) word(w string) bool {
	if t := p.peek(); t.kind == 'n' && t.text == w {
		p.pos++
		return true
	}
	return false
}

func (p *filterParser) sign(c byte) bool {
	if p.peek().kind == c {
		p.pos++
		return true
	}
	return false
}

func (p *filterParser) or() (expr, *apiError) {
	if p.depth++; p.depth > 100 {
		return nil, fail(400, "ErrorRestrictionTooComplex", "The restriction is too complex.")
	}
	defer func() { p.depth-- }()
	a, err := p.and()
	for err == nil && p.word("or") {
		var b expr
		b, err = p.and()
		a = logical{or: true, a: a, b: b}
	}
	return a, err
}

func (p *filterParser) and() (expr, *apiError) {
	a, err := p.not()
	for err == nil && p.word("and") {
		var b expr
		b, err = p.not()
		a = logical{a: a, b: b}
	}
	return a, err
}

func (p *filterParser) not() (expr, *apiError) {
	if p.word("not") {
		if p.depth++; p.depth > 100 {
			return nil, fail(400, "ErrorRestrictionTooComplex", "The restriction is too complex.")
		}
		defer func() { p.depth-- }()
		e, err := p.not()
		return negation{e}, err
	}
	return p.compare()
}

func (p *filterParser) compare() (expr, *apiError) {
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	if t.kind != 'n' {
		return left, nil
	}
	switch t.text {
	case "eq", "ne", "gt", "ge", "lt", "le":
		p.pos++
		right, err := p.operand()
		return comparison{t.text, left, right}, err
	}
	return left, nil
}

func (p *filterParser) operand() (expr, *apiError) {
	t := p.peek()
	p.pos++
	switch t.kind {
	case '(':
		e, err := p.or()
		if err == nil && !p.sign(')') {
			err = errQuery("Syntax error: ')' expected.")
		}
		return e, err
	case 's':
		return literal{kind: litString, text: t.text}, nil
	case '#':
		if n, err := strconv.ParseFloat(t.text, 64); err == nil {
			return literal{kind: litNumber, num: n, text: t.text}, nil
		}
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02"} {
			if at, err := time.Parse(layout, t.text); err == nil {
				return literal{kind: litTime, num: float64(at.UnixMilli()) / 1000}, nil
			}
		}
		return nil, errQuery("Unrecognized literal '%s'.", t.text)
	case 'n':
		switch t.text {
		case "true", "false":
			return literal(truth(t.text == "true")), nil
		case "null":
			return literal{}, nil
		}
		if p.sign('(') {
			return p.call(t.text)
		}
		if strings.HasPrefix(t.text, "Edm.") {
			return literal{kind: litString, text: t.text}, nil
		}
		return propExpr(t.text), nil
	}
	return nil, errQuery("Syntax error: an expression was expected.")
}

// call parses what follows name( : a function, or any and all over a collection.
func (p *filterParser) call(name string) (expr, *apiError) {
	lower := strings.ToLower(name)
	if path, kind, ok := cutLast(lower, "/"); ok && (kind == "any" || kind == "all") {
		v := p.peek()
		if v.kind == ')' {
			return nil, errFilter()
		}
		p.pos++
		if v.kind != 'n' || !p.sign(':') {
			return nil, errQuery("Syntax error in '%s'.", name)
		}
		body, err := p.or()
		if err == nil && !p.sign(')') {
			err = errQuery("Syntax error: ')' expected.")
		}
		return lambda{path: name[:len(path)], variable: v.text, body: body, all: kind == "all"}, err
	}
	f := function{name: lower}
	for {
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		f.args = append(f.args, e)
		if !p.sign(',') {
			break
		}
	}
	if !p.sign(')') {
		return nil, errQuery("Syntax error: ')' expected.")
	}
	want := map[string]int{"contains": 2, "startswith": 2, "endswith": 2, "cast": 2, "tolower": 1, "toupper": 1}[lower]
	if want == 0 || want != len(f.args) {
		return nil, errQuery("An unknown function with name '%s' was found.", name)
	}
	return f, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
