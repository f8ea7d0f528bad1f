package syncer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/backend/graph"
	"postern/backend/store"
)

// Reasons for which a folder is not changed, none of which waiting will cure.
var (
	ErrExists      = errors.New("a mailbox of that name exists")
	ErrHasChildren = errors.New("the mailbox has mailboxes below it")
	ErrSpecial     = errors.New("this is one of the mailbox's standard folders")
	ErrBadName     = errors.New("a mailbox of that name cannot be made in Exchange")
	ErrOwnChild    = errors.New("a mailbox cannot be moved below itself")
)

// maxSegment bounds one level of a name, in characters. Exchange's own limit is not documented.
const maxSegment = 255

// FoldName returns name with INBOX in its canonical form, alone or as first level.
func FoldName(name string) string {
	if len(name) >= 5 && strings.EqualFold(name[:5], "INBOX") && (len(name) == 5 || name[5] == '/') {
		return "INBOX" + name[5:]
	}
	return name
}

func checkName(name string) error {
	if !utf8.ValidString(name) {
		return ErrBadName
	}
	for seg := range strings.SplitSeq(name, "/") {
		if strings.TrimSpace(seg) == "" || utf8.RuneCountInString(seg) > maxSegment || strings.ContainsFunc(seg, unicode.IsControl) {
			return ErrBadName
		}
	}
	return nil
}

// FolderByName returns the folder a client calls name.
func (s *Syncer) FolderByName(ctx context.Context, name string) (*store.Folder, error) {
	return s.o.Store.FolderNamed(ctx, s.o.Account, FoldName(name))
}

func byName(rows []store.Folder, name string) (*store.Folder, error) {
	name = FoldName(name)
	for i := range rows {
		if rows[i].Name == name {
			return &rows[i], nil
		}
	}
	return nil, store.ErrNotFound
}

// Create makes the folder and those missing above it.
func (s *Syncer) Create(ctx context.Context, name string) error {
	name = FoldName(name)
	if err := checkName(name); err != nil {
		return err
	}
	if _, err := s.FolderByName(ctx, name); err == nil {
		return ErrExists
	}
	if top, _, _ := strings.Cut(name, "/"); strings.EqualFold(top, reservedTop) {
		return ErrBadName
	}
	_, err := s.ensureFolder(ctx, name)
	return err
}

// ensureFolder returns the folder called name and makes what is missing.
func (s *Syncer) ensureFolder(ctx context.Context, name string) (*store.Folder, error) {
	if row, err := s.FolderByName(ctx, name); err == nil || !errors.Is(err, store.ErrNotFound) {
		return row, err
	}
	parentName, last := lastSegment(name)
	parentID := ""
	if parentName != "" {
		parent, err := s.ensureFolder(ctx, parentName)
		if err != nil {
			return nil, err
		}
		parentID = string(parent.GraphID)
	}
	made, err := s.createFolder(ctx, parentID, last)
	if graph.IsFolderExists(err) {
		// Somebody was quicker, or a hidden folder has the name.
		if err := s.RefreshTree(ctx); err != nil {
			return nil, err
		}
		if row, err := s.FolderByName(ctx, name); err == nil {
			return row, nil
		}
		return nil, ErrExists
	}
	if err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	err = s.editTree(ctx, func(l *layout) {
		parent := made.ParentFolderID
		if parent == "" {
			if parent = parentID; parent == "" {
				parent = l.wellKnown[rootName]
			}
		}
		l.nodes[made.ID] = node{Name: last, Parent: parent}
	})
	if err != nil {
		return nil, err
	}
	row, err := s.FolderByName(ctx, name)
	if err == nil && row.GraphID == store.GraphID(made.ID) {
		// Nothing is in there yet, so listing it costs two calls and saves the first SELECT from waiting.
		s.mu.Lock()
		if f := s.folders[row.ID]; f != nil {
			f.active = true
		}
		s.mu.Unlock()
	}
	return row, err
}

