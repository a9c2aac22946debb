//! gRPC: `examples/grpc.rs` and tonic's own client, while workers are replaced.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::Uri;
use h2::Reason;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::iter;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::client::Address;
use crate::harness::Ferricorn;
use crate::seen::{Begun, Running, Seen};

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
}

fn codec() -> ProstCodec<Number, Number> {
    ProstCodec::default()
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

/// Our end of the connection that a channel has made last.
type Local = Arc<Mutex<Option<SocketAddr>>>;

fn channel(address: &Address) -> (Channel, Local) {
    let address = address.tcp();
    let local = Local::default();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("it is a URI");
    let noted = Arc::clone(&local);
    let channel = endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let noted = Arc::clone(&noted);
        async move {
            let socket = TcpStream::connect(address).await?;
            *noted.lock().expect("no client panics") = socket.local_addr().ok();
            Ok::<_, std::io::Error>(TokioIo::new(socket))
        }
    }));
    (channel, local)
}

/// The calls of a client.
#[derive(Clone)]
struct Client(Grpc<Channel>, Local);

impl Client {
    fn new(address: &Address) -> Self {
        let (channel, local) = channel(address);
        Self(Grpc::new(channel), local)
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::from_error(Box::new(error)))
    }

    async fn square(&mut self, value: u64) -> Result<u64, Status> {
        self.ready().await?;
        let request = Request::new(Number { value });
        let answer = self.0.unary(request, path("/numbers.Numbers/Square"), codec()).await?;
        Ok(answer.into_inner().value)
    }

    async fn count(&mut self, value: u64) -> Result<Vec<u64>, Status> {
        self.ready().await?;
        let request = Request::new(Number { value });
        let answer = self.0.server_streaming(request, path("/numbers.Numbers/Count"), codec());
        let mut numbers = answer.await?.into_inner();
        let mut all = Vec::new();
        while let Some(number) = numbers.message().await? {
            all.push(number.value);
        }
        Ok(all)
    }

    async fn sum(&mut self, values: Vec<u64>) -> Result<u64, Status> {
        self.ready().await?;
        let request = Request::new(iter(values.into_iter().map(|value| Number { value })));
        let answer =
            self.0.client_streaming(request, path("/numbers.Numbers/Sum"), codec()).await?;
        Ok(answer.into_inner().value)
    }

    async fn squares(&mut self, values: Vec<u64>) -> Result<Vec<u64>, Status> {
        self.ready().await?;
        let request = Request::new(iter(values.into_iter().map(|value| Number { value })));
        let answer = self.0.streaming(request, path("/numbers.Numbers/Squares"), codec()).await?;
        let mut numbers = answer.into_inner();
        let mut all = Vec::new();
        while let Some(number) = numbers.message().await? {
            all.push(number.value);
        }
        Ok(all)
    }
}

#[test]
fn calls_and_streams_are_served_in_both_directions() {
    let server = Ferricorn::example("grpc").config("workers = 2\n").start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut client = Client::new(&server.address());
        assert_eq!(client.square(7).await.expect("it is answered"), 49);
        let error = client.square(u64::MAX).await.expect_err("it does not fit");
        assert_eq!(error.code(), Code::OutOfRange);
        assert_eq!(error.message(), "its square has more than 64 bits");
        let counted = client.count(100_000).await.expect("it is answered");
        assert!(counted.into_iter().eq(1..=100_000));
        assert_eq!(client.sum((1..=1000).collect()).await.expect("it is answered"), 500_500);
        let squares = client.squares(vec![2, 3, u64::MAX]).await.expect_err("the last one is late");
        assert_eq!(squares.code(), Code::OutOfRange, "its trailers come behind the others");
        assert_eq!(client.squares(vec![2, 3]).await.expect("it is answered"), [4, 9]);
    });
    server.wait_log("\"POST /numbers.Numbers/Squares HTTP/2.0\" 200");
    server.stop();
}

/// Returns true if one of the causes of a call's failure is as asked for.
fn has_cause(status: &Status, is_it: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let causes = std::iter::successors(status.source(), |cause| (*cause).source());
    causes.into_iter().any(is_it)
}

/// Returns true if the server has said, or the client knows, that the call was not processed.
fn is_unprocessed(status: &Status) -> bool {
    has_cause(status, |cause| {
        let is_told = |error: &h2::Error| {
            error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)
        };
        // One that is cancelled was never sent.
        cause.downcast_ref::<h2::Error>().is_some_and(is_told)
            || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    })
}

/// Returns true if no socket listened.
fn is_refused(status: &Status) -> bool {
    has_cause(status, |cause| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

/// So many clients of `examples/grpc.rs`, each with calls and streams in turn.
pub(crate) fn load(address: &Address, count: usize) -> Running {
    let address = address.clone();
    Running::begin(count, move |seen, stop| calls(Client::new(&address), seen, stop))
}

async fn calls(mut client: Client, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    for turn in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let begun = Begun::now(None);
        let result = match turn % 4 {
            0 => client.square(3).await.map(|nine| nine == 9),
            1 => client.count(50).await.map(|all| all.len() == 50),
            2 => client.sum(vec![2; 50]).await.map(|sum| sum == 100),
            _ => client.squares(vec![1; 50]).await.map(|all| all.len() == 50),
        };
        let begun = begun.on(*client.1.lock().expect("no client panics"));
        match result {
            Ok(true) => seen.note_answer(),
            Ok(false) => seen.note_lost(begun, "a part of the answer is missing", false),
            Err(status) if is_unprocessed(&status) => seen.note_again(),
            Err(status) if is_refused(&status) => {
                return seen.note_lost(begun, format!("{status:?}"), true);
            }
            Err(status) => seen.note_lost(begun, format!("{status:?}"), false),
        }
    }
}
