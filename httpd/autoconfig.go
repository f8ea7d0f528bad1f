package httpd

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	texttemplate "text/template"

	"github.com/google/uuid"
)

// Where mail programs look for their settings. The first two are Mozilla's, at autoconfig.DOMAIN and at DOMAIN; the third
// is Outlook's, at autodiscover.DOMAIN and at DOMAIN, in any letter case; the others are ours.
const (
	mozillaPath      = "/mail/config-v1.1.xml"
	mozillaWellKnown = "/.well-known/autoconfig/mail/config-v1.1.xml"
	autodiscoverPath = "/autodiscover/autodiscover.xml"
	appleProfile     = "/mail/apple.mobileconfig"
	clientSettings   = "/mail"
)

// MailServer is a listener as mail programs are told of it.
type MailServer struct {
	Protocol string // smtp or imap
	Port     int
	TLS      string // none, starttls or implicit
}

// mailServers returns those of a protocol, the best first: TLS from the first byte, then STARTTLS, then none.
func (s *Server) mailServers(protocol string) []MailServer {
	var out []MailServer
	all := s.settings.Load().MailServers
	for _, mode := range []string{"implicit", "starttls", "none"} {
		for _, m := range all {
			if m.Protocol == protocol && m.TLS == mode {
				out = append(out, m)
			}
		}
	}
	return out
}

// clientConfig is what all the answers are made from.
type clientConfig struct {
	Host       string
	Domain     string // of the address, or of the request
	Address    string // "" when none was told
	IMAP, SMTP []MailServer
}

// Socket is Mozilla's name for the encryption.
func (m MailServer) Socket() string {
	return map[string]string{"implicit": "SSL", "starttls": "STARTTLS", "none": "plain"}[m.TLS]
}

// Security is what settings dialogues call it.
func (m MailServer) Security() string {
	return map[string]string{"implicit": "SSL/TLS", "starttls": "STARTTLS", "none": "none"}[m.TLS]
}

// SSL is Autodiscover's on or off.
func (m MailServer) SSL() string {
	if m.TLS == "none" {
		return "off"
	}
	return "on"
}

// Encryption is Autodiscover's name for it.
func (m MailServer) Encryption() string {
	return map[string]string{"implicit": "SSL", "starttls": "TLS", "none": "None"}[m.TLS]
}

// clientConfig returns the settings for an address, which may be empty. ok is false where there are none to give.
func (s *Server) clientConfig(address, host string) (c clientConfig, ok bool) {
	c = clientConfig{Host: s.settings.Load().PublicName, IMAP: s.mailServers("imap"), SMTP: s.mailServers("smtp"), Address: address}
	if _, domain, found := strings.Cut(address, "@"); found {
		c.Domain = domain
	} else {
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		c.Domain = strings.TrimPrefix(strings.ToLower(host), "autoconfig.")
	}
	return c, c.Host != "" && len(c.IMAP)+len(c.SMTP) > 0
}

const noAutoconfig = "no settings for mail programs are given here: http.public_name is not configured, or no listener can be reached under it"

// plainAddress returns the address in s, or an error if that is more or less than one address.
func plainAddress(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 320 || strings.Count(s, "@") != 1 || strings.ContainsAny(s, "<>\"' \r\n\t") {
		return "", errors.New("write an address like alice@contoso.example")
	}
	return a.Address, nil
}

// mozillaTemplate is Mozilla's format. https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat
var mozillaTemplate = texttemplate.Must(texttemplate.New("mozilla").Funcs(texttemplate.FuncMap{"x": escape}).Parse(`<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1">
  <emailProvider id="{{x .Domain}}">
    <domain>{{x .Domain}}</domain>
    <displayName>{{x .Domain}}</displayName>
    <displayShortName>{{x .Domain}}</displayShortName>
{{- range .IMAP}}
    <incomingServer type="imap">
      <hostname>{{x $.Host}}</hostname>
      <port>{{.Port}}</port>
      <socketType>{{.Socket}}</socketType>
      <authentication>password-cleartext</authentication>
      <username>%EMAILADDRESS%</username>
    </incomingServer>
{{- end}}
{{- range .SMTP}}
    <outgoingServer type="smtp">
      <hostname>{{x $.Host}}</hostname>
      <port>{{.Port}}</port>
      <socketType>{{.Socket}}</socketType>
      <authentication>password-cleartext</authentication>
      <username>%EMAILADDRESS%</username>
    </outgoingServer>
{{- end}}
  </emailProvider>
</clientConfig>
`))

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes everything
	return b.String()
}

