-- Clients of the authorization server: programs of others, which no account owns.
CREATE TABLE oauth_client (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL, hash BLOB, redirect_uris TEXT NOT NULL, source TEXT NOT NULL, address TEXT NOT NULL,
  created_at INTEGER NOT NULL, used_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX oauth_client_created ON oauth_client (created_at);
