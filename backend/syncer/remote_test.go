package syncer

import (
	"testing"

	"postern/backend/graph"
	"postern/backend/store"
)

// Null and left out mean "none" in a row that was read whole, and "unchanged" in one that was not.
func TestRemoteOfNulls(t *testing.T) {
	m := &graph.Message{ID: "a"}
	whole := remoteOf(m, true)
	if whole.FlagsMask&store.FlagFlagged == 0 || whole.Flags&store.FlagFlagged != 0 {
		t.Errorf("whole: flags %b of %b", whole.Flags, whole.FlagsMask)
	}
	if whole.Keywords == nil || len(*whole.Keywords) != 0 {
		t.Errorf("whole: keywords %v", whole.Keywords)
	}
	if part := remoteOf(m, false); part.FlagsMask != 0 || part.Keywords != nil {
		t.Errorf("partial: %+v", part)
	}
}
