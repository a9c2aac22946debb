//! gRPC: `examples/grpc.rs` and tonic's own client, while workers are replaced.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use h2::Reason;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::iter;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::client::Address;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};

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

fn channel(address: &Address) -> Channel {
    let uri = format!("http://{}", address.tcp());
    Endpoint::from_shared(uri).expect("it is a URI").connect_lazy()
}

/// The calls of a client.
#[derive(Clone)]
struct Client(Grpc<Channel>);

impl Client {
    fn new(address: &Address) -> Self {
        Self(Grpc::new(channel(address)))
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
        let (mut numbers, mut all) = (answer.await?.into_inner(), Vec::new());
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
        let (mut numbers, mut all) = (answer.into_inner(), Vec::new());
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

/// Returns true if the server has said, or the client knows, that the call was not processed.
fn is_unprocessed(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_canceled()
        {
            // It was never sent.
            return true;
        }
        cause = error.source();
    }
    false
}

async fn calls(address: Address, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<String> {
    let (mut client, mut failed) = (Client::new(&address), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let results = [
            client.square(3).await.map(|nine| nine == 9),
            client.count(50).await.map(|all| all.len() == 50),
            client.squares(vec![1; 50]).await.map(|all| all.len() == 50),
        ];
        for result in results {
            match result {
                Ok(true) => drop(done.fetch_add(1, Ordering::Relaxed)),
                Ok(false) => failed.push("a part of the answer is missing".to_owned()),
                Err(status) if is_unprocessed(&status) => {}
                Err(status) => failed.push(format!("{status:?}")),
            }
        }
    }
    failed
}

#[test]
fn no_call_is_lost_over_reloads() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::example("grpc").config("workers = 3\n[log]\naccess = \"\"\n").start();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (address, stopped, theirs) = (server.address(), stop.clone(), done.clone());
    let load = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..4 {
                clients.spawn(calls(address.clone(), stopped.clone(), theirs.clone()));
            }
            clients.join_all().await.concat()
        })
    });
    let wait_for_more = |count: u64| {
        let wanted = done.load(Ordering::Relaxed) + count;
        eventually("calls go on", PATIENCE, || {
            (done.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    };
    for round in 1..=5 {
        wait_for_more(50);
        server.signal(Signal::SIGHUP);
        eventually("it is reloaded", PATIENCE, || {
            (server.log().matches("reloaded: generation ").count() == round).then_some(())
        });
    }
    wait_for_more(50);
    stop.store(true, Ordering::Relaxed);
    let failed = load.join().expect("clients do not panic");
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    server.stop();
}
