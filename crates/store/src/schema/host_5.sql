-- The keys of the host's under which data keys of accounts may lie. One stands here before it encrypts anything.
CREATE TABLE vault_key (id TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;
