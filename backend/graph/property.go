package graph

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// PropertyID names an extended (MAPI) property. It is the parsed form, so ids compare equal with == however they were
// spelt: Graph answers "Integer 0xe08" to a question for "Integer 0x0E08" (observed, not documented).
// Graph: extended-properties-overview.
type PropertyID struct {
	Type string // in Graph's spelling: Integer, String, SystemTime, ...
	Tag  uint32 // of an untagged-set property, or the number of a named one when Set is given and Name is not
	Set  string // property set as {lower-case guid}, empty for tagged properties
	Name string // of a named property
}

// Properties that a mail bridge needs. Types matter: the answer has the type that was asked for.
var (
	PropSize             = PropertyID{Type: "Integer", Tag: 0x0E08}    // the store's size, not that of the MIME
	PropFolderSize       = PropertyID{Type: "Long", Tag: 0x0E08}       // of a folder: what its messages take, those of folders below not
	PropFlags            = PropertyID{Type: "Integer", Tag: 0x0E07}    // 1 read, 4 submitted, 8 unsent; MS-OXCMSG
	PropLastVerb         = PropertyID{Type: "Integer", Tag: 0x1081}    // 102 replied, 103 to all, 104 forwarded
	PropIcon             = PropertyID{Type: "Integer", Tag: 0x1080}    // 261 replied, 262 forwarded
	PropTransportHeaders = PropertyID{Type: "String", Tag: 0x007D}     // header of received mail
	PropMessageClass     = PropertyID{Type: "String", Tag: 0x001A}     // IPM.Note
	PropDeliveryTime     = PropertyID{Type: "SystemTime", Tag: 0x0E06} // gives receivedDateTime at creation
	PropSubmitTime       = PropertyID{Type: "SystemTime", Tag: 0x0039} // gives sentDateTime at creation
	PropReferences       = PropertyID{Type: "String", Tag: 0x1039}
	PropInReplyTo        = PropertyID{Type: "String", Tag: 0x1042}
)

// InternetHeader returns the id under which Exchange keeps a header field of the name.
func InternetHeader(name string) PropertyID {
	return PropertyID{Type: "String", Set: "{00020386-0000-0000-c000-000000000046}", Name: name}
}

// propertyTypes holds Graph's spellings by their lower-case form.
var propertyTypes = func() map[string]string {
	m := make(map[string]string)
	for _, t := range []string{"Integer", "Long", "Short", "Boolean", "Double", "Float", "Currency", "ApplicationTime",
		"String", "SystemTime", "Binary", "CLSID", "Object", "Null", "Error"} {
		m[strings.ToLower(t)] = t
		m[strings.ToLower(t)+"array"] = t + "Array"
	}
	return m
}()

// ParsePropertyID reads "{type} {tag}", "{type} {guid} Name {name}" and "{type} {guid} Id {number}" in any case and with
// or without leading zeros.
func ParsePropertyID(s string) (PropertyID, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	typ, ok := propertyTypes[strings.ToLower(kind)]
	if !ok {
		return PropertyID{}, fmt.Errorf("property id %.80q: unknown type", s)
	}
	rest = strings.TrimSpace(rest)
	guid, rest2, more := strings.Cut(rest, " ")
	if !more {
		tag, err := parseTag(rest)
		if err != nil {
			return PropertyID{}, fmt.Errorf("property id %.80q: %w", s, err)
		}
		return PropertyID{Type: typ, Tag: tag}, nil
	}
	set, err := parseGUID(guid)
	if err != nil {
		return PropertyID{}, fmt.Errorf("property id %.80q: %w", s, err)
	}
	how, value, _ := strings.Cut(strings.TrimSpace(rest2), " ")
	value = strings.TrimSpace(value)
	if value == "" {
		return PropertyID{}, fmt.Errorf("property id %.80q: nothing named", s)
	}
	switch strings.ToLower(how) {
	case "name":
		return PropertyID{Type: typ, Set: set, Name: value}, nil
	case "id":
		tag, err := parseTag(value)
		if err != nil {
			return PropertyID{}, fmt.Errorf("property id %.80q: %w", s, err)
		}
		return PropertyID{Type: typ, Set: set, Tag: tag}, nil
	}
	return PropertyID{}, fmt.Errorf("property id %.80q: neither Name nor Id", s)
}

func parseTag(s string) (uint32, error) {
	base := 10
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		s, base = s[2:], 16
	}
	n, err := strconv.ParseUint(s, base, 32)
	if err != nil {
		return 0, errors.New("bad number")
	}
	return uint32(n), nil
}

func parseGUID(s string) (string, error) {
	g := strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")
	if len(g) != 36 {
		return "", errors.New("bad property set")
	}
	for i := range len(g) {
		ch := g[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if ch != '-' {
				return "", errors.New("bad property set")
			}
			continue
		}
		if ('0' > ch || ch > '9') && ('a' > ch || ch > 'f') && ('A' > ch || ch > 'F') {
			return "", errors.New("bad property set")
		}
	}
	return "{" + strings.ToLower(g) + "}", nil
}

// folded returns the id that answers are compared by. The service is not known to change the case of a name, but Exchange
// keeps those of header fields in lower case (MS-OXCPRPT section 3.2.5.9), and nobody promises that it tells the case it was asked with.
func (p PropertyID) folded() PropertyID {
	p.Name = strings.ToLower(p.Name)
	return p
}

// String returns the id as requests carry it.
func (p PropertyID) String() string {
	switch {
	case p.Set == "":
		return fmt.Sprintf("%s 0x%04X", p.Type, p.Tag)
	case p.Name != "":
		return p.Type + " " + p.Set + " Name " + p.Name
	}
	return fmt.Sprintf("%s %s Id 0x%04X", p.Type, p.Set, p.Tag)
}
