-- Secrets of accounts, under a data key of the account's (account_7.sql says what each is).
CREATE TABLE data_key (
  account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  wrapped_by TEXT COLLATE "C" NOT NULL, wrapped BYTEA NOT NULL, updated_at BIGINT NOT NULL
);
CREATE TABLE secret (
  account TEXT COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL, note TEXT NOT NULL, version BIGINT NOT NULL, sealed BYTEA NOT NULL,
  updated_at BIGINT NOT NULL, released_at BIGINT,
  PRIMARY KEY (account, name)
);
CREATE TABLE secret_grant (
  account TEXT COLLATE "C" NOT NULL, secret TEXT COLLATE "C" NOT NULL, agent TEXT COLLATE "C" NOT NULL,
  hosts TEXT COLLATE "C" NOT NULL, created_at BIGINT NOT NULL,
  PRIMARY KEY (account, secret, agent, hosts),
  FOREIGN KEY (account, secret) REFERENCES secret (account, name) ON DELETE CASCADE
);

DO $$
DECLARE t TEXT;
BEGIN
  FOREACH t IN ARRAY ARRAY['data_key', 'secret', 'secret_grant']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I '
      'USING (account = (SELECT NULLIF(current_setting(''app.account_id'', true), ''''))) '
      'WITH CHECK (account = (SELECT NULLIF(current_setting(''app.account_id'', true), '''')))', t);
  END LOOP;
END $$;
