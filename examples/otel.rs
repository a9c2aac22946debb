//! Traces by OpenTelemetry: a span for each request, which continues the client's trace (`traceparent`), and
//! goes to a collector by OTLP over HTTP.
//!
//! The exporter has a thread, so each worker makes one; it sends what waits when the worker ends.
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, routing::get};
use ferricorn::telemetry::{Layers, Process};
use ferricorn::{App, BoxError, RequestId, Setting, WorkerContext};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

struct Traced;

/// The least client; `opentelemetry-otlp` has features with better ones. It blocks the exporter's own thread.
#[derive(Debug)]
struct Plain(String);

#[async_trait::async_trait]
impl HttpClient for Plain {
    async fn send_bytes(
        &self,
        request: axum::http::Request<Bytes>,
    ) -> Result<axum::http::Response<Bytes>, HttpError> {
        let path = request.uri().path();
        let body = request.body();
        let head = format!("POST {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = TcpStream::connect(&self.0)?;
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).ok_or("a malformed answer")?;
        Ok(axum::http::Response::builder().status(status).body(Bytes::new())?)
    }
}

impl App for Traced {
    const NAME: &'static str = "otel";
    const SETTINGS: &'static [Setting] =
        &[Setting::text("otel.collector", "127.0.0.1:4318", "The collector's address.")];

    fn telemetry(&self, process: Process<'_>) -> Result<Layers, BoxError> {
        let Process::Worker(worker) = process else { return Ok(Layers::new()) };
        let table: serde_json::Value = worker.config().section("otel")?;
        let collector = table["collector"].as_str().unwrap_or_default().to_owned();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("http://{collector}/v1/traces"))
            .with_http_client(Plain(collector))
            .build()?;
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("otel"));
        Ok(Layers::new().with(layer).at_end(move || drop(provider.shutdown())))
    }

    async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
        Ok(Router::new().route("/", get("traced\n")).layer(from_fn(trace)))
    }
}

async fn trace(id: RequestId, request: Request, next: Next) -> Response {
    let span =
        tracing::info_span!("request", request_id = id.as_str(), path = request.uri().path());
    let client = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
    let _untraced = span.set_parent(client);
    next.run(request).instrument(span).await
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Traced)
}
