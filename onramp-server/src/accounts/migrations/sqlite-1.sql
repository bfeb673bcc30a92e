-- Ids are never given twice.
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    is_active INTEGER NOT NULL
) STRICT;
-- Whom an account trusts, and by which alias. Both directions are here.
CREATE TABLE trust (
    account INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    alias TEXT NOT NULL,
    other INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    PRIMARY KEY (account, alias),
    UNIQUE (other, account)
) STRICT, WITHOUT ROWID;
-- Times are nanoseconds since 1970.
CREATE TABLE tokens (
    digest BLOB PRIMARY KEY,
    issuer INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    alias TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_of_issuer ON tokens (issuer, expires);
CREATE INDEX tokens_by_age ON tokens (expires);
CREATE TABLE invites (
    digest BLOB PRIMARY KEY,
    inviter INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    email TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invites_of_inviter ON invites (inviter, expires);
CREATE INDEX invites_by_age ON invites (expires);
