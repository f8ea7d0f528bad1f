package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"mime"
	"strings"
	"time"

	"postern/backend/graphsim"
)

// The sample tenant: what an administrator would find in Entra, and who has a mailbox.
const (
	sampleTenant   = "6d5f3f6e-0000-4000-8000-000000000000"
	sampleDomain   = "contoso.example"
	sampleClientID = "2c9b0c44-0000-4000-8000-000000000000"
	sampleSecret   = "sample-secret"
	sampleUser     = "alice@contoso.example"
	sampleShared   = "support@contoso.example"
	sampleOther    = "bob@contoso.example"
)

// seedSample puts the sample tenant into sim: a mailbox with what makes mail programs
// stumble, a shared one, and somebody to write to. More adds so many plain messages to the Inbox.
func seedSample(sim *graphsim.Sim, now time.Time, more int) {
	sim.AddTenant(sampleTenant, sampleDomain)
	sim.AddApp(sampleTenant, sampleClientID, sampleSecret, "Mail.ReadWrite", "Mail.Send")
	sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: sampleUser, DisplayName: "Alice Liddell", Aliases: []string{"a.liddell@contoso.example"}, SendAs: []string{sampleShared}})
	sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: sampleShared, DisplayName: "Support"})
	sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: sampleOther, DisplayName: "Bob Hatter"})

	for _, f := range []struct{ parent, name string }{
		{"", "Projects"}, {"Projects", "Looking Glass"}, {"Projects/Looking Glass", "Entwürfe & Pläne"},
		{"Projects", "2026"}, {"", "Rechnungen €"}, {"", "会議"}, {"inbox", "Newsletters"},
	} {
		sim.AddFolder(sampleUser, f.parent, f.name)
	}
	sim.AddFolder(sampleShared, "inbox", "Done")

	if more > 0 {
		sim.AddSynthetic(sampleUser, "inbox", more, graphsim.Synthetic{Seed: 1, Newest: now.Add(-30 * 24 * time.Hour)})
	}
	sim.AddSynthetic(sampleUser, "archive", 120, graphsim.Synthetic{Seed: 2, Newest: now.Add(-60 * 24 * time.Hour), Step: 7 * time.Hour, UnreadEvery: -1})
	sim.AddSynthetic(sampleShared, "inbox", 25, graphsim.Synthetic{Seed: 3, Newest: now.Add(-time.Hour), Step: 3 * time.Hour})
	for i, m := range sampleMail() {
		received := now.Add(-m.age)
		sim.AddMessage(m.user, m.folder, m.mime(i, received), graphsim.MessageSpec{Received: received, IsRead: m.read, Flagged: m.flagged, IsDraft: m.draft, Categories: m.categories})
	}
}

// sampleMessage is one message of the sample mailbox.
type sampleMessage struct {
	user, folder  string
	age           time.Duration
	from, to      string // as in the header
	subject       string
	extra         string // further header fields, with line ends
	body          string // from Content-Type on
	read, flagged bool
	draft         bool
	categories    []string
}

func (m sampleMessage) mime(i int, date time.Time) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "From: %s\nTo: %s\nSubject: %s\nDate: %s\nMessage-ID: <sample.%d@mail.example>\n%sMIME-Version: 1.0\n%s",
		m.from, m.to, word(m.subject), date.Format(time.RFC1123Z), i+1, m.extra, m.body)
	return []byte(strings.ReplaceAll(b.String(), "\n", "\r\n"))
}

// word encodes text for a header field (RFC 2047).
func word(s string) string { return mime.QEncoding.Encode("utf-8", s) }

func text(s string) string {
	return "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" + s + "\n"
}

// wrapped is base64 in lines of 76 letters.
func wrapped(b []byte) string {
	s := base64.StdEncoding.EncodeToString(b)
	var out strings.Builder
	for len(s) > 76 {
		out.WriteString(s[:76] + "\n")
		s = s[76:]
	}
	return out.String() + s + "\n"
}

