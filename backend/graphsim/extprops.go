package graphsim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// extTag names an extended property without its type: a MAPI tag, or a set with a name or number.
type extTag struct {
	set  string // GUID in lower case; "" for a tag
	name string // of a named property
	num  uint32 // tag, or number in the set
}

// extID is a tag with the type it was asked by. Graph: extended-properties-overview.
type extID struct {
	typ string // as the service spells it: Integer, Long, Short, Boolean, Double, String, SystemTime, Binary, CLSID
	tag extTag
}

var extTypes = map[string]string{
	"integer": "Integer", "long": "Long", "short": "Short", "boolean": "Boolean", "double": "Double", "string": "String",
	"systemtime": "SystemTime", "binary": "Binary", "clsid": "CLSID", "float": "Float", "currency": "Currency",
	"applicationtime":    "ApplicationTime",
	"integerarray":       "IntegerArray",
	"longarray":          "LongArray",
	"shortarray":         "ShortArray",
	"stringarray":        "StringArray",
	"systemtimearray":    "SystemTimeArray",
	"binaryarray":        "BinaryArray",
	"doublearray":        "DoubleArray",
	"clsidarray":         "CLSIDArray",
	"floatarray":         "FloatArray",
	"currencyarray":      "CurrencyArray",
	"booleanarray":       "BooleanArray",
	"applicationtimearr": "ApplicationTimeArray",
}

func errExtID(id string) *apiError {
	return fail(400, "ErrorInvalidExtendedProperty", "The extended property id '%s' is not valid.", id)
}

// parseExtID reads "Integer 0x0E08", "String {guid} Name x" or "Integer {guid} Id 0x8570".
func parseExtID(id string) (extID, *apiError) {
	f := strings.SplitN(strings.TrimSpace(id), " ", 2)
	if len(f) != 2 {
		return extID{}, errExtID(id)
	}
	typ, ok := extTypes[strings.ToLower(f[0])]
	if !ok {
		return extID{}, errExtID(id)
	}
	rest := strings.TrimSpace(f[1])
	if !strings.HasPrefix(rest, "{") {
		n, err := strconv.ParseUint(strings.ToLower(rest), 0, 16)
		if err != nil || !strings.HasPrefix(strings.ToLower(rest), "0x") {
			return extID{}, errExtID(id)
		}
		return extID{typ, extTag{num: uint32(n)}}, nil
	}
	guid, rest, ok := strings.Cut(rest[1:], "}")
	if !ok || !isGUID(guid) {
		return extID{}, errExtID(id)
	}
	kind, name, ok := strings.Cut(strings.TrimSpace(rest), " ")
	if name = strings.TrimSpace(name); !ok || name == "" {
		return extID{}, errExtID(id)
	}
	tag := extTag{set: strings.ToLower(guid)}
	switch strings.ToLower(kind) {
	case "name":
		tag.name = name
	case "id":
		n, err := strconv.ParseUint(strings.ToLower(name), 0, 32)
		if err != nil {
			return extID{}, errExtID(id)
		}
		tag.num = uint32(n)
	default:
		return extID{}, errExtID(id)
	}
	return extID{typ, tag}, nil
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
		} else if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// String spells the id the way answers do: lower-case hex, no leading zeros. Observed, not documented.
func (id extID) String() string {
	switch {
	case id.tag.set == "":
		return fmt.Sprintf("%s 0x%x", id.typ, id.tag.num)
	case id.tag.name != "":
		return fmt.Sprintf("%s {%s} Name %s", id.typ, id.tag.set, id.tag.name)
	}
	return fmt.Sprintf("%s {%s} Id 0x%x", id.typ, id.tag.set, id.tag.num)
}

// headersSet is the property set whose named properties are header fields. MS-OXPROPS: PS_INTERNET_HEADERS.
const headersSet = "00020386-0000-0000-c000-000000000046"

// checkExtValue refuses values that are not of the type; the service takes and gives strings for all types.
func checkExtValue(id extID, v string) *apiError {
	var err error
	switch id.typ {
	case "Integer":
		_, err = strconv.ParseInt(v, 10, 32)
	case "Short":
		_, err = strconv.ParseInt(v, 10, 16)
	case "Long", "Currency":
		_, err = strconv.ParseInt(v, 10, 64)
	case "Double", "Float", "ApplicationTime":
		_, err = strconv.ParseFloat(v, 64)
	case "Boolean":
		_, err = strconv.ParseBool(v)
	case "SystemTime":
		_, err = time.Parse(time.RFC3339Nano, v)
	case "Binary":
		_, err = base64.StdEncoding.DecodeString(v)
	case "CLSID":
		if !isGUID(strings.Trim(v, "{}")) {
			err = strconv.ErrSyntax
		}
	}
	if err != nil {
		return fail(400, "ErrorInvalidExtendedPropertyValue", "The value of extended property '%s' is not valid.", id)
	}
	return nil
}

