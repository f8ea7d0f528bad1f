package imapd

import (
	"slices"
	"strings"
)

// lsub is LSUB. RFC 3501 section 6.3.9.
func (s *session) lsub(*command) error {
	d := s.dec
	d.Space()
	reference := d.Reference()
	d.Space()
	text := d.MailboxPattern()
	if err := d.End(); err != nil {
		return err
	}
	if text == "" {
		s.enc.Raw(`* LSUB (\Noselect) "` + delimiter + `" ""`).CRLF()
		return nil
	}
	entries, err := s.listEntries(true)
	if err != nil {
		return err
	}
	p := newPattern(reference + text)
	listed := make(map[string]bool)
	var levels []string
	for i := range entries {
		e := &entries[i]
		if !e.subscribed {
			continue
		}
		if p.match(e.name) {
			listed[e.name] = true
			s.enc.Raw("* LSUB (")
			if !e.exists || !e.selectable {
				s.enc.Raw(`\Noselect`)
			}
			s.enc.Raw(`) "` + delimiter + `" `).Mailbox(e.name).CRLF()
		} else if strings.HasSuffix(p.text, "%") {
			// Of a/b, if it is a that matches %, a is shown.
			for name := e.name; ; {
				at := strings.LastIndex(name, delimiter)
				if at < 0 {
					break
				}
				if name = name[:at]; p.match(name) {
					levels = append(levels, name)
				}
			}
		}
	}
	slices.Sort(levels)
	for _, name := range slices.Compact(levels) {
		if !listed[name] {
			s.enc.Raw(`* LSUB (\Noselect) "` + delimiter + `" `).Mailbox(name).CRLF()
		}
	}
	return nil
}
