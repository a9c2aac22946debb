-- Run once by the image, when it fills an empty volume. The service gets a role that owns its database
-- and may do nothing else; no user can become the superuser over the network any more.

-- A statement that fails is logged, with the password in it: these are not.
SET log_min_error_statement = panic;
\set password `cat "$ROLE_PASSWORD_FILE"`
CREATE ROLE ferricorn LOGIN PASSWORD :'password';
CREATE DATABASE ferricorn OWNER ferricorn;
ALTER ROLE CURRENT_USER PASSWORD NULL;
