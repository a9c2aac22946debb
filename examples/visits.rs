//! State in a database, by sqlx: each worker has a pool of its own, opened after the fork.
//!
//! `App::prepare` runs once for each generation, before its workers: migrations go there. A counter in
//! `Arc<Mutex<u64>>` would be one number in each worker.
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Router, routing::get};
use ferricorn::{App, BoxError, PrepareContext, Setting, WorkerContext};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};

struct Visits;

#[derive(serde::Deserialize)]
struct Database {
    file: String,
    max_connections: u32,
}

impl App for Visits {
    const NAME: &'static str = "visits";
    const SETTINGS: &'static [Setting] = &[
        Setting::text("visits.file", "visits.db", "The SQLite file."),
        Setting::integer("visits.max_connections", "2", 1..=16, "Connections of each worker."),
    ];

    async fn prepare(&self, context: &PrepareContext) -> Result<(), BoxError> {
        let pool = open(context.config()).await?;
        sqlx::query("CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY)")
            .execute(&pool)
            .await?;
        pool.close().await;
        Ok(())
    }

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let pool = open(worker.config()).await?;
        Ok(Router::new().route("/", get(visit)).with_state(pool))
    }
}

async fn open(config: &ferricorn::Config) -> Result<SqlitePool, BoxError> {
    let database: Database = config.section("visits")?;
    let options = SqliteConnectOptions::new()
        .filename(database.file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(database.max_connections);
    Ok(pool.connect_with(options).await?)
}

async fn visit(State(pool): State<SqlitePool>) -> Result<String, StatusCode> {
    let insert = sqlx::query_scalar::<_, i64>("INSERT INTO visits DEFAULT VALUES RETURNING id");
    match insert.fetch_one(&pool).await {
        Ok(number) => Ok(format!("visit {number}\n")),
        Err(error) => {
            tracing::error!(%error, "cannot count a visit");
            Err(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Visits)
}
