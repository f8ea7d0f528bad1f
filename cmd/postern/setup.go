package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/backend/token"
)

func setupCommand() *cobra.Command {
	var a answers
	var script, group, answersFile string
	var noInput bool
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Set Postern up step by step: sign-in, mailboxes, logins, configuration",
		Long: `Setup asks for what it needs in the order in which the Entra portal shows it, tries the sign-in and each
mailbox at once, makes the first logins, writes the configuration, and prints what to enter in mail programs.

Every answer can be given ahead, by a flag or in a file (--answers), and is then not asked for. Where standard
input is no terminal, or with --no-input, nothing is asked: what is missing and has no default is an error.

With --print-script it prints a script that registers the app instead, and does nothing else:
az for the Azure CLI, powershell for the Az module, msgraph for Microsoft Graph PowerShell. It is made for --cloud, uploads
--certificate, and with --client-id gives permissions to an application or managed identity that is there already.`,
		Example: `  postern setup
  postern setup --print-script msgraph >register.ps1
  postern setup --no-input --tenant contoso.example --client-id ID --client-secret-file secret.txt --mailbox alice@contoso.example`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if script != "" {
				text, err := setupScript(scriptOptions{kind: script, group: group, certificate: a.Certificate, clientID: a.ClientID, cloud: a.Cloud})
				if err == nil {
					_, err = io.WriteString(cmd.OutOrStdout(), text)
				}
				return err
			}
			if answersFile != "" {
				if err := readAnswers(answersFile, &a, cmd.Flags().Changed); err != nil {
					return err
				}
			}
			d := &dialogue{in: bufio.NewReader(cmd.InOrStdin()), out: cmd.OutOrStdout(), ask: !noInput}
			if f, ok := cmd.InOrStdin().(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
				d.ask = d.ask && os.Getenv("POSTERN_SETUP_ASK") == "1" // for scripts that type the answers
			} else {
				d.tty = f
			}
			s := &setup{dialogue: d, answers: a, prober: newProber()}
			defer s.close()
			return s.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&a.Config, "config", "c", envOr("POSTERN_CONFIG", ""), "file to write (default "+setupConfigFile+")")
	f.StringVar(&a.Name, "name", "", "name of the credential (default: the tenant's first word)")
	f.StringVar(&a.Cloud, "cloud", "", "global, usgov, usgov-dod or china")
	f.StringVar(&a.Tenant, "tenant", "", "Directory (tenant) ID, or a domain of the tenant")
	f.StringVar(&a.ClientID, "client-id", "", "Application (client) ID")
	f.StringVar(&a.SignIn, "sign-in", "", "secret, certificate, new-certificate, federated, managed-identity or device-code")
	f.StringVar(&a.ClientSecretFile, "client-secret-file", "", "file with the secret's Value; it is named in the configuration")
	f.StringVar(&a.SecretExpires, "secret-expires", "", "the day the secret ends, such as 2027-01-31, to be warned ahead")
	f.StringVar(&a.Certificate, "certificate", "", "certificate file, PEM or PFX")
	f.StringVar(&a.Key, "key", "", "key of a PEM certificate")
	f.StringVar(&a.CertificatePasswordFile, "certificate-password-file", "", "file with the password of a PFX certificate")
	f.StringVar(&a.FederatedTokenFile, "federated-token-file", "", "file with an outside issuer's token")
	f.StringVar(&a.User, "user", "", "address of the user who signs in by device code")
	f.StringSliceVar(&a.Mailboxes, "mailbox", nil, "mailboxes that get a login each")
	f.StringSliceVar(&a.Shared, "shared", nil, "shared mailboxes, shown to all logins")
	f.BoolVar(&a.SendAsShared, "send-as-shared", false, "let the logins send as the shared mailboxes too")
	f.StringVar(&a.State, "state", "", "folder for the copy of the mailboxes and the queue (default: state, beside the configuration; /var/lib/postern if that is in the folder of a package)")
	f.StringVar(&a.SMTP, "smtp", "", "SMTP address (default 127.0.0.1:2525)")
	f.StringVar(&a.IMAP, "imap", "", "IMAP address (default 127.0.0.1:1143)")
	f.StringVar(&a.HTTP, "http", "", "address of the pages for administrators (default 127.0.0.1:8025)")
	f.StringVar(&a.TLSCertificate, "tls-certificate", "", "certificate for listeners that other machines reach; new makes one")
	f.StringVar(&a.TLSKey, "tls-key", "", "its key")
	f.StringVar(&a.LoginURL, "login-url", "", "other sign-in host: a gateway, or the simulator")
	f.StringVar(&a.GraphURL, "graph-url", "", "other Graph host, without /v1.0")
	f.BoolVar(&a.Force, "force", false, "replace a configuration that is there")
	f.BoolVar(&a.SkipChecks, "skip-checks", false, "write the configuration although sign-in or mailboxes do not work yet")
	f.StringVar(&answersFile, "answers", "", "YAML file with answers, by the flags' names with _ for -")
	f.BoolVar(&noInput, "no-input", false, "ask nothing")
	f.StringVar(&script, "print-script", "", "print a script that registers the app: az, powershell or msgraph")
	f.StringVar(&group, "group", "postern-mailboxes@contoso.example", "of --print-script: mail-enabled security group of the mailboxes")
	_ = cmd.MarkFlagFilename("answers", "yaml", "yml") // only helps shell completion
	return cmd
}

