-- Failed attempts to sign in, by user and by address, where several servers share the count.
CREATE TABLE sign_in_tally (
  subject TEXT PRIMARY KEY,
  failures INTEGER NOT NULL, since INTEGER, locked_until INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_in_tally_since ON sign_in_tally (since);
