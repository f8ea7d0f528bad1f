package token

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // #nosec: x5t is defined by it, RFC 7515 section 4.1.7
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"software.sslmate.com/src/go-pkcs12"
)

// The signatures of a client assertion. Entra: certificate-credentials.
const (
	PS256 = "PS256" // with x5t#S256: what Entra's page asks for
	RS256 = "RS256" // with x5t: what older gateways know
)

// Certificate is an app's certificate with its private key.
type Certificate struct {
	key           *rsa.PrivateKey
	algorithm     string
	thumbprint    string // base64url of the SHA-1
	thumbprint256 string // base64url of the SHA-256
	sha1          [sha1.Size]byte
	notBefore     time.Time
	notAfter      time.Time
}

// NotAfter returns when the certificate ends.
func (c *Certificate) NotAfter() time.Time { return c.notAfter }

// Thumbprint returns the SHA-1 as Entra's portal shows it, in capital hexadecimal digits.
func (c *Certificate) Thumbprint() string { return strings.ToUpper(hex.EncodeToString(c.sha1[:])) }

// ParseCertificate reads a certificate and its RSA key: PEM (certificate and key together, or the key in keyData) or
// PFX (PKCS #12) with password. The algorithm is PS256, RS256, or empty for PS256.
func ParseCertificate(data, keyData []byte, password, algorithm string) (*Certificate, error) {
	switch algorithm {
	case "":
		algorithm = PS256
	case PS256, RS256:
	default:
		return nil, fmt.Errorf("signature %q is unknown: PS256 or RS256", algorithm)
	}
	var key any
	var certs []*x509.Certificate
	var err error
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		key, certs, err = parsePEM(data, keyData)
	} else {
		key, certs, err = parsePFX(data, password)
	}
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T: Entra takes RSA keys only", key)
	}
	// The file may hold the chain, in any order: the app's own certificate is the one of the key.
	for _, cert := range certs {
		public, ok := cert.PublicKey.(*rsa.PublicKey)
		if !ok || !public.Equal(&private.PublicKey) {
			continue
		}
		s1, s256 := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
		enc := base64.RawURLEncoding
		return &Certificate{key: private, algorithm: algorithm, sha1: s1, thumbprint: enc.EncodeToString(s1[:]),
			thumbprint256: enc.EncodeToString(s256[:]), notBefore: cert.NotBefore, notAfter: cert.NotAfter}, nil
	}
	return nil, errors.New("the key does not belong to the certificate")
}

func parsePEM(data, keyData []byte) (key any, certs []*x509.Certificate, err error) {
	for _, rest := range [][]byte{data, keyData} {
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			switch {
			case block.Type == "CERTIFICATE":
				cert, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					return nil, nil, fmt.Errorf("certificate: %w", err)
				}
				certs = append(certs, cert)
			case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
				return nil, nil, errors.New("the key is encrypted: use a PFX file with certificate_password, or take the encryption off with openssl pkey")
			case strings.HasSuffix(block.Type, "PRIVATE KEY") && key == nil:
				if key, err = parseKey(block.Bytes); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	switch {
	case len(certs) == 0:
		return nil, nil, errors.New("there is no certificate in the file")
	case key == nil:
		return nil, nil, errors.New("there is no private key in the file: name its file under key")
	}
	return key, certs, nil
}

func parseKey(der []byte) (any, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return nil, errors.New("the private key is of an unknown form")
	}
	return key, nil
}

func parsePFX(data []byte, password string) (key any, certs []*x509.Certificate, err error) {
	key, cert, chain, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, nil, errors.New("the password of the PFX file is wrong")
	case err != nil:
		return nil, nil, fmt.Errorf("neither PEM nor a PFX file that can be read: %w", err)
	}
	return key, append([]*x509.Certificate{cert}, chain...), nil
}

// assertionLife is how long an assertion holds. Entra's page advises five to ten minutes.
const assertionLife = 10 * time.Minute

// assertion returns a signed statement that the bearer is the app, good for one request. It begins now and not earlier:
// Entra compares with its own clock and allows five minutes.
func (c *Certificate) assertion(audience, clientID string, now time.Time) (string, error) {
	header := map[string]string{"typ": "JWT", "alg": c.algorithm}
	if c.algorithm == PS256 {
		header["x5t#S256"] = c.thumbprint256
	} else {
		header["x5t"] = c.thumbprint
	}
	claims := map[string]any{"aud": audience, "iss": clientID, "sub": clientID, "jti": uuid.NewString(),
		"nbf": now.Unix(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix()}
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	p, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString(h) + "." + enc.EncodeToString(p)
	digest := sha256.Sum256([]byte(signed))
	var sig []byte
	if c.algorithm == PS256 {
		sig, err = rsa.SignPSS(rand.Reader, c.key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		sig, err = rsa.SignPKCS1v15(rand.Reader, c.key, crypto.SHA256, digest[:])
	}
	if err != nil {
		return "", fmt.Errorf("sign the assertion: %w", err)
	}
	return signed + "." + enc.EncodeToString(sig), nil
}
