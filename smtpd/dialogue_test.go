package smtpd

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/backend"
)

const dialogues = "../testdata/smtp"

// TestDialogues plays the files in testdata/smtp; their README says how they are written.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(dialogues, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, string(text))
		})
	}
}

func play(t *testing.T, script string) {
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	opts, peer := Options{}, ""
	for _, l := range lines {
		key, value, _ := strings.Cut(strings.TrimPrefix(l, "@"), " ")
		if !strings.HasPrefix(l, "@") {
			continue
		}
		switch key {
		case "tls":
			opts.TLS, opts.TLSConfig = TLSMode(value), testTLS()
		case "plainauth":
			opts.AllowPlainAuth = value == "true"
		case "device":
			opts.Device = true
			opts.RewriteFrom = value == "rewrite"
		case "network":
			opts.Networks = append(opts.Networks, netip.MustParsePrefix(value))
			opts.Fixed = &backend.Login{Username: "devices"}
		case "peer":
			peer = value
		case "max":
			opts.MaxMessage, _ = strconv.ParseInt(value, 10, 64)
		default:
			t.Fatalf("unknown setting %q", l)
		}
	}
	svc := &fakeService{}
	_, addr := startServer(t, svc, opts, peer)
	var conn net.Conn
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.Close() }()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(conn)

	skipping := false // a "S: 250-*" stands for all lines but the last of a reply
	for i, l := range lines {
		at := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("line %d, %s: %s", i+1, l, fmt.Sprintf(format, args...))
		}
		send := func(s string) {
			if skipping {
				for {
					got, err := r.ReadString('\n')
					if err != nil {
						at("%v", err)
					}
					if len(got) > 3 && got[3] == ' ' {
						break
					}
				}
				skipping = false
			}
			if _, err := conn.Write([]byte(s)); err != nil {
				at("%v", err)
			}
		}
		switch {
		case l == "" || l[0] == '#' || l[0] == '@':
		case strings.HasPrefix(l, "C>"):
			s, err := strconv.Unquote(strings.TrimSpace(l[2:]))
			if err != nil {
				at("%v", err)
			}
			send(s)
		case strings.HasPrefix(l, "L:"):
			n, err := strconv.Atoi(strings.TrimSpace(l[2:]))
			if err != nil {
				at("%v", err)
			}
			send(strings.Repeat("x", n) + "\r\n")
		case strings.HasPrefix(l, "C:"):
			send(strings.TrimPrefix(strings.TrimPrefix(l, "C:"), " ") + "\r\n")
		case strings.HasPrefix(l, "S:"):
			want := strings.TrimPrefix(strings.TrimPrefix(l, "S:"), " ")
			got, err := r.ReadString('\n')
			if err != nil {
				at("%v (got %q)", err, got)
			}
			for skipping && got[3] == '-' {
				if got, err = r.ReadString('\n'); err != nil {
					at("%v", err)
				}
			}
			if skipping {
				skipping = false
				if got, err = r.ReadString('\n'); err != nil {
					at("%v", err)
				}
			}
			prefix, any := strings.CutSuffix(want, "*")
			if any && !strings.HasPrefix(got, prefix) || !any && got != want+"\r\n" {
				at("got %q", got)
			}
			skipping = any && len(got) > 3 && got[3] == '-'
		case l == "T:":
			tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			if err := tc.Handshake(); err != nil {
				at("%v", err)
			}
			conn, r = tc, bufio.NewReader(tc)
		case l == "E:":
			if rest, err := r.ReadString('\n'); err == nil || rest != "" {
				at("still open: %q", rest)
			}
		case strings.HasPrefix(l, "M:"):
			want, err := strconv.Unquote(strings.TrimSpace(l[2:]))
			if err != nil {
				at("%v", err)
			}
			got := svc.messages()
			if len(got) == 0 || got[len(got)-1].buf.String() != want {
				at("accepted %d messages, the last %q", len(got), lastMessage(got))
			}
		case strings.HasPrefix(l, "R:"):
			got := svc.messages()
			if len(got) == 0 {
				at("nothing accepted")
			}
			var names []string
			for _, rc := range got[len(got)-1].env.Recipients {
				names = append(names, strings.ReplaceAll(rc.Address, " ", "_"))
			}
			if s := strings.Join(names, " "); s != strings.TrimSpace(l[2:]) {
				at("got %q", s)
			}
		default:
			at("unknown line")
		}
	}
}

func lastMessage(m []*fakeSubmission) string {
	if len(m) == 0 {
		return ""
	}
	return m[len(m)-1].buf.String()
}
