//! scratch, not committed
#![allow(warnings)]
use axum::Router;
use std::sync::atomic::*;
use std::time::Duration;
fn main() {
    let url = std::env::var("DATABASE_URL").unwrap_or("sqlite:///tmp/appbench/data.db".into());
    let workers: usize = std::env::var("WORKERS").ok().and_then(|v| v.parse().ok()).unwrap_or(4);
    let naive = std::env::var("NAIVE").is_ok();
    let port: u16 = std::env::var("PORT").ok().and_then(|v| v.parse().ok()).unwrap_or(5055);
    match std::env::args().nth(1) {
        None => {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async { app::prepare(&database).await.unwrap() });
            let me = std::env::current_exe().unwrap();
            let mut kids: Vec<_> = (0..workers)
                .map(|i| std::process::Command::new(&me).arg(i.to_string()).spawn().unwrap())
                .collect();
            for k in &mut kids {
                k.wait().unwrap();
            }
        }
        Some(slot) => {
            let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            rt.block_on(async move {
                tracing_subscriber::fmt().init();
                let router = if naive {
                    naive_router(&url).await
                } else {
                    app::start(&database, ferricorn::Slot::new(slot.parse().unwrap())).unwrap().0
                };
                let s = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                    .unwrap();
                s.set_reuse_port(true).unwrap();
                s.set_reuse_address(true).unwrap();
                s.set_nonblocking(true).unwrap();
                s.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
                s.listen(1024).unwrap();
                let l = tokio::net::TcpListener::from_std(s.into()).unwrap();
                loop {
                    let (c, _) = l.accept().await.unwrap();
                    c.set_nodelay(true).unwrap();
                    let router = router.clone();
                    let svc = hyper::service::service_fn(
                        move |req: hyper::Request<hyper::body::Incoming>| {
                            use tower::ServiceExt;
                            router.clone().oneshot(req.map(axum::body::Body::new))
                        },
                    );
                    tokio::spawn(async move {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(hyper_util::rt::TokioIo::new(c), svc)
                            .await;
                    });
                }
            });
        }
    }
}
static N: AtomicU64 = AtomicU64::new(0);
async fn naive_router(url: &str) -> Router {
    use axum::routing::*;
    use rand::distr::SampleString;
    use std::str::FromStr;
    if url.starts_with("sqlite") {
        let o = sqlx::sqlite::SqliteConnectOptions::from_str(url)
            .unwrap()
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30));
        let pool = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(5)
            .connect_with(o)
            .await
            .unwrap();
        Router::new().route(
            "/populate",
            post(move || {
                let pool = pool.clone();
                async move {
                    let data = rand::distr::Alphanumeric.sample_string(&mut rand::rng(), 10);
                    sqlx::query("INSERT INTO records (data) VALUES (?)")
                        .bind(&data)
                        .execute(&pool)
                        .await
                        .unwrap();
                    N.fetch_add(1, Ordering::Relaxed);
                    (
                        axum::http::StatusCode::CREATED,
                        axum::Json(
                            serde_json::json!({"data":data,"message":"Data added successfully"}),
                        ),
                    )
                }
            }),
        )
    } else if url.starts_with("postgres") {
        let pool =
            sqlx::postgres::PgPoolOptions::new().max_connections(5).connect(url).await.unwrap();
        Router::new().route(
            "/populate",
            post(move || {
                let pool = pool.clone();
                async move {
                    let data = rand::distr::Alphanumeric.sample_string(&mut rand::rng(), 10);
                    sqlx::query("INSERT INTO records (data) VALUES ($1)")
                        .bind(&data)
                        .execute(&pool)
                        .await
                        .unwrap();
                    (
                        axum::http::StatusCode::CREATED,
                        axum::Json(
                            serde_json::json!({"data":data,"message":"Data added successfully"}),
                        ),
                    )
                }
            }),
        )
    } else {
        let pool =
            sqlx::mysql::MySqlPoolOptions::new().max_connections(5).connect(url).await.unwrap();
        Router::new().route(
            "/populate",
            post(move || {
                let pool = pool.clone();
                async move {
                    let data = rand::distr::Alphanumeric.sample_string(&mut rand::rng(), 10);
                    sqlx::query("INSERT INTO records (data) VALUES (?)")
                        .bind(&data)
                        .execute(&pool)
                        .await
                        .unwrap();
                    (
                        axum::http::StatusCode::CREATED,
                        axum::Json(
                            serde_json::json!({"data":data,"message":"Data added successfully"}),
                        ),
                    )
                }
            }),
        )
    }
}
