-- What the operator set as the account's limits; NULL is the server's default, 0 is none.
CREATE TABLE account_limits (
  account TEXT PRIMARY KEY,
  tokens_per_day INTEGER, model_calls_per_day INTEGER, tool_calls_per_day INTEGER,
  storage_mib INTEGER, concurrent_sessions INTEGER
) STRICT, WITHOUT ROWID;

-- What was spent, by day of UTC (counted from 1970) and by user. A spender without a name stands for users
-- who are gone: what they spent stays spent.
CREATE TABLE usage_day (
  account TEXT NOT NULL, day INTEGER NOT NULL, spender TEXT NOT NULL,
  tokens_in INTEGER NOT NULL DEFAULT 0, tokens_out INTEGER NOT NULL DEFAULT 0,
  model_calls INTEGER NOT NULL DEFAULT 0, tool_calls INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (account, day, spender)
) STRICT, WITHOUT ROWID;
