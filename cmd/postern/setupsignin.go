package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/backend/token"
)

// Files that setup writes beside the configuration.
const (
	setupConfigFile = "postern.yaml"
	setupSecretFile = "client-secret"
	setupCertFile   = "postern-app.pem"
	setupKeyFile    = "postern-app-key.pem"
)

func (s *setup) askSignIn(ctx context.Context) error {
	if s.SignIn == "" {
		switch {
		case s.ClientSecretFile != "" || s.ClientSecret != "":
			s.SignIn = "secret"
		case s.Certificate != "":
			s.SignIn = "certificate"
		case s.FederatedTokenFile != "":
			s.SignIn = "federated"
		case s.User != "":
			s.SignIn = "device-code"
		}
	}
	for first := true; ; first = false {
		if s.SignIn == "" {
			if s.ask {
				s.say("\nStep 3: how the app proves who it is.")
			}
			var err error
			if s.SignIn, err = s.choose("Sign in by", "sign-in", "secret", [][2]string{{"secret", "a client secret: quick, ends within two years"},
				{"new-certificate", "a certificate that is made now: nothing secret passes through the portal"}, {"certificate", "a certificate you have, PEM or PFX"},
				{"federated", "a token file of another issuer (workload identity)"}, {"managed-identity", "the identity of this Azure machine or App Service"},
				{"device-code", "a person signs in once; for his mailbox and shared ones"}}); err != nil {
				return err
			}
		}
		if err := s.proof(); err != nil {
			if !s.ask || errors.Is(err, errEnd) {
				return err
			}
			s.say("%s", upperFirst(err.Error())+".")
			s.SignIn = ""
			continue
		}
		if s.SignIn == "device-code" && first {
			if err := s.deviceSignIn(ctx); err != nil && !s.ask {
				return err
			}
		}
		done, err := s.trySignIn(ctx)
		if done || err != nil {
			return err
		}
	}
}

// proof asks for what the chosen way needs, and makes the credential.
func (s *setup) proof() error {
	s.cred = token.Credential{Name: s.Name, Tenant: s.Tenant, ClientID: s.ClientID, Cloud: token.Cloud(s.Cloud), LoginURL: s.LoginURL, GraphURL: s.GraphURL}
	var err error
	switch s.SignIn {
	case "secret":
		err = s.askSecret()
	case "new-certificate":
		if err = s.makeAppCertificate(); err == nil {
			err = s.loadCertificate()
		}
	case "certificate":
		if s.Certificate == "" {
			if s.Certificate, err = s.must("Certificate file", "certificate", ""); err != nil {
				return err
			}
			if s.Key, err = s.line("File of its key, if it is a PEM file without it", "key", optional); err != nil {
				return err
			}
			s.Key = strings.TrimSpace(s.Key)
		}
		err = s.loadCertificate()
	case "federated":
		if s.FederatedTokenFile == "" {
			if s.FederatedTokenFile, err = s.must("Token file", "federated-token-file", os.Getenv("AZURE_FEDERATED_TOKEN_FILE")); err != nil {
				return err
			}
		}
		s.cred.FederatedTokenFile = s.FederatedTokenFile
	case "managed-identity":
		id := &token.Identity{ClientID: s.ClientID, Endpoint: os.Getenv("IDENTITY_ENDPOINT"), Header: os.Getenv("IDENTITY_HEADER")}
		s.cred.Identity = id
	case "device-code":
		if s.User == "" {
			if s.User, err = s.must("Address of the user who signs in", "user", ""); err != nil {
				return err
			}
		}
		dir := filepath.Join(s.stateDir(), "tokens")
		s.cred.Delegated = &token.Delegated{User: s.User, Store: &token.RefreshFile{Path: filepath.Join(dir, fileName(s.Name)), KeyPath: filepath.Join(dir, "key")}}
	default:
		return fmt.Errorf("--sign-in %q is unknown: write secret, certificate, new-certificate, federated, managed-identity or device-code", s.SignIn)
	}
	return err
}

