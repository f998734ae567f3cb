-- An account's file. `account` stands first in every key, so that the same statements hold in a
-- database that many accounts share.
CREATE TABLE user (
  account TEXT NOT NULL, name TEXT NOT NULL,
  role TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
  account TEXT NOT NULL, id TEXT NOT NULL,
  user TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL, scopes TEXT NOT NULL,
  agent TEXT, space TEXT, expires_at INTEGER, created_at INTEGER NOT NULL, last_used_at INTEGER,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, user) REFERENCES user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX api_key_user ON api_key (account, user);

CREATE TABLE agent (
  account TEXT NOT NULL, name TEXT NOT NULL,
  version INTEGER NOT NULL, definition TEXT NOT NULL, source TEXT NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (account, name, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE space (
  account TEXT NOT NULL, id TEXT NOT NULL,
  name TEXT NOT NULL, description TEXT NOT NULL, owner TEXT NOT NULL, personal INTEGER NOT NULL,
  plan TEXT NOT NULL DEFAULT '[]', created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX space_personal ON space (account, owner) WHERE personal = 1;
CREATE INDEX space_owner ON space (account, owner);

CREATE TABLE space_grant (
  account TEXT NOT NULL, space TEXT NOT NULL, user TEXT NOT NULL, level TEXT NOT NULL,
  PRIMARY KEY (account, space, user),
  FOREIGN KEY (account, space) REFERENCES space (account, id) ON DELETE CASCADE,
  FOREIGN KEY (account, user) REFERENCES user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX space_grant_user ON space_grant (account, user);

-- `lease` fences: only the turn that holds the newest number may write into the session.
CREATE TABLE session (
  account TEXT NOT NULL, id TEXT NOT NULL,
  space TEXT NOT NULL, agent TEXT NOT NULL, agent_version INTEGER NOT NULL, initiator TEXT NOT NULL,
  state TEXT NOT NULL, turn INTEGER NOT NULL, step INTEGER NOT NULL, lease INTEGER NOT NULL,
  next_event INTEGER NOT NULL, next_message INTEGER NOT NULL,
  caller TEXT NOT NULL, operation TEXT, turn_facts TEXT NOT NULL, usage TEXT NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, space) REFERENCES space (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX session_operation ON session (account, initiator, operation) WHERE operation IS NOT NULL;
CREATE INDEX session_space ON session (account, space, id);
CREATE INDEX session_initiator ON session (account, initiator, id);
CREATE INDEX session_state ON session (account, state) WHERE state NOT IN ('idle', 'failed', 'done', 'canceled');

CREATE TABLE session_event (
  account TEXT NOT NULL, session TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (account, session, n),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What the model is shown. Apart from the stream, because compaction and clearing change it.
CREATE TABLE session_message (
  account TEXT NOT NULL, session TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (account, session, n),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What callers sent and no turn has taken up yet.
CREATE TABLE delivery (
  account TEXT NOT NULL, session TEXT NOT NULL, n INTEGER NOT NULL,
  id TEXT NOT NULL, body TEXT NOT NULL, caller TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (account, session, n),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE tool_call (
  account TEXT NOT NULL, session TEXT NOT NULL, id TEXT NOT NULL,
  turn INTEGER NOT NULL, step INTEGER NOT NULL, place INTEGER NOT NULL, model_id TEXT NOT NULL, tool TEXT NOT NULL,
  arguments TEXT NOT NULL, state TEXT NOT NULL, intent INTEGER, output TEXT,
  PRIMARY KEY (account, session, id),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE approval (
  account TEXT NOT NULL, id TEXT NOT NULL,
  session TEXT NOT NULL, call TEXT NOT NULL, kind TEXT NOT NULL, tool TEXT NOT NULL, prompt TEXT NOT NULL,
  arguments TEXT NOT NULL, digest BLOB NOT NULL, options TEXT NOT NULL,
  requester TEXT NOT NULL, approvers TEXT NOT NULL, state TEXT NOT NULL,
  decided_by TEXT, reason TEXT, answer TEXT, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX approval_pending ON approval (account, expires_at) WHERE state = 'pending';
CREATE INDEX approval_session ON approval (account, session);

-- Which content of a file the session has seen; a write demands that it has not changed since.
CREATE TABLE file_seen (
  account TEXT NOT NULL, session TEXT NOT NULL, path TEXT NOT NULL, hash BLOB NOT NULL,
  PRIMARY KEY (account, session, path),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
  account TEXT NOT NULL, seq INTEGER NOT NULL,
  at INTEGER NOT NULL, actor TEXT NOT NULL, credential TEXT NOT NULL, address TEXT NOT NULL, request TEXT,
  action TEXT NOT NULL, resource TEXT NOT NULL, space TEXT, agent TEXT,
  phase TEXT NOT NULL, verdict TEXT NOT NULL, intent INTEGER, detail TEXT NOT NULL, leaf_hash BLOB NOT NULL,
  PRIMARY KEY (account, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_space ON event (account, space, seq) WHERE space IS NOT NULL;
CREATE INDEX event_actor ON event (account, actor, seq);
CREATE TRIGGER event_is_not_changed BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are not changed'); END;
CREATE TRIGGER event_is_not_deleted BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are not deleted'); END;

CREATE TABLE tree_head (
  account TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, frontier BLOB NOT NULL
) STRICT, WITHOUT ROWID;
