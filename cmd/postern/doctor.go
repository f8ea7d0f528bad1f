package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"postern/backend"
	"postern/backend/graph"
	"postern/backend/token"
)

// doctorOptions say what doctor does besides looking.
type doctorOptions struct {
	mustNotReach []string
	sendTest     string
	sendFrom     string
}

func doctorCommand() *cobra.Command {
	var o doctorOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check configuration, sign-in, mailboxes and this machine, and say what to do",
		Long: `Doctor checks everything between this machine and the mailboxes, one line for each check: ok, warning
or failed, and what to do. It changes nothing, and works beside a running server. The exit status says the
worst: 0 all is well, 1 a warning, 2 something has failed.

With --must-not-reach it also makes sure that the app is kept out of a mailbox it has no business in.
With --send-test it sends one message and waits for it.`,
		Example: `  postern doctor -c postern.yaml
  postern doctor -c postern.yaml --must-not-reach ceo@contoso.example
  postern doctor -c postern.yaml --send-test alice@contoso.example --json`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			r := &report{out: cmd.OutOrStdout(), json: asJSON, color: isTerminal(cmd.OutOrStdout())}
			c, err := readConfig(path, os.LookupEnv)
			if c == nil {
				r.add(finding{"configuration", failed, err.Error(), "Let postern setup write one."})
			} else {
				diagnose(cmd.Context(), c, o, r)
			}
			if err := r.finish(); err != nil {
				return err
			}
			return r.exit()
		},
	}
	addConfigFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringSliceVar(&o.mustNotReach, "must-not-reach", nil, "mailboxes that the app must be kept out of")
	f.StringVar(&o.sendTest, "send-test", "", "send one message to this address and wait for it")
	f.StringVar(&o.sendFrom, "send-from", "", "mailbox to send it from (default: the first)")
	return cmd
}

// exitError ends the program with a status and no further word.
type exitError struct{ status int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// report collects findings, and prints each as it comes.
type report struct {
	out      io.Writer
	json     bool
	color    bool
	findings []finding
	each     func(finding) // told each finding; may be nil
	err      error
}

func (r *report) add(fs ...finding) {
	for _, f := range fs {
		r.findings = append(r.findings, f)
		if r.each != nil {
			r.each(f)
		}
		if r.json || r.err != nil {
			continue
		}
		r.err = printFinding(r.out, f, r.color)
	}
}

// printFinding writes one line, and the remedy behind it.
func printFinding(w io.Writer, f finding, color bool) error {
	mark := fmt.Sprintf("%-7s", f.Status)
	if color {
		mark = map[verdict]string{fine: "\x1b[32m", warning: "\x1b[33m", failed: "\x1b[31m"}[f.Status] + mark + "\x1b[0m"
	}
	text := f.Check + ": " + f.Detail
	if f.Remedy != "" {
		text += ". " + f.Remedy
	}
	lines := strings.Split(text, "\n") // with what Microsoft or a gateway said
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	line := mark + "  " + strings.Join(lines, "\n")
	_, err := fmt.Fprintln(w, line)
	return err
}

// worst returns the worst verdict.
func (r *report) worst() verdict {
	out := fine
	for _, f := range r.findings {
		if f.Status == failed || f.Status == warning && out == fine {
			out = f.Status
		}
	}
	return out
}

func (r *report) finish() error {
	if r.err != nil || !r.json {
		return r.err
	}
	e := json.NewEncoder(plainJSON{r.out})
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Status verdict   `json:"status"`
		Checks []finding `json:"checks"`
	}{r.worst(), r.findings})
}

func (r *report) exit() error {
	switch r.worst() {
	case warning:
		return &exitError{1}
	case failed:
		return &exitError{2}
	}
	return nil
}

