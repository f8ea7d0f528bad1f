package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// Every query of the dashboard gives data in a real Prometheus that reads a server at work, and every alert rule loads there.
func TestE2EDashboard(t *testing.T) {
	prometheus := need(t, "prometheus")
	dash, err := os.ReadFile("../../deploy/grafana/postern.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dash, &board); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, nil)
	r.stop()
	conf := filepath.Join(r.dir, "postern.yaml")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(60 * 24 * time.Hour).Format(time.DateOnly)
	if err := os.WriteFile(conf, []byte(strings.Replace(string(b), `client_secret: "${E2E_SECRET}"`, `client_secret: "${E2E_SECRET}", secret_expires: `+soon, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()

	rules, err := filepath.Abs("../../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, "prometheus.yml", fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n  - job_name: postern\n    static_configs: [{targets: [%q]}]\n", rules, r.addr["http/none"]))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, prometheus, "--config.file="+filepath.Join(r.dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(r.dir, "tsdb"), "--web.listen-address="+addr, "--log.level=warn")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	said := &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // its end by a signal

	type answer struct {
		Status string
		Error  string
		Data   struct {
			Result []struct{ Value []any }
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	ask := func(path string) (a answer, err error) {
		res, err := http.Get("http://" + addr + path)
		if err != nil {
			return a, err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			return a, err
		}
		return a, json.Unmarshal(text, &a)
	}
	// Something of everything, again and again, so that there is always some in the last seconds.
	if err := r.sim.Inject(graphsim.Fault{Path: "sendMail$", Every: 3, Status: http.StatusServiceUnavailable}); err != nil {
		t.Fatal(err)
	}
	n := 0
	work := func() {
		n++
		c := r.rawIMAP(t)
		c.login(sampleUser)
		for _, command := range []string{"SELECT INBOX", "UID FETCH 1:* (FLAGS BODY.PEEK[])", "STORE 1 FLAGS (\\Seen)", "STORE 1 FLAGS ()", "FETCH 999 BOGUS", "LOGOUT"} {
			c.cmd(command)
		}
		_ = smtpPlain(r.addr["smtp/none"], "", sampleUser, "wrong")                                                                       // is refused
		_ = sendMail(r.addr["smtp/none"], sampleOther, sampleOther, "one@fabrikam.example", fmt.Sprintf("<dashboard.%d@e2e.example>", n)) // may be put off
	}
	fill := strings.NewReplacer("$__rate_interval", "20s", "$instance", ".*", "$mailbox", ".*", "$job", "postern")
	// What has no data while all is well.
	quiet := map[string]string{"First listings": "there is a listing only for moments"}
	empty := func() (missing []string) {
		for _, p := range board.Panels {
			for _, q := range p.Targets {
				a, err := ask("/api/v1/query?query=" + url.QueryEscape(fill.Replace(q.Expr)))
				if err != nil {
					return []string{err.Error()}
				}
				if a.Status != "success" {
					t.Fatalf("panel %q: %s: %s", p.Title, q.Expr, a.Error)
				}
				data := false
				for _, res := range a.Data.Result {
					data = data || len(res.Value) == 2 && res.Value[1] != "NaN"
				}
				if !data && quiet[p.Title] == "" {
					missing = append(missing, fmt.Sprintf("panel %q: %s", p.Title, q.Expr))
				}
			}
		}
		return missing
	}
	var missing []string
	for end := time.Now().Add(90 * time.Second); ; {
		work()
		if missing = empty(); len(missing) == 0 || time.Now().After(end) {
			break
		}
	}
	if len(missing) > 0 {
		t.Errorf("without data:\n%s\nPrometheus says:\n%s", strings.Join(missing, "\n"), said.all())
	}
	within(t, 30*time.Second, "the rules to be evaluated", func() bool {
		a, err := ask("/api/v1/rules")
		if err != nil || len(a.Data.Groups) == 0 {
			return false
		}
		for _, rule := range a.Data.Groups[0].Rules {
			if rule.Health == "err" {
				t.Fatalf("rule %s: %s", rule.Name, rule.LastError)
			}
			if rule.Health != "ok" {
				return false
			}
		}
		return len(a.Data.Groups[0].Rules) > 10
	})
}
