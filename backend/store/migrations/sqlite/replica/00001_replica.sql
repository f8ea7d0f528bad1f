-- +goose Up
PRAGMA application_id = 1349473106; -- "PoSR": tells our file from somebody else's

-- Values that outlive the rows they were made for, such as the last UIDVALIDITY.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE accounts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    address     TEXT    NOT NULL UNIQUE, -- lower case
    pending_seq BIGINT  NOT NULL DEFAULT 0
);

CREATE TABLE account_state (
    account BIGINT NOT NULL,
    name    TEXT   NOT NULL,
    value   TEXT   NOT NULL,
    PRIMARY KEY (account, name)
);

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

-- Only what a client has said; a folder without a row here counts as subscribed.
CREATE TABLE subscriptions (
    account    BIGINT  NOT NULL,
    name       TEXT    NOT NULL,
    subscribed INTEGER NOT NULL,
    PRIMARY KEY (account, name)
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
);
CREATE UNIQUE INDEX messages_graph_id ON messages (graph_id, folder);
-- A hash, because a text index of random Message-IDs would rewrite a page per row.
CREATE INDEX messages_message_id ON messages (message_id_hash) WHERE message_id_hash <> 0;
CREATE INDEX messages_body ON messages (body) WHERE body IS NOT NULL;
CREATE INDEX messages_pending ON messages (pending_seq) WHERE pending_seq <> 0;
CREATE INDEX messages_no_header ON messages (id) WHERE header = 0;

-- Messages that are gone, for VANISHED (RFC 7162 section 3.2.5).
CREATE TABLE removed (
    folder     BIGINT NOT NULL,
    modseq     BIGINT NOT NULL,
    uid        BIGINT NOT NULL,
    removed_at BIGINT NOT NULL, -- Unix seconds
    PRIMARY KEY (folder, modseq, uid)
) WITHOUT ROWID;

CREATE TABLE headers (
    message INTEGER PRIMARY KEY, -- messages.id
    data    BLOB NOT NULL        -- zstd
);

CREATE TABLE bodies (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    file        TEXT    NOT NULL,
    size        BIGINT  NOT NULL,
    stored      BIGINT  NOT NULL, -- bytes on disk
    from_client INTEGER NOT NULL,
    accessed    BIGINT  NOT NULL, -- Unix seconds
    idx         BLOB
);
CREATE INDEX bodies_age ON bodies (from_client, accessed);

-- +goose Down
DROP TABLE bodies;
DROP TABLE headers;
DROP TABLE removed;
DROP TABLE messages;
DROP TABLE subscriptions;
DROP TABLE folders;
DROP TABLE account_state;
DROP TABLE accounts;
DROP TABLE counters;
