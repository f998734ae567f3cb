-- Jobs and what they said (account_9.sql says what each is).
CREATE TABLE job (
  account TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, space TEXT COLLATE "C" NOT NULL,
  agent TEXT COLLATE "C" NOT NULL, initiator TEXT COLLATE "C" NOT NULL, caller TEXT NOT NULL,
  kind TEXT COLLATE "C" NOT NULL, command TEXT NOT NULL, timeout_seconds BIGINT NOT NULL,
  state TEXT COLLATE "C" NOT NULL, ending TEXT, events BIGINT NOT NULL, intent BIGINT,
  server TEXT COLLATE "C" NOT NULL DEFAULT '', beat_at BIGINT NOT NULL DEFAULT 0, cancel_by TEXT COLLATE "C",
  created_at BIGINT NOT NULL, started_at BIGINT, ended_at BIGINT,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, space) REFERENCES space (account, id) ON DELETE CASCADE
);
CREATE INDEX job_space ON job (account, space, id);
CREATE INDEX job_state ON job (account, state) WHERE state IN ('queued', 'running');
CREATE TABLE job_event (
  account TEXT COLLATE "C" NOT NULL, job TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (account, job, n),
  FOREIGN KEY (account, job) REFERENCES job (account, id) ON DELETE CASCADE
);

DO $$
DECLARE t TEXT;
BEGIN
  FOREACH t IN ARRAY ARRAY['job', 'job_event']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I '
      'USING (account = (SELECT NULLIF(current_setting(''app.account_id'', true), ''''))) '
      'WITH CHECK (account = (SELECT NULLIF(current_setting(''app.account_id'', true), '''')))', t);
  END LOOP;
END $$;

-- As conversations: shown to whoever has the space, and to no admin besides.
CREATE POLICY reader ON job AS RESTRICTIVE FOR SELECT USING (
  (SELECT reader()) IS NULL
  OR EXISTS (SELECT FROM space s
    WHERE s.account = job.account AND s.id = job.space AND s.owner = (SELECT reader()))
  OR EXISTS (SELECT FROM space_grant g
    WHERE g.account = job.account AND g.space = job.space AND g.grantee = (SELECT reader())));
CREATE POLICY reader ON job_event AS RESTRICTIVE FOR SELECT USING (
  (SELECT reader()) IS NULL
  OR EXISTS (SELECT FROM job j WHERE j.account = job_event.account AND j.id = job_event.job));
