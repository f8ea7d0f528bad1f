package main

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func configSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print a JSON schema of the configuration file, for editors",
		Long: `Schema prints a JSON schema (draft 2020-12). An editor with a YAML language server offers keys and
values and marks mistakes, when the file begins with:

  # yaml-language-server: $schema=postern.schema.json`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(configSchema())
		},
	}
}

// schema is one JSON schema.
type schema = map[string]any

// schemaEnums are the values of keys that take words, by path without list indexes and names.
var schemaEnums = map[string][]string{
	"credentials.cloud":            {"global", "usgov", "usgov-dod", "china"},
	"credentials.signature":        {"PS256", "RS256"},
	"credentials.managed_identity": {"auto", "imds", "app-service"},
	"logins.allow":                 {"smtp", "imap", "admin"},
	"listeners.protocol":           {"smtp", "imap", "http"},
	"listeners.tls":                {"none", "starttls", "implicit"},
	"listeners.profile":            {"modern", "device"},
	"listeners.tls_min":            {"1.0", "1.1", "1.2", "1.3"},
	"queue.unsure":                 {"hold", "send"},
	"imap.size":                    {"auto", "exact", "estimate"},
	"imap.append":                  {"json", "import-mime"},
	"imap.delete":                  {"recoverable", "trash", "purge"},
}

// schemaRequired are the keys that must be there.
var schemaRequired = map[string][]string{
	"":          {"credentials", "mailboxes", "listeners"},
	"mailboxes": {"address", "credential"},
	"logins":    {"username"},
	"listeners": {"protocol", "address"},
}

// schemaText describes keys, by the same paths.
var schemaText = map[string]string{
	"state":                                 "Folder for databases, mail waiting to be sent and message bodies.",
	"credentials":                           "Entra app registrations, by names of your choice.",
	"credentials.tenant":                    "Directory (tenant) ID, or a domain of the tenant.",
	"credentials.client_id":                 "Application (client) ID.",
	"credentials.client_secret":             "The secret's Value, not its Secret ID. ${NAME} takes it from the environment.",
	"credentials.client_secret_file":        "A file with the secret.",
	"credentials.secret_expires":            "The day the secret ends, such as 2027-01-31, or auto: ask Graph (needs Application.Read.All).",
	"credentials.certificate":               "Certificate file: PEM, or PFX with the key inside.",
	"credentials.key":                       "Key of a PEM certificate, unless it is in the same file.",
	"credentials.federated_token_file":      "File with an outside issuer's token (workload identity), read anew each time.",
	"credentials.managed_identity":          "Sign in as the identity of this Azure machine or App Service.",
	"credentials.device_code":               "Address of the user who signs in with: postern signin.",
	"credentials.cloud":                     "GCC is global, GCC High is usgov.",
	"mailboxes":                             "The Microsoft 365 mailboxes to serve, shared ones too.",
	"mailboxes.address":                     "User principal name or object id.",
	"mailboxes.quota":                       "What the mailbox may hold, told to IMAP clients: Graph does not tell it.",
	"logins":                                "Postern's own user names and passwords.",
	"logins.password_hash":                  "Printed by: postern login hash.",
	"listeners":                             "Where clients connect.",
	"listeners.allow_plaintext":             "Lets a listener without TLS be reached from other machines.",
	"listeners.networks":                    "Where no log-in is needed; with profile: device.",
	"listeners.save_to_sent":                "false removes copies from Sent Items.",
	"listeners.proxy_from":                  "Balancers that tell the client's address by the PROXY protocol.",
	"logins.save_to_sent":                   "false removes copies from Sent Items.",
	"queue.log_keep":                        "How long it is known what became of a message.",
	"sendmail":                              "For postern sendmail.",
	"tls":                                   "Certificate of the listeners with TLS.",
	"expiry_mail":                           "Mailbox that gets a mail 30, 14, 7 and 1 days before a credential ends.",
	"allow_readable_secrets":                "Start although others on this machine can read files with secrets.",
	"state_dir":                             "Not yet available: belongs to PostgreSQL.",
	"credentials.certificate_password":      "Password of a PFX file.",
	"credentials.certificate_password_file": "A file with the password of a PFX file.",
	"credentials.signature":                 "How the certificate signs.",
	"credentials.token_key_file":            "Key that encrypts what is kept of a device_code sign-in; made when it is not there.",
	"credentials.login_url":                 "Another host for sign-in: a gateway, or the simulator.",
	"credentials.graph_url":                 "Another host for Graph, without /v1.0.",
	"mailboxes.credential":                  "Which of the credentials reaches it.",
	"mailboxes.aliases":                     "Its other addresses. A login of this mailbox may send as them.",
	"logins.username":                       "Letter case does not count.",
	"logins.password_hash_file":             "A file with the hash.",
	"logins.mailbox":                        "The mailbox it opens; not needed where allow is [admin].",
	"logins.shared":                         "Mailboxes that IMAP shows beside it, under Shared/<address>.",
	"logins.allow":                          "What it may use; admin opens the pages for administrators.",
	"logins.read_only":                      "IMAP without any change.",
	"logins.send_as":                        "Addresses it may send as, besides those of its mailbox.",
	"logins.rewrite_from":                   "Any other sender is replaced by the mailbox's address, and kept in Reply-To.",
	"logins.fallback_from":                  "With rewrite_from: the address to write instead.",
	"logins.networks":                       "Where it may log in from.",
	"logins.rate":                           "Messages a minute.",
	"logins.gather":                         "How long a message waits for the same one to further recipients.",
	"listeners.protocol":                    "What is spoken there.",
	"listeners.address":                     "Host and port, such as \"127.0.0.1:2525\" or \":993\"; or \"systemd:NAME\", a socket that systemd hands over.",
	"listeners.tls":                         "implicit is TLS from the first byte, as on ports 465 and 993.",
	"listeners.profile":                     "Of smtp: device takes the odd commands of scanners, printers and old programs.",
	"listeners.mailbox":                     "The mailbox that mail without log-in goes through; with profile: device.",
	"listeners.send_as":                     "Addresses that mail without log-in may be from, besides the mailbox's.",
	"listeners.rewrite_from":                "Replaces any other sender, also of clients that log in here.",
	"listeners.fallback_from":               "With rewrite_from, for mail without log-in: the address to write instead.",
	"listeners.tls_min":                     "The oldest TLS that is spoken; 1.0 and 1.1 need profile: device. Keep the quotes.",
	"tls.certificate":                       "PEM file, with its chain. A renewed one is noticed by itself.",
	"tls.key":                               "PEM file.",
	"smtp":                                  "How submission behaves.",
	"smtp.wait":                             "How long a client waits behind its message for Microsoft's own answer; 0s queues at once. At most 5m.",
	"smtp.max_message":                      "Larger messages are refused, also when stored through IMAP.",
	"smtp.rate":                             "Messages a minute that one login may submit.",
	"smtp.gather":                           "How long a message waits for the same one to further recipients, 1s to 1m.",
	"imap":                                  "How IMAP behaves.",
	"imap.poll":                             "How often a folder that somebody has open is looked at, 1s to 1h.",
	"imap.size":                             "Whether messages are read to know their exact size: a few, all or none.",
	"imap.append":                           "How messages are stored elsewhere than in Drafts; import-mime is a beta call of Graph.",
	"imap.delete":                           "Where expunged messages go.",
	"imap.connections":                      "Connections at once on one listener.",
	"imap.connections_per_address":          "Connections at once from one address.",
	"imap.connections_per_login":            "Connections at once of one login, over all listeners.",
	"queue":                                 "How mail on its way out is kept.",
	"queue.lifetime":                        "How long sending is tried before the sender gets a failure notice, 1m to 720h.",
	"queue.warn":                            "Age from which a notice of delay goes to senders who asked for one.",
	"queue.unsure":                          "What becomes of a message that was perhaps sent when the app may not read the mailbox to find out: a person decides, or it is sent again.",
	"queue.log_subject":                     "Whether the log has subjects.",
	"queue.min_free":                        "Mail is put off when the disk of the state folder has less room than this.",
	"sendmail.mailbox":                      "The mailbox its mail goes through; without it the command is off.",
	"sendmail.drop":                         "The folder into which the command puts mail.",
	"sendmail.local":                        "Mail to users of this machine, such as cron's to root, goes to this address; when absent to the mailbox.",
	"sendmail.fallback_from":                "Senders that are not the mailbox's are replaced by this.",
	"sendmail.send_as":                      "Senders to be left as they are, besides the mailbox's.",
	"sendmail.save_to_sent":                 "false removes copies from Sent Items.",
	"cache":                                 "What is kept on disk besides the index.",
	"cache.bodies":                          "Message texts, least recently used first out.",
	"listeners.public_port":                 "Where clients find it, if a router or container publishes another port.",
	"http":                                  "For listeners with protocol: http.",
	"http.public_name":                      "The name under which mail programs and browsers reach this server.",
	"http.hosts":                            "Other names browsers may use for the pages.",
	"http.metrics":                          "Who may read /metrics, besides programs on this machine.",
	"http.metrics.networks":                 "Addresses or networks that may read /metrics.",
	"http.metrics.token":                    "Whoever sends it (Authorization: Bearer) may read /metrics; programs on this machine then need it, too.",
	"http.metrics.token_file":               "A file with the token.",
}

