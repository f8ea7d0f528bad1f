// Command bench measures Postern beside what an administrator would run otherwise, on the same machine and in one run: Dovecot for
// IMAP and Postfix for SMTP, as Debian packages them. Graph is the simulator, in this process; Postern is the built program in
// another. It prints tables in Markdown.
//
//	go run ./bench                  everything
//	go run ./bench imap smtp        only these: imap mbsync smtp start fill idle memory scale
//
// Nothing here passes or fails: figures depend on the machine. What is missing (dovecot, postfix, mbsync) is left out with a word.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	ctx      context.Context
	dir      string // scratch, removed at the end
	port     int    // the first of those that Dovecot and Postfix listen on
	postern  string // the program to measure
	sizes    []int  // of mailboxes for imap
	rounds   int
	mailers  int           // mailboxes for scale
	rate     int           // messages a minute, in and out, for each of them
	duration time.Duration // of scale

	mu   sync.Mutex
	ends []func() // of the servers that were started; each may be called twice
}

// part is one of the measurements.
type part struct {
	name string
	run  func(*bench) error
}

func main() {
	b := &bench{}
	flag.IntVar(&b.port, "port", 27900, "first of ten ports for the other servers")
	flag.IntVar(&b.rounds, "rounds", 5, "repetitions of each step; the best and the median are printed")
	sizes := flag.String("sizes", "20000,100000", "messages in the mailboxes of imap")
	flag.IntVar(&b.mailers, "mailboxes", 1000, "mailboxes of scale")
	flag.IntVar(&b.rate, "rate", 10, "messages a minute that each mailbox of scale gets, and as many that it sends")
	flag.DurationVar(&b.duration, "duration", time.Minute, "how long scale measures")
	flag.StringVar(&b.postern, "postern", "", "the program to measure; without it it is built")
	flag.Parse()
	for s := range strings.SplitSeq(*sizes, ",") {
		n := 0
		if _, err := fmt.Sscan(s, &n); err != nil || n < 1 {
			fatal(fmt.Errorf("-sizes %s: want numbers", *sizes))
		}
		b.sizes = append(b.sizes, n)
	}
	parts := []part{{"imap", (*bench).imap}, {"mbsync", (*bench).mbsync}, {"smtp", (*bench).smtp}, {"start", (*bench).start}, {"fill", (*bench).fill}, {"idle", (*bench).idle},
		{"memory", (*bench).memory}, {"scale", (*bench).scale}}
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			fatal(fmt.Errorf("there is no part %s", name))
		}
	}
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // for as long as the program runs
	b.ctx = ctx
	context.AfterFunc(ctx, func() { // what was started must not stay
		b.mu.Lock()
		for _, end := range b.ends {
			end()
		}
		os.RemoveAll(b.dir)
		fatal(errors.New("interrupted"))
	})
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		fatal(err)
	}
	// Dovecot and Postfix run as users of their own.
	if err := os.Chmod(dir, 0o755); err != nil {
		fatal(err)
	}
	b.dir = dir
	err = b.run(parts, flag.Args())
	if rerr := os.RemoveAll(dir); err == nil {
		err = rerr
	}
	if err != nil {
		fatal(err)
	}
}

func (b *bench) run(parts []part, wanted []string) error {
	if b.postern != "" {
		b.describe()
		return b.parts(parts, wanted)
	}
	b.postern = filepath.Join(b.dir, "postern")
	if out, err := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.postern, "./cmd/postern").CombinedOutput(); err != nil {
		return fmt.Errorf("build postern: %w\n%s", err, out)
	}
	b.describe()
	return b.parts(parts, wanted)
}

func (b *bench) parts(parts []part, wanted []string) error {
	for _, p := range parts {
		if len(wanted) > 0 && !slices.Contains(wanted, p.name) {
			continue
		}
		if err := p.run(b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// describe says on what and when this was measured.
func (b *bench) describe() {
	cpu := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.SplitSeq(string(info), "\n") {
			if name, ok := strings.CutPrefix(l, "model name"); ok {
				cpu = strings.TrimLeft(name, "\t: ")
				break
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg") // where there is one
	fmt.Printf("%s, %s, %d cores (%s), %s/%s, load before: %s\n", time.Now().Format(time.DateOnly), runtime.Version(), runtime.NumCPU(), cpu, runtime.GOOS, runtime.GOARCH,
		strings.TrimSpace(string(load)))
	for _, p := range []struct{ name, flag string }{{"dovecot", "--version"}, {"postconf", "-dh mail_version"}, {"mbsync", "--version"}} {
		out, err := exec.Command(p.name, strings.Fields(p.flag)...).CombinedOutput()
		if err != nil {
			out = []byte("not installed")
		}
		fmt.Printf("%s: %s\n", p.name, strings.TrimSpace(string(out)))
	}
}

// atEnd notes what ends a server when the program is interrupted.
func (b *bench) atEnd(end func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ends = append(b.ends, end)
}

// table prints rows as Markdown.
func table(title string, head []string, rows [][]string) {
	fmt.Printf("\n### %s\n\n| %s |\n|%s\n", title, strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range rows {
		fmt.Printf("| %s |\n", strings.Join(r, " | "))
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// ratio says how many times faster Postern is.
func ratio(other, ours time.Duration) string {
	if other == 0 || ours == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(other)/float64(ours))
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

// listening waits until something answers on addr.
func listening(addr string) error {
	for range 300 {
		if c, err := net.Dial("tcp", addr); err == nil {
			return c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("nothing listens on %s", addr)
}