// diagnose makes all checks.
func diagnose(ctx context.Context, c *configFile, o doctorOptions, r *report) {
	for _, e := range c.describe(c.errors) {
		r.add(finding{"configuration", failed, e, "Mend this line, then run doctor again."})
	}
	for _, w := range c.describe(c.warnings) {
		if !strings.Contains(w, ": logins: there are none") { // those of the state folder count too, below
			r.add(finding{"configuration", warning, w, ""})
		}
	}
	if len(c.errors) > 0 {
		return // what would follow is guesswork
	}
	r.add(finding{"configuration", fine, fmt.Sprintf("%s: %s, %s, %s", c.path, plural(len(c.Mailboxes), "mailbox", "mailboxes"),
		count(len(c.Logins), "login"), count(len(c.Listeners), "listener")), ""})
	d := &doctor{prober: newProber(), conf: c, creds: make(map[string]token.Credential), tokens: make(map[string]string), named: make(map[string][]string), down: make(map[string]bool)}
	defer d.close()
	for name := range c.Credentials {
		cred := c.credential(name)
		if cred.Delegated != nil {
			cred.Delegated.Store.(*token.RefreshFile).ReadOnly = true
		}
		d.creds[name] = cred
	}
	r.add(secretFileFindings(c)...)
	r.add(d.hosts(ctx)...)
	for _, name := range slices.Sorted(maps.Keys(d.creds)) {
		r.add(d.credential(ctx, name)...)
	}
	r.add(d.mailboxes(ctx)...)
	for _, address := range o.mustNotReach {
		r.add(d.mustNotReach(ctx, address)...)
	}
	r.add(d.logins()...)
	r.add(d.service()...)
	r.add(certificateFinding(c, time.Now()))
	for _, l := range c.Listeners {
		r.add(portFinding(ctx, l))
	}
	r.add(stateFindings(c.folder())...)
	r.add(inUseFindings(c)...)
	if o.sendTest != "" {
		r.add(d.sendTest(ctx, o.sendFrom, o.sendTest))
	}
}

// doctor holds what the checks share.
type doctor struct {
	*prober
	conf   *configFile
	creds  map[string]token.Credential
	tokens map[string]string   // by credential; those that could be had
	named  map[string][]string // the permissions they name
	down   map[string]bool     // hosts that could not be reached
}

func secretFileFindings(c *configFile) []finding {
	seen := map[string]bool{}
	var out []finding
	for _, f := range c.secretFiles() {
		if seen[f.file] {
			continue
		}
		seen[f.file] = true
		info, err := os.Stat(f.file)
		switch {
		case errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(f.key, "token_key_file"):
			continue // made with the first sign-in
		case err != nil:
			out = append(out, finding{"file " + f.file, failed, err.Error(), "Let the user that runs Postern read it."})
		case othersCanRead(f.file):
			continue // said already, as fault or warning of the configuration
		default:
			out = append(out, finding{"file " + f.file, fine, fmt.Sprintf("mode %04o, closed to others", info.Mode().Perm()), ""})
		}
	}
	return out
}

// hosts checks names, proxy, TLS and clock, each host once.
func (d *doctor) hosts(ctx context.Context) []finding {
	var out []finding
	seen := map[string]bool{}
	var clock []finding // none where no host was reached, which is said then
	var worst time.Duration = -1
	for _, name := range slices.Sorted(maps.Keys(d.creds)) {
		cred := d.creds[name]
		for _, h := range []struct{ what, address string }{{"sign-in host", cred.Login()}, {"Graph host", cred.Graph()}} {
			if seen[h.what+h.address] || cred.Kind() == token.ManagedIdentity && h.what == "sign-in host" {
				continue
			}
			seen[h.what+h.address] = true
			check := h.what + " " + mustURL(h.address).Host
			at, took, err := d.host(ctx, h.address+"/")
			now := time.Now()
			if err != nil {
				detail, remedy := explainNetwork(err)
				out = append(out, finding{check, failed, detail, remedy})
				d.down[h.address] = true
				continue
			}
			detail := fmt.Sprintf("answers in %d ms", took.Milliseconds())
			if u := proxyFor(h.address); u != "" {
				detail += " through the proxy " + u
			}
			out = append(out, finding{check, fine, detail, ""})
			if skew := now.Sub(at).Abs(); !at.IsZero() && skew > worst {
				worst, clock = skew, []finding{clockFinding(at, now)}
			}
		}
	}
	return append(clock, out...)
}

