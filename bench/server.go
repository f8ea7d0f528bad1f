package main

import (
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/backend/graphsim"
)

// start measures from exec to listening, with a mailbox of 100,000 messages in the state folder.
func (b *bench) start() error {
	w, err := b.mailWorld(graphsim.Options{}, 100_000, "")
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(); err != nil {
		return err
	}
	c, err := dial(w.imap, benchUser, benchPassword)
	if err != nil {
		return err
	}
	if _, err := c.do("SELECT INBOX"); err != nil {
		return err
	}
	c.close()
	w.quiet(3*time.Second, 5*time.Minute)
	var ready, selected []time.Duration
	for range b.rounds {
		if err := w.stop(); err != nil {
			return err
		}
		if err := w.start(); err != nil {
			return err
		}
		ready = append(ready, w.ready)
		c, err := dial(w.imap, benchUser, benchPassword)
		if err != nil {
			return err
		}
		took, err := timed(func() error { _, err := c.do("SELECT INBOX"); return err })
		if err != nil {
			return err
		}
		selected = append(selected, took)
		c.close()
	}
	table("Start with a state of 100,000 messages", []string{"", "median", "longest"}, [][]string{
		{"from exec to listening", ms(median(ready)), ms(slices.Max(ready))},
		{"first SELECT afterwards", ms(median(selected)), ms(slices.Max(selected))},
	})
	return nil
}

// fill measures the first open of 100,000 messages with a Graph that takes 50 ms for each call, four at once.
func (b *bench) fill() error {
	// The simulator's own messages, since ours cost it more than its pages.
	w, err := b.newWorld(graphsim.Options{Latency: 50 * time.Millisecond}, 1, "", func(sim *graphsim.Sim, user string) {
		sim.AddSynthetic(user, "inbox", 100_000, graphsim.Synthetic{})
	})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(); err != nil {
		return err
	}
	c, err := dial(w.imap, benchUser, benchPassword)
	if err != nil {
		return err
	}
	defer c.close()
	simulator := ownCPU()
	began := time.Now()
	if _, err := c.do("SELECT INBOX"); err != nil {
		return err
	}
	opened := time.Since(began)
	calls := w.sim.CountRequests(nil)
	if _, err := c.do("UID FETCH 1:* (UID FLAGS)"); err != nil {
		return err
	}
	flags := time.Since(began)
	if _, err := c.do("UID FETCH 1:* (UID ENVELOPE)"); err != nil {
		return err
	}
	headers := time.Since(began)
	all := w.sim.CountRequests(nil)
	table("First fill, 100,000 messages, 50 ms for each call of Graph", []string{"", "since SELECT was sent", "calls of Graph so far"}, [][]string{
		{"SELECT answered", ms(opened), fmt.Sprint(calls)},
		{"UID FETCH 1:* (UID FLAGS) answered", ms(flags), ""},
		{"all envelopes answered", ms(headers), fmt.Sprint(all)},
	})
	fmt.Printf("\nProcessor time until then: Postern %v, the simulator %v.\n", w.cpu(), (ownCPU() - simulator).Round(10*time.Millisecond))
	return nil
}

// idle measures from a message's arrival in Graph to EXISTS at a client in IDLE.
func (b *bench) idle() error {
	w, err := b.mailWorld(graphsim.Options{Latency: 50 * time.Millisecond}, 1000, "imap: {poll: 1s}\n")
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(); err != nil {
		return err
	}
	c, err := dial(w.imap, benchUser, benchPassword)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.do("SELECT INBOX"); err != nil {
		return err
	}
	w.quiet(2*time.Second, time.Minute)
	if _, err := io.WriteString(c.conn, "i IDLE\r\n"); err != nil {
		return err
	}
	if _, err := c.line(); err != nil {
		return err
	}
	var took []time.Duration
	for i := range 20 {
		time.Sleep(time.Duration(i) * 150 * time.Millisecond) // at any moment between two polls
		began := time.Now()
		w.sim.DeliverMessage(benchUser, message(1_000_000+i))
		for {
			l, err := c.line()
			if err != nil {
				return err
			}
			if strings.HasSuffix(strings.TrimSpace(l), "EXISTS") {
				break
			}
		}
		took = append(took, time.Since(began))
	}
	table("New mail to a client in IDLE, poll time 1 s, 50 ms for each call", []string{"shortest", "median", "longest"},
		[][]string{{ms(slices.Min(took)), ms(median(took)), ms(slices.Max(took))}})
	return nil
}

