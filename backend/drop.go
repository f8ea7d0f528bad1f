package backend

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/backend/outbox"
	"postern/backend/store"
)

// The drop folder takes mail from programs on this machine that know no SMTP, whether or not the server runs. Each
// message is one file, named by the queue id it will have; taking it twice is therefore noticed. Others may
// write into the folder, so nothing in it is trusted: neither what a file says nor that it is one.
const (
	dropSuffix  = ".msg"
	dropTemp    = ".part"
	dropRefused = ".refused"

	dropEvery  = time.Second
	dropOld    = 24 * time.Hour // from which a half-written file is waste
	maxDropEnv = 1 << 20        // bytes of the first line
)

// dropEnvelope is the first line of a dropped file, as JSON; the message follows.
type dropEnvelope struct {
	From       string          `json:"from"`
	Recipients []dropRecipient `json:"recipients"`
	Ret        string          `json:"ret,omitempty"`
	EnvID      string          `json:"envid,omitempty"`
}

type dropRecipient struct {
	Address string   `json:"address"`
	Notify  []string `json:"notify,omitempty"`
}

// DropMessage puts a message into the drop folder dir, durably. It needs no server, and may be called by anybody who may
// write there. The queue id is what the message will have. Messages larger than max bytes are refused (TooLarge).
func DropMessage(dir string, env Envelope, message io.Reader, max int64) (queueID string, err error) {
	const op = "drop message"
	if len(env.Recipients) == 0 {
		return "", &Error{Kind: Refused, Op: op, Text: "the message has no recipients"}
	}
	line := dropEnvelope{From: env.From, Ret: env.Ret, EnvID: env.EnvID}
	for _, r := range env.Recipients {
		line.Recipients = append(line.Recipients, dropRecipient{r.Address, r.Notify})
	}
	head, err := json.Marshal(line)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if len(head) >= maxDropEnv {
		return "", &Error{Kind: Refused, Op: op, Text: "the message has too many recipients"}
	}
	id := outbox.NewID()
	temp := filepath.Join(dir, id+dropTemp)
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	defer func() {
		if err != nil {
			os.Remove(temp)
		}
	}()
	// In a folder for all users the server is another user than we are. It lets nobody list it, and names cannot be guessed
	// in the second that a file is there.
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 {
		_ = f.Chmod(0o644) // if not, the server says that it cannot read it
	}
	w := bufio.NewWriterSize(f, 64<<10)
	w.Write(append(head, '\n'))
	n, err := io.Copy(w, io.LimitReader(message, max+1))
	if err == nil && n > max {
		err = &Error{Kind: TooLarge, Op: op, Text: fmt.Sprintf("the message is larger than the limit of %d bytes", max)}
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, filepath.Join(dir, id+dropSuffix))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	// Who may write into a folder need not be able to open it; then the file system's own time must do.
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
	return id, nil
}

// dropFolder takes messages out of the folder.
type dropFolder struct {
	b     *Backend
	dir   string
	login *Login
	local string // in place of recipients without a domain
	log   *slog.Logger
}

// openDrop makes the folder if it is not there, for its owner alone: whoever wants others to use it gives it another mode.
func (b *Backend) openDrop(c DropConfig, account func(address string) (*Account, bool)) (*dropFolder, error) {
	if c.Dir == "" {
		return nil, nil
	}
	login, err := fixedLogin(c.Login, account)
	if err != nil {
		return nil, fmt.Errorf("drop folder: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make drop folder: %w", err)
	}
	return &dropFolder{b: b, dir: c.Dir, login: login, local: cmp.Or(c.Local, login.Account.Address()), log: b.log.With("drop", c.Dir)}, nil
}

// dropping is the drop folder at work; there may be none.
type dropping struct {
	mu     sync.Mutex
	ctx    context.Context // nil before begin
	folder *dropFolder
	cancel context.CancelFunc // of folder's run
	done   chan struct{}
}

// begin starts the folder there is.
func (d *dropping) begin(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ctx = ctx
	d.startLocked()
}

func (d *dropping) startLocked() {
	if d.ctx == nil || d.ctx.Err() != nil || d.folder == nil {
		return
	}
	ctx, cancel := context.WithCancel(d.ctx)
	folder, done := d.folder, make(chan struct{})
	d.cancel, d.done = cancel, done
	go func() {
		defer close(done)
		folder.run(ctx)
	}()
}

// set puts another folder in place of the one there is.
func (d *dropping) set(folder *dropFolder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.folder == folder {
		return
	}
	if d.cancel != nil {
		d.cancel()
		<-d.done
		d.cancel, d.done = nil, nil
	}
	d.folder = folder
	d.startLocked()
}

// wait returns when the folder is worked at no more, after begin's context has ended.
func (d *dropping) wait() {
	d.mu.Lock()
	done := d.done
	d.mu.Unlock()
	if done != nil {
		<-done
	}
}

