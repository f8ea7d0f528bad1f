package graphsim

import (
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestJavaScriptClient runs Microsoft's own JavaScript client against the simulator: what it can follow, page, batch and
// upload is shaped as it expects. It needs node, and `npm install` done in testdata/jsclient, or POSTERN_NODE_MODULES naming a
// node_modules folder with @microsoft/microsoft-graph-client.
func TestJavaScriptClient(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	modules := os.Getenv("POSTERN_NODE_MODULES")
	if modules == "" {
		modules = filepath.Join("testdata", "jsclient", "node_modules")
	}
	if _, err := os.Stat(filepath.Join(modules, "@microsoft", "microsoft-graph-client")); err != nil {
		t.Skip("Microsoft's JavaScript client is not installed: run npm install in testdata/jsclient, or set POSTERN_NODE_MODULES")
	}
	s := New(Options{EmptyPageEvery: 2})
	s.AddTenant(testTenant, "contoso.example")
	s.AddApp(testTenant, testApp, testSecret, "Mail.ReadWrite", "Mail.Send")
	s.AddUser(testTenant, UserSpec{UPN: alice})
	s.AddSynthetic(alice, "inbox", 30, Synthetic{Seed: 3, UnreadEvery: 1})
	srv := httptest.NewTLSServer(s) // the client sends tokens over https only
	defer srv.Close()
	cert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "jsclient", "client.mjs"), srv.URL, s.Token(testTenant, testApp), alice)
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+cert)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.String())
	}
	var got struct {
		Listed, DeltaFirst int
		DeltaNext          []any
		Batch              []int
		BatchSubject       string
		Location           string
		Uploaded           []any
		Error              []any
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if got.Listed != 30 || got.DeltaFirst != 30 {
		t.Errorf("listed %d, by delta %d, want 30", got.Listed, got.DeltaFirst)
	}
	if !reflect.DeepEqual(got.DeltaNext, []any{true}) {
		t.Errorf("next round: %v", got.DeltaNext)
	}
	if !reflect.DeepEqual(got.Batch, []int{200, 400, 200}) || got.BatchSubject == "" {
		t.Errorf("batch: %v %q", got.Batch, got.BatchSubject)
	}
	if !reflect.DeepEqual(got.Uploaded, []any{"large.bin", true}) || !strings.Contains(got.Location, "/Attachments('") {
		t.Errorf("upload: %v, Location %q", got.Uploaded, got.Location)
	}
	if !reflect.DeepEqual(got.Error, []any{400.0, "ErrorInvalidIdMalformed"}) {
		t.Errorf("error: %v", got.Error)
	}
	if d := s.Delivered(); len(d) != 1 || d[0].Recipients[0] != alice {
		t.Errorf("deliveries: %+v", d)
	}
	if n := s.CountRequests(func(r Request) bool { return r.Method == "PUT" && r.Status < 300 }); n != 3 {
		t.Errorf("%d chunks, want 3", n)
	}
}
