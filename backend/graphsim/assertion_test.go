package graphsim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestAssertions(t *testing.T) {
	h := newHarness(t, Options{})
	h.AddApp(testTenant, "certapp", "", "Mail.Send")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	h.AddCertificate(testTenant, "certapp", cert)
	h.AddApp(testTenant, "fedapp", "", "Mail.Send")
	h.AddFederated(testTenant, "fedapp", FederatedIssuer{Issuer: "https://issuer.example", Subject: "job"})
	enc := base64.RawURLEncoding
	s1, s256 := sha1.Sum(der), sha256.Sum256(der)
	sign := func(header, claims map[string]any, pss bool) string {
		hj, _ := json.Marshal(header)
		cj, _ := json.Marshal(claims)
		text := enc.EncodeToString(hj) + "." + enc.EncodeToString(cj)
		digest := sha256.Sum256([]byte(text))
		var sig []byte
		if pss {
			sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
		}
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + enc.EncodeToString(sig)
	}
	claims := func(changes ...any) map[string]any {
		c := map[string]any{
			"aud": h.srv.URL + "/" + testTenant + "/oauth2/v2.0/token", "iss": "certapp", "sub": "certapp", "jti": newGUID(),
			"nbf": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
		}
		for i := 0; i < len(changes); i += 2 {
			c[changes[i].(string)] = changes[i+1]
		}
		return c
	}
	ps := map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": enc.EncodeToString(s256[:])}
	rs := map[string]any{"alg": "RS256", "typ": "JWT", "x5t": enc.EncodeToString(s1[:])}
	good := sign(ps, claims(), true)
	fed := func(iss, sub, aud string) string { return sign(rs, claims("iss", iss, "sub", sub, "aud", aud), false) }
	for _, tt := range []struct {
		name, app, assertion string
		code                 float64 // 0: a token
	}{
		{"PS256", "certapp", good, 0},
		{"RS256", "certapp", sign(rs, claims(), false), 0},
		{"real audience", "certapp", sign(ps, claims("aud", "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"), true), 0},
		{"broken signature", "certapp", good[:len(good)-8] + "AAAAAAAA", 700027},
		{"unknown key", "certapp", sign(map[string]any{"alg": "PS256", "x5t#S256": "AAAA"}, claims(), true), 700027},
		{"expired", "certapp", sign(ps, claims("exp", time.Now().Add(-time.Minute).Unix()), true), 700024},
		{"wrong audience", "certapp", sign(ps, claims("aud", "https://elsewhere.example/"), true), 700023},
		{"other subject", "certapp", sign(ps, claims("sub", "x"), true), 50027},
		{"rubbish", "certapp", "a.b", 50027},
		{"federated", "fedapp", fed("https://issuer.example", "job", "api://AzureADTokenExchange"), 0},
		{"federated issuer", "fedapp", fed("https://other.example", "job", "api://AzureADTokenExchange"), 700211},
		{"federated audience", "fedapp", fed("https://issuer.example", "job", "x"), 700212},
		{"federated subject", "fedapp", fed("https://issuer.example", "x", "api://AzureADTokenExchange"), 700213},
	} {
		form := url.Values{"client_id": {tt.app}, "scope": {"https://graph.microsoft.com/.default"}, "grant_type": {"client_credentials"},
			"client_assertion_type": {assertionType}, "client_assertion": {tt.assertion}}
		res, err := h.srv.Client().Post(h.srv.URL+"/"+testTenant+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(res.Body)
		res.Body.Close()
		var body struct {
			Codes []float64 `json:"error_codes"`
		}
		_ = json.Unmarshal(raw, &body)
		if tt.code == 0 && res.StatusCode != 200 || tt.code != 0 && (res.StatusCode != 401 || len(body.Codes) != 1 || body.Codes[0] != tt.code) {
			t.Errorf("%s: %d %s", tt.name, res.StatusCode, raw)
		}
	}
}