// run takes what is in the folder, and what comes, until ctx ends.
func (d *dropFolder) run(ctx context.Context) {
	tick := time.NewTicker(dropEvery)
	defer tick.Stop()
	failing := false
	for {
		err := d.sweep(ctx)
		if err != nil && !failing {
			d.log.Error("drop folder not read", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep takes all messages that are there.
func (d *dropFolder) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil
		}
		name := e.Name()
		if strings.HasSuffix(name, dropTemp) {
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > dropOld {
				os.Remove(filepath.Join(d.dir, name))
			}
			continue
		}
		id, ok := strings.CutSuffix(name, dropSuffix)
		if !ok {
			continue
		}
		path := filepath.Join(d.dir, name)
		switch err := d.take(ctx, id, path); {
		case err == nil, errors.Is(err, store.ErrExists):
			if err := os.Remove(path); err != nil {
				d.log.Error("dropped file not removed", "queue_id", id, "err", err)
			}
		case lastingRefusal(err):
			d.log.Error("dropped message refused, kept with the ending "+dropRefused, "queue_id", id, "err", err)
			if err := os.Rename(path, filepath.Join(d.dir, id+dropRefused)); err != nil {
				d.log.Error("refused file not renamed", "queue_id", id, "err", err)
			}
		default:
			d.log.Warn("dropped message not taken yet", "queue_id", id, "err", err)
			return nil // the disk is full or the queue is closing: the others would fare no better
		}
	}
	return nil
}

// lastingRefusal tells what waiting does not cure.
func lastingRefusal(err error) bool {
	switch KindOf(err) {
	case Refused, Denied, TooLarge:
		return true
	}
	return false
}

// take submits one file.
func (d *dropFolder) take(ctx context.Context, id, path string) error {
	const op = "take dropped message"
	f, err := openDropped(path)
	if err != nil {
		return &Error{Kind: Refused, Op: op, Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if !info.Mode().IsRegular() {
		return &Error{Kind: Refused, Op: op, Err: errors.New("it is no regular file")}
	}
	if info.Size() > d.b.config().MaxMessage+maxDropEnv {
		return &Error{Kind: TooLarge, Op: op, Err: fmt.Errorf("it has %d bytes", info.Size())}
	}
	r := bufio.NewReaderSize(f, 64<<10)
	env, err := readDropEnvelope(r, d.local)
	if err != nil {
		return &Error{Kind: Refused, Op: op, Err: err}
	}
	env.Remote = ownerOf(info)
	if err := d.b.CheckRoom(d.login, info.Size()); err != nil {
		return err
	}
	spool, err := d.b.outbox.NewSpoolAs(id)
	if errors.Is(err, store.ErrExists) {
		return err
	}
	if err != nil {
		return &Error{Kind: Refused, Op: op, Err: err}
	}
	s := d.b.newSubmission(d.login, *env, spool)
	s.queueOnly = true
	defer s.Discard()
	if _, err := io.Copy(s, r); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	_, err = s.Submit(ctx)
	return err
}

// readDropEnvelope reads and checks the first line.
func readDropEnvelope(r *bufio.Reader, local string) (*Envelope, error) {
	var head []byte
	for {
		piece, err := r.ReadSlice('\n')
		head = append(head, piece...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, errors.New("it has no envelope")
		}
		if len(head) > maxDropEnv {
			return nil, errors.New("its envelope is too long")
		}
	}
	var line dropEnvelope
	if err := json.Unmarshal(head, &line); err != nil {
		return nil, fmt.Errorf("its envelope cannot be read: %w", err)
	}
	if len(line.Recipients) == 0 {
		return nil, errors.New("it has no recipients")
	}
	if line.From != "" && !plainAddress(line.From) {
		return nil, errors.New("its sender's address is malformed")
	}
	env := &Envelope{From: line.From, Ret: line.Ret, EnvID: line.EnvID}
	for _, rc := range line.Recipients {
		if LocalUser(rc.Address) {
			rc.Address = local
		}
		if !plainAddress(rc.Address) {
			return nil, errors.New("a recipient's address is malformed")
		}
		// Local users may all be one address, which may be named besides: it gets the message once.
		if !slices.ContainsFunc(env.Recipients, func(r Recipient) bool { return strings.EqualFold(r.Address, rc.Address) }) {
			env.Recipients = append(env.Recipients, Recipient{Address: rc.Address, Notify: rc.Notify})
		}
	}
	return env, nil
}

// LocalUser reports whether a recipient is a user of this machine, such as root, whose mail goes to DropConfig.Local.
func LocalUser(name string) bool {
	return name != "" && len(name) <= 64 && name[0] != '-' && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.' || r == '+')
	})
}

// plainAddress refuses what must not get into a header field.
func plainAddress(addr string) bool {
	at := strings.LastIndexByte(addr, '@')
	return at > 0 && at < len(addr)-1 && len(addr) <= 320 &&
		!strings.ContainsFunc(addr, func(r rune) bool { return r < ' ' || r == 0x7f }) &&
		!strings.ContainsAny(addr[:at], "@,;<>()") && !strings.ContainsAny(addr[at:], " ,;<>()\"\\")
}