// memory measures the resident set in several states.
func (b *bench) memory() error {
	var rows [][]string
	add := func(what string, mb, peak float64) {
		p := ""
		if peak > 0 {
			p = fmt.Sprintf("%.0f MB", peak)
		}
		rows = append(rows, []string{what, fmt.Sprintf("%.0f MB", mb), p})
	}
	// Idle, and with a thousand clients: ten for each of a hundred logins, all in IDLE.
	w, err := b.newWorld(graphsim.Options{}, 100, "imap: {poll: 30s, connections_per_address: 2000}\n", func(sim *graphsim.Sim, user string) {
		sim.AddSynthetic(user, "inbox", 20, graphsim.Synthetic{MIME: message})
	})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	add("idle, 100 mailboxes configured", w.memory("VmRSS"), 0)
	clients, err := w.idlers(1000, 100, 8)
	if err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	add("1,000 clients in IDLE, on 100 mailboxes", w.memory("VmRSS"), w.memory("VmHWM"))
	for _, c := range clients {
		c.close()
	}
	if err := w.stop(); err != nil {
		return err
	}

	big, err := b.mailWorld(graphsim.Options{MaxMessage: 150 << 20}, 100_000, "smtp: {wait: 0s}\n")
	if err != nil {
		return err
	}
	defer big.close()
	if err := big.start(); err != nil {
		return err
	}
	c, err := dial(big.imap, benchUser, benchPassword)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.do("SELECT INBOX"); err != nil {
		return err
	}
	add("100,000 messages, first listing", big.memory("VmRSS"), big.memory("VmHWM"))
	big.quiet(3*time.Second, 5*time.Minute)
	add("… headers read too", big.memory("VmRSS"), big.memory("VmHWM"))
	if _, err := c.do("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"); err != nil {
		return err
	}
	add("… all envelopes told", big.memory("VmRSS"), big.memory("VmHWM"))
	if err := big.stop(); err != nil {
		return err
	}
	if err := big.start(); err != nil {
		return err
	}
	if c, err = dial(big.imap, benchUser, benchPassword); err != nil {
		return err
	}
	if _, err := c.do("SELECT INBOX"); err != nil {
		return err
	}
	add("100,000 messages, open after a restart", big.memory("VmRSS"), big.memory("VmHWM"))
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", big.cmd.Process.Pid), []byte("5"), 0); err == nil {
		if err := big.sendLarge(100_000_000); err != nil {
			return err
		}
		for range 600 {
			if len(big.sim.Delivered()) > 0 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		add("… a message of 100 MB taken and sent", big.memory("VmRSS"), big.memory("VmHWM"))
	}
	table("Memory (resident set)", []string{"", "then", "peak so far"}, rows)
	return nil
}

// idlers logs clients in, so many at once, spread over so many users, and lets them idle in INBOX.
func (w *world) idlers(n, users, atOnce int) ([]*client, error) {
	clients := make([]*client, n)
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error {
			c, err := dial(w.imap, userName(i%users), benchPassword)
			if err != nil {
				return err
			}
			clients[i] = c
			if _, err := c.do("SELECT INBOX"); err != nil {
				return err
			}
			if _, err := io.WriteString(c.conn, "i IDLE\r\n"); err != nil {
				return err
			}
			_, err = c.line()
			return err
		})
	}
	return clients, g.Wait()
}

