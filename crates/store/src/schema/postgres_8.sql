-- Targets of notifications, and what they are to be told (account_10.sql says what each is).
CREATE TABLE notification (
  account TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL, kind TEXT COLLATE "C" NOT NULL,
  host TEXT COLLATE "C" NOT NULL, chat TEXT, events TEXT COLLATE "C" NOT NULL, paused TEXT COLLATE "C" NOT NULL,
  owner TEXT COLLATE "C" NOT NULL, version BIGINT NOT NULL, sealed BYTEA NOT NULL,
  created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, last_at BIGINT, last_state TEXT COLLATE "C",
  next_notice BIGINT NOT NULL, tries BIGINT NOT NULL, refused BIGINT NOT NULL, dropped BIGINT NOT NULL,
  lease BIGINT NOT NULL, lease_until BIGINT NOT NULL, lease_by TEXT COLLATE "C" NOT NULL DEFAULT '', due_at BIGINT NOT NULL,
  PRIMARY KEY (account, name)
);
CREATE TABLE notice (
  account TEXT COLLATE "C" NOT NULL, target TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL, body TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (account, target, n),
  FOREIGN KEY (account, target) REFERENCES notification (account, name) ON DELETE CASCADE
);

DO $$
DECLARE t TEXT;
BEGIN
  FOREACH t IN ARRAY ARRAY['notification', 'notice']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I '
      'USING (account = (SELECT NULLIF(current_setting(''app.account_id'', true), ''''))) '
      'WITH CHECK (account = (SELECT NULLIF(current_setting(''app.account_id'', true), '''')))', t);
  END LOOP;
END $$;
