-- A grant says by whom the secret is used: the agent's sandboxes, or the server when it calls the agent's model.
CREATE TABLE secret_grant_by_use (
  account TEXT NOT NULL, secret TEXT NOT NULL, agent TEXT NOT NULL, used_by TEXT NOT NULL, hosts TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account, secret, agent, used_by, hosts),
  FOREIGN KEY (account, secret) REFERENCES secret (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO secret_grant_by_use (account, secret, agent, used_by, hosts, created_at)
  SELECT account, secret, agent, 'sandbox', hosts, created_at FROM secret_grant;
DROP TABLE secret_grant;
ALTER TABLE secret_grant_by_use RENAME TO secret_grant;
