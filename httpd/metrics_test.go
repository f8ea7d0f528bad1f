package httpd

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	ownName   = regexp.MustCompile(`\bpostern_[a-z0-9_]+`)
	ofDesc    = regexp.MustCompile(`fqName: "([^"]+)"`)
	ofLibrary = regexp.MustCompile(`\b(go|process)_[a-z0-9_]+`)
)

// registered returns all names that the registry knows, used yet or not.
func registered(m *Metrics) map[string]bool {
	ch := make(chan *prometheus.Desc)
	go func() {
		m.registry.Describe(ch)
		close(ch)
	}()
	out := make(map[string]bool)
	for d := range ch {
		out[ofDesc.FindStringSubmatch(d.String())[1]] = true
	}
	return out
}

// Every metric is described in docs/metrics.md and shown by the dashboard, and what documents, dashboard and rules name exists.
func TestMetricNames(t *testing.T) {
	w := newWorld(t, nil)
	have := registered(w.s.opts.Metrics)
	if len(have) < 30 {
		t.Fatalf("the registry knows only %d names", len(have))
	}
	named := func(file string) map[string]bool {
		b, err := os.ReadFile("../" + file)
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]bool)
		for _, n := range append(ownName.FindAllString(string(b), -1), ofLibrary.FindAllString(string(b), -1)...) {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base := strings.TrimSuffix(n, suffix); have[base] {
					n = base
				}
			}
			if n != "go_" && n != "process_" {
				out[n] = true
			}
		}
		return out
	}
	docs, dashboard, rules := named("docs/metrics.md"), named("deploy/grafana/postern.json"), named("deploy/prometheus/rules.yml")
	for file, names := range map[string]map[string]bool{"docs/metrics.md": docs, "deploy/grafana/postern.json": dashboard, "deploy/prometheus/rules.yml": rules} {
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for n := range names {
			if !have[n] {
				t.Errorf("%s names %s, which does not exist", file, n)
			}
		}
	}
	for n := range have {
		if !strings.HasPrefix(n, "postern_") {
			continue
		}
		if !docs[n] {
			t.Errorf("docs/metrics.md lacks %s", n)
		}
		if !dashboard[n] {
			t.Errorf("the dashboard does not show %s", n)
		}
	}
}

