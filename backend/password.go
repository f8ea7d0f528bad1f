package backend

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// The cost of the hashes HashPassword makes: 19 MiB and two passes, the lower
// of the two settings OWASP's password storage page recommends. Mail programs log in
// often and on small machines, so memory counts for more than passes.
const (
	hashMemory  = 19 * 1024 // KiB
	hashPasses  = 2
	hashThreads = 1
	hashSalt    = 16 // bytes
	hashKey     = 32 // bytes
)

// Hashes come from a file a person may have written elsewhere. Beyond these
// costs one log-in would take seconds or more memory than the server should give.
const (
	maxHashMemory = 256 * 1024 // KiB
	maxHashPasses = 16
	maxHashWork   = 1024 * 1024 // KiB times passes
)

// passwordHash is a parsed PHC string.
type passwordHash struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
	salt    []byte
	key     []byte
}

// HashPassword returns the argon2id hash of password as a PHC string, the form
// configuration key password_hash takes. An empty password is refused.
func HashPassword(password string) (string, error) {
	if password == "" {
		return "", errors.New("hash password: the password is empty")
	}
	h := passwordHash{memory: hashMemory, passes: hashPasses, threads: hashThreads, salt: make([]byte, hashSalt), key: make([]byte, hashKey)}
	rand.Read(h.salt) // never fails: crypto/rand ends the program instead
	h.key = h.derive(password)
	return h.String(), nil
}

// CheckHash says what is wrong with a PHC string, or nil if log-ins can be checked against it.
func CheckHash(phc string) error {
	_, err := parseHash(phc)
	return err
}

// parseHash reads "$argon2id$v=19$m=19456,t=2,p=1$salt$key", salt and key in base64 without padding.
func parseHash(phc string) (passwordHash, error) {
	var h passwordHash
	f := strings.Split(phc, "$")
	if len(f) < 2 || f[0] != "" {
		return h, errors.New("not a password hash: it begins with $argon2id$")
	}
	if f[1] != "argon2id" {
		return h, errors.New("not an argon2id hash")
	}
	if len(f) != 6 {
		return h, fmt.Errorf("argon2id hash has %d parts, not 5", len(f)-1)
	}
	if f[2] != "v=19" {
		return h, errors.New("argon2id hash is not of version 19")
	}
	seen := map[string]uint64{}
	for p := range strings.SplitSeq(f[3], ",") {
		name, value, _ := strings.Cut(p, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return h, errors.New("argon2id hash has a parameter that is no number")
		}
		if _, twice := seen[name]; twice {
			return h, errors.New("argon2id hash has a parameter twice")
		}
		seen[name] = n
	}
	m, t, p := seen["m"], seen["t"], seen["p"]
	switch {
	case len(seen) != 3 || m == 0 || t == 0 || p == 0:
		return h, errors.New("argon2id hash must have the parameters m, t and p, and no others")
	case p > 16 || m < 8*p:
		return h, errors.New("argon2id hash has impossible parameters")
	case m > maxHashMemory || t > maxHashPasses || m*t > maxHashWork:
		return h, fmt.Errorf("argon2id hash is too costly: at most %d MiB and %d passes", maxHashMemory/1024, maxHashPasses)
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(f[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return h, errors.New("argon2id hash has a bad salt")
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(f[5]); err != nil || len(h.key) < 16 || len(h.key) > 64 {
		return h, errors.New("argon2id hash has a bad key")
	}
	h.memory, h.passes, h.threads = uint32(m), uint32(t), uint8(p)
	return h, nil
}

// String returns the PHC string.
func (h passwordHash) String() string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", h.memory, h.passes, h.threads, b.EncodeToString(h.salt), b.EncodeToString(h.key))
}

// derive hashes password with h's parameters. Programs compose accented letters
// differently, so the password is brought to NFC first, as RFC 4616 section 2 has it.
func (h passwordHash) derive(password string) []byte {
	return argon2.IDKey([]byte(norm.NFC.String(password)), h.salt, h.passes, h.memory, h.threads, uint32(len(h.key)))
}

// matches reports whether password is the one h was made from, in a time that does not depend on the answer.
func (h passwordHash) matches(password string) bool {
	return subtle.ConstantTimeCompare(h.derive(password), h.key) == 1
}
