-- The same tables as in the files, in one database that all accounts share. `account` stands first in every
-- key, so that no key's uniqueness tells one tenant of another. Texts are compared byte by byte, as SQLite does.
CREATE TABLE account (
  name TEXT COLLATE "C" PRIMARY KEY,
  incarnation TEXT COLLATE "C" NOT NULL UNIQUE,
  jail_user BIGINT NOT NULL UNIQUE,
  policy TEXT NOT NULL DEFAULT '',
  policy_version BIGINT NOT NULL DEFAULT 0,
  created_at BIGINT NOT NULL
);
CREATE TABLE jail_user_given (highest BIGINT NOT NULL);
INSERT INTO jail_user_given VALUES (200000);
CREATE TABLE key_locator (
  key_id TEXT COLLATE "C" PRIMARY KEY,
  incarnation TEXT COLLATE "C" NOT NULL
);
CREATE INDEX key_locator_account ON key_locator (incarnation);

CREATE TABLE account_user (
  account TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
  role TEXT NOT NULL, created_at BIGINT NOT NULL, first_event BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (account, name)
);
CREATE TABLE api_key (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  holder TEXT COLLATE "C" NOT NULL, name TEXT NOT NULL, hash BYTEA NOT NULL, scopes TEXT NOT NULL,
  agent TEXT, space TEXT, expires_at BIGINT, created_at BIGINT NOT NULL, last_used_at BIGINT,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
);
CREATE INDEX api_key_user ON api_key (account, holder);

CREATE TABLE agent (
  account TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
  version BIGINT NOT NULL, definition TEXT NOT NULL, source TEXT NOT NULL, deleted BIGINT NOT NULL DEFAULT 0,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (account, name, version)
);

CREATE TABLE space (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  name TEXT NOT NULL, description TEXT NOT NULL, owner TEXT COLLATE "C" NOT NULL, personal BIGINT NOT NULL,
  plan TEXT NOT NULL DEFAULT '[]', created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
  PRIMARY KEY (account, id)
);
CREATE UNIQUE INDEX space_personal ON space (account, owner) WHERE personal = 1;
CREATE INDEX space_owner ON space (account, owner);
CREATE TABLE space_grant (
  account TEXT COLLATE "C" NOT NULL, space TEXT COLLATE "C" NOT NULL, grantee TEXT COLLATE "C" NOT NULL,
  level TEXT NOT NULL,
  PRIMARY KEY (account, space, grantee),
  FOREIGN KEY (account, space) REFERENCES space (account, id) ON DELETE CASCADE,
  FOREIGN KEY (account, grantee) REFERENCES account_user (account, name) ON DELETE CASCADE
);
CREATE INDEX space_grant_user ON space_grant (account, grantee);

