-- Whether the event's caller was told that there is no such thing: beside the detail, which says the same,
-- because not every database can look into JSON.
DROP TRIGGER event_is_not_changed;
ALTER TABLE event ADD COLUMN untold INTEGER NOT NULL DEFAULT 0;
UPDATE event SET untold = 1 WHERE json_extract(detail, '$.untold') IS NOT NULL;
-- An event can be retired: all but its number and its leaf's hash is taken away, and what is left says so.
CREATE TRIGGER event_is_not_changed BEFORE UPDATE ON event
WHEN NOT (NEW.account = OLD.account AND NEW.seq = OLD.seq AND NEW.leaf_hash = OLD.leaf_hash AND NEW.at = 0
  AND NEW.actor = '' AND NEW.credential = '' AND NEW.address = '' AND NEW.request IS NULL AND NEW.action = 'retired'
  AND NEW.resource = '' AND NEW.space IS NULL AND NEW.agent IS NULL AND NEW.phase = '' AND NEW.verdict = ''
  AND NEW.intent IS NULL AND NEW.detail = '{}' AND NEW.untold = 1)
BEGIN SELECT RAISE(ABORT, 'events are not changed'); END;

-- Roots of complete subtrees of 256, 256², … leaves, so that a proof reads a few hundred hashes of a log of
-- any length.
CREATE TABLE tree_tile (
  account TEXT NOT NULL, level INTEGER NOT NULL, n INTEGER NOT NULL, hash BLOB NOT NULL,
  PRIMARY KEY (account, level, n)
) STRICT, WITHOUT ROWID;
