package graph

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkDecodePage decodes a page of 1,000 rows as the first fill of a folder asks for them.
func BenchmarkDecodePage(b *testing.B) {
	var s strings.Builder
	s.WriteString(`{"@odata.context":"x","value":[`)
	for i := range 1000 {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, `{"@odata.etag":"W/\"CQAAABYAAAA%d\"","id":"AAMkAGI1AAAoZCfHAAA%060d=","receivedDateTime":"2026-01-01T00:00:00Z","isRead":true,"isDraft":false,`+
			`"categories":["red"],"flag":{"flagStatus":"notFlagged"},"singleValueExtendedProperties":[{"id":"Integer 0xe08","value":"12345"},{"id":"Integer 0x1081","value":"102"}]}`, i, i)
	}
	s.WriteString(`]}`)
	body := []byte(s.String())
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var p page[messageJSON]
		if err := json.Unmarshal(body, &p); err != nil || len(messages(*p.Value)) != 1000 {
			b.Fatal(err)
		}
	}
}
