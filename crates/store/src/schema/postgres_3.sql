-- What the operator set as the account's limits; NULL is the server's default, 0 is none.
CREATE TABLE account_limits (
  account TEXT COLLATE "C" PRIMARY KEY,
  tokens_per_day BIGINT, model_calls_per_day BIGINT, tool_calls_per_day BIGINT,
  storage_mib BIGINT, concurrent_sessions BIGINT
);

-- What was spent, by day of UTC (counted from 1970) and by user. A spender without a name stands for users
-- who are gone: what they spent stays spent.
CREATE TABLE usage_day (
  account TEXT COLLATE "C" NOT NULL, day BIGINT NOT NULL, spender TEXT COLLATE "C" NOT NULL,
  tokens_in BIGINT NOT NULL DEFAULT 0, tokens_out BIGINT NOT NULL DEFAULT 0,
  model_calls BIGINT NOT NULL DEFAULT 0, tool_calls BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (account, day, spender)
);

DO $$
DECLARE t TEXT;
BEGIN
  FOREACH t IN ARRAY ARRAY['account_limits', 'usage_day']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I '
      'USING (account = (SELECT NULLIF(current_setting(''app.account_id'', true), ''''))) '
      'WITH CHECK (account = (SELECT NULLIF(current_setting(''app.account_id'', true), '''')))', t);
  END LOOP;
END $$;
