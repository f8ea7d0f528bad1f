package backend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/graphsim"
	"postern/backend/store"
)

// tooLarge counts the requests that were refused for their size.
func tooLarge(sim *graphsim.Sim) int {
	return sim.CountRequests(func(r graphsim.Request) bool { return r.Status == http.StatusRequestEntityTooLarge })
}

// At the borders of what one request may have, and of what an upload session is made for, messages arrive whole, once, and
// where the service is the one of the documents without a refused request.
func TestSizeBorders(t *testing.T) {
	quickly(t)
	docs := graphsim.Options{}
	binary := graphsim.Options{MaxRequest: 4 << 20, MinUpload: 3 << 20}
	loose := graphsim.Options{MaxRequest: 4 << 20}
	narrow := graphsim.Options{MaxRequest: 1_500_000, MinUpload: 1_000_000}
	for _, tt := range []struct {
		name    string
		opts    graphsim.Options
		total   int // of the message as it goes to Graph; 0: as it comes
		sizes   []int
		refused int
	}{
		{"one request, full", docs, graph.MaxRequest / 4 * 3, []int{1_500_000}, 0},
		{"one byte more", docs, graph.MaxRequest/4*3 + 1, []int{1_500_000}, 0},
		{"file that fills a request", docs, 0, []int{2_999_800}, 0},
		{"file of 3 MB less one", loose, 0, []int{2_999_999}, 0},
		{"file of 3 MB", docs, 0, []int{3_000_000}, 0},
		{"file of 3 MB and one", docs, 0, []int{3_000_001}, 0},
		{"file of 3 MB where MB are MiB", binary, 0, []int{3_000_000}, 0},
		{"file of 3 MiB less some where MB are MiB", binary, 0, []int{3<<20 - 500}, 0},
		{"file of 3 MiB where MB are MiB", binary, 0, []int{3 << 20}, 0},
		{"rest at its largest", docs, 0, []int{2_100_000, 2_150_000}, 0},
		{"a narrower way", narrow, 0, []int{900_000, 500_000}, 1},
		{"a narrower way, in pieces", narrow, 0, []int{1_800_000}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sim, url := newSim(t, tt.opts)
			b, _ := start(t, testConfig(t, url, t.TempDir()))
			text, files := largeMessage("mixed", tt.sizes...)
			text = "Date: Mon, 2 Mar 2026 10:00:00 +0000\r\nMessage-ID: <border@x>\r\n" + text
			if tt.total > 0 {
				text += strings.Repeat("x", tt.total-len(text)-len("X-Postern-Id: \r\n\r\n")-idLength) + "\r\n"
			}
			id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), text)
			if err != nil {
				t.Fatal(err)
			}
			row := settledRow(t, b, id)
			if row.State != store.StateSent {
				t.Fatalf("%s: %s", row.State, row.LastError)
			}
			if tt.total > 0 && (row.Size != int64(tt.total) || len(id) != idLength) {
				t.Fatalf("%d bytes, id %s", row.Size, id)
			}
			d := sim.Delivered()
			if len(d) != 1 || len(d[0].Recipients) != 1 {
				t.Fatalf("%d deliveries", len(d))
			}
			hasFiles(t, d[0].MIME, files)
			if n := tooLarge(sim); n != tt.refused {
				t.Errorf("%d requests were too large", n)
			}
			if n := len(sim.Messages(alice, "drafts")); n != 0 {
				t.Errorf("%d drafts left", n)
			}
		})
	}
}

// idLength is how long queue ids are.
const idLength = 16

// What is appended arrives whole, however its size is made up: in text that grows as JSON, in addresses, in line ends.
func TestAppendSizeBorders(t *testing.T) {
	docs, narrow := graphsim.Options{}, graphsim.Options{MaxRequest: 1_500_000, MinUpload: 1_000_000}
	const head = "From: x@y.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
	html := head + "Content-Type: text/html\r\n\r\n" + strings.Repeat(strings.Repeat("<i>&", 20)+"\r\n", 20_000)
	var rcpts strings.Builder
	for i := range 12_000 {
		fmt.Fprintf(&rcpts, ",\r\n someone%d@department%d.a.rather.long.name.of.a.domain.fabrikam.example", i, i)
	}
	many := head + "To: first@y.example" + rcpts.String() + "\r\nCc: first@y.example" + rcpts.String() + "\r\n\r\ntext\r\n"
	files, _ := largeMessage("mixed", 1_000_000, 1_190_000)
	bare := strings.ReplaceAll(files, "\r\n", "\n")
	text := head + "\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 20_000)
	for _, tt := range []struct {
		name, mailbox, raw string
		opts               graphsim.Options
		policy             AppendPolicy
		files              int
		refused            int
	}{
		{"markup", "INBOX", html, docs, AppendJSON, 1, 0},
		{"addresses", "INBOX", many, docs, AppendJSON, 0, 0},
		{"references", "INBOX", "References: " + strings.Repeat("<a@b>\r\n ", 600_000) + "\r\n" + head + "\r\ntext\r\n", docs, AppendJSON, 2, 0},
		{"text, narrower way", "INBOX", text, narrow, AppendJSON, 1, 3},
		{"draft", "Drafts", files, docs, AppendJSON, 2, 0},
		{"draft whose lines end in LF", "Drafts", bare, docs, AppendJSON, 2, 0},
		{"draft, narrower way", "Drafts", files, narrow, AppendJSON, 2, 2},
		{"file of 3 MB less one", "INBOX", fileOf(2_999_999), graphsim.Options{MaxRequest: 4 << 20}, AppendJSON, 1, 0},
		{"import", "INBOX", fileOf(3_500_000), docs, AppendImportMIME, 1, 0},
		{"import, narrower way", "INBOX", files, narrow, AppendImportMIME, 2, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sim, url := newSim(t, tt.opts)
			sim.AddApp(testTenant, testApp, "", "Mail.ReadWrite", "Mail.Send", "Mail-Advanced.ReadWrite.All")
			cfg := testConfig(t, url, t.TempDir())
			cfg.Append = tt.policy
			b, _ := start(t, cfg)
			a := accountOf(t, b, alice)
			m := open(t, a, tt.mailbox)
			uid, err := appendMail(t, a, tt.mailbox, []byte(tt.raw), time.Time{}, imap.FlagFlagged)
			if err != nil {
				t.Fatal(err)
			}
			if readBody(t, m, uid) != tt.raw {
				t.Error("other bytes read back")
			}
			info := sim.Messages(alice, strings.ToLower(tt.mailbox))
			if len(info) != 1 || len(info[0].Files) != tt.files || !info[0].Flagged || info[0].IsDraft != (tt.mailbox == "Drafts") {
				t.Errorf("in Graph %+v", info)
			}
			if n := tooLarge(sim); n != tt.refused {
				t.Errorf("%d requests were too large", n)
			}
		})
	}
}

func fileOf(size int) string {
	text, _ := largeMessage("mixed", size)
	return text
}