// createFolder creates a folder. When Graph's answer leaves open whether it did, it is told again: a name that is taken then
// is the first attempt's work, and a client that is told NO would believe the name to be free.
func (s *Syncer) createFolder(ctx context.Context, parentID, name string) (*graph.Folder, error) {
	made, err := s.o.Graph.CreateFolder(ctx, parentID, name)
	for try := 1; try < createTries && graph.Unclear(err) && pause(ctx); try++ {
		made, err = s.o.Graph.CreateFolder(ctx, parentID, name)
		if !graph.IsFolderExists(err) {
			continue
		}
		taken := err
		err = s.o.Graph.ChildFolders(ctx, parentID, "displayName eq "+graph.Quote(name), "", func(page []graph.Folder) error {
			for i := range page {
				if page[i].DisplayName == name && !page[i].IsHidden && !page[i].Search() {
					made, taken = &page[i], nil
				}
			}
			return nil
		})
		if err == nil {
			err = taken
		}
		break
	}
	return made, err
}

// pause waits before Graph is asked about a call with an unclear end: what it did may show late.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(createPause):
		return true
	}
}

// moveFolder puts a folder below dest, an id or msgfolderroot.
func (s *Syncer) moveFolder(ctx context.Context, row *store.Folder, dest string) error {
	_, err := s.o.Graph.MoveFolder(ctx, string(row.GraphID), dest)
	for try := 1; try < createTries && graph.Unclear(err) && pause(ctx); try++ {
		parent, perr := s.parentOf(ctx, row)
		switch {
		case perr != nil:
			return err
		case parent != string(row.ParentGraphID):
			return nil
		}
		_, err = s.o.Graph.MoveFolder(ctx, string(row.GraphID), dest)
	}
	return err
}

// deleteFolder lets Graph move a folder to Deleted Items. It is not told to do so twice: the second time the folder would be
// gone for good.
func (s *Syncer) deleteFolder(ctx context.Context, row *store.Folder) error {
	err := s.o.Graph.DeleteFolder(ctx, string(row.GraphID))
	if graph.IsFolderExists(err) {
		// Deleted Items has one of that name already, and not every mailbox takes a second.
		name := row.DisplayName + time.Now().UTC().Format(" (2006-01-02 150405.000)")
		if _, rerr := s.o.Graph.RenameFolder(ctx, string(row.GraphID), name); rerr != nil {
			return err
		}
		if err = s.o.Graph.DeleteFolder(ctx, string(row.GraphID)); err != nil && !graph.Unclear(err) {
			if _, rerr := s.o.Graph.RenameFolder(ctx, string(row.GraphID), row.DisplayName); rerr != nil {
				s.log.Warn("folder that could not be deleted keeps another name", "mailbox", row.Name, "new", name, "err", rerr)
			}
		}
	}
	for try := 1; try < createTries && graph.Unclear(err) && pause(ctx); try++ {
		parent, perr := s.parentOf(ctx, row)
		switch {
		case graph.IsNotFound(perr):
			return nil
		case perr != nil:
			return err
		case parent != string(row.ParentGraphID):
			return nil
		}
		err = s.o.Graph.DeleteFolder(ctx, string(row.GraphID))
	}
	return err
}

// parentOf asks Graph where a folder is.
func (s *Syncer) parentOf(ctx context.Context, row *store.Folder) (string, error) {
	f, err := s.o.Graph.Folder(ctx, string(row.GraphID))
	if err != nil {
		return "", err
	}
	return f.ParentFolderID, nil
}

// special reports whether Exchange would refuse to move or delete the folder, or something would break if it did not.
func (s *Syncer) special(row *store.Folder) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.known {
		if id == string(row.GraphID) {
			return true
		}
	}
	return false
}

