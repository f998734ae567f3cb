-- By whom a secret is used (account_8.sql), and the keys of the host's (host_5.sql).
ALTER TABLE secret_grant ADD COLUMN used_by TEXT COLLATE "C" NOT NULL DEFAULT 'sandbox';
ALTER TABLE secret_grant ALTER COLUMN used_by DROP DEFAULT;
ALTER TABLE secret_grant DROP CONSTRAINT secret_grant_pkey;
ALTER TABLE secret_grant ADD PRIMARY KEY (account, secret, agent, used_by, hosts);

CREATE TABLE vault_key (id TEXT COLLATE "C" PRIMARY KEY, since BIGINT NOT NULL);
ALTER TABLE vault_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE vault_key FORCE ROW LEVEL SECURITY;
CREATE POLICY host ON vault_key
  USING ((SELECT current_setting('app.account_id', true)) = 'host')
  WITH CHECK ((SELECT current_setting('app.account_id', true)) = 'host');