// logo is a small picture.
func logo() []byte {
	img := image.NewPaletted(image.Rect(0, 0, 48, 48), color.Palette{color.White, color.RGBA{0x20, 0x60, 0xa0, 0xff}})
	for y := range 48 {
		for x := range 48 {
			if (x-24)*(x-24)+(y-24)*(y-24) < 400 {
				img.SetColorIndex(x, y, 1)
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic("encode the sample picture: " + err.Error()) // a constant picture into memory
	}
	return b.Bytes()
}

func sampleMail() []sampleMessage {
	const (
		alice = "Alice Liddell <alice@contoso.example>"
		bob   = "Bob Hatter <bob@contoso.example>"
		day   = 24 * time.Hour
	)
	jurgen := word("Jürgen Groß") + " <juergen.gross@fabrikam.example>"
	pdf := []byte("%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Count 0/Kids[]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n")
	spreadsheet := "number;customer;amount\n" + strings.Repeat("2026-1107;Fabrikam;1234,56\n", 400)
	return []sampleMessage{
		{user: sampleUser, folder: "inbox", age: 20 * time.Minute, from: bob, to: alice, subject: "Tea at four?",
			body: text("Alice,\n\nthe table is laid. Will you come?\n\nBob")},
		{user: sampleUser, folder: "inbox", age: 50 * time.Minute, from: jurgen, to: alice, subject: "Angebot für die Wärmepumpe — bitte prüfen", flagged: true, categories: []string{"Rot", "Kunde"},
			body: "Content-Type: multipart/mixed; boundary=\"b1\"\n\n--b1\n" + text("Hallo Alice,\n\nanbei das Angebot. Die Prüfung eilt.\n\nGrüße\nJürgen") +
				"--b1\nContent-Type: application/pdf\nContent-Disposition: attachment;\n filename*=utf-8''Angebot%20W%C3%A4rmepumpe.pdf\nContent-Transfer-Encoding: base64\n\n" + wrapped(pdf) + "--b1--\n"},
		{user: sampleUser, folder: "inbox", age: 3 * time.Hour, from: "Scanner 3rd floor <scanner-3@devices.example>", to: alice, subject: "Scan from device", read: true,
			body: "Content-Type: multipart/mixed; boundary=\"b2\"\n\n--b2\n" + text("1 page") +
				"--b2\nContent-Type: image/png; name=\"scan0001.png\"\nContent-Disposition: attachment; filename=\"scan0001.png\"\nContent-Transfer-Encoding: base64\n\n" + wrapped(logo()) + "--b2--\n"},
		{user: sampleUser, folder: "inbox", age: 5 * time.Hour, from: "Miriam Graham <miriam@northwind.example>", to: alice + ", " + bob, subject: "Re: Minutes of the board meeting", read: true,
			extra: "Cc: \"Graham, Lee\" <lee@northwind.example>\nIn-Reply-To: <minutes.1@contoso.example>\nReferences: <agenda.1@contoso.example> <minutes.1@contoso.example>\n",
			body: "Content-Type: multipart/alternative; boundary=\"b3\"\n\n--b3\n" + text("Agreed on all points, with one change on page 3.\n\n> Please send your remarks until Friday.") +
				"--b3\nContent-Type: text/html; charset=utf-8\n\n<p>Agreed on all points, with one change on <b>page 3</b>.</p>\n--b3--\n"},
		{user: sampleUser, folder: "inbox", age: 9 * time.Hour, from: "Contoso Travel <travel@contoso.example>", to: alice, subject: "Your ticket to Oxford",
			body: "Content-Type: multipart/related; boundary=\"b4\"\n\n--b4\nContent-Type: text/html; charset=utf-8\n\n<p><img src=\"cid:logo@contoso\" alt=\"Contoso\"> Coach 7, seat 42.</p>\n" +
				"--b4\nContent-Type: image/png; name=\"logo.png\"\nContent-ID: <logo@contoso>\nContent-Disposition: inline; filename=\"logo.png\"\nContent-Transfer-Encoding: base64\n\n" + wrapped(logo()) + "--b4--\n"},
		{user: sampleUser, folder: "inbox", age: day, from: "会議室 <rooms@contoso.example>", to: alice, subject: "会議のお知らせ", read: true, categories: []string{"Meeting"},
			body: text("明日の会議は10時からです。")},
		{user: sampleUser, folder: "inbox", age: 2 * day, from: "Monitoring <no-reply@monitor.example>", to: alice, subject: "[UPS] on battery: rack 4", flagged: true,
			extra: "Auto-Submitted: auto-generated\nX-Priority: 1\n", body: text("Input voltage lost at 02:14. Estimated time left: 18 min.")},
		{user: sampleUser, folder: "inbox/Newsletters", age: 4 * time.Hour, from: "The Daily Croquet <news@croquet.example>", to: alice, subject: "Flamingos: a buyer's guide",
			extra: "List-Id: <daily.croquet.example>\nList-Unsubscribe: <https://croquet.example/u/1>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\nPrecedence: bulk\n",
			body: "Content-Type: multipart/alternative; boundary=\"b5\"\n\n--b5\n" + text("Flamingos: a buyer's guide\n\nHold the neck straight.") +
				"--b5\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<h1 style=3D\"color:#c06\">Flamingos</h1><p>Hold the neck straight.</p>\n--b5--\n"},
		{user: sampleUser, folder: "Projects/Looking Glass", age: 6 * day, from: bob, to: alice, subject: "Plan, second draft", read: true,
			body: "Content-Type: multipart/mixed; boundary=\"b6\"\n\n--b6\n" + text("The numbers are attached.") +
				"--b6\nContent-Type: text/csv; charset=utf-8; name=\"plan.csv\"\nContent-Disposition: attachment; filename=\"plan.csv\"\nContent-Transfer-Encoding: base64\n\n" + wrapped([]byte(spreadsheet)) + "--b6--\n"},
		{user: sampleUser, folder: "Projects/Looking Glass/Entwürfe & Pläne", age: 7 * day, from: jurgen, to: alice, subject: "Grundriss", read: true, body: text("Siehe Zeichnung an der Wand.")},
		{user: sampleUser, folder: "Projects/Looking Glass", age: 8 * day, from: bob, to: alice, subject: "Fwd: where it began", read: true,
			body: "Content-Type: multipart/mixed; boundary=\"b7\"\n\n--b7\n" + text("See below.") +
				"--b7\nContent-Type: message/rfc822\n\nFrom: Lewis <lewis@oxford.example>\nTo: bob@contoso.example\nSubject: A boat trip\nDate: Fri, 04 Jul 1862 15:00:00 +0000\nMessage-ID: <boat@oxford.example>\n\nThe weather was fine.\n\n--b7--\n"},
		{user: sampleUser, folder: "Rechnungen €", age: 12 * day, from: "Fabrikam Billing <billing@fabrikam.example>", to: alice, subject: "Rechnung 2026-1107 über 1.234,56 €", read: true, body: text("Zahlbar bis Monatsende.")},
		{user: sampleUser, folder: "会議", age: 14 * day, from: "会議室 <rooms@contoso.example>", to: alice, subject: "議事録", read: true, body: text("議事録を共有します。")},
		{user: sampleUser, folder: "sentitems", age: 4 * time.Hour, from: alice, to: bob, subject: "Minutes of the board meeting", read: true, extra: "References: <agenda.1@contoso.example>\n", body: text("Please send your remarks until Friday.")},
		{user: sampleUser, folder: "drafts", age: 10 * time.Minute, from: alice, to: bob, subject: "Re: Tea at four?", read: true, draft: true, body: text("Gladly. Shall I bring")},
		{user: sampleUser, folder: "deleteditems", age: 3 * day, from: "Win <win@lottery.example>", to: alice, subject: "You have won", read: true, body: text("Write to us at once.")},
		{user: sampleUser, folder: "junkemail", age: day, from: "=?iso-8859-1?Q?Caf=E9_Royal?= <offer@cafe.example>", to: alice, subject: "50 % off", body: "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nCaf=E9 for half the price.\n"},
		{user: sampleShared, folder: "inbox", age: 15 * time.Minute, from: "Adele Vance <adele.vance@fabrikam.example>", to: "Support <support@contoso.example>", subject: "Printer says PC LOAD LETTER", body: text("What does that mean?")},
		{user: sampleShared, folder: "inbox/Done", age: 2 * day, from: "Lee Gu <lee.gu@contoso.example>", to: "Support <support@contoso.example>", subject: "Password forgotten", read: true, body: text("Found it, thank you.")},
	}
}
