package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/backend/token"
)

// config is the configuration file. docs/configuration.md describes every key.
type config struct {
	State    string `yaml:"state"`     // folder for databases, spool and bodies
	StateDir string `yaml:"state_dir"` // belongs to state: postgres://…, not yet available

	Credentials map[string]credentialConfig `yaml:"credentials"`
	Mailboxes   []mailboxConfig             `yaml:"mailboxes"`
	Logins      []loginConfig               `yaml:"logins"`
	Listeners   []listenerConfig            `yaml:"listeners"`

	TLS   tlsConfig   `yaml:"tls"`
	SMTP  smtpConfig  `yaml:"smtp"`
	IMAP  imapConfig  `yaml:"imap"`
	HTTP  httpConfig  `yaml:"http"`
	Queue queueConfig `yaml:"queue"`

	Sendmail sendmailConfig `yaml:"sendmail"`

	Cache cacheConfig `yaml:"cache"`

	ExpiryMail           string `yaml:"expiry_mail"`            // mailbox that gets a mail before a credential ends
	AllowReadableSecrets bool   `yaml:"allow_readable_secrets"` // starts although others on this machine can read files with secrets
}

// credentialConfig is an Entra app.
type credentialConfig struct {
	Tenant           string `yaml:"tenant"` // directory id or domain
	ClientID         string `yaml:"client_id"`
	ClientSecret     string `yaml:"client_secret"`
	ClientSecretFile string `yaml:"client_secret_file"`
	Cloud            string `yaml:"cloud"`     // global, usgov, usgov-dod or china
	LoginURL         string `yaml:"login_url"` // in place of the cloud's own sign-in host
	GraphURL         string `yaml:"graph_url"` // in place of the cloud's own Graph host, without /v1.0

	SecretExpires string `yaml:"secret_expires"` // the day the secret ends, or auto: ask Graph

	// In place of a secret.
	Certificate             string `yaml:"certificate"` // PEM, or PFX with its key inside
	Key                     string `yaml:"key"`         // of a PEM certificate, unless it is in the same file
	CertificatePassword     string `yaml:"certificate_password"`
	CertificatePasswordFile string `yaml:"certificate_password_file"`
	Signature               string `yaml:"signature"` // PS256 or RS256
	FederatedTokenFile      string `yaml:"federated_token_file"`
	ManagedIdentity         string `yaml:"managed_identity"` // auto, imds or app-service
	DeviceCode              string `yaml:"device_code"`      // the user who signs in by postern signin
	TokenKeyFile            string `yaml:"token_key_file"`   // of device_code: encrypts what is kept of the sign-in
}

// mailboxConfig is one Microsoft 365 mailbox.
type mailboxConfig struct {
	Address    string   `yaml:"address"`
	Credential string   `yaml:"credential"`
	Aliases    []string `yaml:"aliases"`
	Quota      byteSize `yaml:"quota"` // what the mailbox may hold, told to IMAP clients; not told when absent
}

// loginConfig is one of Postern's own logins.
type loginConfig struct {
	Username         string         `yaml:"username"`
	PasswordHash     string         `yaml:"password_hash"`
	PasswordHashFile string         `yaml:"password_hash_file"`
	Mailbox          string         `yaml:"mailbox"`
	Shared           []string       `yaml:"shared"`
	Allow            []string       `yaml:"allow"` // smtp, imap, admin; the first two when absent
	ReadOnly         bool           `yaml:"read_only"`
	SendAs           []string       `yaml:"send_as"`
	RewriteFrom      bool           `yaml:"rewrite_from"`
	Networks         []netip.Prefix `yaml:"networks"`      // from anywhere when absent
	FallbackFrom     string         `yaml:"fallback_from"` // the address rewrite_from writes; the mailbox's when absent
	SaveToSent       unlessFalse    `yaml:"save_to_sent"`  // false removes copies from Sent Items
	Rate             int            `yaml:"rate"`          // messages a minute; 0 for smtp.rate
	Gather           time.Duration  `yaml:"gather"`        // 0 for smtp.gather
}

