package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// reloadRequest asks for the configuration to be read again, beside the signal that means the same.
type reloadRequest struct {
	nonce string // of a command that waits for an answer; empty where nobody does
	why   string
}

func (r reloadRequest) String() string { return r.why }
func (reloadRequest) Signal()          {}

// Times between two looks.
const (
	lookForRequests = time.Second
	lookAtFiles     = 10 * time.Second
)

// watchReload sends on hup when a command has asked for the configuration to be read again, or when a file that it names
// has another content: a renewed certificate, a rotated secret. The configuration itself is left alone: somebody may be
// writing it. It ends with ctx. Conf returns the configuration that holds.
func watchReload(ctx context.Context, conf func() *configFile, hup chan<- os.Signal) {
	name := filepath.Join(conf().folder(), reloadFile)
	asked := stampOf(name)
	files := conf().stamps()
	settled := files
	requests, looks := time.NewTicker(lookForRequests), time.NewTicker(lookAtFiles)
	defer requests.Stop()
	defer looks.Stop()
	for {
		var request reloadRequest
		select {
		case <-ctx.Done():
			return
		case <-requests.C:
			now := stampOf(name)
			if now == asked {
				continue
			}
			asked = now
			nonce, _ := os.ReadFile(name) // without one nobody waits for an answer
			request = reloadRequest{strings.TrimSpace(string(nonce)), "a command"}
		case <-looks.C:
			now := conf().stamps()
			stable := maps.Equal(now, files)
			files = now
			// Half of a pair may be written only; so a change has to last for one more look.
			if !stable || maps.Equal(now, settled) {
				continue
			}
			settled = now
			request = reloadRequest{why: "a changed file"}
		}
		select {
		case hup <- request:
		case <-ctx.Done():
			return
		}
	}
}

// stamp tells one state of a file from others.
type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(name string) stamp {
	info, err := os.Stat(name)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

// stamps returns the state of all files that the configuration names, but for those of sign-ins, which change by themselves.
func (c *configFile) stamps() map[string]stamp {
	out := make(map[string]stamp)
	add := func(names ...string) {
		for _, name := range names {
			if name != "" {
				out[c.beside(name)] = stampOf(c.beside(name))
			}
		}
	}
	for _, cred := range c.Credentials {
		add(cred.ClientSecretFile, cred.Certificate, cred.Key, cred.CertificatePasswordFile)
	}
	for _, l := range c.Logins {
		add(l.PasswordHashFile)
	}
	add(c.TLS.Certificate, c.TLS.Key, c.HTTP.Metrics.TokenFile)
	return out
}

// reloadAnswerFile is where the server says what came of a request.
const reloadAnswerFile = "reload-answer.json"

// reloadAnswer is its content.
type reloadAnswer struct {
	Nonce string   `json:"nonce"`
	Taken bool     `json:"taken"`
	Said  []string `json:"said"` // warnings, or why it was not taken
}

// answerReload writes the answer to a request.
func answerReload(dir string, a reloadAnswer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(dir, reloadAnswerFile), b)
}

// awaitReload waits until the server has answered the request with nonce.
func awaitReload(ctx context.Context, dir, nonce string) (reloadAnswer, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var a reloadAnswer
		b, err := os.ReadFile(filepath.Join(dir, reloadAnswerFile))
		switch {
		case err == nil:
			if json.Unmarshal(b, &a) == nil && a.Nonce == nonce {
				return a, nil
			}
		case !errors.Is(err, fs.ErrNotExist):
			return a, fmt.Errorf("asked for, but the answer cannot be read: %w", err)
		}
		select {
		case <-ctx.Done():
			return a, errors.New("no server has answered: does it run, with this configuration's state folder?")
		case <-tick.C:
		}
	}
}
