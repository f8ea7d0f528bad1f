package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"postern/backend"
	"postern/backend/message"
)

// The exit statuses of sysexits.h, which callers of sendmail know.
const (
	exUsage    = 64 // wrong command line
	exData     = 65 // the message is at fault
	exNoUser   = 67 // no recipients, or malformed ones
	exTempFail = 75 // try again later
	exConfig   = 78 // the configuration is at fault
)

func sendmailCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sendmail [-t] [-i] [-f SENDER] [-F NAME] [--] [RECIPIENT...]",
		Short: "Send a message from standard input, as sendmail does",
		Long: `Sendmail takes a message on standard input and puts it into the drop folder of the server, which sends it
within a second, or when it is started again. Programs that call /usr/sbin/sendmail (cron, PHP, mdadm) can use it:

  ln -s /usr/local/bin/postern /usr/sbin/sendmail

  -t             take the recipients from the header; a Bcc field is then removed
  -i, -oi        a line with a dot alone does not end the message
  -f SENDER      envelope sender, for notices of failure
  -F NAME        name of the sender, when the message has no From
  -N WISHES      notices wanted: never, or any of success,failure,delay
  -C FILE        configuration file, also --config; else POSTERN_CONFIG, else /etc/postern/postern.yaml
  --drop FOLDER  drop folder, for users who may not read the configuration; also from POSTERN_DROP

Mail to names without a domain, as cron sends it to root, goes to sendmail.local of the configuration.
Other options of sendmail that ask for nothing are accepted. The exit status is that of sysexits.h.`,
		DisableFlagParsing: true, // its options come from before POSIX
		RunE: func(cmd *cobra.Command, args []string) error {
			if slices.Contains(args, "--help") {
				return cmd.Help()
			}
			err := sendmail(cmd, args)
			if e, ok := errors.AsType[*sendmailError](err); ok {
				fmt.Fprintln(cmd.ErrOrStderr(), "sendmail:", e.text)
				return &exitError{e.status}
			}
			return err
		},
	}
}

// sendmailError ends the command with a status of sysexits.h.
type sendmailError struct {
	status int
	text   string
}

func (e *sendmailError) Error() string { return e.text }

func sendmailFailed(status int, format string, args ...any) error {
	return &sendmailError{status, fmt.Sprintf(format, args...)}
}

// sendmailArgs is a command line of sendmail.
type sendmailArgs struct {
	fromHeader bool
	ignoreDots bool
	sender     string
	hasSender  bool
	name       string
	notify     []string
	ret        string
	envID      string
	config     string
	drop       string
	rcpts      []string
}

// parseSendmail reads a command line: options of one letter, whose value is behind them or the next word.
func parseSendmail(args []string) (*sendmailArgs, error) {
	a := &sendmailArgs{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			a.rcpts = append(a.rcpts, args...)
			break
		}
		if name, value, ok := strings.Cut(arg, "="); name == "--drop" || name == "--config" {
			if !ok {
				if len(args) == 0 {
					return nil, sendmailFailed(exUsage, "%s needs a value", name)
				}
				value, args = args[0], args[1:]
			}
			if name == "--drop" {
				a.drop = value
			} else {
				a.config = value
			}
			continue
		}
		if len(arg) < 2 || arg[0] != '-' {
			a.rcpts = append(a.rcpts, arg)
			continue
		}
		letter, rest := arg[1], arg[2:]
		if strings.IndexByte("frFNRVCBhpoOXLqbdAM", letter) < 0 {
			// Letters without a value may stand together, as in -ti.
			for _, l := range arg[1:] {
				switch l {
				case 't':
					a.fromHeader = true
				case 'i':
					a.ignoreDots = true
				case 'n', 'v', 'm', 's', 'U', 'G':
				default:
					return nil, sendmailFailed(exUsage, "option -%c is unknown", l)
				}
			}
			continue
		}
		value := rest
		takes := strings.IndexByte("frFNRVCBhXLO", letter) >= 0
		if value == "" && takes {
			if len(args) == 0 {
				return nil, sendmailFailed(exUsage, "option -%c needs a value", letter)
			}
			value, args = args[0], args[1:]
		}
		switch letter {
		case 'f', 'r':
			a.sender, a.hasSender = strings.Trim(value, "<>"), true
		case 'F':
			a.name = value
		case 'N':
			for _, w := range strings.Split(strings.ToUpper(value), ",") {
				if !slices.Contains([]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}, w) {
					return nil, sendmailFailed(exUsage, "-N %s: write never, or any of success,failure,delay", value)
				}
				a.notify = append(a.notify, w)
			}
		case 'R':
			if a.ret = strings.ToUpper(value); a.ret != "FULL" && a.ret != "HDRS" {
				return nil, sendmailFailed(exUsage, "-R %s: write full or hdrs", value)
			}
		case 'V':
			a.envID = value
		case 'C':
			a.config = value
		case 'o':
			if value == "i" {
				a.ignoreDots = true
			}
		case 'b':
			if value != "m" {
				return nil, sendmailFailed(exUsage, "mode -b%s is not available: only -bm, sending", value)
			}
		case 'q':
			return nil, sendmailFailed(exUsage, "-q is not available: the server sends by itself; see postern queue")
		}
	}
	return a, nil
}

