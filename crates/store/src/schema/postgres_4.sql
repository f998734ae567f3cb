-- An application: what one user lets one client of the authorization server do for them. It begins with a
-- consent, and is nobody's until the code of it was exchanged (`last_used_at`).
CREATE TABLE application (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  holder TEXT COLLATE "C" NOT NULL, client TEXT COLLATE "C" NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL,
  agent TEXT COLLATE "C", space TEXT COLLATE "C", resource TEXT NOT NULL, redirect_uri TEXT NOT NULL,
  challenge TEXT NOT NULL, created_at BIGINT NOT NULL, last_used_at BIGINT,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
);
CREATE INDEX application_holder ON application (account, holder);
-- Its code, its access tokens, its refresh tokens. Used ones stay for a while, so that one that comes twice is
-- known for what it is.
CREATE TABLE application_token (
  account TEXT COLLATE "C" NOT NULL, application TEXT COLLATE "C" NOT NULL, hash BYTEA NOT NULL,
  kind TEXT COLLATE "C" NOT NULL, scopes TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
  used_at BIGINT,
  PRIMARY KEY (account, application, hash),
  FOREIGN KEY (account, application) REFERENCES application (account, id) ON DELETE CASCADE
);

-- Clients of the authorization server: programs of others, which no account owns.
CREATE TABLE oauth_client (
  id TEXT COLLATE "C" PRIMARY KEY,
  name TEXT NOT NULL, hash BYTEA, redirect_uris TEXT NOT NULL, source TEXT COLLATE "C" NOT NULL,
  address TEXT COLLATE "C" NOT NULL, created_at BIGINT NOT NULL, used_at BIGINT
);
CREATE INDEX oauth_client_created ON oauth_client (created_at);

DO $$
DECLARE t TEXT;
BEGIN
  FOREACH t IN ARRAY ARRAY['application', 'application_token']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I '
      'USING (account = (SELECT NULLIF(current_setting(''app.account_id'', true), ''''))) '
      'WITH CHECK (account = (SELECT NULLIF(current_setting(''app.account_id'', true), '''')))', t);
  END LOOP;
  ALTER TABLE oauth_client ENABLE ROW LEVEL SECURITY;
  ALTER TABLE oauth_client FORCE ROW LEVEL SECURITY;
  CREATE POLICY host ON oauth_client
    USING ((SELECT current_setting('app.account_id', true)) = 'host')
    WITH CHECK ((SELECT current_setting('app.account_id', true)) = 'host');
END $$;
