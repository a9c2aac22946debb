-- Not IF NOT EXISTS: a migration is one transaction here, and runs once.
CREATE TABLE records (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    data text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
