package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnit(t *testing.T) {
	plain := &service{program: "/usr/bin/postern", config: "/etc/postern/postern.yaml", state: "/var/lib/postern"}
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "systemd", "postern.service"))
	if err != nil {
		t.Fatal(err)
	}
	if plain.unit() != string(b) {
		t.Error("with the packages' paths the unit is another than theirs")
	}
	odd := &service{program: "/opt/mail tools/postern", config: "/srv/100%/postern.yaml", state: "/srv/state"}
	unit := odd.unit()
	for _, want := range []string{
		`ExecStart="/opt/mail tools/postern" serve --config /srv/100%%/postern.yaml` + "\n",
		"ConditionPathExists=/srv/100%%/postern.yaml\n",
		"ReadWritePaths=/srv/state\n",
		"ProtectSystem=strict\n", "SystemCallFilter=", "WatchdogSec=", "Type=notify\n",
	} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit has no %q:\n%s", want, unit)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: the unit is not verified")
		return
	}
	// Paths that are there, so that nothing else is found at fault.
	dir := t.TempDir()
	there := &service{program: program(t), config: filepath.Join(dir, "postern.yaml"), state: dir}
	file := filepath.Join(dir, "postern.service")
	if err := os.WriteFile(file, []byte(there.unit()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "--man=no", "verify", file).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestPlist(t *testing.T) {
	s := &service{program: "/usr/local/bin/postern", config: "/Users/a & b/<postern>.yaml"}
	var stringsFound []string
	d := xml.NewDecoder(strings.NewReader(s.plist()))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, s.plist())
		}
		if start, ok := tok.(xml.StartElement); ok && start.Name.Local == "string" {
			var text string
			if err := d.DecodeElement(&text, &start); err != nil {
				t.Fatal(err)
			}
			stringsFound = append(stringsFound, text)
		}
	}
	want := []string{"postern", "/usr/local/bin/postern", "serve", "--config", "/Users/a & b/<postern>.yaml", "Background", launchdLog, launchdLog}
	if strings.Join(stringsFound, "|") != strings.Join(want, "|") {
		t.Errorf("the strings are %q, want %q", stringsFound, want)
	}
}
