package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Doctor knows whether the running server has taken the configuration over.
func TestE2EConfigurationInUse(t *testing.T) {
	r := newRig(t, nil)
	conf := filepath.Join(r.dir, "postern.yaml")
	finding := func(path string) (status, text string) {
		t.Helper()
		cmd := exec.Command(program(t), "doctor", "--json", "-c", path)
		cmd.Env = append(os.Environ(), "E2E_SECRET="+sampleSecret)
		var out bytes.Buffer
		cmd.Stdout = &out
		_ = cmd.Run() // other checks have warnings
		var report struct {
			Checks []struct{ Check, Status, Detail, Remedy string }
		}
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		for _, f := range report.Checks {
			if f.Check == "configuration in use" {
				return f.Status, f.Detail + ". " + f.Remedy
			}
		}
		return "", ""
	}
	expect := func(path, status, text string) {
		t.Helper()
		if s, d := finding(path); s != status || !strings.Contains(d, text) {
			t.Errorf("it is %q: %s; want %q with %q", s, d, status, text)
		}
	}
	expect(conf, "ok", "works by it")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(b, "# another line\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(conf, "warning", "postern reload -c "+conf)
	other := r.write(t, "other.yaml", string(b))
	expect(other, "warning", conf)
	r.mustRunEnv(t, nil, "reload", "-c", conf)
	expect(conf, "ok", "works by it")
	r.stop()
	expect(conf, "", "")
}
