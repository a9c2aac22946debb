//! The start: wait for the database, make its tables, and see whether it admits all of us.

use std::time::Duration;

use sqlx::Connection;
use sqlx::migrate::MigrateError;
use sqlx::mysql::MySqlDatabaseError;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::obstacle::Obstacle;
use super::{Dialect, Role, Target, mysql, postgres, quiet, refusal, sqlite};

/// The first pause between two attempts; each is twice the one before …
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// … up to this one, which is also how often a line is logged.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The time that one attempt may take: a server that drops packets is asked again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that the proof may take: longer than SQLite waits for a lock, so that it names the holder.
const PROOF_TIMEOUT: Duration = Duration::from_secs(6);

/// Adds no row, as a user that may add one.
pub(super) const NO_INSERT: &str =
    "INSERT INTO records (data) SELECT data FROM records WHERE 1 = 0";
/// A write that changes no row of the users'.
pub(super) const WRITE: &str =
    "UPDATE _sqlx_migrations SET execution_time = execution_time + 1 WHERE version = 1";

/// The facts that a start knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The time to wait for the server.
    pub(crate) connect_timeout: Duration,
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
        /// The result of the last attempt.
        cause: String,
    },
    /// It is there, and waiting would change nothing.
    #[error("the database at {target} refuses: {}", refusal::text(cause))]
    Refused {
        /// Where it is.
        target: Target,
        /// Its answer.
        cause: sqlx::Error,
    },
    /// It is there, and takes no writes: it was waited for in vain.
    #[error("the database at {target} takes no writes after {waited:.0?}: {cause}")]
    Unwritable {
        /// Where it is.
        target: Target,
        /// For how long.
        waited: Duration,
        /// The result of the last attempt.
        cause: String,
    },
    /// Its file cannot be written by this user.
    #[error("the database at {target} cannot be written: {obstacle}")]
    Barred {
        /// Where it is.
        target: Target,
        /// The obstacle.
        obstacle: Obstacle,
    },
    /// It acknowledges writes that are not stored.
    #[error(
        "the database at {target} does not keep what is written: a change that it acknowledged is \
         not seen by another connection; look for rules and triggers on _sqlx_migrations, and for \
         a proxy that sends reads to another server"
    )]
    Lost {
        /// Where it is.
        target: Target,
    },
}

/// Waits for the database, makes its tables, and proves that it takes writes. A database that takes
/// none for now is waited for like one that is away.
///
/// # Errors
/// When the database is not there in time, or refuses.
pub(crate) async fn prepare(target: &Target, start: Start) -> Result<(), Failure> {
    let mut wait = Wait::new(target, start);
    loop {
        let cause = match attempt(&mut wait).await {
            Err(Failure::Refused { cause, .. }) if is_passing(&cause) => match target {
                Target::Sqlite(options) => options.explained(cause).to_string(),
                Target::Postgres(_) | Target::Mysql(_) => refusal::text(&cause),
            },
            Err(Failure::Refused { cause, target }) => return Err(refused(target, cause)),
            Err(Failure::Unwritable { cause, .. }) => cause,
            done => return done,
        };
        if !wait.pause(&cause).await {
            let target = target.clone();
            let waited = wait.began.elapsed();
            return Err(Failure::Unwritable { target, waited, cause });
        }
    }
}

/// Returns true if the database is there and takes no writes, and may do so later: a standby or a
/// server in maintenance, or a lock of another client.
fn is_passing(cause: &sqlx::Error) -> bool {
    /// A transaction that is read-only, a lock that is not free in time.
    const POSTGRES: [&str; 2] = ["25006", "55P03"];
    /// The same, and the option `read_only`.
    const MYSQL: [u16; 4] = [1205, 1290, 1792, 1836];
    let cause = match cause {
        sqlx::Error::Migrate(cause) => match &**cause {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => cause,
            _ => return false,
        },
        cause => cause,
    };
    match cause {
        sqlx::Error::Database(said) => {
            let number = said.try_downcast_ref().map(MySqlDatabaseError::number);
            number.is_some_and(|number| MYSQL.contains(&number))
                || said.code().is_some_and(|code| POSTGRES.contains(&&*code))
                || sqlite::is_busy(cause)
        }
        _ => false,
    }
}

/// A refusal, with what this machine knows of its cause.
fn refused(target: Target, cause: sqlx::Error) -> Failure {
    let obstacle = match &target {
        Target::Sqlite(options) => options.obstacle(),
        Target::Postgres(_) | Target::Mysql(_) => None,
    };
    match obstacle {
        Some(obstacle) => Failure::Barred { target, obstacle },
        None => Failure::Refused { target, cause },
    }
}

async fn attempt(wait: &mut Wait<'_>) -> Result<(), Failure> {
    let target = wait.target;
    let done = match target {
        Target::Sqlite(options) => sqlite::migrate(options).await,
        Target::Postgres(options) => {
            let mut connection = wait.connect(|| options.dial(Role::Reads)).await?;
            wait.warn(postgres::connections_max(&mut connection).await);
            let done = postgres::migrate(&mut connection).await;
            drop(connection.close().await);
            done
        }
        Target::Mysql(options) => {
            let mut connection = wait.connect(|| options.dial(Role::Reads)).await?;
            wait.warn(mysql::connections_max(&mut connection).await);
            let done = mysql::migrate(&mut connection).await;
            drop(connection.close().await);
            done
        }
    };
    let refused = |cause| Failure::Refused { target: target.clone(), cause };
    done.map_err(refused)?;
    let proved = match target {
        Target::Sqlite(options) => {
            let sqlite = sqlite::Sqlite::new(options.clone());
            // The workers of a server that is reloaded write meanwhile.
            let _taken = sqlite.turn().await;
            prove(&sqlite).await
        }
        Target::Postgres(options) => prove(options).await,
        Target::Mysql(options) => prove(options).await,
    };
    if let Err(Unproven::Refused(cause)) = &proved
        && is_full(cause)
    {
        // Rows can be read, and removed.
        tracing::warn!(
            "the database at {target} has no space left: {}; readyz returns 503 until it takes \
             writes",
            refusal::text(cause)
        );
        return Ok(());
    }
    proved.map_err(|unproven| match unproven {
        Unproven::Refused(cause) => refused(cause),
        Unproven::Silent => {
            let target = target.clone();
            let waited = PROOF_TIMEOUT;
            let cause = format!("a write came to no end within {} s", waited.as_secs());
            Failure::Unwritable { target, waited, cause }
        }
        Unproven::Lost => Failure::Lost { target: target.clone() },
    })
}

