package backend

import "time"

// Observer is told of what happens, for metrics. Its functions must be quick and safe for concurrent use; those that are
// nil are not told.
type Observer struct {
	// GraphRequest is told of each HTTP request to Graph: of which kind it was (a fixed word, such as "delta"), how it was
	// answered (0 without an answer) and how long it took.
	GraphRequest func(mailbox, kind string, status int, took time.Duration)
	// GraphItem is told of the answer to each item of a batch.
	GraphItem func(mailbox string, status int)
	// Attempt is told of what became of an attempt to send: sent, deferred, postponed, unclear, bounced or refused.
	Attempt func(mailbox, outcome string)
	// Login is told of attempts to log in: ok, wrong (user name, password, place or protocol) or locked out.
	Login func(protocol, outcome string)
	// Body is told whether a message that a client reads was there already.
	Body func(kept bool)
}

func (o *Observer) fill() {
	if o.GraphRequest == nil {
		o.GraphRequest = func(string, string, int, time.Duration) {}
	}
	if o.GraphItem == nil {
		o.GraphItem = func(string, int) {}
	}
	if o.Attempt == nil {
		o.Attempt = func(string, string) {}
	}
	if o.Login == nil {
		o.Login = func(string, string) {}
	}
	if o.Body == nil {
		o.Body = func(bool) {}
	}
}