CREATE TABLE session (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  space TEXT COLLATE "C" NOT NULL, agent TEXT NOT NULL, agent_version BIGINT NOT NULL,
  initiator TEXT COLLATE "C" NOT NULL,
  state TEXT NOT NULL, turn BIGINT NOT NULL, step BIGINT NOT NULL, lease BIGINT NOT NULL,
  next_event BIGINT NOT NULL, next_message BIGINT NOT NULL,
  caller TEXT NOT NULL, operation TEXT COLLATE "C", turn_facts TEXT NOT NULL, usage TEXT NOT NULL,
  created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, space) REFERENCES space (account, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX session_operation ON session (account, initiator, operation) WHERE operation IS NOT NULL;
CREATE INDEX session_space ON session (account, space, id);
CREATE INDEX session_initiator ON session (account, initiator, id);
CREATE INDEX session_state ON session (account, state) WHERE state NOT IN ('idle', 'failed', 'done', 'canceled');

CREATE TABLE session_event (
  account TEXT COLLATE "C" NOT NULL, session TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (account, session, n),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
);
CREATE TABLE session_message (
  account TEXT COLLATE "C" NOT NULL, session TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (account, session, n),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
);
CREATE TABLE delivery (
  account TEXT COLLATE "C" NOT NULL, session TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL,
  id TEXT NOT NULL, body TEXT NOT NULL, caller TEXT NOT NULL, created_at BIGINT NOT NULL,
  PRIMARY KEY (account, session, n),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
);
CREATE TABLE tool_call (
  account TEXT COLLATE "C" NOT NULL, session TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  turn BIGINT NOT NULL, step BIGINT NOT NULL, place BIGINT NOT NULL, model_id TEXT NOT NULL, tool TEXT NOT NULL,
  arguments TEXT NOT NULL, state TEXT NOT NULL, intent BIGINT, output TEXT,
  PRIMARY KEY (account, session, id),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
);
CREATE TABLE approval (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  session TEXT COLLATE "C" NOT NULL, call TEXT COLLATE "C" NOT NULL, kind TEXT NOT NULL, tool TEXT NOT NULL,
  prompt TEXT NOT NULL, arguments TEXT NOT NULL, digest BYTEA NOT NULL, options TEXT NOT NULL,
  requester TEXT NOT NULL, approvers TEXT NOT NULL, state TEXT NOT NULL,
  decided_by TEXT, reason TEXT, answer TEXT, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
);
CREATE INDEX approval_pending ON approval (account, expires_at) WHERE state = 'pending';
CREATE INDEX approval_session ON approval (account, session);
CREATE TABLE file_seen (
  account TEXT COLLATE "C" NOT NULL, session TEXT COLLATE "C" NOT NULL, path TEXT COLLATE "C" NOT NULL,
  hash BYTEA NOT NULL,
  PRIMARY KEY (account, session, path),
  FOREIGN KEY (account, session) REFERENCES session (account, id) ON DELETE CASCADE
);

CREATE TABLE event (
  account TEXT COLLATE "C" NOT NULL, seq BIGINT NOT NULL,
  at BIGINT NOT NULL, actor TEXT COLLATE "C" NOT NULL, credential TEXT NOT NULL, address TEXT NOT NULL, request TEXT,
  action TEXT COLLATE "C" NOT NULL, resource TEXT NOT NULL, space TEXT COLLATE "C", agent TEXT COLLATE "C",
  phase TEXT NOT NULL, verdict TEXT NOT NULL, intent BIGINT, detail TEXT NOT NULL, leaf_hash BYTEA NOT NULL,
  untold BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (account, seq)
);
CREATE INDEX event_space ON event (account, space, seq) WHERE space IS NOT NULL;
CREATE INDEX event_actor ON event (account, actor, seq);
CREATE TABLE tree_head (
  account TEXT COLLATE "C" PRIMARY KEY, size BIGINT NOT NULL, root BYTEA NOT NULL, frontier BYTEA NOT NULL
);
CREATE TABLE tree_tile (
  account TEXT COLLATE "C" NOT NULL, level BIGINT NOT NULL, n BIGINT NOT NULL, hash BYTEA NOT NULL,
  PRIMARY KEY (account, level, n)
);

CREATE FUNCTION event_is_not_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- An event can be retired: all but its number and its leaf's hash is taken away, and what is left says so.
  IF TG_OP = 'UPDATE' AND NEW.account = OLD.account AND NEW.seq = OLD.seq AND NEW.leaf_hash = OLD.leaf_hash
    AND NEW.at = 0 AND NEW.actor = '' AND NEW.credential = '' AND NEW.address = '' AND NEW.request IS NULL
    AND NEW.action = 'retired' AND NEW.resource = '' AND NEW.space IS NULL AND NEW.agent IS NULL AND NEW.phase = ''
    AND NEW.verdict = '' AND NEW.intent IS NULL AND NEW.detail = '{}' AND NEW.untold = 1
  THEN RETURN NEW;
  END IF;
  RAISE EXCEPTION 'events are not %', CASE TG_OP WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END;
END $$;
CREATE TRIGGER event_is_not_changed BEFORE UPDATE OR DELETE ON event
  FOR EACH ROW EXECUTE FUNCTION event_is_not_changed();
CREATE TRIGGER event_is_not_emptied BEFORE TRUNCATE ON event
  FOR EACH STATEMENT EXECUTE FUNCTION event_is_not_changed();

-- Who reads, where a transaction reads for a user; nothing where it is a part of the server.
CREATE FUNCTION reader() RETURNS TEXT LANGUAGE sql STABLE AS $$
  SELECT NULLIF(current_setting('app.user_id', true), '')
$$;

-- Rows are shown to the transaction that is theirs. What is not set, or set to nothing, is nobody.
DO $$
DECLARE t TEXT;
BEGIN
  FOREACH t IN ARRAY ARRAY['account_user', 'api_key', 'agent', 'space', 'space_grant', 'session', 'session_event',
    'session_message', 'delivery', 'tool_call', 'approval', 'file_seen', 'event', 'tree_head', 'tree_tile']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I '
      'USING (account = (SELECT NULLIF(current_setting(''app.account_id'', true), ''''))) '
      'WITH CHECK (account = (SELECT NULLIF(current_setting(''app.account_id'', true), '''')))', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['account', 'jail_user_given', 'key_locator']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY host ON %I '
      'USING ((SELECT current_setting(''app.account_id'', true)) = ''host'') '
      'WITH CHECK ((SELECT current_setting(''app.account_id'', true)) = ''host'')', t);
  END LOOP;
END $$;

-- Inside the tenant: a transaction that reads for a user is shown that user's spaces, granted ones among them,
-- and the conversations in them. An admin sees that a space exists, and no conversation that was not granted.
CREATE POLICY reader ON space AS RESTRICTIVE FOR SELECT USING (
  (SELECT reader()) IS NULL OR owner = (SELECT reader())
  OR (SELECT current_setting('app.role', true)) = 'admin'
  OR EXISTS (SELECT FROM space_grant g
    WHERE g.account = space.account AND g.space = space.id AND g.grantee = (SELECT reader())));
CREATE POLICY reader ON session AS RESTRICTIVE FOR SELECT USING (
  (SELECT reader()) IS NULL
  OR EXISTS (SELECT FROM space s
    WHERE s.account = session.account AND s.id = session.space AND s.owner = (SELECT reader()))
  OR EXISTS (SELECT FROM space_grant g
    WHERE g.account = session.account AND g.space = session.space AND g.grantee = (SELECT reader())));
CREATE POLICY reader ON session_event AS RESTRICTIVE FOR SELECT USING (
  (SELECT reader()) IS NULL
  OR EXISTS (SELECT FROM session s WHERE s.account = session_event.account AND s.id = session_event.session));
CREATE POLICY reader ON session_message AS RESTRICTIVE FOR SELECT USING (
  (SELECT reader()) IS NULL
  OR EXISTS (SELECT FROM session s WHERE s.account = session_message.account AND s.id = session_message.session));
