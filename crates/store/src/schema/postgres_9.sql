-- Refresh grants, and for how long a grant's lease holds (account_11.sql says what each is).
ALTER TABLE secret ADD COLUMN kind TEXT COLLATE "C" NOT NULL DEFAULT 'value';
ALTER TABLE secret ADD COLUMN refresh TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE secret ADD COLUMN refresh_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE secret_grant ADD COLUMN lease TEXT COLLATE "C" NOT NULL DEFAULT 'minute';
