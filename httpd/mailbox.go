package httpd

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"postern/backend"
)

// chartMinutes is how much of the past the chart of a mailbox's calls shows.
const chartMinutes = 180

func mailboxPath(address string) string { return "/mailboxes/" + url.PathEscape(address) }

type mailboxData struct {
	mailboxRow
	Folders []backend.FolderState
	Chart   chart
}

func (s *Server) mailbox(r *http.Request) (string, any, error) {
	a, ok := s.opts.Backend.Account(r.PathValue("address"))
	if !ok {
		return "", nil, errNoPage
	}
	folders, err := a.Folders(r.Context())
	if err != nil {
		return "", nil, err
	}
	for i, f := range folders {
		folders[i].Problem = withoutAdvice(f.Problem, f.Advice)
	}
	return a.Address(), &mailboxData{s.mailboxRow(a), folders, newChart(a.Calls(chartMinutes + barMinutes))}, nil
}

// chart is a small picture of Graph calls over time: a bar for each few minutes.
type chart struct {
	Bars                     []bar
	Top                      int // calls in three minutes at its upper edge
	Width, Height            int
	Calls, Throttled, Failed int
	Busiest                  int
	BusiestAt                time.Time
	Hours                    []hour
}

// bar is one of them; heights count from the bottom.
type bar struct {
	X                     int
	CallsY, Calls         int
	ThrottledY, Throttled int
	FailedY, Failed       int
	Text                  string
}

// hour is a mark of the time axis.
type hour struct {
	X    int
	Text string
}

// The chart's measures, in units of its own.
const (
	barMinutes  = 3
	barWidth    = 15
	chartHeight = 100
)

// newChart draws the calls of some minutes, the last bar with those of now. Bars begin at whole hours and each three
// minutes after.
func newChart(minutes []backend.CallMinute) chart {
	for len(minutes) > 0 && minutes[0].At.Local().Minute()%barMinutes != 0 {
		minutes = minutes[1:]
	}
	c := chart{Height: chartHeight, Width: (len(minutes) + barMinutes - 1) / barMinutes * barWidth}
	most := 0
	sums := make([]backend.CallMinute, 0, len(minutes)/barMinutes+1)
	for part := range slices.Chunk(minutes, barMinutes) {
		s := backend.CallMinute{At: part[0].At}
		for _, m := range part {
			s.Calls, s.Throttled, s.Failed = s.Calls+m.Calls, s.Throttled+m.Throttled, s.Failed+m.Failed
			if m.Calls > c.Busiest {
				c.Busiest, c.BusiestAt = m.Calls, m.At
			}
		}
		sums = append(sums, s)
		most = max(most, s.Calls)
		c.Calls, c.Throttled, c.Failed = c.Calls+s.Calls, c.Throttled+s.Throttled, c.Failed+s.Failed
	}
	c.Top = niceTop(most)
	height := func(n int) int {
		if n == 0 {
			return 0
		}
		return max(1, n*chartHeight/c.Top)
	}
	for i, s := range sums {
		b := bar{X: i * barWidth, Calls: height(s.Calls - s.Throttled - s.Failed), Throttled: height(s.Throttled), Failed: height(s.Failed)}
		b.FailedY = chartHeight - b.Failed
		b.ThrottledY = b.FailedY - b.Throttled
		b.CallsY = b.ThrottledY - b.Calls
		b.Text = fmt.Sprintf("%s: %s", s.At.Local().Format("15:04"), count(s.Calls, "call"))
		if s.Throttled > 0 {
			b.Text += fmt.Sprintf(", %d throttled", s.Throttled)
		}
		if s.Failed > 0 {
			b.Text += fmt.Sprintf(", %d failed", s.Failed)
		}
		c.Bars = append(c.Bars, b)
		if s.At.Local().Minute() == 0 {
			c.Hours = append(c.Hours, hour{b.X, s.At.Local().Format("15:04")})
		}
	}
	return c
}

// niceTop returns a round number that is not below n.
func niceTop(n int) int {
	for step := 10; ; step *= 10 {
		for _, f := range []int{1, 2, 5} {
			if top := f * step; n <= top {
				return top
			}
		}
	}
}
