package smtpd

import (
	"context"
	"io"

	"postern/backend"
)

// service is what a session asks of the backend. Tests of the protocol stand in for it.
type service interface {
	Authenticate(ctx context.Context, a backend.Attempt) (*backend.Login, error)
	// enter notes a connection that uses login, until leave is called; revoked is called when the login no longer holds.
	enter(login *backend.Login, revoked func()) (leave func(), err error)
	CheckSender(login *backend.Login, reversePath string) error
	// CheckRoom reports whether a message of size bytes may come now.
	CheckRoom(login *backend.Login, size int64) error
	// Unanswered says that a client may not have seen the 250 for a message.
	Unanswered(queueID string)
	// Answered says that a client has gone on after the 250 for a message.
	Answered(queueID string)
	newSubmission(login *backend.Login, env backend.Envelope) (submission, error)
}

// submission is one message on its way into the queue.
type submission interface {
	io.Writer
	// Submit makes the message durable and reports what its first attempt came to.
	// A nil error means it is ours to deliver from now on.
	Submit(ctx context.Context) (queueID string, err error)
	// Discard drops what was not submitted. It may always be called.
	Discard()
}

type liveService struct{ *backend.Backend }

func (s liveService) enter(login *backend.Login, revoked func()) (func(), error) {
	member, err := s.Backend.Enter(login, 0, revoked)
	if err != nil {
		return nil, err
	}
	return member.Leave, nil
}

func (s liveService) newSubmission(login *backend.Login, env backend.Envelope) (submission, error) {
	sub, err := s.Backend.NewSubmission(login, env)
	if err != nil {
		return nil, err
	}
	return sub, nil
}
