package store

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

func TestUnite(t *testing.T) {
	day := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	theirs := Remote{GraphID: "E", Flags: FlagSeen, FlagsMask: FlagsAll | FlagIsDraft, Keywords: &[]string{}, Received: &day, ThreadID: new("T2"), InternetMessageID: new("<1@x>")}
	for _, tt := range []struct {
		name  string
		known bool // Exchange's copy has a UID
		r     Remote
		want  Message
	}{
		{"unknown", false, theirs, Message{Flags: FlagFlagged, Keywords: []string{"Mine"}, Pending: FlagSeen | FlagFlagged, PendingKeywords: true, ThreadID: "T2"}},
		{"known", true, Remote{GraphID: "E"}, Message{Flags: FlagSeen | FlagFlagged | FlagAnswered, Keywords: []string{"Mine", "Theirs"},
			Pending: FlagFlagged | FlagAnswered, PendingKeywords: true, ThreadID: "T2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, f := newFolder(t)
			folder := f.ID
			ctx := t.Context()
			mine := Remote{GraphID: "C", Flags: FlagFlagged, FlagsMask: FlagsAll | FlagIsDraft, Keywords: &[]string{"Mine"}, Received: &day, ThreadID: new("T1"), InternetMessageID: new("<1@x>")}
			ch, err := s.ApplySentCopy(ctx, folder, mine, SentCopy{MessageID: "<1@x>", Content: "sum"})
			if err != nil {
				t.Fatal(err)
			}
			id := ch.Added[0].ID
			if waits, err := s.HasWaitingCopies(ctx, folder); err != nil || !waits {
				t.Errorf("nothing waits: %v", err)
			}
			if list, err := s.SentCopiesBeside(ctx, folder); err != nil || len(list) != 0 {
				t.Errorf("copies with something beside: %+v, %v", list, err)
			}
			if tt.known {
				known := theirs
				known.Keywords = &[]string{"Theirs"}
				if _, err := s.Apply(ctx, folder, []Remote{known}, nil, nil); err != nil {
					t.Fatal(err)
				}
				if list, err := s.SentCopiesBeside(ctx, folder); err != nil || len(list) != 1 || list[0].ID != id {
					t.Errorf("copies with something beside: %+v, %v", list, err)
				}
				// A client has answered it and marked it for removal, which is meant for the other one.
				if _, _, err := s.ChangeFlags(ctx, folder, []FlagChange{{UID: 2, Set: FlagAnswered | FlagDeleted}}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Unite(ctx, id, "other", tt.r); !errors.Is(err, ErrNotFound) {
				t.Errorf("under another id: %v", err)
			}
			if ch, err = s.Unite(ctx, id, "C", tt.r); err != nil {
				t.Fatal(err)
			}
			if tt.known != (len(ch.Removed) == 1 && ch.Removed[0].UID == 2) || len(ch.Updated) != 1 || ch.Updated[0].GraphID != "E" {
				t.Errorf("changes are %+v", ch)
			}
			got, err := s.Message(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if got.GraphID != "E" || got.UID != 1 || got.Flags != tt.want.Flags || !slices.Equal(got.Keywords, tt.want.Keywords) || got.ThreadID != tt.want.ThreadID ||
				got.Pending != tt.want.Pending || got.PendingKeywords != tt.want.PendingKeywords || got.PendingSeq == 0 {
				t.Errorf("message is %+v", got)
			}

			// The client's own is not shown again, whatever tells of it, and Exchange's stays where it is.
			again := mine
			again.GraphID = "C"
			if ch, err = s.Apply(ctx, folder, []Remote{again, {GraphID: "C"}, theirs}, nil, nil); err != nil || len(ch.Added) != 0 || len(ch.Unknown) != 0 {
				t.Errorf("applied again: %+v, %v", ch, err)
			}
			f, err = s.Folder(ctx, folder)
			if err != nil || f.Messages != 1 {
				t.Errorf("folder has %d messages, %v", f.Messages, err)
			}
			if waits, err := s.HasWaitingCopies(ctx, folder); err != nil || waits {
				t.Errorf("something waits still: %v", err)
			}
			copies, err := s.SentCopies(ctx, folder, "<1@x>")
			if err != nil || len(copies) != 1 || !copies[0].United || copies[0].ID != id {
				t.Errorf("copies are %+v, %v", copies, err)
			}
			gone, err := s.DismissedMessages(ctx, f.Account)
			if err != nil || len(gone) != 1 || gone[0].GraphID != "C" || gone[0].Folder != folder {
				t.Fatalf("dismissed are %+v, %v", gone, err)
			}
			if err := s.DismissedGone(ctx, gone[0], false); err != nil {
				t.Fatal(err)
			}
			if list, err := s.DismissedMessages(ctx, f.Account); err != nil || len(list) != 0 {
				t.Errorf("dismissed are still %+v, %v", list, err)
			}
			if ch, err = s.Apply(ctx, folder, []Remote{again}, nil, nil); err != nil || len(ch.Added) != 0 {
				t.Errorf("a late row is shown: %+v, %v", ch, err)
			}
			if err := s.PruneSentCopies(ctx, s.now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if copies, err := s.SentCopies(ctx, folder, "<1@x>"); err != nil || len(copies) != 0 {
				t.Errorf("copies are still %+v, %v", copies, err)
			}
		})
	}
}

// A client's copy that is moved away is one no longer.
func TestSentCopyMoved(t *testing.T) {
	s, f := newFolder(t)
	ctx, folder := t.Context(), f.ID
	other, err := s.PutFolder(ctx, Folder{Account: f.Account, GraphID: "other", Name: "Other"})
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	if _, err := s.ApplySentCopy(ctx, folder, Remote{GraphID: "C", Received: &day}, SentCopy{MessageID: "<1@x>", Content: "sum"}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.Move(ctx, folder, other.ID, []Moved{{UID: imap.UID(1), NewGraphID: "C"}}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []FolderID{folder, other.ID} {
		if copies, err := s.SentCopies(ctx, id, "<1@x>"); err != nil || len(copies) != 0 {
			t.Errorf("copies of folder %d are %+v, %v", id, copies, err)
		}
	}
}
