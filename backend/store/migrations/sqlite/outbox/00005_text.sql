-- +goose Up
-- Small messages as they came, for as long as something is left to do for them: nobody waits until their files are on the disk.
CREATE TABLE texts (
    submission TEXT NOT NULL PRIMARY KEY,
    text       BLOB NOT NULL
);

-- +goose Down
DROP TABLE texts;
