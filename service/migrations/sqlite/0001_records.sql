-- Rows are numbered as they are committed; the newest has the highest id.
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY,
    data TEXT NOT NULL,
    -- Milliseconds since 1970, UTC.
    created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
);
