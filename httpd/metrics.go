package httpd

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postern/backend"
)

// MetricsAccess says who may read /metrics: programs on this machine, clients in Networks, and whoever sends Token. With a
// Token the first need it as well.
type MetricsAccess struct {
	Networks []netip.Prefix
	Token    string
}

// Metrics counts what happens in the whole program. docs/metrics.md describes each name. Labels have few values: those a
// configuration names (mailbox, credential) and fixed words; never a user name, an address of a client or a message.
type Metrics struct {
	registry *prometheus.Registry

	commands    *prometheus.CounterVec
	commandTime *prometheus.HistogramVec
	logins      *prometheus.CounterVec
	requests    *prometheus.CounterVec
	requestTime *prometheus.HistogramVec
	items       *prometheus.CounterVec
	calls       *prometheus.CounterVec
	throttled   *prometheus.CounterVec
	sends       *prometheus.CounterVec
	bodies      *prometheus.CounterVec
}

// NewMetrics returns counters that stand at zero.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_" + name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postern_" + name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(v)
		return v
	}
	m.commands = counter("commands_total", "Commands of clients, by how they were answered: ok, no or bad.", "protocol", "command", "outcome")
	m.commandTime = histogram("command_duration_seconds", "How long commands took, data from and to the client included; IDLE is left out.",
		[]float64{.001, .005, .025, .1, .25, 1, 2.5, 10, 30, 120}, "protocol", "command")
	m.logins = counter("logins_total", "Attempts to log in: ok, wrong or locked.", "protocol", "outcome")
	m.requests = counter("graph_requests_total", "HTTP requests to Microsoft Graph, by kind and status; status 0 is no answer.", "kind", "status")
	m.requestTime = histogram("graph_request_duration_seconds", "How long requests to Microsoft Graph took, bodies included.",
		[]float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120}, "kind")
	m.items = counter("graph_batch_items_total", "Answers to single items of batches, by status.", "status")
	m.calls = counter("graph_calls_total", "Calls as Microsoft Graph counts them against a mailbox's limit: requests, and items of batches.", "mailbox")
	m.throttled = counter("graph_throttled_total", "Calls answered 429.", "mailbox")
	m.sends = counter("sends_total", "Attempts to send a message: sent, deferred, postponed, unclear, bounced or refused.", "outcome")
	m.bodies = counter("body_reads_total", "Messages that clients read, by whether their text was kept here (cache) or read from Microsoft 365 (graph).", "source")
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postern_build_info", Help: "Always 1; the label says which version runs."}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(info)
	// Outcomes that have not happened yet stand at 0, so that the first one is an increase.
	for _, o := range []string{"sent", "deferred", "postponed", "unclear", "bounced", "refused"} {
		m.sends.WithLabelValues(o)
	}
	for _, p := range []string{"smtp", "imap", "admin"} {
		for _, o := range []string{"ok", "wrong", "locked"} {
			m.logins.WithLabelValues(p, o)
		}
	}
	m.bodies.WithLabelValues("cache")
	m.bodies.WithLabelValues("graph")
	return m
}

// Observer returns the functions that count for package backend.
func (m *Metrics) Observer() backend.Observer {
	return backend.Observer{
		GraphRequest: func(mailbox, kind string, status int, took time.Duration) {
			m.requests.WithLabelValues(kind, strconv.Itoa(status)).Inc()
			m.requestTime.WithLabelValues(kind).Observe(took.Seconds())
			if kind == "batch" && status >= 200 && status <= 299 {
				return // its items count
			}
			m.call(mailbox, status)
		},
		GraphItem: func(mailbox string, status int) {
			m.items.WithLabelValues(strconv.Itoa(status)).Inc()
			m.call(mailbox, status)
		},
		Attempt: func(_, outcome string) { m.sends.WithLabelValues(outcome).Inc() },
		Login:   func(protocol, outcome string) { m.logins.WithLabelValues(protocol, outcome).Inc() },
		Body: func(kept bool) {
			if kept {
				m.bodies.WithLabelValues("cache").Inc()
			} else {
				m.bodies.WithLabelValues("graph").Inc()
			}
		},
	}
}

