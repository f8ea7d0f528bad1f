package store

import (
	"context"
	"errors"
	"strings"
)

// Account returns the id of a mailbox by its address, whose case does not matter.
// It is made on first use.
func (s *Store) Account(ctx context.Context, address string) (AccountID, error) {
	address = strings.ToLower(address)
	var id int64
	err := s.db.row(ctx, []any{&id}, "SELECT id FROM accounts WHERE address = ?", address)
	if err == nil {
		return AccountID(id), nil
	}
	if !errors.Is(err, ErrNotFound) {
		return 0, s.db.explain("read account", err)
	}
	err = s.db.write(ctx, "add account", func(t *tx) error {
		// The assignment does nothing but let RETURNING find a row that another
		// caller has made meanwhile.
		return t.row([]any{&id}, `INSERT INTO accounts (address) VALUES (?)
			ON CONFLICT (address) DO UPDATE SET address = excluded.address RETURNING id`, address)
	})
	return AccountID(id), err
}

// AccountState returns what SetAccountState has kept, "" if nothing.
func (s *Store) AccountState(ctx context.Context, id AccountID, key string) (string, error) {
	var value string
	err := s.db.row(ctx, []any{&value}, "SELECT value FROM account_state WHERE account = ? AND name = ?", int64(id), key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", s.db.explain("read account state", err)
	}
	return value, nil
}

// SetAccountState keeps a value of the caller's under an account.
func (s *Store) SetAccountState(ctx context.Context, id AccountID, key, value string) error {
	return s.db.write(ctx, "write account state", func(t *tx) error {
		_, err := t.exec(`INSERT INTO account_state (account, name, value) VALUES (?, ?, ?)
			ON CONFLICT (account, name) DO UPDATE SET value = excluded.value`, int64(id), key, value)
		return err
	})
}
