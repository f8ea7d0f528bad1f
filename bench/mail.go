package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

var (
	words = strings.Fields("budget meeting invoice printer schedule review contract delivery status release report holiday parking question update backup server network order draft summary minutes visit training agenda project customer")
	names = []string{"Adele Vance", "Miriam Graham", "Lee Gu", "Grady Archie", "Lynne Robbins", "Diego Siciliani", "Pradeep Gupta", "Jo Bloggs"}
	day0  = time.Date(2024, 1, 1, 8, 0, 0, 0, time.UTC)
)

// message is the i-th message, the same for all servers: about 5 KB, every tenth with an attachment, every thousandth with
// NEEDLE in its subject.
func message(i int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(i), 7))
	word := func() string { return words[rnd.IntN(len(words))] }
	from := names[rnd.IntN(len(names))]
	subject := fmt.Sprintf("%s %s about %s %d", word(), word(), word(), i)
	if i%1000 == 7 {
		subject = "NEEDLE " + subject
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from mail.fabrikam.example by mx.contoso.example; %s\r\n", received(i).Format(time.RFC1123Z))
	fmt.Fprintf(&b, "From: %s <%s@fabrikam.example>\r\nTo: Bench <%s>\r\nCc: Team <team@contoso.example>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <bench.%d@fabrikam.example>\r\n",
		from, strings.ToLower(strings.ReplaceAll(from, " ", ".")), benchUser, subject, received(i).Format(time.RFC1123Z), i)
	if i%3 == 0 {
		fmt.Fprintf(&b, "In-Reply-To: <bench.%d@fabrikam.example>\r\nReferences: <bench.%d@fabrikam.example>\r\n", i/3, i/3)
	}
	b.WriteString("MIME-Version: 1.0\r\n")
	text := func(lines int) {
		for range lines {
			for range 10 {
				b.WriteString(word() + " ")
			}
			b.WriteString("\r\n")
		}
	}
	if i%10 == 0 {
		b.WriteString("Content-Type: multipart/mixed; boundary=\"=_bench\"\r\n\r\n--=_bench\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n")
		text(20)
		b.WriteString("--=_bench\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=data.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n")
		for range 150 {
			for range 76 {
				b.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[rnd.IntN(64)])
			}
			b.WriteString("\r\n")
		}
		b.WriteString("--=_bench--\r\n")
	} else {
		b.WriteString("Content-Type: text/plain; charset=utf-8\r\n\r\n")
		text(15 + rnd.IntN(60))
	}
	return []byte(b.String())
}

func received(i int) time.Time { return day0.Add(time.Duration(i) * 10 * time.Minute) }
