//! Static files beside an API, by tower-http's `ServeDir`: types, ranges, `If-Modified-Since`.
//!
//! The folder is a setting of its own: `static.folder` in `config.toml`, `--static-folder`,
//! `FERRICORN_STATIC_FOLDER`. A worker that cannot read it does not boot, and the server says why.
use std::path::PathBuf;

use axum::{Router, routing::get};
use ferricorn::{App, BoxError, Setting, WorkerContext};
use tower_http::services::{ServeDir, ServeFile};

struct Site;

#[derive(serde::Deserialize)]
struct Static {
    folder: PathBuf,
}

impl App for Site {
    const NAME: &'static str = "static-files";
    const SETTINGS: &'static [Setting] =
        &[Setting::path("static.folder", "public", "The folder of the files that are served.")];

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let Static { folder } = worker.config().section("static")?;
        std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // A path that names no file gets the page of an application with paths of its own.
        let files = ServeDir::new(&folder).fallback(ServeFile::new(folder.join("index.html")));
        Ok(Router::new().route("/api/time", get(time)).fallback_service(files))
    }
}

async fn time() -> String {
    format!("{:?}\n", std::time::SystemTime::UNIX_EPOCH.elapsed())
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Site)
}
