-- What a secret is: a value, or a refresh grant of an OAuth client. `refresh` says what is with that: nothing (''),
-- 'running' or 'waiting' until `refresh_until`, or the error for which it has to be set again.
ALTER TABLE secret ADD COLUMN kind TEXT NOT NULL DEFAULT 'value';
ALTER TABLE secret ADD COLUMN refresh TEXT NOT NULL DEFAULT '';
ALTER TABLE secret ADD COLUMN refresh_until INTEGER NOT NULL DEFAULT 0;
-- For how long a sandbox has what the grant gives: 'minute', 'call', 'approved_call'.
ALTER TABLE secret_grant ADD COLUMN lease TEXT NOT NULL DEFAULT 'minute';