/// Why [`prove`] has not proved that rows can be stored.
#[derive(Debug)]
pub(super) enum Unproven {
    /// The database refused one of the statements, or a connection.
    Refused(sqlx::Error),
    /// The statements took longer than [`PROOF_TIMEOUT`].
    Silent,
    /// A write was acknowledged on one connection, and another does not see it.
    Lost,
}

/// Proves that a worker's writes would be stored: that its user may add and remove rows, and that a
/// write on one connection is read on another. No row of the users' changes: the write counts up a
/// number of the migrations' own table, and the other statements are about no row.
///
/// Several starts may do so at once, since the number only rises.
///
/// # Errors
/// When one of it is not so.
pub(super) async fn prove<D: Dialect>(dialect: &D) -> Result<(), Unproven> {
    const NO_DELETE: &str = "DELETE FROM records WHERE 1 = 0";
    const READ: &str = "SELECT execution_time FROM _sqlx_migrations WHERE version = 1";
    let steps = async {
        let mut writer = dialect.dial(Role::Writes).await?;
        let mut reader = dialect.dial(Role::Reads).await?;
        let before = dialect.number(&mut reader, READ).await?;
        dialect.execute(&mut writer, NO_INSERT).await?;
        dialect.execute(&mut writer, NO_DELETE).await?;
        dialect.execute(&mut writer, WRITE).await?;
        let after = dialect.number(&mut reader, READ).await?;
        // They have served; a failure to close them changes nothing.
        drop(writer.close().await);
        drop(reader.close().await);
        Ok(after > before)
    };
    match timeout(PROOF_TIMEOUT, quiet(steps)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Unproven::Lost),
        Ok(Err(cause)) => Err(Unproven::Refused(cause)),
        Err(_) => Err(Unproven::Silent),
    }
}

/// Returns true if the database's volume is full, or a quota of it.
fn is_full(cause: &sqlx::Error) -> bool {
    /// `ER_DISK_FULL`, `ER_RECORD_FILE_FULL`.
    const MYSQL: [u16; 2] = [1021, 1114];
    let sqlx::Error::Database(said) = cause else { return false };
    let number = said.try_downcast_ref().map(MySqlDatabaseError::number);
    number.is_some_and(|number| MYSQL.contains(&number))
        || said.code().is_some_and(|code| code == "53100")
        || sqlite::is_full(cause)
}

/// The time that a start waits for its database, and how it is spent.
struct Wait<'a> {
    target: &'a Target,
    start: Start,
    began: Instant,
    pause: Duration,
    logged: Option<Instant>,
    is_warned: bool,
}

impl<'a> Wait<'a> {
    fn new(target: &'a Target, start: Start) -> Self {
        let began = Instant::now();
        Self { target, start, began, pause: PAUSE_MIN, logged: None, is_warned: false }
    }

    fn deadline(&self) -> Instant {
        self.began + self.start.connect_timeout
    }

    /// Waits before the next attempt. Returns false if there is no time for one.
    async fn pause(&mut self, cause: &str) -> bool {
        let now = Instant::now();
        if now + self.pause >= self.deadline() {
            return false;
        }
        if self.logged.is_none_or(|last| now - last >= PAUSE_MAX) {
            self.logged = Some(now);
            tracing::info!("waiting for the database at {}: {cause}", self.target);
        }
        sleep(self.pause).await;
        self.pause = PAUSE_MAX.min(self.pause * 2);
        true
    }

    /// Connects as soon as the server lets us.
    async fn connect<C, F: Future<Output = Result<C, sqlx::Error>>>(
        &mut self,
        connect: impl Fn() -> F,
    ) -> Result<C, Failure> {
        loop {
            let target = || self.target.clone();
            let attempt_deadline = self.deadline().min(Instant::now() + ATTEMPT_TIMEOUT);
            let cause = match timeout_at(attempt_deadline, quiet(connect())).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(cause)) if refusal::is_final(&cause) => {
                    return Err(Failure::Refused { target: target(), cause });
                }
                Ok(Err(cause)) => refusal::text(&cause),
                Err(_) => "no answer".to_owned(),
            };
            if !self.pause(&cause).await {
                let waited = self.began.elapsed();
                return Err(Failure::Away { target: self.target.clone(), waited, cause });
            }
        }
    }

    /// Warns once of more connections than the server admits.
    fn warn(&mut self, admitted: Result<i64, sqlx::Error>) {
        let Ok(admitted) = admitted.map(|admitted| u64::try_from(admitted).unwrap_or(0)) else {
            // A server that does not say: it will when it has enough.
            return;
        };
        if self.start.connections > admitted && !std::mem::replace(&mut self.is_warned, true) {
            tracing::warn!(
                "the workers may open {} connections together, and the database at {} admits \
                 {admitted}: lower database.max_connections or workers, or raise the server's limit",
                self.start.connections,
                self.target,
            );
        }
    }
}