// credential checks the sign-in of one credential, what its token may do, and when its secret ends.
func (d *doctor) credential(ctx context.Context, name string) []finding {
	cred := d.creds[name]
	check := "sign-in " + name
	if d.down[cred.Login()] && cred.Kind() != token.ManagedIdentity {
		return append([]finding{{check, failed, "not tried, because the sign-in host cannot be reached", ""}}, d.expiry(ctx, name)...)
	}
	tok, err := d.signIn(ctx, cred)
	var out []finding
	if err != nil {
		detail, remedy := explainSignIn(err, cred)
		out = append(out, finding{check, failed, detail, remedy})
	} else {
		d.tokens[name] = tok
		c, _ := token.ReadClaims(tok)
		d.named[name] = c.Permissions()
		detail := "by " + strings.ReplaceAll(string(cred.Kind()), "_", " ")
		if c.User != "" {
			detail += " as " + c.User
		}
		out = append(out, finding{check, fine, detail, ""})
		if cred.Delegated != nil && cred.Delegated.User != "" && c.User != "" && !strings.EqualFold(c.User, cred.Delegated.User) {
			out[0].Status, out[0].Remedy = warning, "The configuration names "+cred.Delegated.User+": sign in again with postern signin, or change device_code."
		}
		out = append(out, rolesFinding(name, tok, cred.Kind() == token.DeviceCode, d.conf.Queue.Unsure))
	}
	return append(out, d.expiry(ctx, name)...)
}

// expiry says when a credential's secret or certificate ends.
func (d *doctor) expiry(ctx context.Context, name string) []finding {
	cred := d.creds[name]
	e := backend.Expiry{Credential: name}
	check := "expiry " + name
	switch cred.Kind() {
	case token.ClientCert:
		e.What, e.At = "certificate", cred.Certificate.NotAfter()
	case token.ClientSecret:
		e.What, e.At = "client secret", cred.SecretEnds
		if e.At.IsZero() && d.tokens[name] != "" {
			at, err := d.prober.tokens.SecretEnd(ctx, cred)
			switch {
			case err != nil:
				return []finding{{check, fine, "when the client secret ends is not known", "Write the day under secret_expires to be warned ahead of it."}}
			case at.IsZero():
				return []finding{{check, fine, "the client secret does not end", ""}}
			}
			e.At = at
		}
	}
	if e.At.IsZero() {
		return nil
	}
	now := time.Now()
	if w := e.Warning(now); w != "" {
		f := finding{check, warning, strings.TrimSuffix(w, "."), ""}
		if e.Days(now) < 0 {
			f.Status = failed
		}
		f.Detail, f.Remedy, _ = strings.Cut(f.Detail, ": ")
		f.Remedy = upperFirst(f.Remedy) + "."
		return []finding{f}
	}
	return []finding{{check, fine, fmt.Sprintf("%s until %s, %d days", e.What, e.At.UTC().Format(time.DateOnly), e.Days(now)), ""}}
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// mailboxes opens each configured mailbox, a few at a time.
func (d *doctor) mailboxes(ctx context.Context) []finding {
	out := make([]finding, len(d.conf.Mailboxes))
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i, m := range d.conf.Mailboxes {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i] = d.mailbox(ctx, m)
		})
	}
	wg.Wait()
	return out
}

func (d *doctor) mailbox(ctx context.Context, m mailboxConfig) finding {
	check := "mailbox " + m.Address
	cred := d.creds[m.Credential]
	if d.tokens[m.Credential] == "" {
		return finding{check, failed, "not looked at, because credential " + m.Credential + " cannot sign in", ""}
	}
	if d.down[cred.Graph()] {
		return finding{check, failed, "not looked at, because the Graph host cannot be reached", ""}
	}
	begun := time.Now()
	f, err := d.open(ctx, cred, m.Address)
	if err != nil {
		detail, remedy := explainMailbox(err, cred, m.Address, d.named[m.Credential])
		if named := d.named[m.Credential]; graph.IsDenied(err) && !slices.Contains(named, "Mail.ReadWrite") && slices.Contains(named, "Mail.Send") && !d.conf.reads(m.Address) {
			return finding{check, warning, "the app may only send, and no login reads it", "Nothing need be done if that is meant; docs/sending.md says what is different then. Otherwise: " + lowerFirst(remedy)}
		}
		return finding{check, failed, detail, remedy}
	}
	detail := fmt.Sprintf("opened in %d ms", time.Since(begun).Milliseconds())
	detail += fmt.Sprintf(", %s in the Inbox", count(f.TotalItemCount, "message"))
	return finding{check, fine, detail, ""}
}

