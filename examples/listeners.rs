//! Several routers: a shop, and its office on an address of its own.
//!
//! Try: `cargo run --example listeners`, then `curl 127.0.0.1:5000` and `curl 127.0.0.1:5001`. The
//! operator says where they listen: `-b 0.0.0.0:80 -b office=unix:/run/office.sock`.
use axum::{Router, routing::get};
use ferricorn::{App, BoxError, Listener, Setting, WorkerContext};

struct Shop;

impl App for Shop {
    const NAME: &'static str = "shop";
    const LISTENERS: &'static [&'static str] = &["office", "stock"];
    const SETTINGS: &'static [Setting] =
        &[Setting::with_default("bind", "127.0.0.1:5000,office=127.0.0.1:5001")];

    async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
        Ok(Router::new().route("/", get(|place: Listener| async move { show("shop", place) })))
    }

    async fn router_for(&self, listener: &str, _: &WorkerContext) -> Result<Router, BoxError> {
        let text = listener.to_owned();
        Ok(Router::new().route("/", get(|place: Listener| async move { show(&text, place) })))
    }
}

fn show(routes: &str, place: Listener) -> String {
    let address = place.address().map_or("a unix socket".to_owned(), |address| address.to_string());
    format!("{routes} of {} at {address}\n", place.name().unwrap_or("no name"))
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Shop)
}
