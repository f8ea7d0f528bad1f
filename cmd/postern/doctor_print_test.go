package main

import (
	"strings"
	"testing"
)

// What a server or a gateway answered is printed without what a terminal acts on.
func TestFindingsArePlain(t *testing.T) {
	var b strings.Builder
	if err := printFinding(&b, finding{"mailbox", failed, "answered " + odd, "Say:\n  chmod " + odd}, false); err != nil {
		t.Fatal(err)
	}
	if bad := oddRunes(b.String()); len(bad) > 0 || strings.Count(b.String(), "\n") != 4 {
		t.Errorf("%q: %v", b.String(), bad)
	}
	var j strings.Builder
	if err := writeJSON(&j, map[string]string{"a": odd + "\U000e0001é"}); err != nil {
		t.Fatal(err)
	}
	if bad := oddRunes(j.String()); len(bad) > 0 || !strings.Contains(j.String(), `\u009b`) || !strings.Contains(j.String(), `\udb40\udc01é`) {
		t.Errorf("%s: %v", j.String(), bad)
	}
}