// reads reports whether a login of the file may read a mailbox.
func (c *configFile) reads(address string) bool {
	for _, l := range c.Logins {
		if !slices.Contains(l.Allow, "imap") && len(l.Allow) > 0 {
			continue
		}
		if strings.EqualFold(l.Mailbox, address) || slices.ContainsFunc(l.Shared, func(s string) bool { return strings.EqualFold(s, address) }) {
			return true
		}
	}
	return false
}

// mustNotReach makes sure that no credential opens a mailbox.
func (d *doctor) mustNotReach(ctx context.Context, address string) []finding {
	var out []finding
	for _, name := range slices.Sorted(maps.Keys(d.tokens)) {
		check := "kept out of " + address + " (" + name + ")"
		_, err := d.open(ctx, d.creds[name], address)
		switch {
		case err == nil:
			out = append(out, finding{check, failed, "the app opens this mailbox",
				"Limit it with RBAC for Applications (postern setup --print-script msgraph) and take the tenant-wide permissions away; a change takes up to two hours."})
		case graph.IsDenied(err):
			out = append(out, finding{check, fine, "refused, as it should be", ""})
		case graph.IsNoMailbox(err):
			out = append(out, finding{check, warning, "there is no such mailbox, so this proves nothing", "Name one that exists."})
		default:
			detail, _ := explainMailbox(err, d.creds[name], address, d.named[name])
			out = append(out, finding{check, warning, "cannot be told: " + detail, ""})
		}
	}
	return out
}

// logins looks at what logins share and send as. Exchange tells who may send as whom only when somebody does.
func (d *doctor) logins() []finding {
	byName := map[string]mailboxConfig{}
	for _, m := range d.conf.Mailboxes {
		for _, a := range append([]string{m.Address}, m.Aliases...) {
			byName[strings.ToLower(a)] = m
		}
	}
	var out []finding
	for _, l := range d.conf.Logins {
		if len(l.Shared) > 0 {
			out = append(out, finding{"shared " + l.Username, fine, "sees " + strings.Join(l.Shared, ", ") + " under Shared/", ""})
		}
		for _, as := range l.SendAs {
			check := fmt.Sprintf("send as %s (%s)", as, l.Username)
			m, ok := byName[strings.ToLower(as)]
			switch {
			case ok && strings.EqualFold(m.Address, l.Mailbox):
			case ok && d.creds[m.Credential].Delegated == nil:
				out = append(out, finding{check, fine, "goes out through that mailbox itself, which needs no right in Exchange", ""})
			default:
				out = append(out, finding{check, fine, "needs Send As in Exchange, which shows only when mail is sent",
					fmt.Sprintf("To be sure: Get-RecipientPermission %s lists %s.", as, l.Mailbox)})
			}
		}
	}
	if stored, err := backend.StateLogins(d.conf.folder()); err != nil {
		out = append(out, finding{"logins of the state folder", failed, err.Error(), "Put the file back from a backup, or move it away and make the logins again."})
	} else {
		for _, l := range stored {
			if _, ok := byName[strings.ToLower(l.Mailbox)]; !ok && l.Mailbox != "" {
				out = append(out, finding{"login " + l.Username, warning, "its mailbox " + l.Mailbox + " is not configured, so it is left out", "Revoke it: postern login revoke " + l.Username + "."})
			}
		}
	}
	if len(out) == 0 && len(d.conf.Logins) == 0 {
		if stored, _ := backend.StateLogins(d.conf.folder()); len(stored) == 0 {
			out = append(out, finding{"logins", warning, "there are none, so nobody can log in", "Make one: postern login add NAME."})
		}
	}
	return out
}

// Graph usually answers within these.
const (
	slowGraph = 2 * time.Second
)

// service says how Graph has behaved during the checks.
func (d *doctor) service() []finding {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.latencies) == 0 {
		return nil
	}
	l := slices.Sorted(slices.Values(d.latencies))
	median := l[len(l)/2]
	out := []finding{{"Graph latency", fine, fmt.Sprintf("%d ms, the middle of %s", median.Milliseconds(), count(len(l), "call")), ""}}
	if median > slowGraph {
		out[0].Status, out[0].Remedy = warning, "Look at the network and the proxy; reading stays quick, as it is served from the copy on disk."
	}
	if d.throttled > 0 {
		return append(out, finding{"throttling", warning, fmt.Sprintf("Graph asked %s to slow down", count(d.throttled, "time")), "See what else works on these mailboxes."})
	}
	return append(out, finding{"throttling", fine, "none", ""})
}

