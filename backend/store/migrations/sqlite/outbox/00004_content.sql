-- +goose Up
-- message.Fingerprint of the message, by which a client's own copy of it is known. The column was there and never used.
ALTER TABLE submissions RENAME COLUMN mark TO content;

-- +goose Down
ALTER TABLE submissions RENAME COLUMN content TO mark;
