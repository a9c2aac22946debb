//! The world of a test: an empty database of its own, and workers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use ferricorn::{BoxError, Slot};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection, SqliteConnection,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::app::outage::tests::Workers;
use crate::app::settings::Database;
use crate::app::store::{Lifetimes, Start, Target, prepare};
use crate::app::{self, Access, Service};
use crate::client::{Answer, send};
pub(crate) use crate::servers::Kind;
use crate::servers::{DATABASE, Server};

/// The time that a server may take to start, on a machine that does other things too.
const START_MAX: Duration = Duration::from_secs(60);

/// The default.
const CLIENTS_MAX: usize = 1000;
/// Threads for blocking calls of a test's runtime; few, so that a test can occupy all of them.
const BLOCKING_THREADS: usize = 64;

/// One server for all tests of the suite; those that stop theirs have their own.
static POSTGRES: LazyLock<Server> = LazyLock::new(|| Server::running(Kind::Postgres));
static MARIADB: LazyLock<Server> = LazyLock::new(|| Server::running(Kind::Mariadb));

/// One test's world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) url: String,
    /// Clients that a worker may have at once.
    pub(crate) clients_max: usize,
    /// The lifetime of a worker's connections.
    pub(crate) lifetimes: Lifetimes,
    workers: Workers,
    /// Where an SQLite file lives; removed at the end.
    _folder: Option<TempDir>,
}

/// A worker, as a test sees it.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) router: Router,
    pub(crate) service: Arc<Service>,
}

/// Runs a test in a world of its own.
pub(crate) fn run<F: Future<Output = ()>>(kind: Kind, test: impl FnOnce(World) -> F) {
    block_on(async {
        let world = match kind {
            Kind::Sqlite => World::with_a_file(),
            Kind::Postgres => World::on(&POSTGRES).await,
            Kind::Mariadb => World::on(&MARIADB).await,
        };
        test(world).await;
    });
}

/// Runs a test on a runtime like a worker's.
pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Occupies every thread for blocking calls of the current runtime until the sender is dropped.
pub(crate) fn occupy_blocking_threads() -> std::sync::mpsc::Sender<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let receiver = Arc::new(std::sync::Mutex::new(receiver));
    for _ in 0..BLOCKING_THREADS {
        let receiver = Arc::clone(&receiver);
        tokio::task::spawn_blocking(move || receiver.lock().unwrap().recv());
    }
    sender
}

/// Polls until something is so.
pub(crate) async fn eventually<T>(limit: Duration, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come about within {limit:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

impl World {
    fn with_a_file() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}/new/data.db", folder.path().display());
        Self {
            url,
            clients_max: CLIENTS_MAX,
            lifetimes: Lifetimes::default(),
            workers: Workers::default(),
            _folder: Some(folder),
        }
    }

    /// An empty database on a server that is starting or running.
    pub(crate) async fn on(server: &Server) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", LAST.fetch_add(1, Ordering::Relaxed));
        let url = server.url(&name);
        let admin = server.url(DATABASE);
        let create = format!("CREATE DATABASE {name}");
        eventually(START_MAX, async || execute(&admin, &create).await.ok()).await;
        Self {
            url,
            clients_max: CLIENTS_MAX,
            lifetimes: Lifetimes::default(),
            workers: Workers::default(),
            _folder: None,
        }
    }

    /// The database's name on its server.
    pub(crate) fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    /// The `[database]` table.
    pub(crate) fn database(&self) -> Database {
        Database {
            target: Target::parse(&self.url).unwrap(),
            max_connections: 5,
            connect_timeout: START_MAX,
            lifetimes: self.lifetimes,
            clients_max: self.clients_max,
        }
    }

    /// Does as a start.
    pub(crate) async fn start(&self) -> Result<(), BoxError> {
        let start = Start { connect_timeout: START_MAX, connections: 20 };
        Ok(prepare(&self.database().target, start).await?)
    }

    /// Makes the tables.
    pub(crate) async fn prepare(&self) {
        self.start().await.unwrap();
    }

    /// Starts a worker whose service is open.
    pub(crate) fn worker(&self, slot: u16) -> Worker {
        self.worker_with(slot, Access::default())
    }

    /// Starts a worker with these rules.
    pub(crate) fn worker_with(&self, slot: u16, access: Access) -> Worker {
        let (router, service) =
            app::start(self.database(), access, Slot::new(slot), self.workers.clone());
        Worker { router, service }
    }

    /// Makes the tables and starts the first worker.
    pub(crate) async fn prepared(&self) -> Worker {
        self.prepare().await;
        self.worker(0)
    }
}

/// Executes a statement on a connection of its own.
pub(crate) async fn execute(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    let sql = AssertSqlSafe(sql.to_owned());
    if url.starts_with("postgres") {
        // A pooler refuses what it does not know.
        let options = url.parse::<PgConnectOptions>()?.extra_float_digits(None);
        let mut connection = options.connect().await?;
        connection.execute(sql).await?;
        connection.close().await
    } else if url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(url).await?;
        connection.execute(sql).await?;
        connection.close().await
    } else {
        let mut connection = MySqlConnection::connect(url).await?;
        connection.execute(sql).await?;
        connection.close().await
    }
}

impl Worker {
    /// A GET; of readiness, which ferricorn answers, with the cause that goes to the log.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        if target != "/readyz" {
            return send(&self.router, Method::GET, target).await;
        }
        let response = match self.service.ready().await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(fault) => fault.into_response(),
        };
        Answer::of(response).await
    }

    pub(crate) async fn populate(&self) -> Answer {
        send(&self.router, Method::POST, "/populate").await
    }

    pub(crate) async fn delete(&self) -> Answer {
        send(&self.router, Method::DELETE, "/delete").await
    }

    /// Adds a row, which must succeed, and gives its data.
    pub(crate) async fn populated(&self) -> String {
        let answer = self.populate().await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["data"].as_str().unwrap().to_owned()
    }

    /// Removes all rows, which must succeed, and gives the count.
    pub(crate) async fn deleted(&self) -> u64 {
        let answer = self.delete().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        message.strip_suffix(" rows deleted").unwrap().parse().unwrap()
    }

    /// A page of rows, which must succeed.
    pub(crate) async fn page(&self, query: &str) -> Value {
        let answer = self.get(&format!("/data?{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Returns the number of rows.
    pub(crate) async fn total(&self) -> u64 {
        self.page("limit=1").await["total"].as_u64().unwrap()
    }
}

/// The rows' texts, in their order.
pub(crate) fn texts(page: &Value) -> Vec<String> {
    let rows = page["rows"].as_array().unwrap();
    rows.iter().map(|row| row["data"].as_str().unwrap().to_owned()).collect()
}
