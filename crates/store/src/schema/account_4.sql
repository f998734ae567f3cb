-- How people sign in. Apart from the users, so that who reads users never reads a hash.
CREATE TABLE account_password (
  account TEXT NOT NULL, holder TEXT NOT NULL, hash TEXT NOT NULL, changed_at INTEGER NOT NULL,
  PRIMARY KEY (account, holder),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- A login: one row, one token.
CREATE TABLE device (
  account TEXT NOT NULL, id TEXT NOT NULL,
  holder TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL, factor TEXT NOT NULL, address TEXT NOT NULL,
  created_at INTEGER NOT NULL, last_seen_at INTEGER NOT NULL,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX device_holder ON device (account, holder);

-- The authenticator app's secret, sealed. Until a first code was shown it is asked for by nobody.
CREATE TABLE totp (
  account TEXT NOT NULL, holder TEXT NOT NULL,
  sealed BLOB NOT NULL, confirmed INTEGER NOT NULL, last_step INTEGER NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (account, holder),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_code (
  account TEXT NOT NULL, holder TEXT NOT NULL, hash BLOB NOT NULL,
  PRIMARY KEY (account, holder, hash),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE passkey (
  account TEXT NOT NULL, id TEXT NOT NULL,
  holder TEXT NOT NULL, name TEXT NOT NULL, credential TEXT NOT NULL,
  created_at INTEGER NOT NULL, last_used_at INTEGER,
  PRIMARY KEY (account, id),
  FOREIGN KEY (account, holder) REFERENCES account_user (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX passkey_holder ON passkey (account, holder);
