//! What a test has: an empty database of its own, and workers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use ferricorn::Slot;
use serde_json::Value;
use tempfile::TempDir;

use crate::app::settings::Database;
use crate::app::store::Target;
use crate::app::{self, Service};
use crate::client::{Answer, send};

/// The databases that the suite runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
}

/// One test's world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) url: String,
    /// Where an SQLite file lives; removed at the end.
    _folder: TempDir,
}

/// What a worker is to a test.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) router: Router,
    pub(crate) service: Arc<Service>,
}

/// Runs a test in a world of its own, on a runtime like a worker's.
pub(crate) fn run<F: Future<Output = ()>>(kind: Kind, test: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(World::new(kind)));
}

impl World {
    fn new(kind: Kind) -> Self {
        let folder = TempDir::new().unwrap();
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}/new/data.db", folder.path().display()),
        };
        Self { url, _folder: folder }
    }

    /// The `[database]` table.
    pub(crate) fn database(&self) -> Database {
        Database {
            target: Target::parse(&self.url).unwrap(),
            max_connections: 5,
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// Makes the tables.
    pub(crate) async fn prepare(&self) {
        app::prepare(&self.database()).await.unwrap();
    }

    /// Starts a worker.
    pub(crate) fn worker(&self, slot: u16) -> Worker {
        let (router, service) = app::start(self.database(), Slot::new(slot));
        Worker { router, service }
    }

    /// Makes the tables and starts the first worker.
    pub(crate) async fn prepared(&self) -> Worker {
        self.prepare().await;
        self.worker(0)
    }
}

impl Worker {
    pub(crate) async fn get(&self, target: &str) -> Answer {
        send(&self.router, Method::GET, target).await
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

    /// How many rows there are.
    pub(crate) async fn total(&self) -> u64 {
        self.page("limit=1").await["total"].as_u64().unwrap()
    }
}

/// The rows' texts, in their order.
pub(crate) fn texts(page: &Value) -> Vec<String> {
    let rows = page["rows"].as_array().unwrap();
    rows.iter().map(|row| row["data"].as_str().unwrap().to_owned()).collect()
}
