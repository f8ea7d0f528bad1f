package imapd

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/backend"
	"postern/backend/message"
	"postern/imapd/wire"
	"postern/internal/fuzzcorpus"
)

var updateGolden = flag.Bool("update", false, "rewrite golden files")

// argDecoder returns a Decoder that stands behind the name of a command.
func argDecoder(t testing.TB, args string) *wire.Decoder {
	t.Helper()
	d := wire.NewDecoder(strings.NewReader("a x"+args+"\r\n"), wire.DefaultLimits, nil, func() error { return nil })
	if _, _, err := d.ReadCommand(); err != nil {
		t.Fatal(err)
	}
	return d
}

// testContent is a message held in memory.
type testContent struct {
	*bytes.Reader
	index *message.Index
}

func newContent(t testing.TB, b []byte) testContent {
	t.Helper()
	ix, err := message.Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return testContent{bytes.NewReader(b), ix}
}

func (c testContent) Index() *message.Index { return c.index }

// mimeMessages returns the messages of testdata/mime in the order of their names.
func mimeMessages(t testing.TB) (names []string, messages map[string][]byte) {
	t.Helper()
	paths, err := filepath.Glob("../testdata/mime/*.eml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test messages: %v", err)
	}
	messages = map[string][]byte{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(p), ".eml")
		names = append(names, name)
		messages[name] = b
	}
	sort.Strings(names)
	return names, messages
}

func TestParseFetch(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"1 FLAGS", "FLAGS"},
		{"1:* (flags uid)", "FLAGS UID"},
		{"1 ALL", "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE"},
		{"1 fast", "FLAGS INTERNALDATE RFC822.SIZE"},
		{"1 FULL", "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY"},
		{"1 (FLAGS FLAGS UID)", "FLAGS UID"},
		{"1 BODY", "BODY"},
		{"1 BODYSTRUCTURE", "BODYSTRUCTURE"},
		{"1 BODY[]", "BODY[]!"},
		{"1 body.peek[]", "BODY[]"},
		{"1 (BODY[] BODY.PEEK[])", "BODY[]! BODY[]"},
		{"1 BODY[TEXT]<0.100>", "BODY[TEXT]<0>!"},
		{"1 BODY.PEEK[1.2.3.MIME]", "BODY[1.2.3.MIME]"},
		{"1 BODY.PEEK[1]<9223372036854775807.9223372036854775807>", "BODY[1]<9223372036854775807>"},
		{"1 BODY.PEEK[1]<5>", "BODY[1]<5>"},
		{"1 body.peek[header.fields (from \"to\" {2+}\r\ncc x-a:b \"a b\")]", `BODY[HEADER.FIELDS (FROM TO CC X-A:B "A B")]`},
		{"1 BODY.PEEK[4.HEADER.FIELDS.NOT (From )]<2.3>", "BODY[4.HEADER.FIELDS.NOT (FROM)]<2>"},
		{"1 BODY.PEEK[0]", "BODY[0]"},
		{"1 (RFC822 RFC822.HEADER RFC822.TEXT RFC822.SIZE)", "RFC822! RFC822.HEADER RFC822.TEXT! RFC822.SIZE"},
		{"1 (BINARY[1] BINARY.PEEK[1.2]<0.5> BINARY.SIZE[1])", "BINARY[1]! BINARY[1.2]<0> BINARY.SIZE[1]"},
		{"1 (EMAILID THREADID MODSEQ)", "EMAILID THREADID MODSEQ"},
		{"1 FLAGS (CHANGEDSINCE 12345)", "FLAGS MODSEQ"},

		{"1", "bad"},
		{"FLAGS", "bad"},
		{"0 FLAGS", "bad"},
		{"1 ()", "bad"},
		{"1 (FLAGS", "bad"},
		{"1 FLAGS UID", "bad"},
		{"1 (ALL)", "bad"},
		{"1 BOGUS", "bad"},
		{"1 BODY.PEEK", "bad"},
		{"1 BODY[", "bad"},
		{"1 BODY[]x", "bad"},
		{"1 BODY[1.]", "bad"},
		{"1 BODY[.1]", "bad"},
		{"1 BODY[1..2]", "bad"},
		{"1 BODY[MIME]", "bad"},
		{"1 BODY[1.BOGUS]", "bad"},
		{"1 BODY[HEADER.FIELDS]", "bad"},
		{"1 BODY[HEADER.FIELDS ()]", "bad"},
		{"1 BODY[HEADER.FIELDS (\"\")]", "bad"},
		{"1 BODY[99999999999999999999]", "bad"},
		{"1 BODY[]<-1.5>", "bad"},
		{"1 BODY[]<0.99999999999999999999>", "bad"},
		{"1 BODY[]<0.5", "bad"},
		{"1 BINARY[TEXT]", "bad"},
		{"1 BINARY.SIZE[1]<0.5>", "bad"},
		{"1 FLAGS (BOGUS)", "bad"},
		{"1 BODY[" + strings.Repeat("1.", 300) + "1]", "bad"},
		{"1 (" + strings.Repeat("BODY[1] ", 5), "bad"},
	} {
		d := argDecoder(t, " "+tt.in)
		req := parseFetch(d, false)
		got := "bad"
		if err := d.End(); err == nil {
			var labels []string
			for _, it := range req.items {
				l := it.label
				if it.seen {
					l += "!"
				}
				labels = append(labels, l)
			}
			got = strings.Join(labels, " ")
		} else if !wire.Recoverable(err) {
			t.Errorf("FETCH %.60s: %v", tt.in, err)
		}
		if got != tt.want {
			t.Errorf("FETCH %.60s = %s, want %s", tt.in, got, tt.want)
		}
	}
}

