package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// RefreshFile keeps a refresh token in a file, encrypted with a key from another file. The two apart (the key where
// root alone reads, the state folder in a backup) give nothing away; together they are as good as the token.
type RefreshFile struct {
	Path     string // made with mode 0600
	KeyPath  string // 32 bytes; made when it is not there
	ReadOnly bool   // Save does nothing: for programs that only look

	mu sync.Mutex
}

// Name returns the file's path.
func (r *RefreshFile) Name() string { return r.Path }

// sealed is what the file holds.
type sealed struct {
	Version int    `json:"version"`
	Nonce   []byte `json:"nonce"`
	Data    []byte `json:"data"`
}

// Load implements RefreshStore.
func (r *RefreshFile) Load() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := os.ReadFile(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotSignedIn
	}
	if err != nil {
		return "", fmt.Errorf("read refresh token: %w", err)
	}
	var s sealed
	if err := json.Unmarshal(b, &s); err != nil || s.Version != 1 {
		return "", fmt.Errorf("%w: %s is damaged", ErrNotSignedIn, r.Path)
	}
	key, err := os.ReadFile(r.KeyPath)
	if err != nil {
		return "", fmt.Errorf("%w: its key cannot be read: %w", ErrNotSignedIn, err)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNotSignedIn, r.KeyPath, err)
	}
	if len(s.Nonce) != aead.NonceSize() {
		return "", fmt.Errorf("%w: %s is damaged", ErrNotSignedIn, r.Path)
	}
	plain, err := aead.Open(nil, s.Nonce, s.Data, []byte(filepath.Base(r.Path)))
	if err != nil {
		return "", fmt.Errorf("%w: %s was encrypted with another key than %s", ErrNotSignedIn, r.Path, r.KeyPath)
	}
	return string(plain), nil
}

// Save implements RefreshStore. Whoever reads the file meanwhile sees the old or the new token.
func (r *RefreshFile) Save(refresh string) error {
	if r.ReadOnly {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range []string{r.Path, r.KeyPath} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
	}
	key, err := r.keyLocked()
	if err != nil {
		return err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return fmt.Errorf("%s: %w", r.KeyPath, err)
	}
	s := sealed{Version: 1, Nonce: make([]byte, aead.NonceSize())}
	rand.Read(s.Nonce) // never fails
	s.Data = aead.Seal(nil, s.Nonce, []byte(refresh), []byte(filepath.Base(r.Path)))
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(r.Path, b)
}

// keyLocked reads the key, or makes one.
func (r *RefreshFile) keyLocked() ([]byte, error) {
	key, err := os.ReadFile(r.KeyPath)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, 32)
	rand.Read(key) // never fails
	f, err := os.OpenFile(r.KeyPath, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return os.ReadFile(r.KeyPath) // another process was quicker
	}
	if err != nil {
		return nil, err
	}
	_, err = f.Write(key)
	return key, errors.Join(err, f.Sync(), f.Close())
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("the key has %d bytes, not 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// writeFile replaces a file in one step.
func writeFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".refresh-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