// sendTestWait is how long a test message may take.
const sendTestWait = 90 * time.Second

// sendTest sends one message and waits until it is in Sent Items and, where the recipient's mailbox is configured too,
// in its Inbox.
func (d *doctor) sendTest(ctx context.Context, from, to string) finding {
	check := "send test to " + to
	find := func(address string) (mailboxConfig, bool) {
		for _, m := range d.conf.Mailboxes {
			if strings.EqualFold(m.Address, address) || slices.ContainsFunc(m.Aliases, func(a string) bool { return strings.EqualFold(a, address) }) {
				return m, true
			}
		}
		return mailboxConfig{}, false
	}
	if from == "" {
		from = d.conf.Mailboxes[0].Address
	}
	sender, ok := find(from)
	if !ok {
		return finding{check, failed, from + " is not among mailboxes", "Name one of them with --send-from."}
	}
	if strings.ContainsAny(to, "\r\n<>, ") || !strings.Contains(to, "@") {
		return finding{check, failed, "that is no address", "Write one like name@example.com."}
	}
	if d.tokens[sender.Credential] == "" {
		return finding{check, failed, "not sent, because credential " + sender.Credential + " cannot sign in", ""}
	}
	id := make([]byte, 12)
	rand.Read(id) // never fails
	messageID := "<" + hex.EncodeToString(id) + ".doctor@postern.invalid>"
	mail := fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: Postern test message\r\nDate: %s\r\nMessage-ID: %s\r\nAuto-Submitted: auto-generated\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nSent by postern doctor to see whether sending works. It may be deleted.\r\n",
		sender.Address, to, time.Now().Format(time.RFC1123Z), messageID)
	cred := d.creds[sender.Credential]
	client := d.graphFor(cred, sender.Address)
	begun := time.Now()
	if err := client.SendMIME(ctx, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(mail)), nil }, int64(len(mail))); err != nil {
		if graph.IsDenied(err) {
			return finding{check, failed, "Graph refuses to send from " + sender.Address, "Grant the application permission Mail.Send with admin consent, or include the mailbox in the app's scope."}
		}
		detail, remedy := explainMailbox(err, cred, sender.Address, d.named[sender.Credential])
		return finding{check, failed, detail, remedy}
	}
	waiting := map[string]*graph.Client{"sentitems": client}
	if m, ok := find(to); ok && d.tokens[m.Credential] != "" {
		waiting["inbox"] = d.graphFor(d.creds[m.Credential], m.Address)
	}
	names := map[string]string{"sentitems": "Sent Items of " + sender.Address, "inbox": "the Inbox of " + to}
	var arrived []string
	for pause := time.Second; len(waiting) > 0; pause = min(2*pause, 8*time.Second) {
		for _, folder := range slices.Sorted(maps.Keys(waiting)) {
			if found, err := hasMessage(ctx, waiting[folder], folder, messageID); err == nil && found {
				arrived = append(arrived, fmt.Sprintf("in %s after %.1f s", names[folder], time.Since(begun).Seconds()))
				delete(waiting, folder)
			}
		}
		if len(waiting) == 0 {
			break
		}
		if time.Since(begun) > sendTestWait {
			missing := names[slices.Sorted(maps.Keys(waiting))[0]]
			return finding{check, warning, "sent, but not seen in " + missing + " within " + shortDuration(sendTestWait), "Look there later, and into the message trace of the Exchange admin center."}
		}
		select {
		case <-ctx.Done():
			return finding{check, warning, "sent, but the wait was cut short", ""}
		case <-time.After(pause):
		}
	}
	return finding{check, fine, strings.Join(arrived, ", "), ""}
}

func hasMessage(ctx context.Context, c *graph.Client, folder, messageID string) (bool, error) {
	found := false
	err := c.ListMessages(ctx, folder, graph.ListOptions{Select: []string{"internetMessageId"}, Filter: "internetMessageId eq " + graph.Quote(messageID), PageSize: 5}, "",
		func(page []graph.Message, _ string) error {
			found = found || len(page) > 0
			return nil
		})
	return found, err
}