// fetchResponse is the response to the items for one message.
func fetchResponse(t testing.TB, b []byte, items string) (string, error) {
	t.Helper()
	d := argDecoder(t, " 1 "+items)
	req := parseFetch(d, false)
	if err := d.End(); err != nil {
		t.Fatalf("%s: %v", items, err)
	}
	row := &fetchRow{seq: 1, msg: backend.Message{UID: 7, ModSeq: 9, EmailID: backend.ObjectID{'M', 0x0a, 0xff}, Size: 1,
		Received: time.Date(2026, 11, 3, 4, 5, 6, 0, time.UTC)}, flags: []imap.Flag{imap.FlagSeen}}
	needsBody := false
	for i := range req.items {
		needsBody = needsBody || req.items[i].needsBody()
	}
	c := newContent(t, b)
	if needsBody {
		row.body = c
	} else {
		for _, text := range headerTexts(req.items, false) {
			row.texts = append(row.texts, text.Make(nil, b[:c.index.Root.Header.Len]))
		}
	}
	var out bytes.Buffer
	e := wire.NewEncoder(&out)
	err := writeFetch(e, req.items, row, false)
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String(), err
}

func TestWriteFetch(t *testing.T) {
	_, files := mimeMessages(t)
	for _, tt := range []struct{ file, items, want string }{
		{"plain", "(UID FLAGS INTERNALDATE RFC822.SIZE)", `UID 7 FLAGS (\Seen) INTERNALDATE "03-Nov-2026 04:05:06 +0000" RFC822.SIZE 1`},
		{"plain", "(RFC822.SIZE BODY.PEEK[TEXT]<0.5>)", "RFC822.SIZE 296 BODY[TEXT]<0> {5}\r\nHello"},
		{"plain", "(MODSEQ EMAILID THREADID)", "MODSEQ (9) EMAILID (M0aff00000000000000000000) THREADID NIL"},
		{"plain", "BODY.PEEK[HEADER.FIELDS (subject from)]", "BODY[HEADER.FIELDS (SUBJECT FROM)] {63}\r\nFrom: Alice Example <alice@contoso.example>\r\nSubject: Plain\r\n\r\n"},
		{"plain", "BODY.PEEK[HEADER.FIELDS (subject)]<3.7>", "BODY[HEADER.FIELDS (SUBJECT)]<3> {7}\r\nject: P"},
		{"plain", "BODY.PEEK[HEADER.FIELDS (nope)]", "BODY[HEADER.FIELDS (NOPE)] {2}\r\n\r\n"},
		{"plain", "BODY.PEEK[HEADER.FIELDS (subject)]<1000.7>", `BODY[HEADER.FIELDS (SUBJECT)]<1000> ""`},
		{"plain", "BODY.PEEK[HEADER.FIELDS.NOT (from to date message-id mime-version content-type content-transfer-encoding)]", "BODY[HEADER.FIELDS.NOT (FROM TO DATE MESSAGE-ID MIME-VERSION CONTENT-TYPE CONTENT-TRANSFER-ENCODING)] {18}\r\nSubject: Plain\r\n\r\n"},
		{"plain", "BODY.PEEK[9]", `BODY[9] ""`},
		{"plain", "BODY.PEEK[1.1]", `BODY[1.1] ""`},
		{"plain", "BODY.PEEK[0]", `BODY[0] ""`},
		{"plain", "BODY.PEEK[TEXT]<1000.5>", `BODY[TEXT]<1000> ""`},
		{"plain", "BODY.PEEK[TEXT]<9223372036854775807.9223372036854775807>", `BODY[TEXT]<9223372036854775807> ""`},
		{"plain", "BODY.PEEK[TEXT]<3.0>", `BODY[TEXT]<3> ""`},
		{"plain", "BODY.PEEK[TEXT]<30>", "BODY[TEXT]<30> {9}\r\nso far.\r\n"},
		{"no-mime", "RFC822", "RFC822 {88}\r\n*"},
		{"no-mime", "RFC822.TEXT", "RFC822.TEXT {21}\r\nToner low on tray 1\r\n"},
		{"no-mime", "RFC822.HEADER", "RFC822.HEADER {67}\r\nFrom: root@printer\r\nTo: bob@contoso.example\r\nSubject: toner low\r\n\r\n"},
		{"empty", "BODY.PEEK[]", `BODY[] ""`},
		{"empty", "ENVELOPE", "ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"},
		{"empty", "BODY.PEEK[HEADER.FIELDS (a)]", `BODY[HEADER.FIELDS (A)] ""`}, // no blank line where there is none
		{"empty-header", "BODY.PEEK[HEADER.FIELDS (a)]", "BODY[HEADER.FIELDS (A)] {2}\r\n\r\n"},
		{"junk-header", "BODY.PEEK[TEXT]", "BODY[TEXT] {11}\r\nThe body.\r\n"},
		{"nested-rfc822", "(BODY.PEEK[4.2.HEADER.FIELDS (Subject)] BODY.PEEK[4.HEADER.FIELDS (Subject)])", "BODY[4.2.HEADER.FIELDS (SUBJECT)] {17}\r\nSubject: deep\r\n\r\n BODY[4.HEADER.FIELDS (SUBJECT)] \"\""},
		{"nested-rfc822", "BODY.PEEK[4.2.2.1]", "BODY[4.2.2.1] {7}\r\n4.2.2.1"},
		{"nul", "BODY.PEEK[TEXT]", "BODY[TEXT] {7}\r\nbo\x80dy\r\n"},
		{"nul", "BINARY.PEEK[1]", "BINARY[1] ~{7}\r\nbo\x00dy\r\n"},
		{"nul", "ENVELOPE", "ENVELOPE (NIL {3}\r\nn\x80l ((NIL NIL \"a\" \"a.example\")) ((NIL NIL \"a\" \"a.example\")) ((NIL NIL \"a\" \"a.example\")) NIL NIL NIL NIL NIL)"},
		{"mixed-attachment", "(BINARY.SIZE[1.1] BINARY.PEEK[1.1]<0.5> BINARY.PEEK[1.1]<6.100>)", "BINARY.SIZE[1.1] 72 BINARY[1.1]<0> {5}\r\nGr\xfc\xdfe BINARY[1.1]<6> {66}\r\naus K\xf6ln, eine lange Zeile, die mit einem weichen Umbruch endet.\r\n"},
		{"mixed-attachment", "(BINARY.SIZE[2] BINARY.SIZE[] BINARY.SIZE[9] BINARY.PEEK[9])", `BINARY.SIZE[2] 12 BINARY.SIZE[] 1339 BINARY.SIZE[9] 0 BINARY[9] ""`},
		{"content-types", "(UID BINARY.PEEK[9])", "UID 7!"},
		{"content-types", "BINARY.SIZE[9]", "UID 7!"},
		{"eight-bit-header", "BODY.PEEK[HEADER.FIELDS (subject)]", "BODY[HEADER.FIELDS (SUBJECT)] {27}\r\nSubject: Gr\xfc\xdfe aus K\xf6ln\r\n\r\n"},
		{"bare-lf", "BODY.PEEK[1]", "BODY[1] {7}\r\none\ntwo"},
	} {
		b := files[tt.file]
		got, err := fetchResponse(t, b, tt.items)
		want := strings.Replace(tt.want, "*", string(b), 1)
		if failed := strings.HasSuffix(want, "!"); failed != (err != nil) || failed && !errors.Is(err, errUnknownCTE) {
			t.Errorf("%s %s: error %v", tt.file, tt.items, err)
		}
		want = "* 1 FETCH (" + strings.TrimSuffix(want, "!") + ")\r\n"
		if got != want {
			t.Errorf("%s %s\n got %q\nwant %q", tt.file, tt.items, got, want)
		}
	}
}

