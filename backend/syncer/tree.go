package syncer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// treeKey is where the store keeps the folder tree as Graph told it, hidden folders included: later delta rows refer to
// them, and a folder may become visible by moving.
const treeKey = "tree"

type savedTree struct {
	Link      string            `json:"link"`
	Asked     time.Time         `json:"asked"` // when Graph was asked for WellKnown
	WellKnown map[string]string `json:"wellKnown"`
	Nodes     map[string]node   `json:"nodes"`
}

func (s *Syncer) loadTree(ctx context.Context) (*layout, savedTree, error) {
	text, err := s.o.Store.AccountState(ctx, s.o.Account, treeKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, savedTree{}, err
	}
	var t savedTree
	if text != "" {
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			return nil, savedTree{}, fmt.Errorf("read kept folder tree: %w", err)
		}
	}
	if t.Nodes == nil {
		t.Nodes = make(map[string]node)
	}
	return &layout{wellKnown: t.WellKnown, nodes: t.Nodes}, t, nil
}

// saveTree brings the store's folders in line with l. The caller holds treeMu.
func (s *Syncer) saveTree(ctx context.Context, l *layout, link string, asked time.Time) error {
	rows, err := s.o.Store.Folders(ctx, s.o.Account)
	if err != nil {
		return err
	}
	if err := s.Locked(func() error { return s.placeFolders(ctx, l, rows) }); err != nil {
		return err
	}
	text, err := json.Marshal(savedTree{Link: link, Asked: asked, WellKnown: l.wellKnown, Nodes: l.nodes})
	if err != nil {
		return err
	}
	if err := s.o.Store.SetAccountState(ctx, s.o.Account, treeKey, string(text)); err != nil {
		return err
	}
	if rows, err = s.o.Store.Folders(ctx, s.o.Account); err != nil {
		return err
	}
	s.mu.Lock()
	s.adoptLocked(rows, l.wellKnown)
	s.mu.Unlock()
	return nil
}

// placeFolders writes the difference between rows and l's places into the store.
func (s *Syncer) placeFolders(ctx context.Context, l *layout, rows []store.Folder) error {
	places := l.place(namesOf(rows))
	renames := make(map[store.FolderID]string)
	present := make(map[string]bool, len(rows))
	var update []store.Folder
	for _, r := range rows {
		id := string(r.GraphID)
		p, ok := places[id]
		if !ok {
			if err := s.o.Store.DeleteFolder(ctx, r.ID); err != nil {
				return fmt.Errorf("forget folder: %w", err)
			}
			s.o.Gone(r.ID)
			s.log.Info("folder is gone", "mailbox", r.Name)
			continue
		}
		present[id] = true
		if r.Name != p.name {
			renames[r.ID] = p.name
			s.log.Info("folder has another name", "mailbox", r.Name, "new", p.name)
		}
		if n := l.nodes[id]; r.DisplayName != n.Name || string(r.ParentGraphID) != n.Parent || r.Role != p.role {
			r.Name, r.DisplayName, r.ParentGraphID, r.Role = p.name, n.Name, store.GraphID(n.Parent), p.role
			update = append(update, r)
		}
	}
	if len(renames) > 0 {
		if err := s.o.Store.RenameFolders(ctx, s.o.Account, renames); err != nil {
			return fmt.Errorf("rename folders: %w", err)
		}
	}
	for id, p := range places {
		if n := l.nodes[id]; !present[id] {
			update = append(update, store.Folder{Account: s.o.Account, GraphID: store.GraphID(id),
				ParentGraphID: store.GraphID(n.Parent), DisplayName: n.Name, Name: p.name, Role: p.role})
		}
	}
	for _, r := range update {
		if _, err := s.o.Store.PutFolder(ctx, r); err != nil {
			return fmt.Errorf("keep folder %q: %w", r.Name, err)
		}
	}
	return nil
}

// syncTree runs one round of Graph's folder delta.
func (s *Syncer) syncTree(ctx context.Context) error {
	s.treeMu.Lock()
	defer s.treeMu.Unlock()
	l, saved, err := s.loadTree(ctx)
	if err != nil {
		return err
	}
	link, asked := saved.Link, saved.Asked
	dirty := false
	if age := time.Since(asked); l.wellKnown[inboxName] == "" || age > rolesPoll || age < 0 {
		if l.wellKnown, err = s.askRoles(ctx); err != nil {
			return err
		}
		dirty, asked = true, time.Now()
	}
	before := l.nodes
	next, changed, err := s.readTree(ctx, l, link)
	if err != nil && link != "" && (graph.ResyncRequired(err) || s.refusedAgain(&s.tree, err)) {
		s.log.Info("folder tree is read anew", "err", err)
		next, changed, err = s.readTree(ctx, l, "")
	}
	if graph.IsQuota(err) || graph.ResyncRequired(err) {
		// A mailbox over its quota refuses delta although plain lists work (observed, not documented). So may one whose
		// links are void as soon as they are given out.
		next, changed, err = s.listTree(ctx, l)
	}
	if err != nil {
		return err
	}
	if !dirty && appeared(before, l.nodes) {
		// The archive, for one, appears when its owner first uses it.
		if l.wellKnown, err = s.askRoles(ctx); err != nil {
			return err
		}
		dirty, asked = true, time.Now()
	}
	if !changed && !dirty && next == link {
		return nil
	}
	if !changed && !dirty && link != "" {
		// Only the link moved. An older one merely repeats rows, so it need not be kept each time.
		return nil
	}
	return s.saveTree(ctx, l, next, asked)
}

