package syncer

import (
	"slices"
	"strings"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// Changes that Postern itself makes to messages come back from Graph in rows of changes. Such a row must neither make the
// message be read again, nor be taken for the work of somebody else; and a row that was read before such a change, and
// arrives after it, must not take back what clients were told. Graph names the version of a message in nearly every answer,
// which tells the rows apart. What arrives in doubt is compared with the replica, and read again where the two differ.

// A mark is a place in the sequence of our own changes, counted as they are answered. What is asked of Graph from a mark
// on shows all of the changes before it.
type mark uint64

// mark returns the place that has been reached. It is taken before Graph is asked.
func (s *Syncer) mark() mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks
}

// properties are what a change writes of a message, as far as clients see it.
type properties struct {
	flags    store.Flags
	keywords bool
}

// ownChange is a change that has been answered.
type ownChange struct {
	end mark
	properties
}

// ownWrite remembers the changes that Postern itself made to a message in Graph.
type ownWrite struct {
	at       time.Time   // of the latest: when it was begun, then when it was answered
	running  int         // under way
	done     []ownChange // answered; the last few
	versions []string    // after our changes, as far as they are known; the last few
	last     string      // of them, the one that was told last
	strange  int         // versions that nobody told: so many strange rows are taken for their reports
	inexact  string      // what rows that do not name a version say since the last change
	unsure   []string    // versions of rows that came while changes were under way
	folder   store.FolderID
}

const (
	ownVersions = 8 // how many versions of a message are remembered
	ownChanges  = 4 // how many changes
	// ownWriteLife bounds how long a row that reports a change is waited for. Graph shows changes late, but rarely by more.
	ownWriteLife = 2 * time.Minute
)

// version identifies a state of a message. Exact is false where Graph does not name it: modification times have whole
// seconds only.
func version(m *graph.Message) (v string, exact bool) {
	switch {
	case m == nil:
	case m.ETag != "":
		return strings.Trim(strings.TrimPrefix(m.ETag, "W/"), `"`), true // the change key
	case m.ChangeKey != "":
		return m.ChangeKey, true
	case m.Modified != nil:
		return m.Modified.Format(time.RFC3339Nano), false
	}
	return "?", false
}

// reports says whether a row with the version tells of a change of ours, and takes note of it. While changes are under
// way that cannot be said, and the answer is yes: see settled.
func (w *ownWrite) reports(m *graph.Message, folder store.FolderID) bool {
	v, exact := version(m)
	switch {
	case !exact && w.inexact == "":
		w.inexact = v
		return true
	case !exact:
		return w.inexact == v
	case slices.Contains(w.versions, v):
		return true
	case w.running > 0:
		w.folder = folder
		if !slices.Contains(w.unsure, v) {
			w.unsure = append(w.unsure, v)
		}
		return true
	case w.strange > 0:
		w.strange--
		w.add(v)
		return true
	}
	return false
}

// explains says whether the message may be as it is by changes of ours.
func (w *ownWrite) explains(m *graph.Message) bool {
	v, exact := version(m)
	return w.running > 0 || w.strange > 0 || exact && slices.Contains(w.versions, v) || !exact && (w.inexact == "" || w.inexact == v)
}

func (w *ownWrite) add(version string) {
	if slices.Contains(w.versions, version) {
		return
	}
	if len(w.versions) >= ownVersions {
		w.versions = slices.Delete(w.versions, 0, 1)
	}
	w.versions = append(w.versions, version)
}

// settled is called when no change is under way any more. It reports whether a row that came meanwhile told of something
// else: somebody else has changed the message too.
func (w *ownWrite) settled() (mistaken bool) {
	for _, v := range w.unsure {
		switch {
		case slices.Contains(w.versions, v):
		case w.strange > 0:
			w.strange--
			w.add(v)
		default:
			mistaken = true
		}
	}
	w.unsure = nil
	return mistaken
}

// since returns what was written by changes that were answered after a mark.
func (w *ownWrite) since(m mark) (p properties) {
	for _, c := range w.done {
		if c.end > m {
			p.flags |= c.flags
			p.keywords = p.keywords || c.keywords
		}
	}
	return p
}

// writing notes that Postern is about to change these messages in Graph. Each must be followed by written or
// endWriting.
func (s *Syncer) writing(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if len(s.own) > 20000 {
		for id, w := range s.own {
			if w.running == 0 && now.Sub(w.at) > ownWriteLife {
				delete(s.own, id)
			}
		}
	}
	for _, id := range ids {
		w := s.own[store.GraphID(id)]
		if w == nil {
			w = new(ownWrite)
			s.own[store.GraphID(id)] = w
		}
		w.at = now
		w.running++
	}
}