// sendLarge submits one message of about size bytes.
func (w *world) sendLarge(size int) error {
	conn, err := net.Dial("tcp", w.smtp)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := textproto.NewConn(conn)
	for _, s := range []struct {
		send string
		code int
	}{{"", 220}, {"EHLO bench", 250}, {"MAIL FROM:<" + benchUser + ">", 250}, {"RCPT TO:<x@fabrikam.example>", 250}, {"DATA", 354}} {
		if s.send != "" {
			if err := c.PrintfLine("%s", s.send); err != nil {
				return err
			}
		}
		if _, _, err := c.ReadResponse(s.code); err != nil {
			return err
		}
	}
	line := strings.Repeat("QUJD", 19) + "\r\n"
	fmt.Fprintf(c.W, "From: %s\r\nSubject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/zip\r\nContent-Disposition: attachment; filename=f.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n", benchUser)
	for n := 0; n < size; n += len(line) {
		if _, err := c.W.WriteString(line); err != nil {
			return err
		}
	}
	if _, err := c.W.WriteString("--b--\r\n.\r\n"); err != nil {
		return err
	}
	if err := c.W.Flush(); err != nil {
		return err
	}
	_, _, err = c.ReadResponse(250)
	return err
}

// scale runs many mailboxes, each with a client in IDLE, that get some messages a minute and send as many.
func (b *bench) scale() error {
	perMinute := b.rate
	w, err := b.newWorld(graphsim.Options{Latency: 50 * time.Millisecond}, b.mailers, "imap: {poll: 5s, connections_per_address: 2000}\nsmtp: {wait: 0s}\n", func(sim *graphsim.Sim, user string) {
		sim.AddSynthetic(user, "inbox", 5, graphsim.Synthetic{MIME: message}) // few: reading texts ahead is no part of what is measured
	})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(); err != nil {
		return err
	}
	fmt.Printf("\nscale: ready after %v with %d mailboxes, %.0f MB\n", w.ready, b.mailers, w.memory("VmRSS"))
	began := time.Now()
	clients, err := w.idlers(b.mailers, b.mailers, 64)
	if err != nil {
		return err
	}
	opened, openCPU, openCalls := time.Since(began), w.cpu(), w.sim.CountRequests(nil)
	fmt.Printf("scale: all have logged in and idle after %v, %v of processor time and %d requests of Graph\n", opened.Round(100*time.Millisecond), openCPU, openCalls)
	w.quiet(5*time.Second, 3*time.Minute)
	settled, files := w.memory("VmRSS"), w.files()

	var mu sync.Mutex
	var lags []time.Duration
	waiting := make([][]time.Time, len(clients))
	var readers sync.WaitGroup
	for i, c := range clients {
		readers.Go(func() {
			for {
				l, err := c.line()
				if err != nil {
					return // closed at the end
				}
				if !strings.HasSuffix(strings.TrimSpace(l), "EXISTS") {
					continue
				}
				mu.Lock()
				for _, at := range waiting[i] { // one EXISTS may tell of several
					lags = append(lags, time.Since(at))
				}
				waiting[i] = nil
				mu.Unlock()
			}
		})
	}
	quietCPU, quietFrom := w.cpu(), time.Now()
	w.sim.ResetRequests()
	time.Sleep(10 * time.Second)
	quiet := fmt.Sprintf("%.0f %% of one core, %.0f", 100*(w.cpu()-quietCPU).Seconds()/time.Since(quietFrom).Seconds(), float64(w.sim.CountRequests(nil))/time.Since(quietFrom).Seconds())
	w.sim.ResetRequests()
	cpu, simulator, start, wrote := w.cpu(), ownCPU(), time.Now(), w.written()
	every := time.Minute / time.Duration(perMinute*len(clients))
	delivered := 0
	accepted := make(chan error, 1)
	go func() { accepted <- w.submitAll(b.duration, every) }()
	for time.Since(start) < b.duration {
		time.Sleep(time.Until(start.Add(time.Duration(delivered) * every))) // what comes late is made up for
		if err := b.ctx.Err(); err != nil {
			return err
		}
		i := delivered % len(clients)
		delivered++
		mu.Lock()
		waiting[i] = append(waiting[i], time.Now())
		mu.Unlock()
		w.sim.DeliverMessage(userName(i), message(2_000_000+delivered))
	}
	took := time.Since(start)
	used, usedBySim, wrote := w.cpu()-cpu, ownCPU()-simulator, w.written()-wrote
	if err := <-accepted; err != nil {
		return err
	}
	requests := w.sim.CountRequests(nil)
	polls := w.sim.CountRequests(func(r graphsim.Request) bool { return strings.HasSuffix(r.Template, "/delta") })
	time.Sleep(7 * time.Second)
	sent, throughs := 0, map[string]bool{} // the simulator knows what has left
	for _, d := range w.sim.Delivered() {
		sent++
		throughs[d.Sender] = true
	}
	for _, c := range clients {
		c.close()
	}
	readers.Wait()
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(lags)
	at := func(q float64) string {
		if len(lags) == 0 {
			return ""
		}
		return ms(lags[min(len(lags)-1, int(q*float64(len(lags))))])
	}
	table(fmt.Sprintf("%d mailboxes, each with a client in IDLE, %d messages a minute in and as many out, for %v", b.mailers, perMinute, took.Round(time.Second)), []string{"", ""}, [][]string{
		{"log-in, first listing and IDLE of all", fmt.Sprintf("%v, %v of processor time, %d requests of Graph", opened.Round(time.Millisecond), openCPU, openCalls)},
		{"memory when quiet / at the end / peak", fmt.Sprintf("%.0f / %.0f / %.0f MB", settled, w.memory("VmRSS"), w.memory("VmHWM"))},
		{"open files when quiet", fmt.Sprint(files)},
		{"processor time and requests of Graph a second when quiet", quiet},
		{"processor time under load", fmt.Sprintf("%v, %.0f %% of one core; the simulator and the clients %v", used, 100*used.Seconds()/took.Seconds(), usedBySim.Round(10*time.Millisecond))},
		{"written to disk under load", fmt.Sprintf("%.0f MB", wrote)},
		{"requests of Graph a second, of these polls", fmt.Sprintf("%.0f, %.0f", float64(requests)/took.Seconds(), float64(polls)/took.Seconds())},
		{"messages delivered / told", fmt.Sprintf("%d / %d", delivered, len(lags))},
		{"from delivery to EXISTS: median, 95 %, longest", at(0.5) + ", " + at(0.95) + ", " + at(1)},
		{"messages submitted and sent", fmt.Sprintf("%d, by %d mailboxes", sent, len(throughs))},
	})
	return nil
}

