-- A user's own record begins where the user does: a re-created namesake does not read the earlier one's.
ALTER TABLE user ADD COLUMN first_event INTEGER NOT NULL DEFAULT 0;
