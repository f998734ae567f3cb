-- The host's file: which accounts there are, where a key's holder lives, and the host's own log.
CREATE TABLE account (
  name TEXT PRIMARY KEY,
  incarnation TEXT NOT NULL UNIQUE,
  jail_user INTEGER NOT NULL UNIQUE,
  policy TEXT NOT NULL DEFAULT '',
  policy_version INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Numbers are never given twice, so that files left by one account's sandbox can never be another's.
CREATE TABLE jail_user_given (highest INTEGER NOT NULL) STRICT;
INSERT INTO jail_user_given VALUES (200000);
CREATE TABLE key_locator (
  key_id TEXT PRIMARY KEY,
  incarnation TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX key_locator_account ON key_locator (incarnation);
CREATE TABLE event (
  account TEXT NOT NULL, seq INTEGER NOT NULL,
  at INTEGER NOT NULL, actor TEXT NOT NULL, credential TEXT NOT NULL, address TEXT NOT NULL, request TEXT,
  action TEXT NOT NULL, resource TEXT NOT NULL, space TEXT, agent TEXT,
  phase TEXT NOT NULL, verdict TEXT NOT NULL, intent INTEGER, detail TEXT NOT NULL, leaf_hash BLOB NOT NULL,
  PRIMARY KEY (account, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_actor ON event (account, actor, seq);
CREATE TRIGGER event_is_not_changed BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are not changed'); END;
CREATE TRIGGER event_is_not_deleted BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are not deleted'); END;

CREATE TABLE tree_head (
  account TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, frontier BLOB NOT NULL
) STRICT, WITHOUT ROWID;
