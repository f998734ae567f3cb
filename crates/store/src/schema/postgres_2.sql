-- How people sign in. Apart from the users, so that who reads users never reads a hash.
CREATE TABLE account_password (
  account TEXT COLLATE "C" NOT NULL, holder TEXT COLLATE "C" NOT NULL, hash TEXT NOT NULL, changed_at BIGINT NOT NULL,
  PRIMARY KEY (account, holder),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
);
-- A login: one row, one token.
CREATE TABLE device (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  holder TEXT COLLATE "C" NOT NULL, name TEXT NOT NULL, hash BYTEA NOT NULL, factor TEXT NOT NULL,
  address TEXT NOT NULL, created_at BIGINT NOT NULL, last_seen_at BIGINT NOT NULL,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
);
CREATE INDEX device_holder ON device (account, holder);
-- The authenticator app's secret, sealed. Until a first code was shown it is asked for by nobody.
CREATE TABLE totp (
  account TEXT COLLATE "C" NOT NULL, holder TEXT COLLATE "C" NOT NULL,
  sealed BYTEA NOT NULL, confirmed BIGINT NOT NULL, last_step BIGINT NOT NULL, created_at BIGINT NOT NULL,
  PRIMARY KEY (account, holder),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
);
CREATE TABLE recovery_code (
  account TEXT COLLATE "C" NOT NULL, holder TEXT COLLATE "C" NOT NULL, hash BYTEA NOT NULL,
  PRIMARY KEY (account, holder, hash),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
);
CREATE TABLE passkey (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL,
  holder TEXT COLLATE "C" NOT NULL, name TEXT NOT NULL, credential TEXT NOT NULL,
  created_at BIGINT NOT NULL, last_used_at BIGINT,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
);
CREATE INDEX passkey_holder ON passkey (account, holder);

-- Failed attempts to sign in, by user and by address, where several servers share the count.
CREATE TABLE sign_in_tally (
  subject TEXT COLLATE "C" PRIMARY KEY,
  failures BIGINT NOT NULL, since BIGINT, locked_until BIGINT
);
CREATE INDEX sign_in_tally_since ON sign_in_tally (since);

DO $$
DECLARE t TEXT;
BEGIN
  FOREACH t IN ARRAY ARRAY['account_password', 'device', 'totp', 'recovery_code', 'passkey']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I '
      'USING (account = (SELECT NULLIF(current_setting(''app.account_id'', true), ''''))) '
      'WITH CHECK (account = (SELECT NULLIF(current_setting(''app.account_id'', true), '''')))', t);
  END LOOP;
  ALTER TABLE sign_in_tally ENABLE ROW LEVEL SECURITY;
  ALTER TABLE sign_in_tally FORCE ROW LEVEL SECURITY;
  CREATE POLICY host ON sign_in_tally
    USING ((SELECT current_setting('app.account_id', true)) = 'host')
    WITH CHECK ((SELECT current_setting('app.account_id', true)) = 'host');
END $$;
