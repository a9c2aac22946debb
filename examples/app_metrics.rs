//! Metrics of an application by the `metrics` crate: summed over all workers, beside ferricorn's own.
//!
//! Try: `cargo run --example app_metrics -- --stats-bind 127.0.0.1:9464`, then
//! `curl 127.0.0.1:5000/order/tea` a few times and `curl -s 127.0.0.1:9464/metrics | grep order`.
use axum::extract::Path;
use axum::{Router, routing::get};
use ferricorn::{App, BoxError, WorkerContext};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use tokio::time::Instant;

struct Shop;

impl App for Shop {
    const NAME: &'static str = "app-metrics";

    async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
        describe_counter!("orders_total", "Orders by kind.");
        describe_gauge!("orders_open", "Orders that are being worked on.");
        describe_histogram!("order_seconds", "How long an order takes.");
        // One for each worker: the sum is the number of workers.
        gauge!("shop_workers").set(1.0);
        Ok(Router::new().route("/order/{kind}", get(order)))
    }
}

/// Labels have few values: each combination is a series of its own, and there is room for 2,000.
async fn order(Path(kind): Path<String>) -> String {
    let kind = if ["tea", "cake"].contains(&kind.as_str()) { kind } else { "other".to_owned() };
    let began = Instant::now();
    gauge!("orders_open").increment(1.0);
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    gauge!("orders_open").decrement(1.0);
    histogram!("order_seconds").record(began.elapsed());
    counter!("orders_total", "kind" => kind.clone()).increment(1);
    format!("one {kind}\n")
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Shop)
}