func sendmail(cmd *cobra.Command, args []string) error {
	a, err := parseSendmail(args)
	if err != nil {
		return err
	}
	dir, limit, err := a.dropFolder()
	if err != nil {
		return err
	}
	in := io.Reader(cmd.InOrStdin())
	if !a.ignoreDots {
		in = &untilDot{r: bufio.NewReader(in)}
	}
	r := bufio.NewReaderSize(in, 64<<10)
	header, err := readMessageHeader(r)
	if err != nil {
		return err
	}
	env := backend.Envelope{From: a.sender, Ret: a.ret, EnvID: a.envID}
	rcpts := a.rcpts
	if a.fromHeader {
		header, rcpts = a.recipients(header)
	}
	for _, s := range rcpts {
		for _, one := range strings.Split(s, ",") {
			if one = strings.Trim(strings.TrimSpace(one), "<>"); one == "" {
				continue
			}
			if at := strings.LastIndexByte(one, '@'); !backend.LocalUser(one) && (at < 1 || at == len(one)-1 || strings.ContainsAny(one, " \t\r\n<>;()")) {
				return sendmailFailed(exNoUser, "%q is no address", one)
			}
			env.Recipients = append(env.Recipients, backend.Recipient{Address: one, Notify: a.notify})
		}
	}
	if len(env.Recipients) == 0 {
		return sendmailFailed(exNoUser, "no recipients: name them, or write -t and have them in the header")
	}
	if !a.hasSender {
		env.From = headerSender(header)
	} else if env.From != "" && !strings.Contains(env.From, "@") {
		env.From += "@" + localName()
	}
	if _, has := message.FieldValue(header, "From"); !has && a.name != "" && env.From != "" {
		header = append([]byte(fmt.Sprintf("From: %q <%s>\n", strings.Map(printable, a.name), env.From)), header...)
	}
	_, err = backend.DropMessage(dir, env, io.MultiReader(bytes.NewReader(header), r), limit)
	switch {
	case err == nil:
		return nil
	case backend.KindOf(err) == backend.TooLarge, backend.KindOf(err) == backend.Refused:
		return sendmailFailed(exData, "%s", backend.TextOf(err))
	case errors.Is(err, fs.ErrNotExist):
		return sendmailFailed(exTempFail, "there is no drop folder %s: has the server been started with sendmail: in its configuration?", dir)
	case errors.Is(err, fs.ErrPermission):
		return sendmailFailed(exTempFail, "you may not write into %s: see docs/sending.md for letting users send", dir)
	}
	return sendmailFailed(exTempFail, "%v", err)
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}

// defaultConfigFile is looked at when nothing names another.
const defaultConfigFile = "/etc/postern/postern.yaml"

// dropFolder returns the folder and the largest message.
func (a *sendmailArgs) dropFolder() (dir string, limit int64, err error) {
	limit = int64(defaultConfig().SMTP.MaxMessage)
	if dir = a.drop; dir == "" {
		dir = os.Getenv("POSTERN_DROP")
	}
	if dir != "" {
		return dir, limit, nil
	}
	path := a.config
	if path == "" {
		path = envOr("POSTERN_CONFIG", defaultConfigFile)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return "", 0, sendmailFailed(exConfig, "%v: name the drop folder with --drop or POSTERN_DROP", err)
	}
	// Secrets from the environment are of no interest here, and may be missing.
	c := parseConfig(path, src, func(name string) (string, bool) { return "x" + os.Getenv(name), true })
	if c.Sendmail.Mailbox == "" {
		return "", 0, sendmailFailed(exConfig, "%s has no sendmail: {mailbox: ADDRESS}", path)
	}
	return c.Sendmail.Drop, int64(c.SMTP.MaxMessage), nil
}