func (m *Metrics) call(mailbox string, status int) {
	m.calls.WithLabelValues(mailbox).Inc()
	throttled := m.throttled.WithLabelValues(mailbox) // at 0 from the first call on, so that the first refusal is an increase
	if status == http.StatusTooManyRequests {
		throttled.Inc()
	}
}

// Command returns the function that counts the commands of a protocol. Their names must be few, whatever clients send.
func (m *Metrics) Command(protocol string) func(command, outcome string, took time.Duration) {
	return func(command, outcome string, took time.Duration) {
		m.commands.WithLabelValues(protocol, command, outcome).Inc()
		if command != "IDLE" { // lasts as long as the client likes
			m.commandTime.WithLabelValues(protocol, command).Observe(took.Seconds())
		}
	}
}

// Watch adds what is read at the moment somebody asks: the state of mailboxes, queue, sign-ins and sessions. certificate
// returns when the listeners' certificate ends, the zero time without one.
func (m *Metrics) Watch(b *backend.Backend, listeners func() []Listener, certificate func() time.Time) {
	for _, a := range b.Accounts() {
		m.calls.WithLabelValues(a.Address())
		m.throttled.WithLabelValues(a.Address())
	}
	m.registry.MustRegister(&watch{b, listeners, certificate})
}

// watch is the collector for that.
type watch struct {
	b           *backend.Backend
	listeners   func() []Listener
	certificate func() time.Time
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("postern_"+name, help, labels, nil)
}

var (
	descSessions    = desc("sessions", "Connections now: open, and logged_in of them.", "protocol", "state")
	descUp          = desc("mailbox_up", "1 when the mailbox can be used, 0 when it was never read or needs a person.", "mailbox")
	descLag         = desc("mailbox_sync_lag_seconds", "Time since the last successful exchange with Microsoft Graph.", "mailbox")
	descBudgetLeft  = desc("graph_budget_remaining_requests", "Calls that Postern still allows itself in the running ten minutes.", "mailbox")
	descSendsLeft   = desc("graph_budget_remaining_sends", "Messages that may still be sent in the running minute.", "mailbox")
	descPaused      = desc("graph_paused_seconds", "What is left of the wait that Microsoft Graph asked for.", "mailbox")
	descWaiting     = desc("graph_waiting_calls", "Calls that wait for their turn.", "mailbox")
	descFillDone    = desc("mailbox_fill_messages_done", "Messages listed so far of folders that are listed for the first time; 0 when none is.", "mailbox")
	descFillTotal   = desc("mailbox_fill_messages", "All messages of those folders, as far as is known.", "mailbox")
	descQueue       = desc("queue_messages", "Messages in the queue that are still to be sent, by state.", "state")
	descQueueOldest = desc("queue_oldest_age_seconds", "Age of the oldest message still to be sent, held ones left out; 0 when there is none.")
	descTokenEnd    = desc("token_expiry_timestamp_seconds", "When the access token at hand ends; it is renewed long before.", "credential")
	descTokens      = desc("token_refreshes_total", "Access tokens received.", "credential")
	descTokenFailed = desc("token_refresh_failures_total", "Requests for an access token that failed.", "credential")
	descCredential  = desc("credential_expiry_timestamp_seconds", "When the client secret or certificate ends, where that is known.", "credential")
	descCertificate = desc("listener_certificate_expiry_timestamp_seconds", "When the listeners' certificate ends.")
	descCacheBytes  = desc("body_cache_bytes", "Disk space that kept message texts take.")
	descCacheLimit  = desc("body_cache_limit_bytes", "Disk space they may take.")
)

var descs = []*prometheus.Desc{descSessions, descUp, descLag, descBudgetLeft, descSendsLeft, descPaused, descWaiting, descFillDone, descFillTotal, descQueue,
	descQueueOldest, descTokenEnd, descTokens, descTokenFailed, descCredential, descCertificate, descCacheBytes, descCacheLimit}