func (s *Server) mozilla(w http.ResponseWriter, r *http.Request) {
	address := r.URL.Query().Get("emailaddress")
	if address != "" {
		// Thunderbird before version 68 and some others leave the @ encoded twice, or send no whole address: the domain of
		// the request does then.
		if a, err := plainAddress(address); err == nil {
			address = a
		} else {
			address = ""
		}
	}
	c, ok := s.clientConfig(address, r.Host)
	if !ok {
		http.Error(w, noAutoconfig, http.StatusNotFound)
		return
	}
	writeXML(w, mozillaTemplate, c)
}

// autodiscoverTemplate is Outlook's POX format. [MS-OXDSCLI] section 2.2.4.1.
var autodiscoverTemplate = texttemplate.Must(texttemplate.New("autodiscover").Funcs(texttemplate.FuncMap{"x": escape}).Parse(`<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006">
  <Response xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a">
    <User>
      <DisplayName>{{x .Address}}</DisplayName>
    </User>
    <Account>
      <AccountType>email</AccountType>
      <Action>settings</Action>
{{- range .IMAP}}
      <Protocol>
        <Type>IMAP</Type>
        <Server>{{x $.Host}}</Server>
        <Port>{{.Port}}</Port>
        <DomainRequired>off</DomainRequired>
        <LoginName>{{x $.Address}}</LoginName>
        <SPA>off</SPA>
        <SSL>{{.SSL}}</SSL>
        <Encryption>{{.Encryption}}</Encryption>
        <AuthRequired>on</AuthRequired>
      </Protocol>
{{- end}}
{{- range .SMTP}}
      <Protocol>
        <Type>SMTP</Type>
        <Server>{{x $.Host}}</Server>
        <Port>{{.Port}}</Port>
        <DomainRequired>off</DomainRequired>
        <LoginName>{{x $.Address}}</LoginName>
        <SPA>off</SPA>
        <SSL>{{.SSL}}</SSL>
        <Encryption>{{.Encryption}}</Encryption>
        <AuthRequired>on</AuthRequired>
        <UsePOPAuth>off</UsePOPAuth>
        <SMTPLast>off</SMTPLast>
      </Protocol>
{{- end}}
    </Account>
  </Response>
</Autodiscover>
`))

// autodiscoverSchema is the one answer we know; the other one is ActiveSync's.
const autodiscoverSchema = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"

// maxAutodiscover bounds a request, which takes some hundred bytes.
const maxAutodiscover = 16 << 10

func (s *Server) autodiscover(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Outlook asks here by POST; see /mail for the settings", http.StatusMethodNotAllowed)
		return
	}
	var req struct {
		XMLName xml.Name `xml:"Autodiscover"`
		Request struct {
			Address string `xml:"EMailAddress"`
			Schema  string `xml:"AcceptableResponseSchema"`
		} `xml:"Request"`
	}
	d := xml.NewDecoder(io.LimitReader(r.Body, maxAutodiscover))
	if err := d.Decode(&req); err != nil {
		http.Error(w, "this is no Autodiscover request", http.StatusBadRequest)
		return
	}
	address, err := plainAddress(strings.TrimSpace(req.Request.Address))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if schema := strings.TrimSpace(req.Request.Schema); schema != "" && !strings.EqualFold(schema, autodiscoverSchema) {
		http.Error(w, "only Outlook's settings are given here, not those of ActiveSync", http.StatusNotFound)
		return
	}
	c, ok := s.clientConfig(address, r.Host)
	if !ok {
		http.Error(w, noAutoconfig, http.StatusNotFound)
		return
	}
	// One way for each protocol: Outlook takes the first, some versions the last.
	c.IMAP, c.SMTP = c.IMAP[:min(1, len(c.IMAP))], c.SMTP[:min(1, len(c.SMTP))]
	writeXML(w, autodiscoverTemplate, c)
}

