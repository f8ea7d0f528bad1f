// Package backend is what the front ends call: accounts, their mailboxes, and
// the way out for submitted mail. It owns every account's syncer and outbox,
// starts and stops them, and translates the errors of everything below it.
package backend

import (
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"postern/backend/token"
)

// Config is everything the backend is told. The program fills it from its
// configuration file; nothing below reads files or the environment.
type Config struct {
	State       string                      // folder for databases, spool and bodies; created with mode 0700
	Credentials map[string]token.Credential // by the name mailboxes use
	ExpiryMail  string                      // mailbox into whose Inbox warnings of a credential's end are put; "" for none
	Mailboxes   []MailboxConfig
	Logins      []LoginConfig

	SendWait      time.Duration // how long the end of DATA waits for the first attempt; 0 queues always
	MaxMessage    int64         // bytes of a submitted or appended message
	QueueLifetime time.Duration // how long a message is tried before its failure notice
	QueueWarn     time.Duration // age of a message from which those who want one get a notice of delay; 0 for 4 h
	LogKeep       time.Duration // how long the log of settled messages is kept; 0 for 7 days
	SendUnsure    bool          // send again what was perhaps sent where the app may not look, instead of holding it
	LogSubject    bool          // whether the log has subjects
	MinFree       int64         // bytes to leave free on the queue's disk
	Rate          int           // messages a minute that one login may submit; 0 for no limit
	Gather        time.Duration // how long the same message waits for further recipients; 0 not at all
	Drop          DropConfig

	Poll        time.Duration // delta rounds of folders somebody has open
	Size        SizePolicy
	Append      AppendPolicy
	Delete      DeletePolicy
	CacheBodies int64 // bytes of kept message bodies on disk

	Observer   Observer
	Logger     *slog.Logger
	HTTPClient *http.Client // nil for one with sane limits; tests and proxies set it

	// RequestLimit is how many Graph calls an account may make in ten minutes; 0 for what Graph allows. Only tests
	// against a simulator without limits set it: the configuration file has no key for it.
	RequestLimit int
}

// MailboxConfig is one Microsoft 365 mailbox and the credential that reaches it.
type MailboxConfig struct {
	Address    string // user principal name or object id, used as {user} in Graph paths
	Credential string // key of Config.Credentials
	Aliases    []string
	Quota      int64 // bytes the mailbox may hold, as an administrator knows it: Graph does not tell; 0: not known
}

// LoginConfig is one of Postern's own logins.
type LoginConfig struct {
	Username     string
	PasswordHash string // PHC string, $argon2id$…
	Mailbox      string // address of a configured mailbox; "" for one that is only Admin
	Shared       []string
	SMTP, IMAP   bool
	Admin        bool // may use the pages; alone, it needs no mailbox
	ReadOnly     bool
	SendAs       []string
	RewriteFrom  bool
	Networks     []netip.Prefix // empty: from anywhere

	FallbackFrom string        // stands in for a sender that must be replaced; "" for the mailbox's address
	DropCopy     bool          // no copy in Sent Items
	Rate         int           // messages a minute; 0 for Config.Rate
	Gather       time.Duration // 0 for Config.Gather
}

// DropConfig is the folder into which programs on this machine put mail.
type DropConfig struct {
	Dir   string      // "" for none
	Login LoginConfig // in whose name it goes out; see Backend.FixedLogin
	Local string      // address for mail to users of this machine; "" for the login's mailbox
}

// SizePolicy is configuration key imap.size.
type SizePolicy string

// The values of imap.size.
const (
	SizeExact    SizePolicy = "exact"    // read each message whose size is not known
	SizeAuto     SizePolicy = "auto"     // read a few, estimate when many are asked for
	SizeEstimate SizePolicy = "estimate" // never read a message for its size
)

// AppendPolicy is configuration key imap.append.
type AppendPolicy string

// The values of imap.append.
const (
	AppendJSON       AppendPolicy = "json"
	AppendImportMIME AppendPolicy = "import-mime" // the beta importMime call; needs Mail-Advanced.ReadWrite.All
)

// DeletePolicy is configuration key imap.delete: where EXPUNGE sends a message.
type DeletePolicy string

// The values of imap.delete.
const (
	DeleteRecoverable DeletePolicy = "recoverable" // to Recoverable Items, as Exchange's own IMAP does
	DeleteTrash       DeletePolicy = "trash"       // to Deleted Items; from there to Recoverable Items
	DeletePurge       DeletePolicy = "purge"       // permanentDelete
)
