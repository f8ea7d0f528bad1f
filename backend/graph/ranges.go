package graph

import (
	"strconv"
	"strings"
)

// nextOffset returns the first byte that an upload session still wants. Its answers hold ranges as "0-", "2097152" and
// "10-20" (observed, not documented). ok is false when there is none: all is there, or the answer says nothing.
func nextOffset(ranges []string) (offset int64, ok bool) {
	for _, r := range ranges {
		first, _, _ := strings.Cut(strings.TrimSpace(r), "-")
		n, err := strconv.ParseInt(strings.TrimSpace(first), 10, 64)
		if err != nil || n < 0 {
			continue
		}
		if !ok || n < offset {
			offset, ok = n, true
		}
	}
	return offset, ok
}
