package imapd

import (
	"strconv"

	"github.com/emersion/go-imap/v2"
)

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// appendUIDs appends UIDs as a set that lists them in the order given: COPYUID
// pairs them by their places. RFC 4315 section 3.
func appendUIDs(dst []byte, uids []imap.UID) []byte {
	for i := 0; i < len(uids); {
		j := i + 1
		for j < len(uids) && uids[j] == uids[j-1]+1 {
			j++
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(uids[i]), 10)
		if j-i > 1 {
			dst = append(dst, ':')
			dst = strconv.AppendUint(dst, uint64(uids[j-1]), 10)
		}
		i = j
	}
	return dst
}
