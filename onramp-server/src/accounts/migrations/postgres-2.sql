-- Counts what ends all logins of an account.
ALTER TABLE accounts ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
