-- +goose Up
-- Copies of sent messages that clients have stored in Sent, see copies.go.
CREATE TABLE sent_copies (
    message    INTEGER PRIMARY KEY, -- messages.id
    message_id TEXT    NOT NULL,    -- as the client wrote it
    content    TEXT    NOT NULL,    -- message.Fingerprint
    stored     BIGINT  NOT NULL,    -- Unix seconds
    united     INTEGER NOT NULL     -- 1: it stands for Exchange's own copy
);
CREATE INDEX sent_copies_message_id ON sent_copies (message_id);

-- Messages in Graph that are not to be shown: what a client stored, after Exchange's own copy has taken its place.
CREATE TABLE dismissed (
    folder     BIGINT NOT NULL,
    graph_id   TEXT   NOT NULL,
    at         BIGINT NOT NULL,           -- Unix seconds
    gone       BIGINT NOT NULL DEFAULT 0, -- Unix seconds; 0: is still to be removed from Graph
    PRIMARY KEY (folder, graph_id)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE dismissed;
DROP TABLE sent_copies;