// answers is all that setup needs to know. The tags name them in a file of answers.
type answers struct {
	Config                  string   `yaml:"config"`
	Name                    string   `yaml:"name"`
	Cloud                   string   `yaml:"cloud"`
	Tenant                  string   `yaml:"tenant"`
	ClientID                string   `yaml:"client_id"`
	SignIn                  string   `yaml:"sign_in"`
	ClientSecret            string   `yaml:"client_secret"`
	ClientSecretFile        string   `yaml:"client_secret_file"`
	SecretExpires           string   `yaml:"secret_expires"`
	Certificate             string   `yaml:"certificate"`
	Key                     string   `yaml:"key"`
	CertificatePasswordFile string   `yaml:"certificate_password_file"`
	FederatedTokenFile      string   `yaml:"federated_token_file"`
	User                    string   `yaml:"user"`
	Mailboxes               []string `yaml:"mailbox"`
	Shared                  []string `yaml:"shared"`
	SendAsShared            bool     `yaml:"send_as_shared"`
	State                   string   `yaml:"state"`
	SMTP                    string   `yaml:"smtp"`
	IMAP                    string   `yaml:"imap"`
	HTTP                    string   `yaml:"http"`
	TLSCertificate          string   `yaml:"tls_certificate"`
	TLSKey                  string   `yaml:"tls_key"`
	LoginURL                string   `yaml:"login_url"`
	GraphURL                string   `yaml:"graph_url"`
	Force                   bool     `yaml:"force"`
	SkipChecks              bool     `yaml:"skip_checks"`
}

// readAnswers fills a from a file. A flag that was given counts more than the file.
func readAnswers(path string, a *answers, changed func(flag string) bool) error {
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fromFlags := *a
	dec := decoder{getenv: os.LookupEnv}
	dec.decode(src, a)
	if len(dec.problems) > 0 {
		p := sortProblems(dec.problems)[0]
		return fmt.Errorf("%s:%d: %s", path, p.line, p.text)
	}
	keepFlags(a, &fromFlags, changed)
	return nil
}

// keepFlags takes what flags said from given. Both are structs of the same tags.
func keepFlags(a, given *answers, changed func(flag string) bool) {
	v, g := reflect.ValueOf(a).Elem(), reflect.ValueOf(given).Elem()
	for i := range v.NumField() {
		if flag := strings.ReplaceAll(v.Type().Field(i).Tag.Get("yaml"), "_", "-"); changed(flag) || v.Field(i).IsZero() {
			v.Field(i).Set(g.Field(i))
		}
	}
}

// setup is one run.
type setup struct {
	*dialogue
	*prober
	answers

	dir      string // of the configuration
	autoName bool
	typed    string // the secret's value, when it was typed
	cred     token.Credential
	named    []string // permissions the token names
	logins   []newLogin
	files    map[string][]byte // to write beside the configuration
}

// newLogin is a login with its password, to be shown once.
type newLogin struct {
	loginConfig
	password string
}

func (s *setup) run(ctx context.Context) error {
	s.files = make(map[string][]byte)
	for _, step := range []func(context.Context) error{s.askConfig, s.askApp, s.askSignIn, s.askMailboxes, s.askListeners, s.makeLogins, s.write} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.printResult()
	return nil
}

func (s *setup) askConfig(context.Context) error {
	if s.ask {
		s.say("Postern setup. An empty answer takes what stands in [ ]; Ctrl-C leaves, and nothing is written before the end.")
		s.say("")
	}
	if s.Config == "" {
		path, err := s.must("Configuration file to write", "config", setupConfigFile)
		if err != nil {
			return err
		}
		s.Config = path
	}
	if _, err := os.Stat(s.Config); err == nil && !s.Force {
		if !s.ask {
			return fmt.Errorf("%s is there already: use --force to replace it", s.Config)
		}
		again, err := s.yes(s.Config+" is there already. Replace it at the end?", false)
		if err != nil {
			return err
		}
		if !again {
			return errEnd
		}
	}
	s.dir = filepath.Dir(s.Config)
	return nil
}

// portals are where the clouds' administrators go.
var portals = map[string]string{"global": "https://entra.microsoft.com", "usgov": "https://entra.microsoft.us",
	"usgov-dod": "https://entra.microsoft.us", "china": "https://entra.microsoftonline.cn"}

func (s *setup) askCloud() (err error) {
	if s.ask {
		s.say("Which of Microsoft's clouds?")
	}
	s.Cloud, err = s.choose("Cloud", "cloud", "global", [][2]string{{"global", "most tenants, GCC too"}, {"usgov", "GCC High"},
		{"usgov-dod", "US Department of Defense"}, {"china", "operated by 21Vianet"}})
	return err
}

