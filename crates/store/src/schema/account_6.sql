-- An application: what one user lets one client of the authorization server do for them. It begins with a
-- consent, and is nobody's until the code of it was exchanged (`last_used_at`).
CREATE TABLE application (
  account TEXT NOT NULL, id TEXT NOT NULL,
  holder TEXT NOT NULL, client TEXT NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL, agent TEXT, space TEXT,
  resource TEXT NOT NULL, redirect_uri TEXT NOT NULL, challenge TEXT NOT NULL,
  created_at INTEGER NOT NULL, last_used_at INTEGER,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX application_holder ON application (account, holder);
-- Its code, its access tokens, its refresh tokens. Used ones stay for a while, so that one that comes twice is
-- known for what it is.
CREATE TABLE application_token (
  account TEXT NOT NULL, application TEXT NOT NULL, hash BLOB NOT NULL,
  kind TEXT NOT NULL, scopes TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, used_at INTEGER,
  PRIMARY KEY (account, application, hash),
  FOREIGN KEY (account, application) REFERENCES application (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
