package token

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"postern/backend/graphsim"
	"postern/internal/fuzzcorpus"
)

// makeCert returns a self-signed certificate and its key.
func makeCert(t *testing.T, end time.Time) (*x509.Certificate, *rsa.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Postern"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func pemOf(t *testing.T, cert *x509.Certificate, key *rsa.PrivateKey) (c, k []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// world is a simulator with an app, and what a credential for it begins with.
func world(t *testing.T) (*graphsim.Sim, Credential, string) {
	t.Helper()
	sim := graphsim.New(graphsim.Options{})
	sim.AddTenant("tenant", "contoso.example")
	sim.AddApp("tenant", "app", "", "Mail.ReadWrite")
	sim.AddUser("tenant", graphsim.UserSpec{UPN: "alice@contoso.example", FullAccess: []string{"support@contoso.example"}})
	sim.AddUser("tenant", graphsim.UserSpec{UPN: "support@contoso.example"})
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	return sim, Credential{Name: "c", Tenant: "contoso.example", ClientID: "app", LoginURL: srv.URL, GraphURL: srv.URL}, srv.URL
}

// signIn gets a token and opens a mailbox with it.
func signIn(t *testing.T, m *Manager, cred Credential, user string) (int, error) {
	t.Helper()
	tok, err := m.Source(cred).Token(context.Background())
	if err != nil {
		return 0, err
	}
	req, _ := http.NewRequest("GET", cred.Graph()+"/v1.0/users/"+user+"/mailFolders/inbox", nil)
	req.Header.Set("Authorization", "Bearer "+tok.AccessToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func mustSignIn(t *testing.T, cred Credential) {
	t.Helper()
	m := NewManager(nil, nil)
	defer m.Close()
	if status, err := signIn(t, m, cred, "alice@contoso.example"); err != nil || status != 200 {
		t.Errorf("%s: status %d, %v", cred.Kind(), status, err)
	}
}

func TestCertificate(t *testing.T) {
	sim, cred, _ := world(t)
	cert, key := makeCert(t, time.Now().Add(time.Hour))
	c, k := pemOf(t, cert, key)
	other, otherKey := makeCert(t, time.Now().Add(time.Hour))
	oc, _ := pemOf(t, other, otherKey)
	pfx, err := pkcs12.Modern.Encode(key, cert, []*x509.Certificate{other}, "pfx-pass")
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := pkcs12.LegacyDES.Encode(key, cert, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	var parsed *Certificate
	uploaded := false
	for _, tt := range []struct {
		name, password, algorithm string
		data, key                 []byte
	}{
		{name: "PEM with its key apart", data: c, key: k},
		{name: "PEM in one file, chain first", data: append(append(append([]byte{}, oc...), k...), c...)},
		{name: "RS256", data: c, key: k, algorithm: RS256},
		{name: "PFX", data: pfx, password: "pfx-pass"},
		{name: "PFX of an old kind without password", data: legacy, algorithm: PS256},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if parsed, err = ParseCertificate(tt.data, tt.key, tt.password, tt.algorithm); err != nil {
				t.Fatal(err)
			}
			cred := cred
			cred.Certificate = parsed
			m := NewManager(nil, nil)
			defer m.Close()
			_, err := signIn(t, m, cred, "alice@contoso.example")
			if e, ok := errors.AsType[*Error](err); !uploaded && (!ok || len(e.Codes) != 1 || e.Codes[0] != 700027) {
				t.Errorf("before the upload: %v", err)
			}
			sim.AddCertificate("tenant", "app", cert)
			uploaded = true
			mustSignIn(t, cred)
		})
	}
	for _, tt := range []struct {
		name, password, algorithm, want string
		data, key                       []byte
	}{
		{name: "key of another", data: oc, key: k, want: "does not belong"},
		{name: "no key", data: c, want: "no private key"},
		{name: "no certificate", data: k, want: "no certificate"},
		{name: "wrong password", data: pfx, password: "x", want: "password of the PFX file is wrong"},
		{name: "something else", data: []byte("hello"), want: "neither PEM nor a PFX"},
		{name: "encrypted key", data: c, key: []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), want: "encrypted"},
		{name: "unknown signature", data: c, key: k, algorithm: "HS256", want: "unknown"},
	} {
		if _, err := ParseCertificate(tt.data, tt.key, tt.password, tt.algorithm); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	// The clock: an hour ahead, the assertion is not yet good.
	sim.SetClock(-time.Hour)
	defer sim.SetClock(0)
	cred.Certificate = parsed
	m := NewManager(nil, nil)
	defer m.Close()
	_, err = signIn(t, m, cred, "alice@contoso.example")
	if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Advice, "clock") || !e.Permanent {
		t.Errorf("with a wrong clock: %v", err)
	}
}

// federatedToken makes an outside token; the simulator does not check its signature.
func federatedToken(sub string) string {
	enc := base64.RawURLEncoding
	claims, _ := json.Marshal(map[string]any{"iss": "https://issuer.example", "sub": sub, "aud": "api://AzureADTokenExchange", "exp": time.Now().Add(time.Hour).Unix()})
	return enc.EncodeToString([]byte(`{"alg":"RS256"}`)) + "." + enc.EncodeToString(claims) + ".AAAA"
}

// The file is read for each request: the platform replaces it.
func TestFederatedToken(t *testing.T) {
	sim, cred, _ := world(t)
	sim.AddFederated("tenant", "app", graphsim.FederatedIssuer{Issuer: "https://issuer.example", Subject: "system:sa"})
	cred.FederatedTokenFile = filepath.Join(t.TempDir(), "token")
	m := NewManager(nil, nil)
	defer m.Close()
	try := func() error { _, err := m.Source(cred).Token(context.Background()); return err } // Source forgives
	if err := try(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "federated_token_file") {
		t.Errorf("no file: %v", err)
	}
	for _, tt := range []struct{ content, want string }{
		{"", "empty"}, {federatedToken("other"), "AADSTS700213"}, {federatedToken("system:sa") + "\n", ""},
	} {
		if err := os.WriteFile(cred.FederatedTokenFile, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := try(); fmt.Sprint(err) != "<nil>" != (tt.want != "") || tt.want != "" && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.10q: %v, want %q", tt.content, err, tt.want)
		}
	}
}

func TestManagedIdentity(t *testing.T) {
	sim, cred, base := world(t)
	sim.AddApp("tenant", "second", "", "Mail.ReadWrite")
	sim.AddManagedIdentity("tenant", "app")
	cred.Identity = &Identity{}
	mustSignIn(t, cred)
	sim.AddManagedIdentity("tenant", "second")
	cred.Identity = &Identity{ClientID: "second"}
	mustSignIn(t, cred)
	cred.Identity = &Identity{ClientID: "second", Endpoint: base + "/msi/token", Header: graphsim.AppServiceHeader}
	mustSignIn(t, cred)
	cred.Identity.Header = "wrong"
	m := NewManager(nil, nil)
	defer m.Close()
	if _, err := signIn(t, m, cred, "alice@contoso.example"); err == nil {
		t.Error("a wrong header was taken")
	}
}

// A proxy is for the sign-in service, never for the machine's own identity.
func TestIdentityPassesProxyBy(t *testing.T) {
	sim, cred, _ := world(t)
	sim.AddManagedIdentity("tenant", "app")
	sim.AddApp("tenant", "app", "s", "Mail.ReadWrite")
	asked := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		sim.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	tr := &http.Transport{Proxy: func(r *http.Request) (u *url.URL, err error) { return r.URL.Parse(proxy.URL) }}
	defer tr.CloseIdleConnections()
	m := NewManager(&http.Client{Transport: tr}, nil)
	defer m.Close()
	for _, tt := range []struct {
		identity *Identity
		secret   string
		want     int
	}{{&Identity{}, "", 0}, {nil, "s", 1}} {
		cred.Identity, cred.ClientSecret, asked = tt.identity, tt.secret, 0
		if _, err := m.Source(cred).Token(context.Background()); err != nil || asked != tt.want {
			t.Errorf("%s: the proxy was asked %d times, %v", cred.Kind(), asked, err)
		}
	}
}

func TestDeviceCode(t *testing.T) {
	sim, cred, _ := world(t)
	dir := t.TempDir()
	file := &RefreshFile{Path: filepath.Join(dir, "tokens", "c.json"), KeyPath: filepath.Join(dir, "key")}
	cred.Delegated = &Delegated{User: "alice@contoso.example", Store: file}
	m := NewManager(nil, nil)
	defer m.Close()
	_, err := m.Source(cred).Token(context.Background())
	if e, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, ErrNotSignedIn) || !e.Permanent || !strings.Contains(e.Advice, "postern signin") {
		t.Errorf("before the sign-in: %v", err)
	}
	sim.AllowPublicClient("tenant", "app")
	sim.ConsentDelegated("tenant", "app", "Mail.ReadWrite", "Mail.Send", "Mail.ReadWrite.Shared", "Mail.Send.Shared")
	err = SignInByDevice(context.Background(), nil, cred, func(p DevicePrompt) {
		if !strings.Contains(p.URL, "devicelogin") || !sim.ApproveDevice(p.Code, "alice@contoso.example") {
			t.Errorf("%+v", p)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := file.Load()
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]int{"alice@contoso.example": 200, "support@contoso.example": 200} {
		if status, err := signIn(t, m, cred, user); status != want || err != nil {
			t.Errorf("%s: %d, %v", user, status, err)
		}
	}
	second, err := file.Load()
	if err != nil || second == first {
		t.Errorf("the refresh token was not rotated: %v", err)
	}
	raw, err := os.ReadFile(file.Path)
	if err != nil || strings.Contains(string(raw), second) {
		t.Errorf("the refresh token is in the file in clear: %v", err)
	}
	for _, name := range []string{file.Path, file.KeyPath} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	// Another process that only looks changes nothing.
	looker := NewManager(nil, nil)
	defer looker.Close()
	reading := cred
	reading.Delegated = &Delegated{Store: &RefreshFile{Path: file.Path, KeyPath: file.KeyPath, ReadOnly: true}}
	if _, err := looker.Source(reading).Token(context.Background()); err != nil {
		t.Error(err)
	}
	if now, _ := file.Load(); now != second {
		t.Error("a reader changed the file")
	}
	// A changed password.
	sim.RevokeRefresh()
	again := NewManager(nil, nil)
	defer again.Close()
	_, err = again.Source(cred).Token(context.Background())
	if e, ok := errors.AsType[*Error](err); !ok || !e.Permanent || !strings.Contains(e.Advice, "postern signin") {
		t.Errorf("revoked: %v", err)
	}
	// Another key.
	if err := os.WriteFile(file.KeyPath, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Load(); !errors.Is(err, ErrNotSignedIn) {
		t.Errorf("with another key: %v", err)
	}
	if err := SignInByDevice(context.Background(), nil, cred, func(p DevicePrompt) { sim.DeclineDevice(p.Code) }); err == nil || !strings.Contains(err.Error(), "declined") {
		t.Errorf("declined: %v", err)
	}
}

func FuzzParseCertificate(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "")
	f.Add([]byte{0x30, 0x82}, "x")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, data []byte, password string) {
		if len(data) > 4096 {
			return
		}
		if c, err := ParseCertificate(data, nil, password, ""); (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}

func TestSecretEnd(t *testing.T) {
	sim, cred, base := world(t)
	sim.AddApp("tenant", "app", "first-secret", "Mail.ReadWrite")
	cred.ClientSecret = "first-secret"
	m := NewManager(nil, nil)
	defer m.Close()
	if _, err := m.SecretEnd(t.Context(), cred); !errors.Is(err, ErrMayNotAsk) {
		t.Errorf("without the permission: %v", err)
	}
	sim.AddApp("tenant", "app", "", "Mail.ReadWrite", "Application.Read.All")
	again := NewManager(nil, nil)
	defer again.Close()
	if end, err := again.SecretEnd(t.Context(), cred); err != nil || !end.IsZero() {
		t.Errorf("a secret without end: %v, %v", end, err)
	}
	sim.AddExpiredSecret("tenant", "app", "old-secret")
	cred.GraphURL = base
	stale := cred
	stale.ClientSecret = "old-secret"
	if _, err := again.SecretEnd(t.Context(), stale); err == nil {
		t.Error("an expired secret signed in")
	}
}
