package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postern/backend/store"
)

// inUseFile is where, in the state folder, a server writes down which text of the configuration it works by, for postern doctor.
const inUseFile = "config-in-use.json"

// inUse is its content.
type inUse struct {
	File   string    `json:"file"`
	SHA256 string    `json:"sha256"` // of the file's text
	Since  time.Time `json:"since"`
}

// digest is what tells one text of a configuration from others.
func digest(src []byte) string {
	sum := sha256.Sum256(src)
	return hex.EncodeToString(sum[:])
}

// noteInUse writes down that the server works by c from now on.
func noteInUse(c *configFile) error {
	path, err := filepath.Abs(c.path)
	if err != nil {
		return err
	}
	b, err := json.Marshal(inUse{path, c.digest, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(c.folder(), inUseFile), append(b, '\n'))
}

// inUseFindings say whether a server that runs on c's state folder works by the file as it is now; none where none runs, or
// where this user may not see.
func inUseFindings(c *configFile) []finding {
	const check = "configuration in use"
	b, err := os.ReadFile(filepath.Join(c.folder(), inUseFile))
	var used inUse
	if err != nil || json.Unmarshal(bytes.TrimSpace(b), &used) != nil {
		return nil
	}
	if running, err := store.Running(c.folder()); err != nil || !running {
		return nil
	}
	path, err := filepath.Abs(c.path)
	since := used.Since.Local().Format(time.DateTime)
	switch {
	case err != nil:
		return nil
	case path != used.File:
		return []finding{{check, warning, "the running server works by another file, " + used.File, "Look at that one: postern doctor -c " + used.File}}
	case c.digest != used.SHA256:
		return []finding{{check, warning, fmt.Sprintf("the file was changed after the running server read it, at %s", since), "Let it take the change over: postern reload -c " + path}}
	}
	return []finding{{check, fine, "the running server works by it since " + since, ""}}
}
