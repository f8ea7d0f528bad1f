package message

import (
	"strconv"
	"strings"
	"time"
)

// ParseDate reads a date as RFC 5322 section 3.3 writes it, in its obsolete forms (section 4.3), and as
// careless programs do: without a zone (then UTC), with dashes, month before day, ISO 8601, a zone in words.
// ok is false if day, month and year cannot be told.
func ParseDate(s string) (t time.Time, ok bool) {
	if len(s) > 300 {
		s = s[:300]
	}
	s = strings.TrimSpace(s)
	for _, layout := range isoLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, t.Year() > 0
		}
	}
	d := dateParts{day: -1, month: -1, year: -1, hour: -1}
	for s = skipCFWS(s); s != ""; s = skipCFWS(s) {
		n := dateTokenLength(s)
		if n == 0 {
			s = s[1:]
			continue
		}
		d.add(s[:n])
		s = s[n:]
	}
	return d.time()
}

var isoLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05", "2006-01-02"}

// dateTokenLength returns the length of a word, a number, a time or a numeric zone.
func dateTokenLength(s string) int {
	i := 0
	switch c := s[0]; {
	case isDigit(c):
		for i < len(s) && (isDigit(s[i]) || s[i] == ':' || s[i] == '.' && i+1 < len(s) && isDigit(s[i+1])) {
			i++
		}
	case isLetter(c):
		for i < len(s) && isLetter(s[i]) {
			i++
		}
	case (c == '+' || c == '-') && len(s) > 1 && isDigit(s[1]):
		i = 1
		for i < len(s) && (isDigit(s[i]) || s[i] == ':') {
			i++
		}
	}
	return i
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { c = lower(c); return 'a' <= c && c <= 'z' }

type dateParts struct {
	day, month, year, hour, min, sec, nsec int
	offset                                 int // seconds east
	hasZone                                bool
	pm, am, bad                            bool
}

func (d *dateParts) add(tok string) {
	c := tok[0]
	switch {
	case c == '+' || c == '-':
		digits := strings.ReplaceAll(tok[1:], ":", "")
		// 02-Jan-2006 and 2-1-2006: a dash is no minus before the time was seen.
		if d.hour < 0 && c == '-' {
			d.number(digits)
			return
		}
		d.zone(digits, c == '-')
	case isLetter(c):
		d.word(strings.ToLower(tok))
	case strings.Contains(tok, ":"):
		d.clock(tok)
	case strings.Count(tok, ".") == 2 && d.day < 0:
		// 23.11.2026
		for _, n := range strings.Split(tok, ".") {
			if d.day >= 0 && d.month < 0 {
				d.month = atoi(n)
				continue
			}
			d.number(n)
		}
	case strings.Count(tok, ".") == 2 && d.hour < 0:
		d.clock(strings.ReplaceAll(tok, ".", ":")) // 12.30.45
	default:
		d.number(tok)
	}
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// number takes day and year in whichever order they come.
func (d *dateParts) number(tok string) {
	n := atoi(tok)
	switch {
	case n < 0:
	case d.day < 0 && len(tok) <= 2 && n >= 1 && n <= 31:
		d.day = n
	case d.year < 0 && (len(tok) >= 2 && len(tok) <= 4):
		switch { // RFC 5322 section 4.3
		case len(tok) == 4:
		case len(tok) == 3:
			n += 1900
		case n < 50:
			n += 2000
		default:
			n += 1900
		}
		d.year = n
	case d.hour < 0 && len(tok) == 4 && d.year >= 0: // 1430
		d.hour, d.min = n/100, n%100
	}
}

func (d *dateParts) clock(tok string) {
	if d.hour >= 0 {
		return
	}
	f := strings.SplitN(tok, ":", 3)
	d.hour, d.min = atoi(f[0]), atoi(f[1])
	if len(f) == 3 {
		sec, frac, _ := strings.Cut(f[2], ".")
		d.sec = atoi(sec)
		if frac != "" {
			if v, err := strconv.ParseFloat("0."+frac, 64); err == nil {
				d.nsec = int(v * 1e9)
			}
		}
	}
	if d.hour < 0 || d.min < 0 || d.sec < 0 || d.hour > 24 || d.min > 59 || d.sec > 60 {
		d.bad = true
	}
}

func (d *dateParts) zone(digits string, west bool) {
	n := atoi(digits)
	if n < 0 {
		return
	}
	switch {
	case len(digits) <= 2:
		n *= 3600
	case len(digits) <= 4:
		n = n/100*3600 + n%100*60
	default:
		return
	}
	if n >= 24*3600 {
		return
	}
	if west {
		n = -n
	}
	d.offset, d.hasZone = n, true
}

func (d *dateParts) word(w string) {
	switch w {
	case "am":
		d.am = true
		return
	case "pm":
		d.pm = true
		return
	}
	if len(w) >= 3 && d.month < 0 {
		for i, m := range monthNames {
			if strings.HasPrefix(m, w) || w[:3] == m[:3] && len(w) <= len(m)+1 {
				d.month = i + 1
				return
			}
		}
	}
	if off, ok := zoneNames[w]; ok && d.hour >= 0 && !d.hasZone {
		d.offset, d.hasZone = off*3600, true
	}
}

var monthNames = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}

// zoneNames are hours east. RFC 5322 section 4.3 gives the American ones; single letters other than Z count as
// -0000 since RFC 822 had their signs wrong. The European ones are common.
var zoneNames = map[string]int{
	"ut": 0, "utc": 0, "gmt": 0, "z": 0, "wet": 0,
	"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
	"bst": 1, "cet": 1, "met": 1, "mez": 1, "west": 1, "cest": 2, "mest": 2, "mesz": 2, "eet": 2, "eest": 3, "msk": 3, "jst": 9, "kst": 9,
}

func (d *dateParts) time() (time.Time, bool) {
	if d.bad || d.day < 1 || d.month < 1 || d.month > 12 || d.year < 1 {
		return time.Time{}, false
	}
	if d.hour < 0 {
		d.hour = 0
	}
	if d.pm && d.hour < 12 {
		d.hour += 12
	}
	if d.am && d.hour == 12 {
		d.hour = 0
	}
	loc := time.UTC
	if d.offset != 0 {
		loc = time.FixedZone("", d.offset)
	}
	t := time.Date(d.year, time.Month(d.month), d.day, d.hour, d.min, min(d.sec, 59), d.nsec, loc)
	// 31 February would have become March.
	return t, t.Day() == d.day || d.hour == 24
}
