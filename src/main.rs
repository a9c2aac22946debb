//! The program: the bundled application on ferricorn.

use ferricorn::{App, BoxError, Setting, WorkerContext};

/// Stands in for the bundled application.
struct Placeholder;

impl App for Placeholder {
    const SETTINGS: &'static [Setting] = &[
        Setting::text(
            "database.url",
            "sqlite://data/ferricorn.db",
            "The database: sqlite://, postgres://, mysql:// or mariadb://.",
        )
        .env("DATABASE_URL")
        .file_env("DATABASE_URL_FILE")
        .secret(),
        Setting::integer("database.max_connections", "5", 1..=1000, "Connections in each worker."),
        Setting::duration(
            "database.connect_timeout",
            "60",
            1000..=3_600_000,
            "How long to wait for the database at start.",
        ),
    ];

    async fn router(&self, _worker: &WorkerContext) -> Result<axum::Router, BoxError> {
        Ok(axum::Router::new())
    }
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Placeholder)
}
