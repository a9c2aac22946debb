//! A tower service without a router: a proxy that opens tunnels (`CONNECT`) to one address.
//!
//! Try: `cargo run --example tunnel -- --tunnel-to 127.0.0.1:8000`, with any server at port 8000, and then
//! `curl --proxytunnel -x 127.0.0.1:5000 http://127.0.0.1:8000/`.
use ferricorn::axum::body::Body;
use ferricorn::axum::http::{Method, Request, Response, StatusCode};
use ferricorn::{App, BoxError, Config, HttpService, Setting, WorkerContext};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

struct Proxy;

impl App for Proxy {
    const NAME: &'static str = "tunnel";
    const CONNECT: bool = true;
    const SETTINGS: &'static [Setting] = &[
        Setting::with_default("bind", "127.0.0.1:5000"),
        Setting::text("tunnel.to", "127.0.0.1:8000", "The address that tunnels may lead to."),
    ];

    async fn service(
        &self,
        _listener: Option<&str>,
        worker: &WorkerContext,
    ) -> Result<HttpService, BoxError> {
        let table: serde_json::Value = worker.config().section("tunnel")?;
        let to = table["to"].as_str().unwrap_or_default().to_owned();
        Ok(HttpService::new(tower::service_fn(move |request| serve(request, to.clone()))))
    }

    fn runtime(&self, _: &Config, builder: &mut tokio::runtime::Builder) {
        // Names are looked up in threads of their own, and nothing else blocks here.
        builder.max_blocking_threads(4).thread_name("tunnel-lookup");
    }
}

async fn serve(request: Request<Body>, to: String) -> Result<Response<String>, BoxError> {
    if request.method() != Method::CONNECT {
        return Ok(Response::new(format!("tunnels to {to}\n")));
    }
    if request.uri().authority().is_none_or(|authority| authority.as_str() != to) {
        let mut refused = Response::new(format!("tunnels lead to {to} alone\n"));
        *refused.status_mut() = StatusCode::FORBIDDEN;
        return Ok(refused);
    }
    // An error is logged, and answered 500.
    let mut there = TcpStream::connect(to).await?;
    tokio::spawn(async move {
        if let Ok(here) = hyper::upgrade::on(request).await {
            let _ended = tokio::io::copy_bidirectional(&mut TokioIo::new(here), &mut there).await;
        }
    });
    Ok(Response::new(String::new()))
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Proxy)
}