// stateDir is the state folder as it will be seen from the configuration.
func (s *setup) stateDir() string {
	if s.State == "" {
		s.State = "state"
		// Where a package has made the configuration's folder, the service may write to its own state folder only.
		if dir, err := os.Stat(s.dir); err == nil && sharedFolder(dir) {
			s.State = defaultConfig().State
		}
	}
	if filepath.IsAbs(s.State) {
		return s.State
	}
	return filepath.Join(s.dir, s.State)
}

func (s *setup) askSecret() error {
	value := s.ClientSecret
	if value == "" && s.ClientSecretFile != "" {
		b, err := s.readPrivate(s.ClientSecretFile)
		if err != nil {
			return err
		}
		if value = strings.TrimSpace(string(b)); value == "" {
			return fmt.Errorf("%s is empty", s.ClientSecretFile)
		}
	}
	if value == "" {
		if s.ask {
			s.say("  On the app's page: Certificates & secrets > Client secrets > New client secret. Choose how long it holds, Add.\n" +
				"  Copy the column Value now: the portal shows it once. (The column Secret ID is of no use.)")
		}
		var err error
		if value, err = s.secret("Secret's Value", "client-secret-file"); err != nil {
			return err
		}
		for guid.MatchString(value) && s.ask {
			s.say("That is the Secret ID; the Value stands in the column before it, and has letters like ~ and _ in it.")
			if value, err = s.secret("Secret's Value", "client-secret-file"); err != nil {
				return err
			}
		}
		s.typed = value
		if s.SecretExpires == "" && s.ask {
			for {
				if s.SecretExpires, err = s.line("Day it expires, as the portal shows it, written like 2027-01-31 (empty: no warnings ahead)", "secret-expires", optional); err != nil {
					return err
				}
				s.SecretExpires = strings.TrimSpace(s.SecretExpires)
				if _, err := parseDay(s.SecretExpires); err == nil || s.SecretExpires == "" {
					break
				}
				s.say("That is no day such as 2027-01-31.")
			}
		}
	}
	if s.SecretExpires != "" && s.SecretExpires != "auto" {
		if _, err := parseDay(s.SecretExpires); err != nil {
			return fmt.Errorf("--secret-expires %q is no day: write it like 2027-01-31", s.SecretExpires)
		}
	}
	if s.ClientSecretFile == "" {
		s.typed = value
	}
	s.cred.ClientSecret = value
	return nil
}

// readPrivate reads a file that nobody else should be able to read, and has it closed to others.
func (s *setup) readPrivate(name string) ([]byte, error) {
	if othersCanRead(name) {
		text := "everybody on this machine can read " + name
		switch {
		case s.ask:
			yes, err := s.yes(upperFirst(text)+". Close it to others (chmod 640)?", true)
			if err != nil {
				return nil, err
			}
			if yes {
				if err := os.Chmod(name, 0o640); err != nil {
					return nil, err
				}
			}
		case loopbackURL(s.LoginURL) || s.SkipChecks: // a simulator's; or said again by config check
			s.say("%s", line(warning, "file "+name, text, "chmod 640 "+name+"."))
		default:
			return nil, fmt.Errorf("%s: chmod 640 %s", text, name)
		}
	}
	return os.ReadFile(name)
}

