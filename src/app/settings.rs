//! The `[database]` table: what it may hold, and what of it the application needs.

use std::time::Duration;

use ferricorn::{BoxError, Config, Setting};
use serde::Deserialize;

use super::store::{CONNECTIONS_MIN, Target};

/// More than a database server is ever set to admit to one process.
const CONNECTIONS_MAX: u64 = 1000;
/// Below a second nothing is waited for; above an hour nobody waits.
const WAIT_MS: std::ops::RangeInclusive<u64> = 1000..=3_600_000;

/// What the file, the environment and the command line may say.
pub(crate) const SETTINGS: &[Setting] = &[
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
    /// How long a start waits for the database.
    pub(crate) connect_timeout: Duration,
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
}

impl Database {
    /// What the configuration says.
    ///
    /// # Errors
    /// None that the settings' own checks have not met before.
    pub(crate) fn of(config: &Config) -> Result<Self, BoxError> {
        let Table { url, max_connections, connect_timeout } = config.section("database")?;
        let target = Target::parse(&url)?;
        let clients_max = usize::try_from(config.worker_connections)?;
        Ok(Self { target, max_connections, connect_timeout, clients_max })
    }
}
