package store

import "testing"

func commitBody(t testing.TB, s *Store, id MessageID, data []byte, fromClient bool) Changes {
	t.Helper()
	w, err := s.NewBody()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	ch, err := w.Commit(t.Context(), id, []byte("index"), fromClient)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
