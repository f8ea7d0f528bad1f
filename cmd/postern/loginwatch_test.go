package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A changed file that the configuration names is taken over by itself, once, when it has settled.
func TestWatchReload(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cert.pem", "a")
	write("secret", "a")
	conf := &configFile{path: filepath.Join(dir, "postern.yaml")}
	conf.State = dir
	conf.TLS = tlsConfig{Certificate: "cert.pem", Key: "key.pem"}
	conf.Credentials = map[string]credentialConfig{"c": {ClientSecretFile: "secret"}}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		hup := make(chan os.Signal, 10)
		go watchReload(ctx, func() *configFile { return conf }, hup)
		after := func(d time.Duration, want int, what string) reloadRequest {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if len(hup) != want {
				t.Fatalf("%s: %d requests, want %d", what, len(hup), want)
			}
			if want == 0 {
				return reloadRequest{}
			}
			return (<-hup).(reloadRequest)
		}
		after(time.Minute, 0, "nothing has changed")
		write("cert.pem", "new certificate")
		after(lookAtFiles, 0, "half of the pair")
		write("key.pem", "new key")
		after(lookAtFiles, 0, "just written")
		after(lookAtFiles, 1, "both there for a while")
		after(time.Minute, 0, "nothing more")
		write("secret", "rotated")
		after(2*lookAtFiles, 1, "a rotated secret")
		write("postern.yaml", "being edited")
		after(time.Minute, 0, "the configuration itself")
		if err := requestReload(conf, "12345"); err != nil {
			t.Fatal(err)
		}
		if r := after(2*lookForRequests, 1, "a command"); r.nonce != "12345" {
			t.Errorf("the nonce is %q", r.nonce)
		}
	})
}
