//! Uploads that are written to a file as they come in, never held in memory: `PUT /files/{name}`.
//!
//! Their paths take 64 MiB, all others what `limits.body` says. A client that goes away, or sends nothing
//! for `limits.body_timeout`, leaves no file behind. Try: `curl -T photo.jpg 127.0.0.1:5000/files/photo`
use std::io::Write as _;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::{Router, routing::put};
use ferricorn::{App, BoxError, Setting, WorkerContext};
use futures_util::StreamExt as _;

struct Uploads;

#[derive(serde::Deserialize)]
struct Table {
    folder: PathBuf,
}

impl App for Uploads {
    const NAME: &'static str = "uploads-to-files";
    const SETTINGS: &'static [Setting] = &[
        Setting::path("uploads.folder", "uploads", "The folder of the files that are uploaded."),
        Setting::with_default("limits.body", "64KiB"),
    ];

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        worker.limit_body("/files/{name}", 64 << 20)?;
        let Table { folder } = worker.config().section("uploads")?;
        std::fs::create_dir_all(&folder)?;
        Ok(Router::new().route("/files/{name}", put(upload)).with_state(folder))
    }
}

async fn upload(
    State(folder): State<PathBuf>,
    extract::Path(name): extract::Path<String>,
    body: Body,
) -> Result<(StatusCode, String), StatusCode> {
    if Path::new(&name).file_name() != Some(name.as_ref()) {
        return Err(StatusCode::NOT_FOUND);
    }
    // A name of this upload alone: two workers may be given the same name at once.
    let unfinished = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = write(body, &unfinished).await;
    let kept = written.and_then(|bytes| {
        std::fs::rename(&unfinished, folder.join(&name)).map(|()| bytes).map_err(BoxError::from)
    });
    match kept {
        Ok(bytes) => Ok((StatusCode::CREATED, format!("{bytes} bytes\n"))),
        Err(error) => {
            let _absent = std::fs::remove_file(&unfinished);
            tracing::warn!(%error, name, "an upload has failed");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn write(body: Body, path: &Path) -> Result<usize, BoxError> {
    let mut file = std::fs::File::create_new(path)?;
    let mut bytes = 0;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        bytes += piece.len();
        // A piece has some KiB: that goes into the page cache.
        file.write_all(&piece)?;
    }
    Ok(bytes)
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Uploads)
}
