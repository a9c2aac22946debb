//! Errors of the three drivers: their text, and what follows from them.

use sqlx::Error;
use sqlx::migrate::MigrateError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

/// The error's text without the line of PostgreSQL's own source that sqlx appends to it.
pub(super) fn text(error: &Error) -> String {
    let text = error.to_string();
    match source_line(error) {
        Some(line) => text.replace(&format!(" at line {line}"), ""),
        None => text,
    }
}

fn source_line(error: &Error) -> Option<usize> {
    match error {
        Error::Database(said) => said.try_downcast_ref::<PgDatabaseError>()?.line(),
        Error::Migrate(cause) => match &**cause {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
                source_line(cause)
            }
            _ => None,
        },
        _ => None,
    }
}

fn postgres(error: &Error) -> Option<&PgDatabaseError> {
    match error {
        Error::Database(said) => said.try_downcast_ref(),
        _ => None,
    }
}

/// MySQL's own number: its SQLSTATE says little.
fn mysql_number(error: &Error) -> Option<u16> {
    match error {
        Error::Database(said) => said.try_downcast_ref().map(MySqlDatabaseError::number),
        _ => None,
    }
}

/// Returns true if another attempt to connect would end in the same way: a wrong password, a
/// database that does not exist, TLS that one side does not want, an option that is not known.
pub(super) fn is_final(error: &Error) -> bool {
    if let Some(said) = postgres(error) {
        return is_final_of_postgres(said.code(), said.message());
    }
    match error {
        Error::Configuration(_) | Error::Tls(_) => true,
        // rustls reports so a certificate that it does not trust.
        Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        Error::Database(said) => {
            // Access denied (to a database, too), no such database, an account or a host that is
            // locked out, an unknown variable or way to authenticate.
            let is_listed = matches!(
                mysql_number(error),
                Some(1129 | 1130 | 1193 | 1251 | 1524 | 1698 | 1820 | 1862 | 3118 | 4151)
            );
            let code = said.code();
            is_listed || (matches!(code.as_deref(), Some("28000" | "42000")) && !is_full(error))
        }
        _ => false,
    }
}

/// Codes with which a pooler refuses for good. PgBouncer has one code (08P01) for nearly all that it
/// refuses, and for a server that it cannot reach.
const REFUSED_BY_POOLERS: [&str; 10] = [
    "unsupported startup parameter",
    "no such database",
    "no such user",
    "auth failed",
    "password authentication failed",
    "SASL authentication failed",
    "login rejected",
    "bouncer config error",
    "SSL required",
    "transaction blocks not allowed in statement pooling mode",
];

/// Texts with which a server refuses for good, as a pooler passes them on: with that same code.
const REFUSED_BEHIND_POOLERS: [&str; 2] = ["does not exist", "is not permitted to log in"];

fn is_final_of_postgres(code: &str, message: &str) -> bool {
    /// SQLSTATE classes of what may pass: connections, resources, a server that starts or stops,
    /// files of its, faults within it, objects in use, conflicts.
    const PASSING: [&str; 7] = ["08", "53", "57", "58", "XX", "55", "40"];
    if code == "08P01" {
        return REFUSED_BY_POOLERS.iter().any(|refused| message.starts_with(refused))
            || REFUSED_BEHIND_POOLERS.iter().any(|refused| message.ends_with(refused));
    }
    !PASSING.iter().any(|class| code.starts_with(class))
}

/// Returns true if the server, or a pooler, admits no more connections for now.
pub(super) fn is_full(error: &Error) -> bool {
    /// Too many connections: of all, of the user, of the user in an hour.
    const MYSQL: [u16; 3] = [1040, 1203, 1226];
    match postgres(error) {
        Some(said) => {
            said.code() == "53300" || said.message().starts_with("no more connections allowed")
        }
        None => mysql_number(error).is_some_and(|number| MYSQL.contains(&number)),
    }
}

/// Returns true for a deadlock, or a failure to serialize: the statement has stored nothing.
pub(super) fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Database(said) => said.code().is_some_and(|code| code == "40001" || code == "40P01"),
        _ => false,
    }
}

/// Returns true if the connection leads to a server that takes no writes: a standby, or a primary
/// that was fenced after another took its place. Nothing was stored.
pub(super) fn is_read_only(error: &Error) -> bool {
    /// The option `read_only`, a read-only transaction, a server in read-only mode.
    const MYSQL: [u16; 3] = [1290, 1792, 1836];
    match postgres(error) {
        Some(said) => said.code() == "25006",
        None => mysql_number(error).is_some_and(|number| MYSQL.contains(&number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poolers_refusal_is_final_and_its_wait_is_not() {
        for (code, message, expected) in [
            ("08P01", "unsupported startup parameter: extra_float_digits", true),
            ("08P01", "no such database: none", true),
            ("08P01", "database \"none\" does not exist", true),
            ("08P01", "server login has been failing, try again later", false),
            ("08P01", "query_wait_timeout", false),
            ("08P01", "no more connections allowed (max_client_conn)", false),
            ("28P01", "password authentication failed for user \"app\"", true),
            ("3D000", "database \"none\" does not exist", true),
            ("42501", "permission denied for database \"app\"", true),
            ("22023", "invalid value for parameter \"TimeZone\": \"x\"", true),
            ("53300", "sorry, too many clients already", false),
            ("57P03", "the database system is starting up", false),
        ] {
            assert_eq!(is_final_of_postgres(code, message), expected, "{code} {message}");
        }
    }
}
