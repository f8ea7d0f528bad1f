-- +goose Up
-- What the queue notes for itself lay in mark until now.
ALTER TABLE submissions ADD COLUMN progress TEXT NOT NULL DEFAULT ''; -- JSON of package outbox
UPDATE submissions SET progress = mark, mark = '' WHERE mark <> '';

ALTER TABLE submissions ADD COLUMN wish TEXT NOT NULL DEFAULT '';          -- asked for while it was being sent: hold, bounce or purge
ALTER TABLE submissions ADD COLUMN subject TEXT NOT NULL DEFAULT '';       -- only if the configuration wants it
ALTER TABLE submissions ADD COLUMN digest TEXT NOT NULL DEFAULT '';        -- of the message as received
ALTER TABLE submissions ADD COLUMN gather_until BIGINT NOT NULL DEFAULT 0; -- recipients may be added until then
ALTER TABLE submissions ADD COLUMN drop_copy INTEGER NOT NULL DEFAULT 0;   -- 1: no copy in Sent Items is wanted
CREATE INDEX submissions_message_id ON submissions (message_id);
DROP INDEX submissions_done;
CREATE INDEX submissions_done ON submissions (updated) WHERE state IN ('sent', 'bounced', 'refused', 'purged');

-- The log: what happened to each submission. Its rows go with the submission's.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    submission TEXT    NOT NULL,
    at         BIGINT  NOT NULL, -- Unix milliseconds
    what       TEXT    NOT NULL,
    status     TEXT    NOT NULL, -- RFC 3463, or empty
    text       TEXT    NOT NULL,
    request_id TEXT    NOT NULL -- Graph's, or empty
);
CREATE INDEX events_submission ON events (submission, id);

-- +goose Down
DROP TABLE events;
DROP INDEX submissions_message_id;
ALTER TABLE submissions DROP COLUMN drop_copy;
ALTER TABLE submissions DROP COLUMN gather_until;
ALTER TABLE submissions DROP COLUMN digest;
ALTER TABLE submissions DROP COLUMN subject;
ALTER TABLE submissions DROP COLUMN wish;
ALTER TABLE submissions DROP COLUMN progress;
