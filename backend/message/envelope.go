package message

// ParseEnvelope reads the ENVELOPE fields of a header block. Address fields that occur more than once
// are joined, so that no address which some other reader sees stays hidden; of the other fields the first
// counts.
func ParseEnvelope(header []byte) *Envelope {
	left := maxAddresses
	return parseEnvelope(header, &left)
}

// parseEnvelope takes what it uses off addressesLeft.
func parseEnvelope(header []byte, addressesLeft *int) *Envelope {
	e := &Envelope{}
	s := fieldScanner{header: header}
	for f, ok := s.next(); ok; f, ok = s.next() {
		var list *[]Address
		var str *string
		switch len(f.name) {
		case 2:
			switch {
			case equalFold(f.name, "to"):
				list = &e.To
			case equalFold(f.name, "cc"):
				list = &e.Cc
			}
		case 3:
			if equalFold(f.name, "bcc") {
				list = &e.Bcc
			}
		case 4:
			switch {
			case equalFold(f.name, "from"):
				list = &e.From
			case equalFold(f.name, "date"):
				str = &e.Date
			}
		case 6:
			if equalFold(f.name, "sender") {
				list = &e.Sender
			}
		case 7:
			if equalFold(f.name, "subject") {
				str = &e.Subject
			}
		case 8:
			if equalFold(f.name, "reply-to") {
				list = &e.ReplyTo
			}
		case 10:
			if equalFold(f.name, "message-id") {
				str = &e.MessageID
			}
		case 11:
			if equalFold(f.name, "in-reply-to") {
				str = &e.InReplyTo
			}
		}
		switch {
		case list != nil:
			if add := parseAddresses(unfold(f.body), *addressesLeft); len(*list) == 0 {
				*addressesLeft -= len(add)
				*list = add
			} else {
				*addressesLeft -= len(add)
				*list = append(*list, add...)
			}
		case str != nil && *str == "":
			body := f.body
			if len(body) > maxFieldValue {
				body = body[:maxFieldValue]
			}
			*str = unfold(body)
		}
	}
	if len(e.Sender) == 0 {
		e.Sender = e.From
	}
	if len(e.ReplyTo) == 0 {
		e.ReplyTo = e.From
	}
	return e
}
