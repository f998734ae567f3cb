-- Jobs: commands that run beside the requests. `events` counts those of its log, `intent` is the number of the
-- intent's line on the record. `server` is the one that runs it, `beat_at` when that last said so, and
-- `cancel_by` who wants it ended.
CREATE TABLE job (
  account TEXT NOT NULL, id TEXT NOT NULL, space TEXT NOT NULL, agent TEXT NOT NULL, initiator TEXT NOT NULL,
  caller TEXT NOT NULL, kind TEXT NOT NULL, command TEXT NOT NULL, timeout_seconds INTEGER NOT NULL,
  state TEXT NOT NULL, ending TEXT, events INTEGER NOT NULL, intent INTEGER,
  server TEXT NOT NULL DEFAULT '', beat_at INTEGER NOT NULL DEFAULT 0, cancel_by TEXT,
  created_at INTEGER NOT NULL, started_at INTEGER, ended_at INTEGER,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, space) REFERENCES space (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX job_space ON job (account, space, id);
CREATE INDEX job_state ON job (account, state) WHERE state IN ('queued', 'running');
-- What a job said, in groups, and the changes of its state: lines of JSON, numbered from 1.
CREATE TABLE job_event (
  account TEXT NOT NULL, job TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (account, job, n),
  FOREIGN KEY (account, job) REFERENCES job (account, id) ON DELETE CASCADE
) STRICT;
