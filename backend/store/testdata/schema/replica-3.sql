-- replica.db with tables of version 3. Earlier versions stay as they are: they are what people have on their disks.
PRAGMA application_id = 1349473106;

CREATE TABLE account_state (
    account BIGINT NOT NULL,
    name    TEXT   NOT NULL,
    value   TEXT   NOT NULL,
    PRIMARY KEY (account, name)
);
INSERT INTO account_state (account, name, value) VALUES (1, 'roles', '{"inbox":"F1"}');

CREATE TABLE accounts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    address     TEXT    NOT NULL UNIQUE, -- lower case
    pending_seq BIGINT  NOT NULL DEFAULT 0
);
INSERT INTO accounts (id, address, pending_seq) VALUES (1, 'alice@contoso.example', 5);

CREATE TABLE bodies (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    file        TEXT    NOT NULL,
    size        BIGINT  NOT NULL,
    stored      BIGINT  NOT NULL, -- bytes on disk
    from_client INTEGER NOT NULL,
    accessed    BIGINT  NOT NULL, -- Unix seconds
    idx         BLOB
);

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('uidvalidity', 1760000002);

CREATE TABLE dismissed (
    folder     BIGINT NOT NULL,
    graph_id   TEXT   NOT NULL,
    at         BIGINT NOT NULL,           -- Unix seconds
    gone       BIGINT NOT NULL DEFAULT 0, -- Unix seconds; 0: is still to be removed from Graph
    PRIMARY KEY (folder, graph_id)
) WITHOUT ROWID;

CREATE TABLE folders (
    id           INTEGER PRIMARY KEY AUTOINCREMENT, -- below 2^31, see messages.id
    account      BIGINT  NOT NULL,
    graph_id     TEXT    NOT NULL,
    parent_id    TEXT    NOT NULL,
    display_name TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    hidden       INTEGER NOT NULL,
    uidvalidity  BIGINT  NOT NULL,
    uidnext      BIGINT  NOT NULL DEFAULT 1,
    modseq       BIGINT  NOT NULL DEFAULT 1, -- the highest given
    pruned       BIGINT  NOT NULL DEFAULT 0, -- removals up to this modseq are forgotten
    first_recent BIGINT  NOT NULL DEFAULT 1,
    gen          BIGINT  NOT NULL DEFAULT 1, -- see messages.gen
    messages     BIGINT  NOT NULL DEFAULT 0,
    unseen       BIGINT  NOT NULL DEFAULT 0,
    deleted      BIGINT  NOT NULL DEFAULT 0,
    size_sum     BIGINT  NOT NULL DEFAULT 0,
    delta_link   TEXT    NOT NULL DEFAULT '',
    fill_link    TEXT    NOT NULL DEFAULT '',
    fill         INTEGER NOT NULL DEFAULT 0,
    headers_link TEXT    NOT NULL DEFAULT '',
    headers_done INTEGER NOT NULL DEFAULT 0,
    synced_at    BIGINT  NOT NULL DEFAULT 0, -- Unix milliseconds
    UNIQUE (account, graph_id),
    UNIQUE (account, name)
);
INSERT INTO folders (id, account, graph_id, parent_id, display_name, name, role, hidden, uidvalidity, uidnext, modseq, pruned, first_recent, gen, messages, unseen, deleted, size_sum, delta_link, fill_link, fill, headers_link, headers_done, synced_at) VALUES (1, 1, 'F1', 'root', 'Inbox', 'INBOX', '', 0, 1760000002, 12, 30, 2, 11, 1, 2, 1, 0, 1500, 'https://graph.example/delta', '', 2, '', 1, 1760000100000);
INSERT INTO folders (id, account, graph_id, parent_id, display_name, name, role, hidden, uidvalidity, uidnext, modseq, pruned, first_recent, gen, messages, unseen, deleted, size_sum, delta_link, fill_link, fill, headers_link, headers_done, synced_at) VALUES (2, 1, 'F2', 'F3', '2026', 'Archive/2026', '', 0, 1760000001, 1, 1, 0, 1, 1, 0, 0, 0, 0, '', '', 0, '', 0, 0);

CREATE TABLE headers (
    message INTEGER PRIMARY KEY, -- messages.id
    data    BLOB NOT NULL        -- zstd
);