// written notes that a change has ended which wrote p: m is the message as Graph says it is since then, or nil.
func (s *Syncer) written(id string, m *graph.Message, p properties) {
	s.wrote(id, m, p)
	s.endWriting(id, 0)
}

// wrote is written for one of several changes that are noted as one.
func (s *Syncer) wrote(id string, m *graph.Message, p properties) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.own[store.GraphID(id)]
	if w == nil {
		return
	}
	w.inexact = ""
	if v, exact := version(m); exact {
		w.add(v)
		w.last = v
	} else {
		w.last = ""
		w.strange = max(w.strange, 1)
	}
	if p == (properties{}) {
		return
	}
	s.marks++
	if len(w.done) >= ownChanges {
		p.flags |= w.done[0].flags // as if it had been the later change: that only makes for more doubt
		p.keywords = p.keywords || w.done[0].keywords
		w.done = slices.Delete(w.done, 0, 1)
	}
	w.done = append(w.done, ownChange{s.marks, p})
}

// endWriting notes that what writing announced has ended, with so many versions that nobody told.
func (s *Syncer) endWriting(id string, untold int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.own[store.GraphID(id)]
	if w == nil {
		return
	}
	w.at = time.Now()
	w.running = max(0, w.running-1)
	w.strange = max(w.strange, untold)
	if w.running == 0 && w.settled() {
		s.suspectLocked(w.folder, []store.GraphID{store.GraphID(id)})
	}
}

// reading says when rows were asked for and which versions they name. Rows of changes may be older than that; versions
// is nil for messages that were read themselves.
type reading struct {
	since    mark
	versions map[store.GraphID]string
}

// doubt marks in rows what may be of before a change of ours. It must be called in the commit that applies them: what is
// answered later is still pending there. old are rows that are older than a change of ours for sure, so that another one
// is going to come.
func (s *Syncer) doubt(rows []store.Remote, r reading) (old map[store.GraphID]bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		row := &rows[i]
		w := s.own[row.GraphID]
		if w == nil {
			continue
		}
		p := w.since(r.since)
		if v := r.versions[row.GraphID]; r.versions != nil && (v == "" || v != w.last) {
			switch {
			case slices.Contains(w.versions, v):
				p = w.since(0)
				if old == nil {
					old = make(map[store.GraphID]bool)
				}
				old[row.GraphID] = true
			case now.Sub(w.at) <= ownWriteLife:
				p = w.since(0)
			}
		}
		row.Doubt, row.DoubtKeywords = p.flags, p.keywords
	}
	return old
}

// foreign returns the ids of those known messages in a page that somebody else has changed.
func (s *Syncer) foreign(folder store.FolderID, page []graph.Message, unknown []store.GraphID) []store.GraphID {
	skip := make(map[store.GraphID]bool, len(unknown))
	for _, id := range unknown {
		skip[id] = true
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []store.GraphID
	for i := range page {
		m := &page[i]
		id := store.GraphID(m.ID)
		if m.Removed != "" || skip[id] {
			continue
		}
		skip[id] = true // rows repeat within a page too
		if w := s.own[id]; w != nil {
			if w.running == 0 && now.Sub(w.at) > ownWriteLife {
				delete(s.own, id)
			} else if w.reports(m, folder) {
				continue
			}
		}
		ids = append(ids, id)
	}
	return ids
}

// suspect notes messages whose flags are to be read from Graph, soon: what came of them was in doubt.
func (s *Syncer) suspect(id store.FolderID, ids []store.GraphID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspectLocked(id, ids)
}

func (s *Syncer) suspectLocked(id store.FolderID, ids []store.GraphID) {
	f := s.folders[id]
	if f == nil || len(ids) == 0 {
		return
	}
	if f.suspects == nil {
		f.suspects = make(map[store.GraphID]bool, len(ids))
	}
	for _, id := range ids {
		f.suspects[id] = true
	}
	if f.busy {
		f.again = true
	} else if f.fails == 0 && !f.due.IsZero() {
		f.due = earlier(f.due, time.Now())
		s.poke()
	}
}

// takeSuspects returns the folder's suspects, in any order, which are nobody's then.
func (s *Syncer) takeSuspects(f *folder) []store.GraphID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]store.GraphID, 0, len(f.suspects))
	for id := range f.suspects {
		ids = append(ids, id)
	}
	f.suspects = nil
	return ids
}