// Describe implements prometheus.Collector.
func (w *watch) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (w *watch) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := time.Now()
	open, loggedIn := make(map[string]int), make(map[string]int)
	for _, l := range w.listeners() {
		open[l.Protocol] += l.Open
		loggedIn[l.Protocol] += l.LoggedIn
	}
	for _, p := range []string{"imap", "smtp"} {
		gauge(descSessions, float64(open[p]), p, "open")
		gauge(descSessions, float64(loggedIn[p]), p, "logged_in")
	}
	for _, a := range w.b.Accounts() {
		w.mailbox(a.State(), now, gauge)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if q, err := w.b.QueueState(ctx); err == nil {
		for _, state := range []string{"queued", "sending", "unclear", "held"} {
			gauge(descQueue, float64(q.Count[state]), state)
		}
		age := 0.0
		if !q.Oldest.IsZero() {
			age = max(0, now.Sub(q.Oldest).Seconds())
		}
		gauge(descQueueOldest, age)
	}
	seen := make(map[string]bool)
	for _, s := range w.b.SignIns() {
		if seen[s.Credential] {
			continue // a name is a label, and must be there once
		}
		seen[s.Credential] = true
		if !s.Expires.IsZero() {
			gauge(descTokenEnd, float64(s.Expires.Unix()), s.Credential)
		}
		ch <- prometheus.MustNewConstMetric(descTokens, prometheus.CounterValue, float64(s.Received), s.Credential)
		ch <- prometheus.MustNewConstMetric(descTokenFailed, prometheus.CounterValue, float64(s.Failed), s.Credential)
	}
	for _, e := range w.b.Expiries() {
		gauge(descCredential, float64(e.At.Unix()), e.Credential)
	}
	if end := w.certificate(); !end.IsZero() {
		gauge(descCertificate, float64(end.Unix()))
	}
	used, budget := w.b.BodyUse()
	gauge(descCacheBytes, float64(used))
	gauge(descCacheLimit, float64(budget))
}

func (w *watch) mailbox(st backend.AccountState, now time.Time, gauge func(*prometheus.Desc, float64, ...string)) {
	up := 0.0
	if usable(st) {
		up = 1
	}
	gauge(descUp, up, st.Address)
	if !st.LastSync.IsZero() {
		gauge(descLag, max(0, now.Sub(st.LastSync).Seconds()), st.Address)
	}
	u := st.Usage
	gauge(descBudgetLeft, float64(max(0, u.RequestLimit-u.Requests)), st.Address)
	gauge(descSendsLeft, float64(max(0, u.SendLimit-u.Sends)), st.Address)
	gauge(descPaused, u.PausedFor.Seconds(), st.Address)
	gauge(descWaiting, float64(u.Waiting), st.Address)
	var fill backend.Filling
	if st.Filling != nil {
		fill = *st.Filling
	}
	gauge(descFillDone, float64(fill.Done), st.Address)
	gauge(descFillTotal, float64(max(fill.Total, fill.Done)), st.Address)
}

// metrics answers Prometheus.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	if s.opts.Metrics == nil {
		http.NotFound(w, r)
		return
	}
	if !s.mayReadMetrics(r) {
		if s.settings.Load().Metrics.Token != "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the token of http.metrics is needed", http.StatusUnauthorized)
			return
		}
		http.Error(w, "metrics are read from this machine, from http.metrics.networks, or with a token", http.StatusForbidden)
		return
	}
	promhttp.HandlerFor(s.opts.Metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 20 * time.Second,
		ErrorLog: promLog{s}, ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
}

func (s *Server) mayReadMetrics(r *http.Request) bool {
	a := s.settings.Load().Metrics
	from := remote(r)
	if slices.ContainsFunc(a.Networks, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return true
	}
	if a.Token == "" {
		return fromHere(r)
	}
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(a.Token))
	return strings.EqualFold(kind, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// promLog takes what the library would print.
type promLog struct{ s *Server }

func (l promLog) Println(v ...any) { l.s.log.Warn("metrics", "err", v) }
