package outbox

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/backend/store"
)

func TestRestored(t *testing.T) {
	made := time.Now().Add(-24 * time.Hour).Truncate(time.Millisecond)
	for _, tt := range []struct {
		name    string
		before  store.State
		present store.State // what the present state knows; "" nothing
		send    bool
		want    store.State // "" gone
	}{
		{"waiting", store.StateQueued, "", false, store.StateHeld},
		{"unclear", store.StateUnclear, "", false, store.StateHeld},
		{"waiting, to be sent", store.StateQueued, "", true, store.StateUnclear},
		{"held by a person", store.StateHeld, "", true, store.StateHeld},
		{"sent since", store.StateQueued, store.StateSent, false, store.StateSent},
		{"bounced since", store.StateQueued, store.StateBounced, true, store.StateBounced},
		{"still waiting", store.StateQueued, store.StateQueued, false, store.StateHeld},
		{"sent before", store.StateSent, "", false, store.StateSent},
		{"never accepted", store.StateSpooled, "", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			o := s.Outbox()
			file := filepath.Join(o.SpoolDir(), "id.eml")
			if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			expires := made.Add(time.Hour)
			if _, err := o.Insert(t.Context(), store.Submission{ID: "id", State: tt.before, Spool: "id.eml", Expires: expires}); err != nil {
				t.Fatal(err)
			}
			present := map[string]store.State{}
			if tt.present != "" {
				present["id"] = tt.present
			}
			if _, err := Restored(t.Context(), o, made, time.Now(), tt.send, present); err != nil {
				t.Fatal(err)
			}
			row, err := o.Get(t.Context(), "id")
			if tt.want == "" {
				if err == nil {
					t.Errorf("it is %s", row.State)
				}
				return
			}
			if err != nil || row.State != tt.want {
				t.Fatalf("it is %+v, %v; want %s", row, err, tt.want)
			}
			if tt.want.Settled() {
				return
			}
			if row.Expires.Before(time.Now()) {
				t.Errorf("it expires at %v: the time in the backup counts", row.Expires)
			}
			// Whoever releases it: it is looked for first.
			if tt.want == store.StateHeld {
				if _, err := Ask(t.Context(), o, "id", Release, ""); err != nil {
					t.Fatal(err)
				}
				if row, err = o.Get(t.Context(), "id"); err != nil || row.State != store.StateUnclear {
					t.Errorf("released it is %+v, %v; want it looked for", row, err)
				}
			}
		})
	}
}