// configSchema describes what the decoder takes.
func configSchema() schema {
	s := schemaOf(reflect.TypeFor[config](), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Postern configuration"
	return s
}

func schemaOf(t reflect.Type, path string) schema {
	s := schema{}
	if text := schemaText[path]; text != "" {
		s["description"] = text
	}
	// An environment variable may stand in any value.
	const variable = `\$\{[A-Za-z_][A-Za-z0-9_]*\}`
	switch t {
	case reflect.TypeFor[time.Duration]():
		s["type"], s["pattern"] = "string", `^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$|`+variable
		return s
	case reflect.TypeFor[byteSize]():
		s["type"], s["pattern"] = []string{"string", "integer"}, `^[0-9.]+ ?([kKmMgGtT]?[iI]?[bB]?)$|`+variable
		return s
	case reflect.TypeFor[netip.Prefix]():
		s["type"] = "string"
		return s
	case reflect.TypeFor[unlessFalse]():
		s["type"] = []string{"boolean", "string"}
		return s
	}
	switch t.Kind() {
	case reflect.Struct:
		props := schema{}
		for i := range t.NumField() {
			if key := t.Field(i).Tag.Get("yaml"); key != "" {
				props[key] = schemaOf(t.Field(i).Type, strings.TrimPrefix(path+"."+key, "."))
			}
		}
		s["type"], s["properties"], s["additionalProperties"] = "object", props, false
		if r := schemaRequired[path]; r != nil {
			s["required"] = r
		}
	case reflect.Map:
		s["type"], s["additionalProperties"] = "object", schemaOf(t.Elem(), path)
	case reflect.Slice:
		s["type"], s["items"] = "array", schemaOf(t.Elem(), path)
	case reflect.Bool:
		s["type"] = []string{"boolean", "string"}
	case reflect.Int, reflect.Int64:
		s["type"] = []string{"integer", "string"}
	default:
		s["type"] = []string{"string", "number", "boolean"}
		if values := schemaEnums[path]; values != nil {
			s["type"] = "string"
			s["anyOf"] = []schema{{"enum": values}, {"pattern": variable}}
		}
	}
	return s
}
