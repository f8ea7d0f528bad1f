package graphsim

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1" // #nosec: x5t is defined by it, RFC 7515 section 4.1.7
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"time"
)

// appCert is a certificate an app may sign assertions with.
type appCert struct {
	key          *rsa.PublicKey
	x5t, x5tS256 string
}

func newAppCert(cert *x509.Certificate) appCert {
	enc := base64.RawURLEncoding
	s1, s256 := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
	key, _ := cert.PublicKey.(*rsa.PublicKey) // others never verify
	return appCert{key: key, x5t: enc.EncodeToString(s1[:]), x5tS256: enc.EncodeToString(s256[:])}
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// checkAssertion verifies a client assertion: by certificate, PS256 with x5t#S256 or RS256 with x5t, or federated.
// Entra: certificate-credentials.
func (s *Sim) checkAssertion(a *app, tenantName string, form url.Values, base string) *entraError {
	if form.Get("client_assertion_type") != assertionType {
		return entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_assertion_type'.")
	}
	parts := strings.Split(form.Get("client_assertion"), ".")
	var header struct {
		Alg     string `json:"alg"`
		X5T     string `json:"x5t"`
		X5TS256 string `json:"x5t#S256"`
	}
	var claims struct {
		Aud json.RawMessage `json:"aud"`
		Iss string          `json:"iss"`
		Sub string          `json:"sub"`
		Jti string          `json:"jti"`
		Nbf *float64        `json:"nbf"`
		Exp *float64        `json:"exp"`
	}
	enc := base64.RawURLEncoding
	malformed := entraFail(401, "invalid_client", 50027, "JWT token is invalid or malformed.")
	if len(parts) != 3 {
		return malformed
	}
	h, err1 := enc.DecodeString(parts[0])
	p, err2 := enc.DecodeString(parts[1])
	sig, err3 := enc.DecodeString(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || json.Unmarshal(h, &header) != nil || json.Unmarshal(p, &claims) != nil {
		return malformed
	}
	var aud string
	if json.Unmarshal(claims.Aud, &aud) != nil {
		var many []string
		if json.Unmarshal(claims.Aud, &many) == nil && len(many) == 1 {
			aud = many[0]
		}
	}
	now := float64(s.now().Unix())
	if claims.Exp == nil || *claims.Exp <= now || claims.Nbf != nil && *claims.Nbf > now+300 ||
		*claims.Exp > now+float64(24*time.Hour/time.Second) {
		return entraFail(401, "invalid_client", 700024, "Client assertion is not within its valid time range.")
	}
	if claims.Iss != a.clientID && len(a.issuers) > 0 {
		return a.checkFederated(claims.Iss, claims.Sub, aud)
	}
	if !strings.EqualFold(claims.Iss, a.clientID) || !strings.EqualFold(claims.Sub, a.clientID) || claims.Jti == "" {
		return entraFail(401, "invalid_client", 50027, "JWT token is invalid: iss and sub must be the client id and jti must be there.")
	}
	if !audienceFits(aud, tenantName, a.tenant, base) {
		return entraFail(401, "invalid_client", 700023, "Client assertion audience claim does not match the endpoint.")
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	for _, c := range a.certs {
		if c.key == nil || (header.X5TS256 == "" || header.X5TS256 != c.x5tS256) && (header.X5T == "" || header.X5T != c.x5t) {
			continue
		}
		var err error
		switch header.Alg {
		case "PS256":
			err = rsa.VerifyPSS(c.key, crypto.SHA256, digest[:], sig, nil)
		case "RS256":
			err = rsa.VerifyPKCS1v15(c.key, crypto.SHA256, digest[:], sig)
		default:
			return entraFail(401, "invalid_client", 50012, "The signing algorithm '%s' is not supported.", header.Alg)
		}
		if err != nil {
			return entraFail(401, "invalid_client", 700027, "Client assertion failed signature validation.")
		}
		return nil
	}
	return entraFail(401, "invalid_client", 700027, "Client assertion contains an invalid signature. [Reason - The key was not found.]")
}

// audienceFits takes the endpoint that was called, by either name of the tenant, and the real one of the cloud.
func audienceFits(aud, tenantName string, t *tenant, base string) bool {
	names := append([]string{tenantName, t.id}, t.domains...)
	for _, host := range []string{base, "https://login.microsoftonline.com", "https://login.microsoftonline.us", "https://login.partner.microsoftonline.cn"} {
		for _, n := range names {
			if strings.EqualFold(aud, host+"/"+n+"/oauth2/v2.0/token") || strings.EqualFold(aud, host+"/"+n+"/v2.0") {
				return true
			}
		}
	}
	return false
}

// checkFederated compares an outside token with the credentials of the app.
func (a *app) checkFederated(iss, sub, aud string) *entraError {
	best := 700211
	for _, f := range a.issuers {
		if f.Issuer != iss {
			continue
		}
		if f.Subject != sub {
			best = max(best, 700213)
			continue
		}
		want := f.Audience
		if want == "" {
			want = "api://AzureADTokenExchange"
		}
		if want == aud {
			return nil
		}
		best = 700212
	}
	switch best {
	case 700213:
		return entraFail(401, "invalid_client", best, "No matching federated identity record found for presented assertion subject '%s'.", sub)
	case 700212:
		return entraFail(401, "invalid_client", best, "No matching federated identity record found for presented assertion audience '%s'.", aud)
	}
	return entraFail(401, "invalid_client", best, "No matching federated identity record found for presented assertion issuer '%s'.", iss)
}