// listenerConfig is one address to listen on.
type listenerConfig struct {
	Protocol       string `yaml:"protocol"`        // smtp, imap or http
	Address        string `yaml:"address"`         // host:port
	TLS            string `yaml:"tls"`             // none, starttls or implicit
	AllowPlaintext bool   `yaml:"allow_plaintext"` // lets tls: none listen off loopback
	Profile        string `yaml:"profile"`         // of smtp: modern or device

	// Of smtp listeners. Networks and mailbox need profile: device.
	Networks     []netip.Prefix `yaml:"networks"`      // where no log-in is needed
	Mailbox      string         `yaml:"mailbox"`       // whose mailbox mail from there goes through
	SendAs       []string       `yaml:"send_as"`       // what it may be sent as, besides the mailbox's addresses
	RewriteFrom  bool           `yaml:"rewrite_from"`  // makes any other sender the mailbox's address
	FallbackFrom string         `yaml:"fallback_from"` // or this one
	SaveToSent   unlessFalse    `yaml:"save_to_sent"`  // false removes copies from Sent Items
	TLSMin       string         `yaml:"tls_min"`       // 1.0, 1.1, 1.2 or 1.3
	ProxyFrom    []netip.Prefix `yaml:"proxy_from"`    // balancers that tell the client's address by the PROXY protocol
	PublicPort   int            `yaml:"public_port"`   // where clients find it, if not at the address's own; for their autoconfiguration
}

// tlsConfig names the certificate of all listeners, PEM files.
type tlsConfig struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

type smtpConfig struct {
	Rate       int           `yaml:"rate"`        // messages a minute of one login; 0 for no limit
	Gather     time.Duration `yaml:"gather"`      // how long the same message waits for further recipients; 0 not at all
	Wait       time.Duration `yaml:"wait"`        // how long the end of DATA waits for the first attempt
	MaxMessage byteSize      `yaml:"max_message"` // of a submitted or appended message
}

type imapConfig struct {
	Poll   time.Duration `yaml:"poll"`   // between looks at folders somebody has open
	Size   string        `yaml:"size"`   // auto, exact or estimate
	Append string        `yaml:"append"` // json or import-mime
	Delete string        `yaml:"delete"` // recoverable, trash or purge

	Connections           int `yaml:"connections"`             // at once, of one listener
	ConnectionsPerAddress int `yaml:"connections_per_address"` // the same from one address
	ConnectionsPerLogin   int `yaml:"connections_per_login"`   // of one login, over all listeners
}

// httpConfig is for listeners with protocol: http.
type httpConfig struct {
	PublicName string        `yaml:"public_name"` // under which mail programs and browsers reach this server
	Hosts      []string      `yaml:"hosts"`       // other names browsers may use
	Metrics    metricsConfig `yaml:"metrics"`
}

// metricsConfig says who may read /metrics, besides programs on this machine.
type metricsConfig struct {
	Networks  []netip.Prefix `yaml:"networks"`
	Token     string         `yaml:"token"` // with one, programs on this machine need it as well
	TokenFile string         `yaml:"token_file"`
}

type queueConfig struct {
	Lifetime   time.Duration `yaml:"lifetime"`    // how long a message is tried
	Warn       time.Duration `yaml:"warn"`        // age from which those who want to know are told of a delay
	Unsure     string        `yaml:"unsure"`      // hold or send: what was perhaps sent where the app may not look
	LogKeep    time.Duration `yaml:"log_keep"`    // how long it is known what became of a message
	LogSubject bool          `yaml:"log_subject"` // whether that includes its subject
	MinFree    byteSize      `yaml:"min_free"`    // of the disk, to be left
}

// sendmailConfig is for postern sendmail.
type sendmailConfig struct {
	Mailbox      string      `yaml:"mailbox"`       // whose mailbox it goes through; none: sendmail is off
	Drop         string      `yaml:"drop"`          // folder into which messages are put; state/drop when absent
	Local        string      `yaml:"local"`         // address for mail to local users, such as root; the mailbox's when absent
	FallbackFrom string      `yaml:"fallback_from"` // in place of senders that are not the mailbox's
	SendAs       []string    `yaml:"send_as"`       // senders to be left as they are, besides the mailbox's
	SaveToSent   unlessFalse `yaml:"save_to_sent"`  // false removes copies from Sent Items
}

type cacheConfig struct {
	Bodies byteSize `yaml:"bodies"` // kept message bodies on disk
}

