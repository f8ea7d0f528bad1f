package httpd

import (
	"bytes"
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// functions are what templates can call.
var functions = template.FuncMap{
	"ago": ago, "in": in, "when": when, "stamp": stamp, "duration": duration, "bytes": byteCount, "number": number, "count": count, "percent": percent,
	"join": strings.Join, "assetVersion": func(name string) string { return assets[name].version }, "mailboxPath": mailboxPath,
	"phaseTone": phaseTone, "stateTone": stateTone, "stateWord": stateWord, "role": role, "uses": uses,
	"sub": func(a, b int) int { return a - b }, "atMost": func(n int, s []string) []string { return s[:min(n, len(s))] },
	"address": address, "encoded": url.QueryEscape, "half": func(n int) int { return n / 2 }, "chartWidth": func(n int) int { return n + 44 }, "since": time.Since,
}

// harmless makes characters visible that would hide text or turn its direction on a page: strangers choose user names, senders
// choose subjects. Marks that languages need, such as the joiners, stay.
func harmless(html []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r':
			return r
		case unicode.IsControl(r), r == '\u2028', r == '\u2029', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069', r == '\u200b', r == '\ufeff':
			return unicode.ReplacementChar
		}
		return r
	}, html)
}

// address lets a line break at an address's @ rather than anywhere in it.
func address(s string) template.HTML {
	return template.HTML(strings.ReplaceAll(template.HTMLEscapeString(s), "@", "<wbr>@")) // escaped
}

// ago writes how long ago t was, in words.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	switch d := time.Since(t); {
	case d < 5*time.Second:
		return "just now"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())/5*5) + " s ago"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min ago"
	default:
		return duration(d) + " ago"
	}
}

// in writes how long it is until t.
func in(t time.Time) string {
	if d := time.Until(t); d > 0 {
		return "in " + duration(d)
	}
	return "now"
}

// duration writes a span in its largest unit or two.
func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return "1 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second)/time.Second))
	case d < 10*time.Minute:
		m, s := int(d/time.Minute), int(d%time.Minute/time.Second)
		if s == 0 {
			return fmt.Sprintf("%d min", m)
		}
		return fmt.Sprintf("%d min %d s", m, s)
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		h, m := int(d/time.Hour), int(d%time.Hour/time.Minute)
		if m == 0 {
			return fmt.Sprintf("%d h", h)
		}
		return fmt.Sprintf("%d h %d min", h, m)
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}

// when writes a time of day, with the day if it is not today.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	t = t.Local()
	now := time.Now()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

// stamp is for the datetime attribute.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func byteCount(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1_000_000:
		return fmt.Sprintf("%d kB", (n+500)/1000)
	case n < 1_000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

// number writes n with its digits in groups.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u2009" + s[i:]
	}
	return s
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

func percent(done, total int) string {
	if total <= 0 {
		return ""
	}
	return strconv.Itoa(min(100, done*100/total)) + " %"
}

func phaseTone(p backend.FolderPhase) Tone {
	switch p {
	case backend.FolderFailing:
		return Warn
	case backend.FolderInStep:
		return Good
	case backend.FolderUnread:
		return ""
	}
	return Busy
}

// stateTone and stateWord say how a message of the queue is doing.
func stateTone(state string) Tone {
	switch state {
	case "sent":
		return Good
	case "queued", "sending", "spooled":
		return Busy
	case "held", "unclear":
		return Warn
	case "bounced", "refused":
		return Bad
	}
	return ""
}

func stateWord(state string) string {
	switch state {
	case "bounced":
		return "returned"
	case "sending":
		return "being sent"
	}
	return state
}

// role names a folder's special use.
func role(attr imap.MailboxAttr) string {
	return strings.ToLower(strings.TrimPrefix(string(attr), "\\"))
}

// uses lists what a login may do.
func uses(l backend.LoginState) string {
	var out []string
	if l.SMTP {
		out = append(out, "SMTP")
	}
	if l.IMAP {
		s := "IMAP"
		if l.ReadOnly {
			s += " (read only)"
		}
		out = append(out, s)
	}
	if l.Admin {
		out = append(out, "administration")
	}
	return strings.Join(out, ", ")
}