CREATE TABLE messages (
    id               INTEGER PRIMARY KEY, -- folder * 2^32 + UID: one folder's rows lie side by side, in UID order
    folder           BIGINT  NOT NULL,
    graph_id         TEXT    NOT NULL,
    modseq           BIGINT  NOT NULL,
    flags            INTEGER NOT NULL,
    keywords         TEXT    NOT NULL, -- sorted, separated by blanks
    received         BIGINT  NOT NULL, -- Unix seconds, 0 unknown
    sent             BIGINT  NOT NULL, -- likewise
    size             BIGINT  NOT NULL,
    size_exact       INTEGER NOT NULL,
    message_id       TEXT    NOT NULL,
    message_id_hash  BIGINT  NOT NULL, -- 0 for an empty message_id
    thread_id        TEXT    NOT NULL,
    header           INTEGER NOT NULL, -- 0 not read yet, 1 kept, 2 Graph has none
    body             BIGINT,
    pending          INTEGER NOT NULL, -- flags changed here and not yet in Graph
    pending_keywords INTEGER NOT NULL,
    pending_seq      BIGINT  NOT NULL, -- 0 nothing pending
    gen              BIGINT  NOT NULL -- the folder's gen when Graph last named the message
, touched TEXT NOT NULL DEFAULT '');
INSERT INTO messages (id, folder, graph_id, modseq, flags, keywords, received, sent, size, size_exact, message_id, message_id_hash, thread_id, header, body, pending, pending_keywords, pending_seq, gen, touched) VALUES (4294967303, 1, 'AAMk7', 21, 5, '$Label1 Work', 1759990000, 1759990000, 700, 1, '<seven@contoso.example>', 77, 'T1', 0, NULL, 4, 0, 5, 1, '');
INSERT INTO messages (id, folder, graph_id, modseq, flags, keywords, received, sent, size, size_exact, message_id, message_id_hash, thread_id, header, body, pending, pending_keywords, pending_seq, gen, touched) VALUES (4294967307, 1, 'AAMk11', 30, 0, '', 1759999000, 0, 800, 0, '', 0, 'T2', 2, NULL, 0, 0, 0, 1, '');

CREATE TABLE removed (
    folder     BIGINT NOT NULL,
    modseq     BIGINT NOT NULL,
    uid        BIGINT NOT NULL,
    removed_at BIGINT NOT NULL, -- Unix seconds
    PRIMARY KEY (folder, modseq, uid)
) WITHOUT ROWID;
INSERT INTO removed (folder, modseq, uid, removed_at) VALUES (1, 12, 3, 1759995000);

CREATE TABLE schema_migrations (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (1, 0, 1, '2026-11-25 10:02:16');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (2, 1, 1, '2026-11-25 10:02:16');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (3, 2, 1, '2026-11-25 15:30:53');
INSERT INTO schema_migrations (id, version_id, is_applied, tstamp) VALUES (4, 3, 1, '2026-11-25 17:06:16');

CREATE TABLE sent_copies (
    message    INTEGER PRIMARY KEY, -- messages.id
    message_id TEXT    NOT NULL,    -- as the client wrote it
    content    TEXT    NOT NULL,    -- message.Fingerprint
    stored     BIGINT  NOT NULL,    -- Unix seconds
    united     INTEGER NOT NULL     -- 1: it stands for Exchange's own copy
);

CREATE TABLE subscriptions (
    account    BIGINT  NOT NULL,
    name       TEXT    NOT NULL,
    subscribed INTEGER NOT NULL,
    PRIMARY KEY (account, name)
);
INSERT INTO subscriptions (account, name, subscribed) VALUES (1, 'INBOX', 0);

CREATE INDEX bodies_age ON bodies (from_client, accessed);

CREATE INDEX messages_body ON messages (body) WHERE body IS NOT NULL;

CREATE UNIQUE INDEX messages_graph_id ON messages (graph_id, folder);

CREATE INDEX messages_message_id ON messages (message_id_hash) WHERE message_id_hash <> 0;

CREATE INDEX messages_no_header ON messages (id) WHERE header = 0;

CREATE INDEX messages_pending ON messages (pending_seq) WHERE pending_seq <> 0;

CREATE INDEX sent_copies_message_id ON sent_copies (message_id);
