-- Targets of notifications. `events` are the occasions, with commas; `paused` says why nothing is sent, or is empty;
-- `owner` is whose order it is. The address is sealed under the account's data key, as secrets are. `lease` fences
-- who sends; `tries` and `refused` count in a row; `dropped` are the notices that were never sent.
CREATE TABLE notification (
  account TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, host TEXT NOT NULL, chat TEXT, events TEXT NOT NULL,
  paused TEXT NOT NULL, owner TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, last_at INTEGER, last_state TEXT,
  next_notice INTEGER NOT NULL, tries INTEGER NOT NULL, refused INTEGER NOT NULL, dropped INTEGER NOT NULL,
  lease INTEGER NOT NULL, lease_until INTEGER NOT NULL, lease_by TEXT NOT NULL DEFAULT '', due_at INTEGER NOT NULL,
  PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;
-- What they are to be told and were not yet, in the order in which it happened.
CREATE TABLE notice (
  account TEXT NOT NULL, target TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (account, target, n),
  FOREIGN KEY (account, target) REFERENCES notification (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
