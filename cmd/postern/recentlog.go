package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"postern/httpd"
)

// keepRecent is how many warnings and errors the pages can show.
const keepRecent = 30

// recentLog passes records on and remembers the last warnings and errors, as the log has them: they hold no mail and no secrets.
type recentLog struct {
	slog.Handler
	attrs  string // of With, already written out
	prefix string // of WithGroup
	kept   *keptLines
}

type keptLines struct {
	mu    sync.Mutex
	lines []httpd.LogLine // oldest first
}

func newRecentLog(h slog.Handler) *recentLog { return &recentLog{Handler: h, kept: new(keptLines)} }

// Handle implements slog.Handler.
func (l *recentLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		var b strings.Builder
		b.WriteString(clean(r.Message))
		b.WriteString(l.attrs)
		r.Attrs(func(a slog.Attr) bool {
			writeAttr(&b, l.prefix, a)
			return true
		})
		text := b.String()
		if len(text) > 2000 {
			text = strings.ToValidUTF8(text[:2000], "") + " …"
		}
		level := "WARN"
		if r.Level >= slog.LevelError {
			level = "ERROR"
		}
		l.kept.mu.Lock()
		l.kept.lines = append(l.kept.lines, httpd.LogLine{At: r.Time, Level: level, Text: text})
		if over := len(l.kept.lines) - keepRecent; over > 0 {
			l.kept.lines = slices.Delete(l.kept.lines, 0, over)
		}
		l.kept.mu.Unlock()
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *recentLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, l.prefix, a)
	}
	return &recentLog{Handler: l.Handler.WithAttrs(attrs), attrs: l.attrs + b.String(), prefix: l.prefix, kept: l.kept}
}

// WithGroup implements slog.Handler.
func (l *recentLog) WithGroup(name string) slog.Handler {
	prefix := l.prefix
	if name != "" {
		prefix += name + "."
	}
	return &recentLog{Handler: l.Handler.WithGroup(name), attrs: l.attrs, prefix: prefix, kept: l.kept}
}

// lines returns what is remembered, newest first.
func (l *recentLog) lines() []httpd.LogLine {
	l.kept.mu.Lock()
	defer l.kept.mu.Unlock()
	out := slices.Clone(l.kept.lines)
	slices.Reverse(out)
	return out
}
