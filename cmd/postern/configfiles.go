package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// secretFileUse is a file that holds a secret, and the key that names it.
type secretFileUse struct{ key, file, what string }

// secretFiles lists the files that nobody else should read.
func (c *configFile) secretFiles() []secretFileUse {
	var out []secretFileUse
	add := func(key, file, what string) {
		if file != "" {
			out = append(out, secretFileUse{key, c.beside(file), what})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Credentials)) {
		cred, path := c.Credentials[name], "credentials."+name
		if cred.ClientSecret != "" && cred.ClientSecretFile == "" && !c.expanded[path+".client_secret"] {
			out = append(out, secretFileUse{path + ".client_secret", c.path, "secret"})
		}
		if cred.CertificatePassword != "" && cred.CertificatePasswordFile == "" && !c.expanded[path+".certificate_password"] {
			out = append(out, secretFileUse{path + ".certificate_password", c.path, "password"})
		}
		add(path+".client_secret_file", cred.ClientSecretFile, "secret")
		add(path+".certificate_password_file", cred.CertificatePasswordFile, "password")
		if cred.Key != "" {
			add(path+".key", cred.Key, "key")
		} else if cred.CertificatePassword == "" {
			add(path+".certificate", cred.Certificate, "key")
		}
		add(path+".token_key_file", cred.TokenKeyFile, "key")
	}
	if m := c.HTTP.Metrics; m.Token != "" && m.TokenFile == "" && !c.expanded["http.metrics.token"] {
		out = append(out, secretFileUse{"http.metrics.token", c.path, "token"})
	}
	add("http.metrics.token_file", c.HTTP.Metrics.TokenFile, "token")
	add("tls.key", c.TLS.Key, "key")
	return out
}

// checkPermissions refuses files with secrets that others on this machine can read. The secret of a credential for a
// simulator on this machine is none; and who mounts files with modes nobody there can change says so in the configuration.
func (c *configFile) checkPermissions() {
	for _, f := range c.secretFiles() {
		if !othersCanRead(f.file) {
			continue
		}
		text := fmt.Sprintf("everybody on this machine can read this %s: chmod 640 %s", f.what, f.file)
		if f.file == c.path {
			text += ", or use ${VAR} or a file of its own"
		}
		if c.AllowReadableSecrets || c.forSimulator(f.key) {
			c.warnf(f.key, "%s", text)
		} else {
			c.errorf(f.key, "%s (where modes cannot be changed, as in some containers: allow_readable_secrets: true)", text)
		}
	}
}

// forSimulator reports whether key belongs to a credential whose sign-in host is this machine.
func (c *configFile) forSimulator(key string) bool {
	for name, cred := range c.Credentials {
		if prefix := "credentials." + name + "."; len(key) > len(prefix) && key[:len(prefix)] == prefix {
			return loopbackURL(cred.LoginURL)
		}
	}
	return false
}

// othersCanRead reports whether users who are neither owner nor in the group can read a file: its own mode, and those of
// all folders above it, say so.
func othersCanRead(name string) bool {
	if runtime.GOOS == "windows" {
		return false // access lists, of which the mode bits say nothing
	}
	name, err := filepath.Abs(name)
	if err != nil {
		return false
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm()&0o004 == 0 {
		return false
	}
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
