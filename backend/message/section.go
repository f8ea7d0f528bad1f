package message

// Section finds the bytes of BODY[path.specifier] (RFC 9051 section 6.4.5.1). path holds the part numbers;
// specifier is "" for the whole, HEADER, TEXT or MIME. Part 1 of a message that is no multipart is its body. HEADER
// and TEXT below the top need an embedded message, MIME needs a path.
func (ix *Index) Section(path []int, specifier string) (Span, bool) {
	if len(path) == 0 {
		switch specifier {
		case "":
			return Span{Len: ix.Size}, true
		case "HEADER":
			return ix.Root.Header, true
		case "TEXT":
			return Span{Off: ix.Root.Body.Off, Len: ix.Size - ix.Root.Body.Off}, true
		}
		return Span{}, false
	}
	p, ok := ix.Part(path)
	if !ok {
		return Span{}, false
	}
	switch specifier {
	case "":
		return p.Body, true
	case "MIME":
		return p.Header, true
	case "HEADER":
		if p.Message != nil {
			return p.Message.Header, true
		}
	case "TEXT":
		if p.Message != nil {
			return p.Message.Body, true
		}
	}
	return Span{}, false
}

// Part finds a part by its numbers; an empty path is the root.
func (ix *Index) Part(path []int) (*Part, bool) {
	p := ix.Root
	message := true // numbers count within p, not beside it
	for _, n := range path {
		if !message && p.Message != nil {
			p, message = p.Message, true
		}
		switch {
		case p.Multipart():
			if n < 1 || n > len(p.Children) {
				return nil, false
			}
			p, message = p.Children[n-1], false
		case message && n == 1:
			message = false
		default:
			return nil, false
		}
	}
	return p, true
}
