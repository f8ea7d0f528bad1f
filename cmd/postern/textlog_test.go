package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestJSONLogDurations(t *testing.T) {
	var out bytes.Buffer
	slog.New(newJSONHandler(&out, slog.LevelInfo)).With("age", time.Minute).Info("waits", "wait", 62*time.Second, slog.Group("g", "took", 1500*time.Millisecond))
	for _, want := range []string{`"age":"1m0s"`, `"wait":"1m2s"`, `"took":"1.5s"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}
