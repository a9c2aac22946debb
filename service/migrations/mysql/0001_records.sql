-- A table is made outside any transaction here: a start that was cut short may have made it.
-- DATETIME, not TIMESTAMP, which ends in 2038.
CREATE TABLE IF NOT EXISTS records (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    data VARCHAR(255) NOT NULL,
    created_at DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
