//! A reporter of errors, as Sentry's is: a layer of `tracing` that sends each error, and each panic, to a
//! collector. It lives in every worker, beside ferricorn's error log, and gets ferricorn's own events, too.
//!
//! Try: `nc -lu 127.0.0.1 9000`, and `curl 127.0.0.1:5000/panic`.
use std::fmt::{Debug, Write as _};
use std::net::UdpSocket;

use axum::{Router, routing::get};
use ferricorn::telemetry::{Layers, Process};
use ferricorn::{App, BoxError, Setting, WorkerContext};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

struct Shop;

/// Sends errors as lines, one a datagram: it never waits for the collector.
struct Reporter(UdpSocket);

impl<S: Subscriber> Layer<S> for Reporter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut report = Report(format!("pid {}:", std::process::id()));
            event.record(&mut report);
            // A collector that is away shall not disturb the service.
            let _unsent = self.0.send(report.0.as_bytes());
        }
    }
}

struct Report(String);

impl Visit for Report {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes every text");
    }
}

impl App for Shop {
    const NAME: &'static str = "reports";
    const SETTINGS: &'static [Setting] =
        &[Setting::text("reports.collector", "127.0.0.1:9000", "The collector's address.")];

    fn telemetry(&self, process: Process<'_>) -> Result<Layers, BoxError> {
        // The master runs no code of the application's that could fail.
        let Process::Worker(worker) = process else { return Ok(Layers::new()) };
        let collector: String = worker.config().section::<Reports>("reports")?.collector;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        socket.connect(collector)?;
        Ok(Layers::new().with(Reporter(socket)))
    }

    async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
        Ok(Router::new()
            .route("/", get("a shop\n"))
            .route("/order", get(order))
            .route("/panic", get(|| async { panic!("out of stock") as &str })))
    }
}

async fn order() -> &'static str {
    tracing::error!(article = 7, "no such article");
    log::warn!("a line of a library that logs by the log crate");
    "no such article\n"
}

#[derive(serde::Deserialize)]
struct Reports {
    collector: String,
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Shop)
}
