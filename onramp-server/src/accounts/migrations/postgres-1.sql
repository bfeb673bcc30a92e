-- Ids are never given twice. Texts are compared byte by byte.
CREATE TABLE accounts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT COLLATE "C" NOT NULL,
    is_active BIGINT NOT NULL
);
-- Whom an account trusts, and by which alias. Both directions are here.
CREATE TABLE trust (
    account BIGINT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    alias TEXT COLLATE "C" NOT NULL,
    other BIGINT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    PRIMARY KEY (account, alias),
    UNIQUE (other, account)
);
-- Times are nanoseconds since 1970.
CREATE TABLE tokens (
    digest BYTEA PRIMARY KEY,
    issuer BIGINT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    alias TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX tokens_of_issuer ON tokens (issuer, expires);
CREATE INDEX tokens_by_age ON tokens (expires);
CREATE TABLE invites (
    digest BYTEA PRIMARY KEY,
    inviter BIGINT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    email TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX invites_of_inviter ON invites (inviter, expires);
CREATE INDEX invites_by_age ON invites (expires);
