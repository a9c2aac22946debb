//! A gRPC service with tonic: one call, and streams in each direction. Its messages are written by hand,
//! so that no `protoc` is needed; `tonic-prost-build` would write the same from a `.proto` file:
//!
//! ```proto
//! service Numbers {
//!   rpc Square (Number) returns (Number);
//!   rpc Count (Number) returns (stream Number);
//!   rpc Sum (stream Number) returns (Number);
//!   rpc Squares (stream Number) returns (stream Number);
//! }
//! message Number { uint64 value = 1; }
//! ```
//!
//! `cargo run --example grpc`, and `grpcurl -plaintext -proto numbers.proto -d '{"value": 3}' localhost:5000
//! numbers.Numbers/Square`.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use ferricorn::{App, BoxError, WorkerContext};
use tonic::body::Body;
use tonic::codegen::tokio_stream::{Stream, StreamExt, iter};
use tonic::codegen::{Pin, http};
use tonic::server::{Grpc, NamedService};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// The one message.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
}

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

async fn square(request: Request<Number>) -> Result<Response<Number>, Status> {
    squared(*request.get_ref()).map(Response::new)
}

fn squared(number: Number) -> Result<Number, Status> {
    let value = number.value.checked_mul(number.value);
    let value = value.ok_or_else(|| Status::out_of_range("its square has more than 64 bits"))?;
    Ok(Number { value })
}

async fn count(request: Request<Number>) -> Result<Response<Numbers>, Status> {
    let numbers = (1..=request.get_ref().value).map(|value| Ok(Number { value }));
    Ok(Response::new(Box::pin(iter(numbers))))
}

async fn sum(request: Request<Streaming<Number>>) -> Result<Response<Number>, Status> {
    let mut numbers = request.into_inner();
    let mut value = 0_u64;
    while let Some(number) = numbers.message().await? {
        value = value.wrapping_add(number.value);
    }
    Ok(Response::new(Number { value }))
}

async fn squares(request: Request<Streaming<Number>>) -> Result<Response<Numbers>, Status> {
    let squares = request.into_inner().map(|number| number.and_then(squared));
    Ok(Response::new(Box::pin(squares)))
}

/// The service as `tonic-prost-build` would generate it: its methods by their paths.
#[derive(Clone)]
struct NumbersServer;

impl NamedService for NumbersServer {
    const NAME: &'static str = "numbers.Numbers";
}

impl Service<http::Request<Body>> for NumbersServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Number, Number>::default());
            let path = request.uri().path().to_owned();
            Ok(match path.rsplit('/').next() {
                Some("Square") => grpc.unary(service_fn(square), request).await,
                Some("Count") => grpc.server_streaming(service_fn(count), request).await,
                Some("Sum") => grpc.client_streaming(service_fn(sum), request).await,
                Some("Squares") => grpc.streaming(service_fn(squares), request).await,
                _ => Status::unimplemented("there is no such method").into_http(),
            })
        })
    }
}

struct Rpc;

impl App for Rpc {
    async fn router(&self, _worker: &WorkerContext) -> Result<Router, BoxError> {
        Ok(Routes::new(NumbersServer).into_axum_router())
    }
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Rpc)
}
