package imapd

import "slices"

// enable is ENABLE. RFC 5161: unknown extensions are passed over in silence, so
// the answer lists those that are on now and were not before.
func (s *session) enable(*command) error {
	d := s.dec
	d.Space()
	names := []string{d.Word()}
	for d.TrySpace() {
		names = append(names, d.Word())
	}
	if err := d.End(); err != nil {
		return err
	}
	before := s.enabled
	answer := make([]string, 0, 4)
	add := func(name string, known bool) {
		if !known && !slices.Contains(answer, name) {
			answer = append(answer, name)
		}
	}
	for _, name := range names {
		switch name {
		case "IMAP4REV2":
			add("IMAP4rev2", before.rev2)
			s.enabled.rev2, s.enabled.utf8 = true, true
		case "UTF8=ACCEPT":
			add(name, false)
			s.enabled.utf8 = true
		case "CONDSTORE":
			add(name, before.condstore)
			s.enabled.condstore = true
		case "QRESYNC":
			add(name, before.qresync)
			// RFC 7162 section 3.2.3: it implies CONDSTORE.
			s.enabled.qresync, s.enabled.condstore = true, true
		}
	}
	now := s.enabled
	s.dec.SetUTF8(now.utf8)
	s.enc.SetUTF8(now.utf8)
	if now.rev2 && s.view != nil {
		s.view.forgetRecent()
	}
	s.enc.Raw("* ENABLED")
	for _, name := range answer {
		s.enc.SP().Raw(name)
	}
	s.enc.CRLF()
	if now.condstore && !before.condstore {
		s.tellHighestModSeq()
	}
	return nil
}

// enableCondstore is what a command does that only a client that knows mod-sequences
// sends: they are in all untagged FETCH responses from now on. RFC 7162 section 3.1.
func (s *session) enableCondstore() {
	if !s.enabled.condstore {
		s.enabled.condstore = true
		s.tellHighestModSeq()
	}
}

// tellHighestModSeq tells a client that has enabled CONDSTORE with a mailbox selected
// from where on it is told every change.
func (s *session) tellHighestModSeq() {
	if s.view == nil {
		return // SELECT will
	}
	s.enc.Raw("* OK [HIGHESTMODSEQ ").Num(s.view.told).Raw("] Highest mod-sequence").CRLF()
}