// defaultConfig is what holds where the file says nothing.
func defaultConfig() config {
	return config{
		State: "/var/lib/postern",
		SMTP:  smtpConfig{Wait: 10 * time.Second, MaxMessage: 150e6},
		IMAP: imapConfig{Poll: 5 * time.Second, Size: "auto", Append: "json", Delete: "recoverable",
			Connections: 2000, ConnectionsPerAddress: 500, ConnectionsPerLogin: 100},
		Queue: queueConfig{Lifetime: 48 * time.Hour, Warn: 4 * time.Hour, Unsure: "hold", LogKeep: 7 * 24 * time.Hour, MinFree: 100e6},
		Cache: cacheConfig{Bodies: 2e9},
	}
}

// configFile is a configuration as read, with what is wrong about it.
type configFile struct {
	config
	path     string
	digest   string // of the text
	lines    map[string]int
	expanded map[string]bool
	errors   []problem
	warnings []problem

	getenv       func(string) (string, bool)
	certificates map[string]*token.Certificate // of credentials
}

// readConfig reads and checks the file at path. The error lists all that is wrong, one fault on each line.
func readConfig(path string, getenv func(string) (string, bool)) (*configFile, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, explainReadError(path, err)
	}
	c := parseConfig(path, src, getenv)
	c.checkPermissions()
	return c, c.err()
}

func explainReadError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: postern setup writes one, step by step, and postern config example prints one to edit", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by this user: %w", path, err)
	}
	return err
}

// parseConfig reads and checks src. Files it names are looked for beside path.
func parseConfig(path string, src []byte, getenv func(string) (string, bool)) *configFile {
	c := &configFile{config: defaultConfig(), path: path, digest: digest(src), getenv: getenv}
	d := decoder{getenv: getenv}
	d.decode(src, &c.config)
	c.lines, c.expanded, c.errors = d.lines, d.expanded, d.problems
	c.check()
	return c
}

// err returns all faults as one error, or nil.
func (c *configFile) err() error {
	if len(c.errors) == 0 {
		return nil
	}
	return errors.New(strings.Join(c.describe(c.errors), "\n"))
}

// describe returns the problems in the order of the file, each with the file's name and line.
func (c *configFile) describe(problems []problem) []string {
	var out []string
	for _, p := range sortProblems(problems) {
		if p.line == 0 {
			out = append(out, fmt.Sprintf("%s: %s", c.path, p.text))
		} else {
			out = append(out, fmt.Sprintf("%s:%d: %s", c.path, p.line, p.text))
		}
	}
	return out
}

// errorf notes a fault of the value at path.
func (c *configFile) errorf(path, format string, args ...any) {
	c.errors = append(c.errors, problem{c.line(path), at(path) + fmt.Sprintf(format, args...)})
}

// warnf notes something that works but should not stay.
func (c *configFile) warnf(path, format string, args ...any) {
	c.warnings = append(c.warnings, problem{c.line(path), at(path) + fmt.Sprintf(format, args...)})
}

// line returns where the value at path stands, or the nearest thing around it.
func (c *configFile) line(path string) int {
	for path != "" {
		if n, ok := c.lines[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['), 0)]
	}
	return 0
}

// beside returns name as seen from the configuration file's folder, so that
// it does not matter where the program is started.
func (c *configFile) beside(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(c.path), name)
}

// maxSecret is how much of a file named by a *_file key may be a secret, in bytes.
const maxSecret = 64 << 10

// secretFile returns the content of the file a *_file key names, without the line end.
func (c *configFile) secretFile(path, name string) string {
	f, err := os.Open(c.beside(name))
	if err != nil {
		c.errorf(path, "%v", err)
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	s := strings.TrimRight(string(b), "\r\n")
	switch {
	case err != nil:
		c.errorf(path, "%v", err)
	case len(b) > maxSecret:
		c.errorf(path, "%s is too long for a secret", c.beside(name))
	case s == "":
		c.errorf(path, "%s is empty", c.beside(name))
	default:
		return s
	}
	return ""
}

// folder returns the folder for what is kept in files.
func (c *configFile) folder() string {
	if c.StateDir != "" {
		return c.beside(c.StateDir)
	}
	return c.State
}

// keepState makes c use old's state folder: another one holds only after a restart.
func (c *configFile) keepState(old *configFile) {
	if c.Sendmail.Drop == filepath.Join(c.State, dropFolder) {
		c.Sendmail.Drop = filepath.Join(old.State, dropFolder)
	}
	c.State, c.StateDir = old.State, old.StateDir
}
