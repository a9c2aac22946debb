//! The start: wait for the database, make its tables, and see whether it admits all of us.

use std::time::Duration;

use sqlx::Connection;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Target, mysql, postgres, quiet, sqlite};

/// The first pause between two attempts; each is twice the one before …
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// … up to this one, which is also how often a line is logged.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long one attempt may take: a server that drops packets is asked again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a start knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// How long to wait for the server.
    pub(crate) patience: Duration,
    /// Connections that all workers may want together.
    pub(crate) connections: u64,
}

/// Why a start failed. The texts name the database, never its password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was waited for in vain.
    #[error("the database at {target} cannot be reached after {waited:.0?}: {cause}")]
    Away {
        /// Where it should be.
        target: Target,
        /// For how long.
        waited: Duration,
        /// What the last attempt met.
        cause: String,
    },
    /// It is there, and waiting would change nothing.
    #[error("the database at {target} refuses: {cause}")]
    Refused {
        /// Where it is.
        target: Target,
        /// What it said.
        cause: sqlx::Error,
    },
}

/// Waits for the database and makes its tables.
///
/// # Errors
/// When the database is not there in time, or refuses.
pub(crate) async fn prepare(target: &Target, start: Start) -> Result<(), Failure> {
    let done = match target {
        Target::Sqlite(options) => sqlite::migrate(options).await,
        Target::Postgres(options) => {
            let mut connection = wait(target, start, || options.connect()).await?;
            warn(target, start, postgres::connections_max(&mut connection).await);
            let done = postgres::migrate(&mut connection).await;
            drop(connection.close().await);
            done
        }
        Target::Mysql(options) => {
            let mut connection = wait(target, start, || options.connect()).await?;
            warn(target, start, mysql::connections_max(&mut connection).await);
            let done = mysql::migrate(&mut connection).await;
            drop(connection.close().await);
            done
        }
    };
    done.map_err(|cause| Failure::Refused { target: target.clone(), cause })
}

/// Connects as soon as the server lets us.
async fn wait<C, F: Future<Output = Result<C, sqlx::Error>>>(
    target: &Target,
    start: Start,
    connect: impl Fn() -> F,
) -> Result<C, Failure> {
    let began = Instant::now();
    let deadline = began + start.patience;
    let mut pause = PAUSE_MIN;
    let mut logged: Option<Instant> = None;
    loop {
        let attempt_deadline = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
        let cause = match timeout_at(attempt_deadline, quiet(connect())).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(cause)) if is_final(&cause) => {
                return Err(Failure::Refused { target: target.clone(), cause });
            }
            Ok(Err(cause)) => cause.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let now = Instant::now();
        if now + pause >= deadline {
            let waited = began.elapsed();
            return Err(Failure::Away { target: target.clone(), waited, cause });
        }
        if logged.is_none_or(|last| now - last >= PAUSE_MAX) {
            logged = Some(now);
            tracing::info!("waiting for the database at {target}: {cause}");
        }
        sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Whether another attempt would end in the same way: a wrong password, a database that does not
/// exist, TLS that one side does not want.
fn is_final(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => true,
        // rustls says so of a certificate that nobody trusts.
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        sqlx::Error::Database(error) => {
            // PostgreSQL: invalid authorization (class 28), no such database. MySQL has codes of
            // its own in SQLSTATE 42000 and 28000: access denied (to a database, too), no such
            // database.
            matches!(error.code().as_deref(), Some("28000" | "28P01" | "3D000" | "42000"))
        }
        _ => false,
    }
}

fn warn(target: &Target, start: Start, admitted: Result<i64, sqlx::Error>) {
    let Ok(admitted) = admitted.map(|admitted| u64::try_from(admitted).unwrap_or(0)) else {
        // A server that does not say: it will when it has enough.
        return;
    };
    if start.connections > admitted {
        tracing::warn!(
            "the workers may open {} connections together, and the database at {target} admits \
             {admitted}: lower database.max_connections or workers, or raise the server's limit",
            start.connections,
        );
    }
}
