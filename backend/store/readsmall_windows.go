package store

import (
	"fmt"
	"os"
)

// readSmall reads a file that should have so many bytes.
func readSmall(path string, size int64) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil && int64(len(b)) != size {
		return nil, fmt.Errorf("%w: it has not the length it had", errDamaged)
	}
	return b, err
}