// extValue returns an extended property of a message; unset ones are not there.
func (m *message) extValue(id extID) (string, bool) {
	if id.tag.set == "" {
		switch id.tag.num {
		case 0x0E08: // PidTagMessageSize
			return strconv.Itoa(m.storeSize()), true
		case 0x0E07: // PidTagMessageFlags
			return strconv.Itoa(m.messageFlags()), true
		case 0x0E06: // PidTagMessageDeliveryTime
			return stamp(m.received), true
		case 0x0039: // PidTagClientSubmitTime
			if m.sent != 0 {
				return stamp(m.sent), true
			}
			return "", false
		case 0x007D: // PidTagTransportMessageHeaders: received mail only
			if v, ok := m.ext[id.tag]; ok {
				return v, true
			}
			return m.content().transport, m.content().transport != ""
		case 0x1035: // PidTagInternetMessageId
			return m.content().messageID, m.content().messageID != ""
		case 0x1039: // PidTagInternetReferences
			return m.content().references, m.content().references != ""
		case 0x1042: // PidTagInReplyToId
			return m.content().inReplyTo, m.content().inReplyTo != ""
		case 0x0037: // PidTagSubject
			return m.content().subject, true
		case 0x0070: // PidTagConversationTopic
			return threadTopic(m.content().subject), true
		case 0x001A: // PidTagMessageClass
			if v, ok := m.ext[id.tag]; ok {
				return v, true
			}
			if root := m.content().root; root != nil {
				switch root.media {
				case "multipart/signed":
					return "IPM.Note.SMIME.MultipartSigned", true
				case "application/pkcs7-mime", "application/x-pkcs7-mime":
					return "IPM.Note.SMIME", true
				}
			}
			return "IPM.Note", true
		case 0x0E23: // PidTagInternetArticleNumber: changes with the flags, no UID
			return strconv.FormatUint(uint64(m.article), 10), true
		case 0x0017: // PidTagImportance
			return strconv.Itoa(int(m.importance)), true
		case 0x0036: // PidTagSensitivity
			if v, ok := m.ext[id.tag]; ok {
				return v, true
			}
			return "0", true
		case 0x1090: // PidTagFlagStatus
			switch m.flag {
			case 1:
				return "2", true
			case 2:
				return "1", true
			}
			return "", false
		case 0x0E1B: // PidTagHasAttachments
			return strconv.FormatBool(len(m.content().attachments) > 0), true
		case 0x3007:
			return stamp(m.created), true
		case 0x3008:
			return stamp(m.modified), true
		case 0x0FF9: // PidTagRecordKey
			return base64.StdEncoding.EncodeToString(hash16(m.changeKey()[:6] + strconv.FormatUint(m.num, 10))), true
		}
	}
	if v, ok := m.ext[id.tag]; ok {
		return v, true
	}
	if id.tag.set == headersSet {
		for _, f := range m.content().headers {
			if strings.EqualFold(f.name, id.tag.name) {
				return decodeWords(f.value), true
			}
		}
	}
	return "", false
}

// storeSize is 0x0E08, kept for synthetic messages so that a list of many is quick.
func (m *message) storeSize() int {
	if m.body != nil {
		return m.body.storeSize()
	}
	if m.size == 0 {
		m.size = uint32(m.content().storeSize())
	}
	return int(m.size)
}

// messageFlags is PidTagMessageFlags. MS-OXCMSG section 2.2.1.6.
func (m *message) messageFlags() int {
	n := 0
	if m.is(bitRead) {
		n |= 1
	}
	if m.is(bitDraft) {
		n |= 8
	} else if m.is(bitSubmitted) {
		n |= 4
	}
	if len(m.content().attachments) > 0 {
		n |= 16
	}
	return n
}

// extInput is one property of a request.
type extInput struct {
	id     extID
	value  string
	values []string
	null   bool
}

// parseExtInputs reads singleValueExtendedProperties or multiValueExtendedProperties of a request.
func parseExtInputs(raw json.RawMessage, multi bool) ([]extInput, *apiError) {
	var items []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, errBody("the extended properties: an array of objects was expected.")
	}
	var list []extInput
	for _, item := range items {
		var in extInput
		var idText string
		hasValue := false
		for k, v := range item {
			switch {
			case strings.HasPrefix(k, "@"):
			case k == "id":
				if err := json.Unmarshal(v, &idText); err != nil {
					return nil, errBody("the id of an extended property.")
				}
			case k == "value":
				hasValue = true
				if string(v) == "null" {
					in.null = true
					continue
				}
				var err error
				if multi {
					err = json.Unmarshal(v, &in.values)
				} else {
					err = json.Unmarshal(v, &in.value)
				}
				if err != nil {
					return nil, errBody("the value of an extended property: values are always strings.")
				}
			default:
				return nil, errBody("the property '%s' of an extended property.", k)
			}
		}
		id, err := parseExtID(idText)
		if err != nil {
			return nil, err
		}
		if !hasValue {
			return nil, errExtID(idText)
		}
		if strings.HasSuffix(id.typ, "Array") != multi {
			return nil, errExtID(idText)
		}
		if !in.null && !multi {
			if err := checkExtValue(id, in.value); err != nil {
				return nil, err
			}
		}
		in.id = id
		list = append(list, in)
	}
	return list, nil
}

