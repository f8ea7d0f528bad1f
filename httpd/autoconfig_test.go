package httpd

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// setting is a server as one of the formats tells it.
type setting struct {
	Type string `xml:"type,attr"`
	Host string `xml:"hostname"`
	Port int    `xml:"port"`
	Sock string `xml:"socketType"`
	Auth string `xml:"authentication"`
	User string `xml:"username"`
}

func TestMozilla(t *testing.T) {
	w := newWorld(t, nil)
	for _, tt := range []struct{ host, path, domain string }{
		{"autoconfig.contoso.example", mozillaPath + "?emailaddress=alice%40contoso.example", "contoso.example"},
		{"contoso.example", mozillaWellKnown + "?emailaddress=alice%40contoso.example", "contoso.example"},
		{"contoso.example", mozillaWellKnown, "contoso.example"},
		{"autoconfig.contoso.example:80", mozillaPath, "contoso.example"},
		{"127.0.0.1", mozillaPath + "?emailaddress=%3Cx%3E%40%26", "127.0.0.1"},
	} {
		w.host = tt.host
		res, body := w.get(tt.path)
		var c struct {
			XMLName  xml.Name `xml:"clientConfig"`
			Version  string   `xml:"version,attr"`
			Provider struct {
				ID       string    `xml:"id,attr"`
				Domain   string    `xml:"domain"`
				Incoming []setting `xml:"incomingServer"`
				Outgoing []setting `xml:"outgoingServer"`
			} `xml:"emailProvider"`
		}
		if err := xml.Unmarshal([]byte(body), &c); err != nil || res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/xml") {
			t.Fatalf("%s: %d %v\n%s", tt.path, res.StatusCode, err, body)
		}
		p := c.Provider
		want := setting{"imap", "mail.contoso.example", 993, "SSL", "password-cleartext", "%EMAILADDRESS%"}
		if c.Version != "1.1" || p.ID != tt.domain || p.Domain != tt.domain || len(p.Incoming) != 2 || p.Incoming[0] != want || p.Incoming[1].Sock != "STARTTLS" {
			t.Errorf("%s of %s: %+v", tt.path, tt.host, c)
		}
		want = setting{"smtp", "mail.contoso.example", 465, "SSL", "password-cleartext", "%EMAILADDRESS%"}
		if len(p.Outgoing) != 2 || p.Outgoing[0] != want || p.Outgoing[1].Port != 587 {
			t.Errorf("%s of %s: %+v", tt.path, tt.host, p.Outgoing)
		}
	}
}

func outlook(address, schema string) string {
	return `<?xml version="1.0" encoding="utf-8"?><Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"><Request><EMailAddress>` +
		address + `</EMailAddress><AcceptableResponseSchema>` + schema + `</AcceptableResponseSchema></Request></Autodiscover>`
}

func TestAutodiscover(t *testing.T) {
	w := newWorld(t, nil)
	w.host = "autodiscover.contoso.example"
	post := func(path, body string) (*http.Response, string) {
		t.Helper()
		return w.request("POST", path, nil, func(r *http.Request) {
			r.Body = http.NoBody
			r2, err := http.NewRequest("POST", path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Body, r.ContentLength = r2.Body, r2.ContentLength
			r.Header.Set("Content-Type", "text/xml")
		})
	}
	for _, path := range []string{"/autodiscover/autodiscover.xml", "/Autodiscover/Autodiscover.xml", "/AutoDiscover/AutoDiscover.xml"} {
		res, body := post(path, outlook("alice@contoso.example", autodiscoverSchema))
		var a struct {
			XMLName  xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006 Autodiscover"`
			Response struct {
				XMLName xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a Response"`
				Account struct {
					AccountType, Action string
					Protocol            []struct {
						Type, Server, LoginName, SSL, Encryption, SPA, AuthRequired string
						Port                                                        int
					}
				}
			}
		}
		if err := xml.Unmarshal([]byte(body), &a); err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %d %v\n%s", path, res.StatusCode, err, body)
		}
		acct := a.Response.Account
		if acct.AccountType != "email" || acct.Action != "settings" || len(acct.Protocol) != 2 {
			t.Fatalf("%+v", acct)
		}
		for i, want := range []string{"IMAP 993", "SMTP 465"} {
			p := acct.Protocol[i]
			if got := p.Type + " " + map[int]string{993: "993", 465: "465"}[p.Port]; got != want || p.Server != "mail.contoso.example" || p.LoginName != alice || p.SSL != "on" ||
				p.Encryption != "SSL" || p.SPA != "off" || p.AuthRequired != "on" {
				t.Errorf("%+v", p)
			}
		}
	}
	for name, tt := range map[string]struct {
		body   string
		status int
	}{
		"nothing":       {"", 400},
		"no XML":        {"EMailAddress=alice", 400},
		"other XML":     {"<a/>", 400},
		"no address":    {outlook("", autodiscoverSchema), 400},
		"two addresses": {outlook("a@b, c@d", autodiscoverSchema), 400},
		"markup":        {outlook("&lt;x&gt;@contoso.example", autodiscoverSchema), 400},
		"entities":      {`<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Autodiscover><Request><EMailAddress>&b;@c</EMailAddress></Request></Autodiscover>`, 400},
		"endless":       {outlook(strings.Repeat("a", maxAutodiscover)+"@b", ""), 400},
		"ActiveSync":    {outlook("alice@contoso.example", "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"), 404},
		"deep":          {strings.Repeat("<a>", 5000), 400},
	} {
		if res, _ := post("/autodiscover/autodiscover.xml", tt.body); res.StatusCode != tt.status {
			t.Errorf("%s: %d, want %d", name, res.StatusCode, tt.status)
		}
	}
	if res, _ := w.get("/Autodiscover/autodiscover.xml"); res.StatusCode != 405 || res.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %d", res.StatusCode)
	}
}

