-- +goose Up
-- The keywords that clients have changed since the last push. What other programs did to the others meanwhile is kept.
ALTER TABLE messages ADD COLUMN touched TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE messages DROP COLUMN touched;