func (s *setup) loadCertificate() (err error) {
	defer func() {
		if err != nil {
			s.Certificate, s.Key = "", ""
		}
	}()
	private, read := s.readPrivate, os.ReadFile
	if s.Key == "" && s.CertificatePasswordFile == "" {
		read = private // the key is in it
	}
	data, err := read(s.Certificate)
	if err != nil {
		return err
	}
	var key []byte
	if s.Key != "" {
		if key, err = private(s.Key); err != nil {
			return err
		}
	}
	password := ""
	if s.CertificatePasswordFile != "" {
		b, err := private(s.CertificatePasswordFile)
		if err != nil {
			return err
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	if s.cred.Certificate, err = token.ParseCertificate(data, key, password, ""); err != nil {
		return fmt.Errorf("%s: %w", s.Certificate, err)
	}
	if end := s.cred.Certificate.NotAfter(); time.Now().After(end) && !s.SkipChecks {
		return fmt.Errorf("the certificate %s has expired on %s: make a new one (--sign-in new-certificate does) and upload it", s.Certificate, end.Format(time.DateOnly))
	}
	return nil
}

// certificateLife is how long a certificate made here holds: the portal takes longer ones, but keys should change.
const certificateLife = 2 * 365 * 24 * time.Hour

// makeAppCertificate writes a certificate and its key, or finds those of an earlier run, and says where to upload it.
func (s *setup) makeAppCertificate() error {
	s.Certificate, s.Key = filepath.Join(s.dir, setupCertFile), filepath.Join(s.dir, setupKeyFile)
	if _, err := os.Stat(s.Certificate); err == nil {
		s.say("Using %s, which is there already.", s.Certificate)
	} else {
		cert, key, err := selfSigned("Postern", nil, certificateLife, false)
		if err != nil {
			return err
		}
		if err := errors.Join(writeNew(s.Key, key, 0o600), writeNew(s.Certificate, cert, 0o644)); err != nil {
			return err
		}
	}
	s.say("  On the app's page: Certificates & secrets > Certificates > Upload certificate: choose %s (never the key), Add.", s.Certificate)
	_, err := s.line("Enter when uploaded", "", optional)
	return err
}

// selfSigned makes a certificate for an app, or for a server with names.
func selfSigned(name string, hosts []string, life time.Duration, server bool) (cert, key []byte, err error) {
	private, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-5 * time.Minute), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature}
	if server {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, h := range hosts {
			if ip := net.ParseIP(h); ip != nil {
				tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
			} else {
				tmpl.DNSNames = append(tmpl.DNSNames, h)
			}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// writeNew writes a file that is not there yet.
func writeNew(name string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, shareWithGroup(f), f.Sync(), f.Close())
}

func (s *setup) deviceSignIn(ctx context.Context) error {
	err := token.SignInByDevice(ctx, s.client, s.cred, func(p token.DevicePrompt) { showPrompt(s.say, s.User, p) })
	if err != nil {
		detail, remedy := explainSignIn(err, s.cred)
		s.say("%s", line(failed, "sign-in", detail, remedy))
	}
	return err
}

func showPrompt(say func(string, ...any), user string, p token.DevicePrompt) {
	who := "the user"
	if user != "" {
		who = user
	}
	say("\nLet %s open %s on any device and enter the code %s. Waiting for up to 15 minutes …", who, p.URL, p.Code)
}

// line is a finding as one line.
func line(v verdict, check, detail, remedy string) string {
	var b strings.Builder
	_ = printFinding(&b, finding{check, v, detail, remedy}, false) // a Builder takes everything
	return strings.TrimRight(b.String(), "\n")
}

// trySignIn tries at once, and when it fails asks what to change. It reports whether to go on.
func (s *setup) trySignIn(ctx context.Context) (bool, error) {
	tok, err := s.signIn(ctx, s.cred)
	if other, ok := s.swapped(err); ok {
		t, e := s.signIn(ctx, other)
		if refusal, answered := errors.AsType[*token.Error](e); e == nil || answered && refusal.OAuth != "" && !unknownIDs(e) {
			if !s.ask {
				return false, fmt.Errorf("--tenant and --client-id are the wrong way round: write --tenant %s --client-id %s", other.Tenant, other.ClientID)
			}
			s.say("The two ids were the wrong way round. They are put right.")
			s.cred, s.Tenant, s.ClientID = other, other.Tenant, other.ClientID
			tok, err = t, e // what is wrong now is something else
		}
	}
	if err == nil {
		c, _ := token.ReadClaims(tok)
		s.named = c.Permissions()
		s.say("%s", line(fine, "sign-in", "Microsoft takes the credential", ""))
		f := rolesFinding(s.Name, tok, s.cred.Kind() == token.DeviceCode, "hold")
		s.say("%s", line(f.Status, "permissions", f.Detail, f.Remedy))
		return true, nil
	}
	detail, remedy := explainSignIn(err, s.cred)
	if s.ask || s.SkipChecks {
		s.say("%s", line(failed, "sign-in", detail, remedy))
	}
	if !s.ask {
		if s.SkipChecks {
			return true, nil
		}
		return false, fmt.Errorf("sign-in: %s. %s (--skip-checks writes the configuration all the same)", detail, remedy)
	}
	change, err := s.choose("What now", "", whatToChange(err), [][2]string{{"tenant", "enter the tenant again"}, {"client-id", "enter the application's id again"},
		{"cloud", "choose another of Microsoft's clouds"}, {"proof", "enter or choose again what the app signs in with"},
		{"retry", "try again as it is"}, {"keep", "go on, and mend it later"}})
	if err != nil {
		return false, err
	}
	switch change {
	case "tenant":
		err = s.askTenant()
	case "client-id":
		err = s.askClientID()
	case "cloud":
		if err = s.askCloud(); err == nil {
			err = s.lookAtWay(ctx)
		}
	case "proof":
		s.SignIn, s.ClientSecret, s.ClientSecretFile, s.Certificate, s.FederatedTokenFile, s.User, s.SecretExpires = "", "", "", "", "", "", ""
	case "retry":
		s.ClientSecret = s.cred.ClientSecret
	case "keep":
		return true, nil
	}
	if change == "tenant" || change == "client-id" || change == "cloud" {
		s.ClientSecret = s.cred.ClientSecret // typed once is enough
	}
	return false, err
}

// swapped returns the credential with tenant and application the other way round, where that may be what is wrong.
func (s *setup) swapped(err error) (token.Credential, bool) {
	other := s.cred
	other.Tenant, other.ClientID = s.cred.ClientID, s.cred.Tenant
	return other, unknownIDs(err) && guid.MatchString(s.Tenant) && guid.MatchString(s.ClientID) && s.cred.Kind() != token.DeviceCode
}

// unknownIDs reports whether Entra knows no such tenant, or no such application there.
func unknownIDs(err error) bool {
	t, ok := errors.AsType[*token.Error](err)
	return ok && (slices.Contains(t.Codes, 90002) || slices.Contains(t.Codes, 700016))
}

// whatToChange guesses what is wrong from Entra's number.
func whatToChange(err error) string {
	t, ok := errors.AsType[*token.Error](err)
	if !ok {
		return "retry"
	}
	for _, code := range t.Codes {
		switch code {
		case 90002, 900144, 9001023, 90038, 900382, 900432:
			return "tenant"
		case 700016:
			return "client-id"
		case 7000215, 7000222, 7000216, 7000218, 50027:
			return "proof"
		}
	}
	return "retry"
}

// giveToService gives what a sign-in has stored the owner of the state folder: root may have signed in for the service.
func giveToService(state string) error {
	like, err := os.Stat(state)
	if err != nil {
		return err
	}
	return filepath.WalkDir(filepath.Join(state, "tokens"), func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		return errors.Join(keepOwner(f, like), f.Close())
	})
}

// signinCommand lets the user of a device code credential sign in, again or for the first time.
func signinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "signin CREDENTIAL",
		Short: "Let the user of a device code credential sign in to Microsoft",
		Long: `Signin prints an address and a code. Who opens the one and enters the other, on any device, signs in for
the credential; Postern keeps an encrypted refresh token in its state folder and needs nobody from then on.
A running server uses it with its next try.`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			c, err := readConfig(path, os.LookupEnv)
			if err != nil {
				return err
			}
			if _, ok := c.Credentials[args[0]]; !ok {
				return fmt.Errorf("%s has no credential %s", path, args[0])
			}
			cred := c.credential(args[0])
			if cred.Delegated == nil {
				return fmt.Errorf("credential %s signs in by itself, by %s", cred.Name, strings.ReplaceAll(string(cred.Kind()), "_", optional))
			}
			p := newProber()
			defer p.close()
			say := func(format string, a ...any) { fmt.Fprintf(cmd.OutOrStdout(), format+"\n", a...) }
			if err := token.SignInByDevice(cmd.Context(), p.client, cred, func(d token.DevicePrompt) { showPrompt(say, cred.Delegated.User, d) }); err != nil {
				detail, remedy := explainSignIn(err, cred)
				return fmt.Errorf("%s. %s", detail, remedy)
			}
			if err := giveToService(c.folder()); err != nil {
				return err
			}
			tok, err := p.signIn(cmd.Context(), cred)
			if err != nil {
				return err
			}
			who, _ := token.ReadClaims(tok)
			say("Signed in as %s, with %s.", who.User, strings.Join(slices.Sorted(slices.Values(who.Permissions())), ", "))
			return nil
		},
	}
	addConfigFlag(cmd)
	return cmd
}