// cutReader is a body that cannot be read beyond some byte.
type cutReader struct {
	testContent
	at int64
}

func (c cutReader) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > c.at {
		return 0, errors.New("disk on fire")
	}
	return c.testContent.ReadAt(p, off)
}

// A body that cannot be read must not be announced.
func TestWriteFetchUnreadable(t *testing.T) {
	_, files := mimeMessages(t)
	for _, items := range []string{"(UID BODY.PEEK[] FLAGS)", "(UID BINARY.PEEK[2] FLAGS)", "(UID BODY.PEEK[1.2.HEADER.FIELDS (a)] BODY.PEEK[2] FLAGS)"} {
		d := argDecoder(t, " 1 "+items)
		req := parseFetch(d, false)
		var out bytes.Buffer
		e := wire.NewEncoder(&out)
		row := &fetchRow{seq: 1, msg: backend.Message{UID: 7}, body: cutReader{newContent(t, files["mixed-attachment"]), 5}}
		if err := writeFetch(e, req.items, row, false); err == nil {
			t.Errorf("%s: no error", items)
		}
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.HasPrefix(got, "* 1 FETCH (UID 7 B") || !strings.HasSuffix(got, " NIL FLAGS ())\r\n") || strings.Contains(got, "{") {
			t.Errorf("%s: %q", items, got)
		}
	}
}