// askRoles asks which folders are the special ones.
func (s *Syncer) askRoles(ctx context.Context) (map[string]string, error) {
	known, err := s.o.Graph.WellKnownFolders(ctx, wellKnown)
	if err != nil {
		return nil, fmt.Errorf("find the special folders: %w", err)
	}
	return known, nil
}

// appeared reports whether after has a folder that before had not.
func appeared(before, after map[string]node) bool {
	for id := range after {
		if _, ok := before[id]; !ok {
			return true
		}
	}
	return false
}

// readTree follows one delta round from link and merges it into l.
func (s *Syncer) readTree(ctx context.Context, l *layout, link string) (next string, changed bool, err error) {
	nodes := make(map[string]node)
	if link != "" {
		nodes = maps.Clone(l.nodes)
	}
	removed := make(map[string]node)
	totals := make(map[string]int)
	defer func() { s.noteTotals(totals) }()
	next, err = s.o.Graph.FolderDelta(ctx, link, func(page []graph.Folder) error {
		for _, row := range page {
			n, there := nodes[row.ID]
			if row.Removed != "" {
				if there {
					removed[row.ID] = n
				}
				delete(nodes, row.ID)
				continue
			}
			if !there {
				n = removed[row.ID] // one that comes back need not say again what it is called
			}
			if !row.Partial {
				totals[row.ID] = row.TotalItemCount
			}
			if row.DisplayName != "" {
				n.Name = row.DisplayName
			}
			if row.ParentFolderID != "" {
				n.Parent = row.ParentFolderID
			}
			n.Hidden = n.Hidden || row.IsHidden || row.Search()
			nodes[row.ID] = n
		}
		return nil
	})
	if err != nil {
		return "", false, fmt.Errorf("read folder tree: %w", err)
	}
	if link == "" && len(nodes) == 0 {
		// Believing this would forget every UID ever given.
		return "", false, errors.New("read folder tree: Graph listed no folder at all")
	}
	changed = !maps.Equal(nodes, l.nodes)
	l.nodes = nodes
	return next, changed, nil
}

// noteTotals keeps how many messages Graph says folders have, for those who wait for them to be listed.
func (s *Syncer) noteTotals(totals map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals = totals
	for _, f := range s.folders {
		if n, ok := totals[f.graphID]; ok {
			f.total = n
		}
	}
}

// listTree reads the tree level by level. It leads to no delta link.
func (s *Syncer) listTree(ctx context.Context, l *layout) (next string, changed bool, err error) {
	nodes := make(map[string]node)
	root := l.wellKnown[rootName]
	level := []string{""}
	for depth := 0; len(level) > 0 && depth < 300; depth++ {
		items := make([]graph.BatchItem, len(level))
		for i, id := range level {
			path := "/mailFolders"
			if id != "" {
				path += "/" + url.PathEscape(id) + "/childFolders"
			}
			items[i] = graph.BatchItem{Method: "GET", Path: path, Headers: map[string]string{"Prefer": "odata.maxpagesize=999"}}
		}
		results, err := s.o.Graph.Batch(ctx, items)
		if err != nil {
			return "", false, fmt.Errorf("list folders: %w", err)
		}
		level = level[:0:0]
		add := func(page []graph.Folder) error {
			for _, f := range page {
				if _, seen := nodes[f.ID]; seen || f.ID == root || f.ID == "" {
					continue
				}
				nodes[f.ID] = node{Name: f.DisplayName, Parent: f.ParentFolderID, Hidden: f.IsHidden || f.Search()}
				if f.ChildFolderCount > 0 {
					level = append(level, f.ID)
				}
			}
			return nil
		}
		for _, res := range results {
			if graph.IsNotFound(res.Err) {
				continue
			}
			if res.Err != nil {
				return "", false, fmt.Errorf("list folders: %w", res.Err)
			}
			var page struct {
				Value    *[]graph.Folder `json:"value"`
				NextLink string          `json:"@odata.nextLink"`
			}
			if err := json.Unmarshal(res.Body, &page); err != nil {
				return "", false, fmt.Errorf("list folders: %w", err)
			}
			if page.Value == nil {
				// Read as an empty list it would make folders, and all their UIDs, be forgotten.
				return "", false, errors.New("list folders: answer holds no list")
			}
			_ = add(*page.Value)
			if page.NextLink == "" {
				continue
			}
			if err := s.o.Graph.ChildFolders(ctx, "", "", page.NextLink, add); err != nil {
				return "", false, fmt.Errorf("list folders: %w", err)
			}
		}
	}
	if len(nodes) == 0 {
		return "", false, errors.New("list folders: Graph listed no folder at all")
	}
	changed = !maps.Equal(nodes, l.nodes)
	l.nodes = nodes
	return "", changed, nil
}

// editTree changes the kept tree after Graph has done the same, so that clients see it at once.
func (s *Syncer) editTree(ctx context.Context, edit func(*layout)) error {
	s.treeMu.Lock()
	defer s.treeMu.Unlock()
	l, saved, err := s.loadTree(ctx)
	if err != nil {
		return err
	}
	edit(l)
	return s.saveTree(ctx, l, saved.Link, saved.Asked)
}

// lastSegment splits an IMAP name into what is above it and its own level.
func lastSegment(name string) (parent, last string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}