// files counts what the process has open.
func (w *world) files() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	return len(entries)
}

// written returns how many MB the process has given to the disk.
func (w *world) written() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", w.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		if n, ok := strings.CutPrefix(l, "write_bytes: "); ok {
			bytes, _ := strconv.ParseFloat(n, 64)
			return bytes / 1e6
		}
	}
	return 0
}

// submitters is how many connections submitAll has.
const submitters = 16

// submitAll submits mail of all mailboxes in turn, a message each time that every has passed, over some connections.
func (w *world) submitAll(d, every time.Duration) error {
	var g errgroup.Group
	start := time.Now()
	for i := range submitters {
		g.Go(func() error {
			c, err := w.submitter()
			if err != nil {
				return err
			}
			defer c.Close()
			for n := i; ; n += submitters {
				due := time.Duration(n) * every
				if due > d {
					return nil
				}
				time.Sleep(time.Until(start.Add(due)))
				if time.Since(start) > d {
					return nil
				}
				if err := submit(c, userName(n%w.b.mailers), n); err != nil {
					return fmt.Errorf("message %d: %w", n, err)
				}
			}
		})
	}
	return g.Wait()
}

// submitter returns a connection that submits.
func (w *world) submitter() (*textproto.Conn, error) {
	c, err := textproto.Dial("tcp", w.smtp)
	if err != nil {
		return nil, err
	}
	if _, _, err = c.ReadResponse(220); err == nil {
		if err = c.PrintfLine("EHLO bench"); err == nil {
			_, _, err = c.ReadResponse(250)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// submit submits the nth message.
func submit(c *textproto.Conn, from string, n int) error {
	for _, s := range []struct {
		send string
		code int
	}{{"MAIL FROM:<" + from + ">", 250}, {"RCPT TO:<x@fabrikam.example>", 250}, {"DATA", 354},
		{fmt.Sprintf("From: %s\r\nTo: x@fabrikam.example\r\nSubject: scale %d\r\nMessage-ID: <scale.%d@contoso.example>\r\n\r\n%s\r\n.", from, n, n, strings.Repeat("text ", 300)), 250}} {
		if err := c.PrintfLine("%s", s.send); err != nil {
			return err
		}
		if _, _, err := c.ReadResponse(s.code); err != nil {
			return err
		}
	}
	return nil
}