func TestFetchStructuresGolden(t *testing.T) {
	names, files := mimeMessages(t)
	var sb strings.Builder
	for _, name := range names {
		for _, item := range []string{"ENVELOPE", "BODYSTRUCTURE", "BODY"} {
			got, err := fetchResponse(t, files[name], item)
			if err != nil {
				t.Errorf("%s %s: %v", name, item, err)
			}
			got = strings.TrimSuffix(strings.TrimPrefix(got, "* 1 FETCH ("), ")\r\n")
			fmt.Fprintf(&sb, "%s %q\n", name, got)
		}
	}
	// One backslash less to read.
	got := strings.ReplaceAll(sb.String(), `\"`, `"`)
	path := filepath.Join("testdata", "structures.golden")
	if *updateGolden {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		gl, wl := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range gl {
			if i >= len(wl) || gl[i] != wl[i] {
				t.Errorf("line %d is\n%s", i+1, gl[i])
			}
		}
	}
}

// An independent client must be able to read what is written, whatever the message is.
func TestFetchReadByClient(t *testing.T) {
	names, files := mimeMessages(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			response, err := fetchResponse(t, files[name], "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY.PEEK[] BODY.PEEK[HEADER] BODY.PEEK[TEXT] BODY.PEEK[1] BODY.PEEK[HEADER.FIELDS (From)])")
			if err != nil {
				t.Fatal(err)
			}
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				r := bufio.NewReader(server)
				io.WriteString(server, "* PREAUTH [CAPABILITY IMAP4rev1] ready\r\n")
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					tag, rest, _ := strings.Cut(line, " ")
					if strings.HasPrefix(rest, "FETCH") {
						io.WriteString(server, response)
					}
					io.WriteString(server, tag+" OK done\r\n")
				}
			}()
			c := imapclient.New(client, nil)
			defer c.Close()
			msgs, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{UID: true}).Collect()
			if err != nil {
				t.Fatalf("client: %v\n%s", err, response)
			}
			if len(msgs) != 1 || msgs[0].UID != 7 || msgs[0].BodyStructure == nil || msgs[0].Envelope == nil {
				t.Fatalf("client read %+v of\n%s", msgs, response)
			}
			all := msgs[0].FindBodySection(&imap.FetchItemBodySection{Peek: true})
			if want := bytes.ReplaceAll(files[name], []byte{0}, []byte{0x80}); !bytes.Equal(all, want) {
				t.Errorf("BODY[] of %d bytes, want %d", len(all), len(want))
			}
		})
	}
}

func FuzzParseFetch(f *testing.F) {
	for _, s := range []string{" 1:* (FLAGS UID)", " 1 BODY.PEEK[1.2.HEADER.FIELDS (A \"b\")]<0.5>", " 2,* FULL", " 1 BINARY[1]<1.2>", " 1 FLAGS (CHANGEDSINCE 5)"} {
		f.Add(s)
	}
	msg := []byte("From: a@a.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		d := wire.NewDecoder(strings.NewReader("a x"+s+"\r\n"), wire.DefaultLimits, nil, func() error { return nil })
		if _, _, err := d.ReadCommand(); err != nil {
			return
		}
		req := parseFetch(d, true)
		if d.End() != nil {
			return
		}
		var out bytes.Buffer
		e := wire.NewEncoder(&out)
		row := &fetchRow{seq: 1, msg: backend.Message{UID: 7}, body: newContent(t, msg)}
		if err := writeFetch(e, req.items, row, true); err != nil {
			t.Fatal(err)
		}
		e.Flush()
		if !bytes.HasPrefix(out.Bytes(), []byte("* 1 FETCH (UID 7")) || !bytes.HasSuffix(out.Bytes(), []byte(" FLAGS ())\r\n")) {
			t.Fatalf("%q", out.Bytes())
		}
	})
}