// lookAtWay makes sure that Microsoft can be reached, before somebody spends ten minutes in the portal.
func (s *setup) lookAtWay(ctx context.Context) error {
	cred := token.Credential{Cloud: token.Cloud(s.Cloud), LoginURL: s.LoginURL, GraphURL: s.GraphURL}
	for {
		var faults []string
		seen, clock := "", false
		for _, address := range []string{cred.Login(), cred.Graph()} {
			if address == seen || address == cred.Login() && s.SignIn == "managed-identity" {
				continue
			}
			seen = address
			ours := time.Now()
			at, _, err := s.host(ctx, address+"/")
			if err != nil {
				detail, remedy := explainNetwork(err)
				faults = append(faults, fmt.Sprintf("%s. %s", detail, remedy))
				continue
			}
			if f := clockFinding(at, ours); !at.IsZero() && f.Status != fine && !clock {
				clock = true
				s.say("%s", line(f.Status, f.Check, f.Detail, f.Remedy))
			}
		}
		switch {
		case len(faults) == 0:
			return nil
		case !s.ask && !s.SkipChecks:
			return fmt.Errorf("%s (--skip-checks writes the configuration all the same)", strings.Join(faults, "\n"))
		}
		for _, f := range faults {
			s.say("%s", line(failed, "network", f, ""))
		}
		if !s.ask {
			return nil
		}
		what, err := s.choose("What now", "", "retry", [][2]string{{"retry", "try again"}, {"keep", "go on, and mend it later"}})
		if err != nil || what == "keep" {
			return err
		}
	}
}

func (s *setup) askApp(ctx context.Context) error {
	if s.Cloud == "" {
		if err := s.askCloud(); err != nil {
			return err
		}
	}
	if !token.Cloud(s.Cloud).Valid() {
		return fmt.Errorf("--cloud %q is unknown: write global, usgov, usgov-dod or china", s.Cloud)
	}
	if s.ask {
		if err := s.lookAtWay(ctx); err != nil {
			return err
		}
	}
	if s.ask && s.ClientID == "" && s.SignIn != "managed-identity" {
		s.say(`
Step 1: register the application. (A script can do steps 1 to 3: postern setup --print-script msgraph.)
  Open %s as an administrator: Entra ID > App registrations > New registration.
  Name: Postern. Supported account types: this organizational directory only. Redirect URI: leave empty. Register.
  The page that follows, Overview, shows the two ids asked for now. (Running in Azure with a managed identity? Enter a - for both.)`, portals[s.Cloud])
	}
	if s.ClientID == "" && s.SignIn != "managed-identity" {
		if err := s.askClientID(); err != nil {
			return err
		}
	}
	if s.Tenant == "" && s.SignIn != "managed-identity" && s.ClientID != "-" {
		if err := s.askTenant(); err != nil {
			return err
		}
	}
	if s.ClientID == "-" {
		s.ClientID, s.SignIn = "", "managed-identity"
	}
	if s.Name == "" {
		s.autoName = true
		s.Name = credentialName(s.Tenant)
	}
	if !s.ask {
		return s.lookAtWay(ctx) // now that no answer is missing
	}
	if s.SignIn != "managed-identity" {
		s.say(`
Step 2: permissions. On the app's page: API permissions > Add a permission > Microsoft Graph > Application permissions
  (not Delegated). Tick Mail.ReadWrite and Mail.Send, Add permissions, then Grant admin consent: both lines must show a green mark.
  These reach every mailbox of the tenant. To limit the app to some, leave this step out and use RBAC for Applications:
  docs/entra-setup.md, or the script above. For a sign-in by device code choose Delegated permissions instead:
  Mail.ReadWrite, Mail.Send, Mail.ReadWrite.Shared, Mail.Send.Shared, and under Authentication allow public client flows.`)
		if _, err := s.line("Enter when done", "", optional); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) askClientID() (err error) {
	s.ClientID, err = s.askID("Application (client) ID", "client-id", func(id string) string {
		if !guid.MatchString(id) {
			return "That is no id: it looks like 2c9b0c44-0000-4000-8000-000000000000 and stands on the Overview page."
		}
		return ""
	})
	return err
}

func (s *setup) askTenant() (err error) {
	s.Tenant, err = s.askID("Directory (tenant) ID", "tenant", func(id string) string {
		switch {
		case strings.EqualFold(id, s.ClientID):
			return "That is the application's id again; the tenant's stands two lines below it."
		case !guid.MatchString(id) && !strings.Contains(id, "."):
			return "That is neither an id nor a domain such as contoso.onmicrosoft.com."
		}
		return ""
	})
	if s.autoName {
		s.Name = credentialName(s.Tenant)
	}
	return err
}

// credentialName makes a name of a tenant: contoso of contoso.onmicrosoft.com, and main of an id.
func credentialName(tenant string) string {
	first, _, dotted := strings.Cut(tenant, ".")
	if !dotted || !plainScalar.MatchString(first) || slices.Contains(yamlWords, strings.ToLower(first)) {
		return "main"
	}
	return strings.ToLower(first)
}