func TestAppleProfile(t *testing.T) {
	w := newWorld(t, nil)
	w.host = "mail.contoso.example"
	get := func(address string) (*http.Response, string) {
		t.Helper()
		return w.get(appleProfile + "?emailaddress=" + url.QueryEscape(address))
	}
	res, body := get("alice&co@contoso.example")
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/x-apple-aspen-config") {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	var plist struct {
		XMLName xml.Name `xml:"plist"`
		Dict    struct {
			Inner string `xml:",innerxml"`
		} `xml:"dict"`
	}
	if err := xml.Unmarshal([]byte(body), &plist); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"com.apple.mail.managed", "EmailTypeIMAP", "<key>EmailAddress</key><string>alice&amp;co@contoso.example</string>",
		"<key>IncomingMailServerPortNumber</key><integer>993</integer>", "<key>IncomingMailServerUseSSL</key><true/>", "<key>OutgoingMailServerPortNumber</key><integer>465</integer>"} {
		if !strings.Contains(body, want) {
			t.Errorf("lacks %s", want)
		}
	}
	if _, again := get("alice&co@contoso.example"); again != body {
		t.Error("the same account has another profile")
	}
	if _, other := get("bob@contoso.example"); strings.Contains(other, strings.SplitN(strings.SplitN(body, "PayloadUUID</key><string>", 2)[1], "<", 2)[0]) {
		t.Error("two accounts share an id")
	}
	for _, bad := range []string{"", "alice", "a@b@c", "<a@b>", "A <a@b>", "a@b\r\nX: y", "a@b c", `"a b"@c`} {
		if res, _ := get(bad); res.StatusCode != 400 {
			t.Errorf("%q: %d", bad, res.StatusCode)
		}
	}
}

// Without a public name, or a listener to be reached under it, there is nothing to tell.
func TestNoAutoconfig(t *testing.T) {
	w := newWorld(t, nil)
	for _, s := range []Settings{{}, {PublicName: "mail.contoso.example"}, {MailServers: []MailServer{{"imap", 993, "implicit"}}}} {
		w.s.Set(s)
		for _, path := range []string{mozillaPath, mozillaWellKnown, appleProfile + "?emailaddress=a@b.example", clientSettings} {
			if res, body := w.get(path); res.StatusCode != 404 || !strings.Contains(body, "http.public_name") {
				t.Errorf("%+v %s: %d %s", s, path, res.StatusCode, body)
			}
		}
	}
	w.signIn()
	if body := w.page("/clients"); !strings.Contains(body, "cannot configure themselves") {
		t.Error("the administrator is not told")
	}
	// Without TLS the settings say so.
	w.s.Set(Settings{PublicName: "localhost", MailServers: []MailServer{{"imap", 1143, "none"}, {"smtp", 2525, "none"}}})
	if body := w.page(mozillaPath); strings.Count(body, "<socketType>plain</socketType>") != 2 {
		t.Errorf("%s", body)
	}
}
