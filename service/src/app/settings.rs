//! The `[database]` table: what it may hold, and what of it the application needs. With `[access]` it is
//! all that the application adds to the configuration.

use std::time::Duration;

use ferricorn::{BoxError, Config, Setting};
use serde::Deserialize;

use super::access;
use super::store::{CONNECTIONS_MIN, Lifetimes, Target};

/// More than a database server is ever set to admit to one process.
const CONNECTIONS_MAX: u64 = 1000;
/// Below a second nothing is waited for; above an hour is too long to wait.
const WAIT_MS: std::ops::RangeInclusive<u64> = 1000..=3_600_000;
/// 0 is without end; a week is as good as that.
const LIFETIME_MS: std::ops::RangeInclusive<u64> = 0..=604_800_000;

/// The settings in the file, the environment and the command line.
pub(crate) const SETTINGS: &[Setting] = &joined::<{ DATABASE.len() + access::SETTINGS.len() }>();

/// Both tables in one.
const fn joined<const COUNT: usize>() -> [Setting; COUNT] {
    let mut all = [DATABASE[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] =
            if at < DATABASE.len() { DATABASE[at] } else { access::SETTINGS[at - DATABASE.len()] };
        at += 1;
    }
    all
}

/// Those of `[database]`, and the default that this application has for one of ferricorn's own.
const DATABASE: &[Setting] = &[
    // Bodies mean nothing here.
    Setting::with_default("limits.body", "1MiB"),
    Setting::text(
        "database.url",
        "sqlite://data/ferricorn.db",
        "The database: sqlite://, postgres://, mysql:// or mariadb://.",
    )
    .env("DATABASE_URL")
    .file_env("DATABASE_URL_FILE")
    .check(check)
    .secret(),
    Setting::integer(
        "database.max_connections",
        "5",
        CONNECTIONS_MIN..=CONNECTIONS_MAX,
        "Connections of each worker at the most: one stores new rows, one deletes, one asks \
         whether the database answers, the others read.",
    ),
    Setting::duration(
        "database.connect_timeout",
        "60",
        WAIT_MS,
        "How long to wait for the database at start; at the latest a second before boot_timeout is \
         over it is given up.",
    ),
    Setting::duration(
        "database.idle_timeout",
        "30",
        LIFETIME_MS,
        "A connection to a database server that is unused for longer is closed, so that other \
         workers get one; 0: never.",
    ),
    Setting::duration(
        "database.max_lifetime",
        "1800",
        LIFETIME_MS,
        "A connection to a database server that is older is closed, up to a tenth earlier, since \
         another server may have taken over the address; 0: never.",
    ),
];

fn check(url: &str) -> Result<(), String> {
    Target::parse(url).map(drop)
}

/// The table, checked.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// Which database.
    pub(crate) target: Target,
    /// Connections of each worker.
    pub(crate) max_connections: usize,
    /// The time that a start waits for the database.
    pub(crate) connect_timeout: Duration,
    /// The lifetime of connections to a server.
    pub(crate) lifetimes: Lifetimes,
    /// Clients that may be connected to a worker at once. It is `worker_connections`, of no table.
    pub(crate) clients_max: usize,
}

/// The table as it is read.
#[derive(Deserialize)]
struct Table {
    url: String,
    max_connections: usize,
    #[serde(with = "ferricorn::seconds")]
    connect_timeout: Duration,
    #[serde(with = "ferricorn::seconds")]
    idle_timeout: Duration,
    #[serde(with = "ferricorn::seconds")]
    max_lifetime: Duration,
}

impl Database {
    /// Reads the configuration.
    ///
    /// # Errors
    /// None that the settings' own checks have not met before.
    pub(crate) fn of(config: &Config) -> Result<Self, BoxError> {
        let table: Table = config.section("database")?;
        let some = |duration: Duration| (!duration.is_zero()).then_some(duration);
        Ok(Self {
            target: Target::parse(&table.url)?,
            max_connections: table.max_connections,
            connect_timeout: table.connect_timeout,
            lifetimes: Lifetimes { idle: some(table.idle_timeout), max: some(table.max_lifetime) },
            clients_max: usize::try_from(config.worker_connections)?,
        })
    }
}
