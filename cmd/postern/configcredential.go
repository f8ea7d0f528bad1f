package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/backend/token"
)

// signInKeys are the keys that each choose a way to sign in; a credential has one of them.
var signInKeys = []string{"client_secret", "client_secret_file", "certificate", "federated_token_file", "managed_identity", "device_code"}

// signIn returns the keys that c sets of those.
func (c *configFile) signIn(path string, cred *credentialConfig) []string {
	values := map[string]string{"client_secret": cred.ClientSecret, "client_secret_file": cred.ClientSecretFile, "certificate": cred.Certificate,
		"federated_token_file": cred.FederatedTokenFile, "managed_identity": cred.ManagedIdentity, "device_code": cred.DeviceCode}
	var out []string
	for _, k := range signInKeys {
		// A value that could not be read, such as an environment variable that is not set, is a choice too.
		if values[k] != "" || !c.missing(path+"."+k, values[k]) {
			out = append(out, k)
		}
	}
	return out
}

// checkSignIn looks at the way a credential signs in, and reads the files it needs now, so that a wrong one is found
// at the start and not with the first mail.
func (c *configFile) checkSignIn(path string, cred *credentialConfig) {
	if s := cred.SecretExpires; s != "" && s != "auto" {
		if _, err := parseDay(s); err != nil {
			c.errorf(path+".secret_expires", "%q is no day: write it like 2027-01-31, as the portal shows it, or auto", s)
		}
	}
	chosen := c.signIn(path, cred)
	switch {
	case len(chosen) == 0:
		c.errorf(path, "client_secret is missing: the secret's Value (not its Secret ID), or client_secret_file, certificate, federated_token_file, managed_identity or device_code")
		return
	case len(chosen) == 2 && chosen[0] == "client_secret" && chosen[1] == "client_secret_file":
		c.errorf(path+".client_secret_file", "client_secret is there as well: keep one of them")
		return
	case len(chosen) > 1 && !(len(chosen) == 2 && strings.HasPrefix(chosen[0], "client_secret") && chosen[1] == "device_code"):
		c.errorf(path+"."+chosen[1], "%s is there as well: a credential signs in by one of them", chosen[0])
		return
	}
	way := chosen[len(chosen)-1]
	if cred.ClientSecretFile != "" {
		cred.ClientSecret = c.secretFile(path+".client_secret_file", cred.ClientSecretFile)
	}
	if cred.ClientSecret != "" && guid.MatchString(cred.ClientSecret) {
		c.warnf(path+".client_secret", "this looks like the secret's ID: Entra wants its Value, shown once when the secret was made")
	}
	if way == "certificate" {
		c.checkCertificate(path, cred)
	} else {
		for _, k := range []struct{ key, value string }{{"key", cred.Key}, {"certificate_password", cred.CertificatePassword},
			{"certificate_password_file", cred.CertificatePasswordFile}, {"signature", cred.Signature}} {
			if k.value != "" {
				c.errorf(path+"."+k.key, "belongs to certificate, which is not there")
			}
		}
	}
	switch way {
	case "managed_identity":
		c.checkIdentity(path, cred)
	case "device_code":
		if !strings.Contains(cred.DeviceCode, "@") && cred.DeviceCode != "true" {
			c.errorf(path+".device_code", "%q is no address: write that of the user who signs in", cred.DeviceCode)
		}
	}
	if way != "device_code" && cred.TokenKeyFile != "" {
		c.errorf(path+".token_key_file", "belongs to device_code, which is not there")
	}
}

func parseDay(s string) (time.Time, error) { return time.Parse(time.DateOnly, s) }

func (c *configFile) checkCertificate(path string, cred *credentialConfig) {
	if cred.Signature != "" {
		c.oneOf(path+".signature", cred.Signature, token.PS256, token.RS256)
	}
	if cred.CertificatePasswordFile != "" {
		cred.CertificatePassword = c.secretFile(path+".certificate_password_file", cred.CertificatePasswordFile)
	}
	data, err := os.ReadFile(c.beside(cred.Certificate))
	if err != nil {
		c.errorf(path+".certificate", "%v", err)
		return
	}
	var key []byte
	if cred.Key != "" {
		if key, err = os.ReadFile(c.beside(cred.Key)); err != nil {
			c.errorf(path+".key", "%v", err)
			return
		}
	}
	cert, err := token.ParseCertificate(data, key, cred.CertificatePassword, cred.Signature)
	if err != nil {
		if cred.Signature == "" || cred.Signature == token.PS256 || cred.Signature == token.RS256 {
			c.errorf(path+".certificate", "%v", err)
		}
		return
	}
	if c.certificates == nil {
		c.certificates = make(map[string]*token.Certificate)
	}
	c.certificates[strings.TrimPrefix(path, "credentials.")] = cert
	if time.Now().After(cert.NotAfter()) {
		c.warnf(path+".certificate", "expired on %s: make a new one and upload it", cert.NotAfter().Format(time.DateOnly))
	}
}

// checkIdentity settles which form the machine has.
func (c *configFile) checkIdentity(path string, cred *credentialConfig) {
	_, app := c.getenv("IDENTITY_ENDPOINT")
	switch cred.ManagedIdentity {
	case "true", "auto":
		cred.ManagedIdentity = "imds"
		if app {
			cred.ManagedIdentity = "app-service"
		}
	case "app-service":
		if !app {
			c.errorf(path+".managed_identity", "app-service: the environment variable IDENTITY_ENDPOINT is not set, so this is no App Service with a managed identity")
		}
	default:
		c.oneOf(path+".managed_identity", cred.ManagedIdentity, "auto", "imds", "app-service")
	}
}

// credential translates one credential.
func (c *configFile) credential(name string) token.Credential {
	cred := c.Credentials[name]
	out := token.Credential{Name: name, Tenant: cred.Tenant, ClientID: cred.ClientID, ClientSecret: cred.ClientSecret,
		Cloud: token.Cloud(cred.Cloud), LoginURL: cred.LoginURL, GraphURL: cred.GraphURL, Certificate: c.certificates[name],
		FederatedTokenFile: c.beside(cred.FederatedTokenFile)}
	if day, err := parseDay(cred.SecretExpires); err == nil {
		out.SecretEnds = day.Add(24*time.Hour - time.Second) // the day's end
	}
	out.AskSecretEnd = cred.SecretExpires == "auto"
	if cred.ManagedIdentity != "" {
		id := &token.Identity{ClientID: cred.ClientID}
		if cred.ManagedIdentity == "app-service" {
			id.Endpoint, _ = c.getenv("IDENTITY_ENDPOINT")
			id.Header, _ = c.getenv("IDENTITY_HEADER")
		}
		out.Identity = id
	}
	if cred.DeviceCode != "" {
		dir := filepath.Join(c.folder(), "tokens")
		key := c.beside(cred.TokenKeyFile)
		if key == "" {
			key = filepath.Join(dir, "key")
		}
		out.Delegated = &token.Delegated{User: strings.TrimPrefix(cred.DeviceCode, "true"), Store: &token.RefreshFile{Path: filepath.Join(dir, fileName(name)), KeyPath: key}}
	}
	return out
}

// fileName makes a file name of a credential's name, which may hold anything.
func fileName(name string) string {
	var b strings.Builder
	for _, r := range []byte(name) {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			b.WriteByte(r)
		} else {
			fmt.Fprintf(&b, "%%%02x", r)
		}
	}
	return b.String() + ".json"
}