// Every alarm is explained, and the dashboard is whole.
func TestAlarmsAndDashboard(t *testing.T) {
	rules, err := os.ReadFile("../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("../deploy/prometheus/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var alarms []string
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(rules, -1) {
		alarms = append(alarms, string(m[1]))
		if !bytes.Contains(docs, []byte("| `"+string(m[1])+"` |")) {
			t.Errorf("docs/operating.md does not explain %s", m[1])
		}
		if silent, loud := bytes.Contains(tests, []byte("alertname: "+string(m[1])+", exp_alerts: []")), bytes.Contains(tests, []byte("alertname: "+string(m[1])+"\n        exp_alerts:\n")); !loud || !silent && string(m[1]) != "PosternCertificateEnds" {
			t.Errorf("rules_test.yml does not test %s where it is silent and where it is not", m[1])
		}
	}
	for _, m := range regexp.MustCompile("\\| `(Postern\\w+)` \\|").FindAllSubmatch(docs, -1) {
		if !slices.Contains(alarms, string(m[1])) {
			t.Errorf("docs/operating.md explains %s, which is no alarm", m[1])
		}
	}
	b, err := os.ReadFile("../deploy/grafana/postern.json")
	if err != nil {
		t.Fatal(err)
	}
	var dash struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dash); err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for i, p := range dash.Panels {
		if seen[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: id %d twice, or beyond the edge", p.Title, p.ID)
		}
		seen[p.ID] = true
		for _, q := range dash.Panels[:i] {
			a, c := p.GridPos, q.GridPos
			if a.X < c.X+c.W && c.X < a.X+a.W && a.Y < c.Y+c.H && c.Y < a.Y+a.H {
				t.Errorf("panels %q and %q overlap", p.Title, q.Title)
			}
		}
	}
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	if out, err := exec.Command(promtool, "check", "rules", "../deploy/prometheus/rules.yml").CombinedOutput(); err != nil {
		t.Errorf("check rules: %v\n%s", err, out)
	}
	if out, err := exec.Command(promtool, "test", "rules", "../deploy/prometheus/rules_test.yml").CombinedOutput(); err != nil {
		t.Errorf("test rules: %v\n%s", err, out)
	}
	w := newWorld(t, nil)
	observe(w)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(w.page("/metrics"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("check metrics: %v\n%s", err, out)
	}
}

// observe makes every counter count.
func observe(w *world) {
	m := w.s.opts.Metrics
	m.Command("imap")("SELECT", "ok", time.Millisecond)
	m.Command("imap")("IDLE", "ok", time.Hour)
	m.Command("smtp")("DATA", "later", time.Second)
	o := m.Observer()
	o.Body(true)
	o.Attempt(alice, "unclear")
	w.submit("hello")
}

func TestMetricsSay(t *testing.T) {
	w := newWorld(t, nil)
	observe(w)
	w.within("the message to be sent", func() bool {
		return strings.Contains(w.page("/metrics"), `postern_sends_total{outcome="sent"} 1`)
	})
	body := w.page("/metrics")
	for _, want := range []string{
		`postern_build_info{version="1.2.3"} 1`,
		`postern_sessions{protocol="imap",state="open"} 3`, `postern_sessions{protocol="imap",state="logged_in"} 2`, `postern_sessions{protocol="smtp",state="open"} 0`,
		`postern_commands_total{command="SELECT",outcome="ok",protocol="imap"} 1`, `postern_commands_total{command="IDLE",outcome="ok",protocol="imap"} 1`,
		`postern_command_duration_seconds_count{command="DATA",protocol="smtp"} 1`,
		`postern_mailbox_up{mailbox="alice@contoso.example"} 1`, `postern_graph_throttled_total{mailbox="bob@contoso.example"} 0`,
		`postern_graph_requests_total{kind="send",status="202"} 1`, `postern_queue_messages{state="held"} 0`, `postern_queue_oldest_age_seconds 0`,
		`postern_token_refreshes_total{credential="c"} 1`, `postern_body_cache_limit_bytes 1e+06`, `postern_body_reads_total{source="cache"} 1`,
		`postern_logins_total{outcome="ok",protocol="smtp"} 1`, `go_goroutines`, `process_cpu_seconds_total`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("lacks %s", want)
		}
	}
	for _, not := range []string{`command_duration_seconds_count{command="IDLE"`, "192.0.2.9", "hello"} {
		if strings.Contains(body, not) {
			t.Errorf("holds %s", not)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

func TestMetricsAccess(t *testing.T) {
	const token = "0123456789abcdef"
	w := newWorld(t, nil)
	nets := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for _, tt := range []struct {
		name   string
		access MetricsAccess
		from   string
		header string
		value  string
		status int
	}{
		{"here", MetricsAccess{}, "127.0.0.1:1", "", "", 200},
		{"here, IPv6", MetricsAccess{}, "[::1]:1", "", "", 200},
		{"here, by a proxy", MetricsAccess{}, "127.0.0.1:1", "X-Forwarded-For", "203.0.113.1", 403},
		{"elsewhere", MetricsAccess{}, "203.0.113.1:1", "", "", 403},
		{"listed", MetricsAccess{Networks: nets}, "192.0.2.9:1", "", "", 200},
		{"not listed", MetricsAccess{Networks: nets}, "203.0.113.1:1", "", "", 403},
		{"here, networks listed", MetricsAccess{Networks: nets}, "127.0.0.1:1", "", "", 200},
		{"token", MetricsAccess{Token: token}, "203.0.113.1:1", "Authorization", "Bearer " + token, 200},
		{"token, letter case", MetricsAccess{Token: token}, "203.0.113.1:1", "Authorization", "bearer " + token, 200},
		{"wrong token", MetricsAccess{Token: token}, "203.0.113.1:1", "Authorization", "Bearer " + token + "0", 401},
		{"empty token", MetricsAccess{Token: token}, "203.0.113.1:1", "Authorization", "Bearer ", 401},
		{"empty token, none configured", MetricsAccess{}, "203.0.113.1:1", "Authorization", "Bearer ", 403},
		{"here without the token", MetricsAccess{Token: token}, "127.0.0.1:1", "", "", 401},
		{"listed without the token", MetricsAccess{Token: token, Networks: nets}, "192.0.2.9:1", "", "", 200},
	} {
		w.s.Set(Settings{Metrics: tt.access})
		w.from = tt.from
		res, body := w.request("GET", "/metrics", nil, func(r *http.Request) {
			if tt.header != "" {
				r.Header.Set(tt.header, tt.value)
			}
		})
		if res.StatusCode != tt.status || (tt.status == 200) != strings.Contains(body, "postern_build_info") {
			t.Errorf("%s: %d, want %d", tt.name, res.StatusCode, tt.status)
		}
	}
}
