-- outbox.db with tables of version 5. Earlier versions stay as they are: they are what people have on their disks.
PRAGMA application_id = 1349473103;

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('uidvalidity_ceiling', 1760001002);

CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    submission TEXT    NOT NULL,
    at         BIGINT  NOT NULL, -- Unix milliseconds
    what       TEXT    NOT NULL,
    status     TEXT    NOT NULL, -- RFC 3463, or empty
    text       TEXT    NOT NULL,
    request_id TEXT    NOT NULL -- Graph's, or empty
);
INSERT INTO events (id, submission, at, what, status, text, request_id) VALUES (1, '00000000000sent0', 1760000000000, 'accepted', '', '', '');
INSERT INTO events (id, submission, at, what, status, text, request_id) VALUES (2, '00000000000sent0', 1760000005000, 'sent', '2.0.0', '', 'req-2');

CREATE TABLE pauses (
    mailbox TEXT   NOT NULL PRIMARY KEY,
    until   BIGINT NOT NULL -- Unix milliseconds
);

CREATE TABLE schema_migrations (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (1, 0, 1, '2026-11-25 10:02:16');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (2, 1, 1, '2026-11-25 10:02:16');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (3, 2, 1, '2026-11-25 10:02:16');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (4, 3, 1, '2026-11-25 10:14:01');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (5, 4, 1, '2026-11-25 14:04:05');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (6, 5, 1, '2026-11-25 17:06:24');

CREATE TABLE sends (
    mailbox TEXT   NOT NULL,
    at      BIGINT NOT NULL -- Unix milliseconds
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
    content             TEXT    NOT NULL,
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
, progress TEXT NOT NULL DEFAULT '', wish TEXT NOT NULL DEFAULT '', subject TEXT NOT NULL DEFAULT '', digest TEXT NOT NULL DEFAULT '', gather_until BIGINT NOT NULL DEFAULT 0, drop_copy INTEGER NOT NULL DEFAULT 0, unanswered INTEGER NOT NULL DEFAULT 0);
INSERT INTO submissions (id, state, claimed_from, mailbox, login, remote_addr, envelope_from, recipients, recipient_search, dsn_ret, dsn_envid, message_id, content, size, spool, attempts, next_attempt, created, updated, expires, last_error, hold_reason, graph_request_id, delay_notified, progress, wish, subject, digest, gather_until, drop_copy, unanswered) VALUES ('00000000000hold0', 'held', '', 'alice@contoso.example', 'alice', '192.0.2.7', 'alice@contoso.example', '[{"Address":"bob@fabrikam.example","Notify":null,"Orcpt":""}]', 'bob@fabrikam.example
', '', '', '<h@contoso.example>', '', 40, '00000000000hold0.eml', 0, 0, 1760000000000, 1760000000000, 1760172800000, '', 'asked by phone', '', 0, '', '', '', '', 0, 0, 0);
INSERT INTO submissions (id, state, claimed_from, mailbox, login, remote_addr, envelope_from, recipients, recipient_search, dsn_ret, dsn_envid, message_id, content, size, spool, attempts, next_attempt, created, updated, expires, last_error, hold_reason, graph_request_id, delay_notified, progress, wish, subject, digest, gather_until, drop_copy, unanswered) VALUES ('00000000000sent0', 'sent', 'queued', 'alice@contoso.example', 'alice', '192.0.2.7', 'alice@contoso.example', '[{"Address":"bob@fabrikam.example","Notify":null,"Orcpt":""}]', 'bob@fabrikam.example
', '', '', '<s@contoso.example>', '', 40, '00000000000sent0.eml', 1, 0, 1760000000000, 1760000005000, 1760172800000, '', '', 'req-2', 0, '', '', '', '', 0, 0, 0);
INSERT INTO submissions (id, state, claimed_from, mailbox, login, remote_addr, envelope_from, recipients, recipient_search, dsn_ret, dsn_envid, message_id, content, size, spool, attempts, next_attempt, created, updated, expires, last_error, hold_reason, graph_request_id, delay_notified, progress, wish, subject, digest, gather_until, drop_copy, unanswered) VALUES ('0000000000queued', 'queued', '', 'alice@contoso.example', 'alice', '192.0.2.7', 'alice@contoso.example', '[{"Address":"bob@fabrikam.example","Notify":null,"Orcpt":""}]', 'bob@fabrikam.example
', '', '', '<q@contoso.example>', '', 40, '0000000000queued.eml', 0, 1760000000000, 1760000000000, 1760000000000, 1760172800000, '', '', '', 0, '', '', '', '', 0, 0, 0);
INSERT INTO submissions (id, state, claimed_from, mailbox, login, remote_addr, envelope_from, recipients, recipient_search, dsn_ret, dsn_envid, message_id, content, size, spool, attempts, next_attempt, created, updated, expires, last_error, hold_reason, graph_request_id, delay_notified, progress, wish, subject, digest, gather_until, drop_copy, unanswered) VALUES ('000000000unclear', 'unclear', 'queued', 'alice@contoso.example', 'alice', '192.0.2.7', 'alice@contoso.example', '[{"Address":"bob@fabrikam.example","Notify":null,"Orcpt":""},{"Address":"carol@fabrikam.example","Notify":["NEVER"],"Orcpt":"rfc822;carol@fabrikam.example"}]', 'bob@fabrikam.example
carol@fabrikam.example
', 'HDRS', 'env', '<u@contoso.example>', '', 41, '000000000unclear.eml', 3, 1760000060000, 1760000000000, 1760000000000, 1760172800000, 'connection reset', '', 'req-1', 0, '{"part":1,"unclear":true}', '', '', '', 0, 0, 0);

CREATE TABLE texts (
    submission TEXT NOT NULL PRIMARY KEY,
    text       BLOB NOT NULL
);

CREATE INDEX events_submission ON events (submission, id);

CREATE INDEX sends_at ON sends (at);

CREATE INDEX submissions_done ON submissions (updated) WHERE state IN ('sent', 'bounced', 'refused', 'purged');

CREATE INDEX submissions_due ON submissions (next_attempt) WHERE state IN ('queued', 'unclear');

CREATE INDEX submissions_message_id ON submissions (message_id);
