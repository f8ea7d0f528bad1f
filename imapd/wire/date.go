package wire

import (
	"strings"
	"time"
)

// dateTimeLayout is date-time of RFC 3501 without its quotes; the day may be
// padded with a blank or a zero.
const dateTimeLayout = "_2-Jan-2006 15:04:05 -0700"

// DateTime expects a quoted date with time and zone, as APPEND has it.
func (d *Decoder) DateTime() time.Time {
	if d.Peek() != '"' {
		d.Fail(syntaxErrorf("date and time expected"))
		return time.Time{}
	}
	s := d.String()
	if d.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(dateTimeLayout, s)
	if err != nil {
		if t, err = time.Parse("2-Jan-2006 15:04:05 -0700", strings.TrimLeft(s, " ")); err != nil {
			d.Fail(syntaxErrorf("bad date and time"))
			return time.Time{}
		}
	}
	return t
}

// Date expects a date, quoted or not, as SEARCH has it. The result is midnight
// UTC of that day.
func (d *Decoder) Date() time.Time {
	s := d.AString()
	if d.err != nil {
		return time.Time{}
	}
	t, err := time.Parse("2-Jan-2006", strings.TrimLeft(s, " "))
	if err != nil {
		d.Fail(syntaxErrorf("bad date"))
		return time.Time{}
	}
	return t
}