// Delete removes a folder. Exchange moves it to Deleted Items with what it holds; one that is there already goes for good.
func (s *Syncer) Delete(ctx context.Context, name string) error {
	rows, err := s.o.Store.Folders(ctx, s.o.Account)
	if err != nil {
		return err
	}
	row, err := byName(rows, name)
	if err != nil {
		return err
	}
	if s.special(row) {
		return ErrSpecial
	}
	for _, r := range rows {
		if strings.HasPrefix(r.Name, row.Name+"/") {
			return ErrHasChildren
		}
	}
	if err := s.deleteFolder(ctx, row); err != nil && !graph.IsNotFound(err) {
		return fmt.Errorf("delete folder: %w", err)
	}
	err = s.editTree(ctx, func(l *layout) {
		// A round that ran at the same time may have seen it below Deleted Items already, and none will tell again.
		if l.nodes[string(row.GraphID)].Parent == string(row.ParentGraphID) {
			delete(l.nodes, string(row.GraphID))
		}
	})
	if err != nil {
		return err
	}
	s.askTree() // it comes back below Deleted Items
	return nil
}

// askTree makes the next tree round start soon without waiting for it.
func (s *Syncer) askTree() {
	s.mu.Lock()
	if s.tree.busy {
		s.tree.again = true
	} else if s.tree.fails == 0 {
		s.tree.due = s.used
	}
	s.mu.Unlock()
	s.poke()
}

// Rename renames or moves a folder with everything below it. Renaming INBOX moves its messages into a new folder and
// leaves it empty, RFC 9051 section 6.3.6.
func (s *Syncer) Rename(ctx context.Context, oldName, newName string) error {
	oldName, newName = FoldName(oldName), FoldName(newName)
	row, err := s.FolderByName(ctx, oldName)
	if err != nil {
		return err
	}
	if err := checkName(newName); err != nil {
		return err
	}
	if top, _, _ := strings.Cut(newName, "/"); strings.EqualFold(top, reservedTop) {
		return ErrBadName
	}
	if _, err := s.FolderByName(ctx, newName); err == nil {
		return ErrExists
	}
	if row.Name == "INBOX" {
		return s.renameInbox(ctx, row, newName)
	}
	if s.special(row) {
		return ErrSpecial
	}
	if strings.HasPrefix(newName, row.Name+"/") {
		return ErrOwnChild
	}
	oldParent, oldLast := lastSegment(row.Name)
	newParent, newLast := lastSegment(newName)
	if oldParent != newParent {
		s.mu.Lock()
		dest := s.known[rootName]
		s.mu.Unlock()
		if dest == "" {
			dest = rootName
		}
		if newParent != "" {
			parent, err := s.ensureFolder(ctx, newParent)
			if err != nil {
				return err
			}
			dest = string(parent.GraphID)
		}
		if err := s.moveFolder(ctx, row, dest); err != nil {
			if graph.IsFolderExists(err) {
				return ErrExists
			}
			return fmt.Errorf("move folder: %w", err)
		}
		err := s.editTree(ctx, func(l *layout) {
			n := l.nodes[string(row.GraphID)]
			n.Parent = dest
			l.nodes[string(row.GraphID)] = n
		})
		if err != nil {
			return err
		}
	}
	if oldLast != newLast {
		if _, err := s.o.Graph.RenameFolder(ctx, string(row.GraphID), newLast); err != nil {
			if graph.IsFolderExists(err) {
				return ErrExists
			}
			return fmt.Errorf("rename folder: %w", err)
		}
		return s.editTree(ctx, func(l *layout) {
			n := l.nodes[string(row.GraphID)]
			n.Name = newLast
			l.nodes[string(row.GraphID)] = n
		})
	}
	return nil
}

func (s *Syncer) renameInbox(ctx context.Context, inbox *store.Folder, newName string) error {
	if err := s.EnsureFilled(ctx, inbox.ID); err != nil {
		return err
	}
	dest, err := s.ensureFolder(ctx, newName)
	if err != nil {
		return err
	}
	msgs, err := s.o.Store.Messages(ctx, inbox.ID)
	if err != nil {
		return err
	}
	_, err = s.Move(ctx, inbox.ID, dest.ID, msgs)
	return err
}
