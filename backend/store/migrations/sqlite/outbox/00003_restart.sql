-- +goose Up
-- What a server that is started again must know of the one before.

-- The messages handed to Exchange in the last minutes: its pace is counted over them.
CREATE TABLE sends (
    mailbox TEXT   NOT NULL,
    at      BIGINT NOT NULL -- Unix milliseconds
);
CREATE INDEX sends_at ON sends (at);

-- Until when Exchange wants to be left alone (Retry-After).
CREATE TABLE pauses (
    mailbox TEXT   NOT NULL PRIMARY KEY,
    until   BIGINT NOT NULL -- Unix milliseconds
);

ALTER TABLE submissions ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0; -- 1: its client may not have seen the 250

-- +goose Down
ALTER TABLE submissions DROP COLUMN unanswered;
DROP TABLE pauses;
DROP TABLE sends;
