//! The yardstick of writes: `POST /populate` on plain axum and sqlx, in one process, without a log: a
//! row a request, each in a transaction of its own, as one writes it first. `bench/compare` measures
//! the bundled service against it. Usage: `plain_writes ADDRESS DATABASE_URL`.
#![expect(clippy::disallowed_methods, reason = "one process, and no fork in it")]

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// As many connections as four workers of the bundled service have together.
const CONNECTIONS: u32 = 20;

/// The one route, on a pool of any kind, which the database's own driver types do not share a trait for.
macro_rules! router {
    ($pool:expr, $insert:literal) => {{
        let pool = $pool;
        sqlx::query("CREATE TABLE IF NOT EXISTS plain_records (data TEXT NOT NULL)")
            .execute(&pool)
            .await?;
        Router::new().route(
            "/populate",
            post(move || {
                let pool = pool.clone();
                async move {
                    let data = format!("{:032x}", rand::random::<u128>());
                    let done = sqlx::query($insert).bind(data).execute(&pool).await;
                    done.map_or(StatusCode::SERVICE_UNAVAILABLE, |_| StatusCode::CREATED)
                }
            }),
        )
    }};
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: plain_writes ADDRESS DATABASE_URL";
    let address = arguments.next().ok_or(usage)?;
    let url = arguments.next().ok_or(usage)?;
    let router = if url.starts_with("postgres") {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&url).await?;
        router!(pool, "INSERT INTO plain_records (data) VALUES ($1)")
    } else if url.starts_with("sqlite") {
        // The same durability as the bundled service.
        let options = url.parse::<SqliteConnectOptions>()?;
        let options = options.journal_mode(SqliteJournalMode::Wal);
        let options = options.synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS);
        router!(pool.connect_with(options).await?, "INSERT INTO plain_records (data) VALUES (?)")
    } else {
        let pool = MySqlPoolOptions::new().max_connections(CONNECTIONS).connect(&url).await?;
        router!(pool, "INSERT INTO plain_records (data) VALUES (?)")
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(listener, router).await?)
}