// readMessageHeader reads up to and with the blank line behind the header. A message that begins otherwise has none.
func readMessageHeader(r *bufio.Reader) ([]byte, error) {
	var header []byte
	for len(header) < 1<<20 {
		peek, err := r.Peek(1)
		if errors.Is(err, io.EOF) {
			return header, nil
		}
		if err != nil {
			return nil, sendmailFailed(exTempFail, "read the message: %v", err)
		}
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, sendmailFailed(exTempFail, "read the message: %v", err)
		}
		trimmed := bytes.TrimRight(line, "\r\n")
		field := len(trimmed) == 0 || peek[0] == ' ' || peek[0] == '\t' || bytes.IndexByte(trimmed, ':') > 0 && !bytes.ContainsAny(trimmed[:bytes.IndexByte(trimmed, ':')], " \t") ||
			bytes.HasPrefix(line, []byte("From "))
		if !field {
			// The header ends here, without its blank line.
			return append(append(header, '\n'), line...), nil
		}
		if bytes.HasPrefix(line, []byte("From ")) && len(header) == 0 {
			continue // mbox separator
		}
		header = append(header, line...)
		if len(trimmed) == 0 {
			return header, nil
		}
	}
	return nil, sendmailFailed(exData, "the header of the message is larger than 1 MB")
}

// recipients takes the recipients from To, Cc and Bcc, and the Bcc fields out of the header. A message that is sent again
// (RFC 5322 section 3.6.6) goes to whom its Resent- fields name and to nobody else. With -t, addresses on the
// command line are left out, as Sendmail's own manual has it.
func (a *sendmailArgs) recipients(header []byte) (kept []byte, rcpts []string) {
	prefix := ""
	for _, f := range message.Fields(header) {
		if isAnyField(f.Name, "Resent-To", "Resent-Cc", "Resent-Bcc") {
			prefix = "Resent-"
		}
	}
	out := map[string]bool{}
	for _, s := range a.rcpts {
		out[strings.ToLower(s)] = true
	}
	for _, f := range message.Fields(header) {
		if isAnyField(f.Name, prefix+"To", prefix+"Cc", prefix+"Bcc") {
			for _, addr := range message.ParseAddressList(f.Value) {
				s := addr.Addr()
				if addr.Host == "" || addr.Host == message.MissingDomain {
					s = addr.Mailbox
				}
				if (addr.Host != message.MissingDomain && strings.Contains(s, "@") || backend.LocalUser(s)) && !out[strings.ToLower(s)] {
					out[strings.ToLower(s)] = true
					rcpts = append(rcpts, s)
				}
			}
		}
		if !isAnyField(f.Name, "Bcc", "Resent-Bcc") {
			kept = append(kept, f.Raw...)
			if n := len(f.Raw); n > 0 && f.Raw[n-1] != '\n' {
				kept = append(kept, '\n')
			}
		}
	}
	return append(kept, '\n'), rcpts
}

func isAnyField(name string, names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// headerSender is the address of From, or who runs the command.
func headerSender(header []byte) string {
	if v, ok := message.FieldValue(header, "From"); ok {
		for _, a := range message.ParseAddressList(v) {
			if s := a.Addr(); strings.Contains(s, "@") {
				return s
			}
		}
	}
	name := "nobody"
	if u, err := user.Current(); err == nil && u.Username != "" && !strings.ContainsAny(u.Username, " @\\<>,;:()\"") {
		name = u.Username
	}
	return name + "@" + localName()
}

// localName is the domain for senders that have none.
func localName() string {
	if name := hostname(); !strings.ContainsAny(name, " @<>,;:()\"") {
		return name
	}
	return "localhost"
}

// untilDot ends a message at a line with a dot alone, as sendmail does without -i.
type untilDot struct {
	r    *bufio.Reader
	rest []byte
	mid  bool // inside a line
	err  error
}

func (u *untilDot) Read(p []byte) (int, error) {
	for len(u.rest) == 0 {
		if u.err != nil {
			return 0, u.err
		}
		line, err := u.r.ReadSlice('\n')
		if !u.mid && (string(line) == ".\n" || string(line) == ".\r\n" || string(line) == "." && err == io.EOF) {
			u.err = io.EOF
			continue
		}
		u.mid = len(line) > 0 && line[len(line)-1] != '\n'
		if err != nil && err != bufio.ErrBufferFull {
			u.err = err
		}
		u.rest = line
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}