// setExt writes extended properties. At creation the message flags and times count; afterwards writing the flags is
// accepted and does nothing, as observed for isDraft and 0x0E07.
func (b *mailbox) setExt(m *message, list []extInput, creating bool) {
	for _, in := range list {
		tag := in.id.tag
		if strings.HasSuffix(in.id.typ, "Array") {
			if m.multi == nil {
				m.multi = map[extTag][]string{}
			}
			if in.null {
				delete(m.multi, tag)
			} else {
				m.multi[tag] = in.values
			}
			continue
		}
		if tag.set == "" && b.setKnownExt(m, tag.num, in, creating) {
			continue
		}
		if in.null {
			delete(m.ext, tag)
			continue
		}
		if m.ext == nil {
			m.ext = map[extTag]string{}
		}
		v := in.value
		if in.id.typ == "Boolean" {
			t, _ := strconv.ParseBool(v) // checked before
			v = strconv.FormatBool(t)
		}
		m.ext[tag] = v
	}
}

// setKnownExt handles the tags that are properties of ours; it reports whether it did.
func (b *mailbox) setKnownExt(m *message, num uint32, in extInput, creating bool) bool {
	switch num {
	case 0x0E07:
		if !creating {
			return true
		}
		n, _ := strconv.Atoi(in.value) // checked before
		m.setBit(bitRead, n&1 != 0 || m.is(bitRead) && n&8 != 0)
		m.setBit(bitDraft, n&8 != 0)
		m.setBit(bitSubmitted, n&4 != 0)
	case 0x0E06, 0x0039:
		t, err := time.Parse(time.RFC3339Nano, in.value)
		if err != nil {
			return true
		}
		switch {
		case num == 0x0039:
			m.sent = t.Unix()
		case creating:
			m.received = t.Unix()
		default:
			b.redateLocked(m, t.Unix())
		}
	case 0x1035:
		if creating {
			m.edit().messageID = in.value
		} else {
			b.renameMessageID(m, in.value)
		}
	case 0x1039:
		m.edit().references = in.value
	case 0x1042:
		m.edit().inReplyTo = in.value
	case 0x0E08, 0x0E23, 0x0E1B, 0x3007, 0x3008, 0x0FF9:
		// Computed by the store.
	case 0x1090:
		switch in.value {
		case "2":
			m.flag = 1
		case "1":
			m.flag = 2
		default:
			m.flag = 0
		}
	case 0x0017:
		if n, err := strconv.Atoi(in.value); err == nil && n >= 0 && n <= 2 {
			m.importance = uint8(n)
		}
	default:
		return false
	}
	return true
}

// expandSingle gives the singleValueExtendedProperties of $expand, nil when none is set.
func expandSingle(ids []extID, get func(extID) (string, bool)) []object {
	var out []object
	for _, id := range ids {
		if v, ok := get(id); ok {
			out = append(out, object{{"id", id.String()}, {"value", v}})
		}
	}
	return out
}

func (m *message) expandMulti(ids []extID) []object {
	var out []object
	for _, id := range ids {
		if v, ok := m.multi[id.tag]; ok {
			out = append(out, object{{"id", id.String()}, {"value", v}})
		}
	}
	return out
}

// extValue returns an extended property of a folder.
func (f *folder) extValue(id extID) (string, bool) {
	if id.tag.set == "" {
		switch id.tag.num {
		case 0x3613: // PidTagContainerClass
			if v, ok := f.ext[id.tag]; ok {
				return v, true
			}
			return "IPF.Note", true
		case 0x3008, 0x670A:
			return stamp(f.modified), true
		case 0x6751: // next article number
			return strconv.FormatUint(uint64(f.box.nextArt)+1, 10), true
		case 0x3602:
			return strconv.Itoa(len(f.messages)), true
		case 0x3603:
			return strconv.Itoa(f.unread), true
		case 0x66B3, 0x0E08:
			n := 0
			for _, m := range f.messages {
				n += m.storeSize()
			}
			return strconv.Itoa(n), true
		}
	}
	v, ok := f.ext[id.tag]
	return v, ok
}