func writeXML(w http.ResponseWriter, t *texttemplate.Template, c clientConfig) {
	var b bytes.Buffer
	if err := t.Execute(&b, c); err != nil {
		http.Error(w, "the settings could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	_, _ = w.Write(b.Bytes()) // nobody to tell
}

// appleTemplate is a configuration profile with one mail account. Apple: Configuration Profile Reference, Mail payload.
var appleTemplate = texttemplate.Must(texttemplate.New("apple").Funcs(texttemplate.FuncMap{"x": escape}).Parse(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>PayloadType</key><string>Configuration</string>
  <key>PayloadVersion</key><integer>1</integer>
  <key>PayloadIdentifier</key><string>{{x .ID}}</string>
  <key>PayloadUUID</key><string>{{.UUID}}</string>
  <key>PayloadDisplayName</key><string>{{x .Address}}</string>
  <key>PayloadDescription</key><string>Mail of {{x .Address}} by way of {{x .Host}}</string>
  <key>PayloadContent</key>
  <array>
    <dict>
      <key>PayloadType</key><string>com.apple.mail.managed</string>
      <key>PayloadVersion</key><integer>1</integer>
      <key>PayloadIdentifier</key><string>{{x .ID}}.mail</string>
      <key>PayloadUUID</key><string>{{.MailUUID}}</string>
      <key>PayloadDisplayName</key><string>{{x .Address}}</string>
      <key>EmailAccountType</key><string>EmailTypeIMAP</string>
      <key>EmailAccountDescription</key><string>{{x .Address}}</string>
      <key>EmailAddress</key><string>{{x .Address}}</string>
      <key>IncomingMailServerAuthentication</key><string>EmailAuthPassword</string>
      <key>IncomingMailServerHostName</key><string>{{x .Host}}</string>
      <key>IncomingMailServerPortNumber</key><integer>{{.In.Port}}</integer>
      <key>IncomingMailServerUseSSL</key><{{.InSSL}}/>
      <key>IncomingMailServerUsername</key><string>{{x .Address}}</string>
      <key>OutgoingMailServerAuthentication</key><string>EmailAuthPassword</string>
      <key>OutgoingMailServerHostName</key><string>{{x .Host}}</string>
      <key>OutgoingMailServerPortNumber</key><integer>{{.Out.Port}}</integer>
      <key>OutgoingMailServerUseSSL</key><{{.OutSSL}}/>
      <key>OutgoingMailServerUsername</key><string>{{x .Address}}</string>
      <key>OutgoingPasswordSameAsIncomingPassword</key><true/>
    </dict>
  </array>
</dict>
</plist>
`))

// apple answers with a profile for iPhones, iPads and Macs. The password is asked for on the device.
func (s *Server) apple(w http.ResponseWriter, r *http.Request) {
	address, err := plainAddress(strings.TrimSpace(r.URL.Query().Get("emailaddress")))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, ok := s.clientConfig(address, r.Host)
	if !ok || len(c.IMAP) == 0 || len(c.SMTP) == 0 {
		http.Error(w, noAutoconfig, http.StatusNotFound)
		return
	}
	// The same for the same account, so that installing it again replaces it.
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("postern:"+strings.ToLower(c.Host)+":"+strings.ToLower(address)))
	data := struct {
		clientConfig
		ID, UUID, MailUUID string
		In, Out            MailServer
		InSSL, OutSSL      string
	}{c, "postern." + c.Host + "." + address, strings.ToUpper(id.String()), strings.ToUpper(uuid.NewSHA1(id, []byte("mail")).String()),
		c.IMAP[0], c.SMTP[0], strconv.FormatBool(c.IMAP[0].TLS != "none"), strconv.FormatBool(c.SMTP[0].TLS != "none")}
	var b bytes.Buffer
	if err := appleTemplate.Execute(&b, data); err != nil {
		http.Error(w, "the profile could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-apple-aspen-config; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="mail.mobileconfig"`)
	_, _ = w.Write(b.Bytes()) // nobody to tell
}

// clientSettings is a page for the people whose mail program does not configure itself. It tells what the files above tell.
func (s *Server) clientSettings(w http.ResponseWriter, r *http.Request) {
	c, ok := s.clientConfig("", r.Host)
	if !ok {
		http.Error(w, noAutoconfig, http.StatusNotFound)
		return
	}
	s.render(w, http.StatusOK, "settings", view{Title: "Set up your mail program", Data: c})
}

type clientsData struct {
	clientConfig
	Ready   bool
	Domains []string // of the mailboxes
	Secure  bool     // these pages have TLS
	Logins  int
}

// clients tells administrators what mail programs find, and what the domains' DNS must say for it.
func (s *Server) clients(r *http.Request) (string, any, error) {
	d := &clientsData{Secure: s.opts.TLSConfig != nil}
	d.clientConfig, d.Ready = s.clientConfig("", r.Host)
	for _, a := range s.opts.Backend.Accounts() {
		if _, domain, ok := strings.Cut(strings.ToLower(a.Address()), "@"); ok && !slices.Contains(d.Domains, domain) {
			d.Domains = append(d.Domains, domain)
		}
	}
	slices.Sort(d.Domains)
	return "Mail programs", d, nil
}
