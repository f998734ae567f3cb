-- The account's data key, encrypted by a key of the host's: which one, and the key.
CREATE TABLE data_key (
  account TEXT NOT NULL PRIMARY KEY, wrapped_by TEXT NOT NULL, wrapped BLOB NOT NULL, updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Secrets, sealed under it. Only the newest version of a value is kept.
CREATE TABLE secret (
  account TEXT NOT NULL, name TEXT NOT NULL, note TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL,
  updated_at INTEGER NOT NULL, released_at INTEGER,
  PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;
-- Which agents' sandboxes get it, for which hosts (`name`, `*.name`).
CREATE TABLE secret_grant (
  account TEXT NOT NULL, secret TEXT NOT NULL, agent TEXT NOT NULL, hosts TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (account, secret, agent, hosts),
  FOREIGN KEY (account, secret) REFERENCES secret (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
