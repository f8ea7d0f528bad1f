-- +goose Up
PRAGMA application_id = 1349473103; -- "PoSO"

-- Values that must survive the loss of the replica: it can be read again from
-- Microsoft 365, but what clients were told cannot.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE submissions (
    id               TEXT    NOT NULL PRIMARY KEY,
    state            TEXT    NOT NULL,
    claimed_from     TEXT    NOT NULL,
    mailbox          TEXT    NOT NULL,
    login            TEXT    NOT NULL,
    remote_addr      TEXT    NOT NULL,
    envelope_from    TEXT    NOT NULL,
    recipients       TEXT    NOT NULL, -- JSON
    recipient_search TEXT    NOT NULL, -- addresses in lower case, one per line
    dsn_ret          TEXT    NOT NULL,
    dsn_envid        TEXT    NOT NULL,
    message_id       TEXT    NOT NULL,
    mark             TEXT    NOT NULL,
    size             BIGINT  NOT NULL,
    spool            TEXT    NOT NULL,
    attempts         INTEGER NOT NULL,
    next_attempt     BIGINT  NOT NULL, -- times are Unix milliseconds, 0 none
    created          BIGINT  NOT NULL,
    updated          BIGINT  NOT NULL,
    expires          BIGINT  NOT NULL,
    last_error       TEXT    NOT NULL,
    hold_reason      TEXT    NOT NULL,
    graph_request_id TEXT    NOT NULL,
    delay_notified   BIGINT  NOT NULL
);
CREATE INDEX submissions_due ON submissions (next_attempt) WHERE state IN ('queued', 'unclear');
CREATE INDEX submissions_done ON submissions (updated) WHERE state IN ('sent', 'bounced');

-- +goose Down
DROP TABLE submissions;
DROP TABLE counters;
