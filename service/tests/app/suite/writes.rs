//! Writes of many clients and workers at once: what is acknowledged is there, and nothing else.

use std::collections::HashSet;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::JoinSet;

use crate::world::{Worker, World, texts};

/// As many as the contract's default.
const WORKERS: u16 = 4;

async fn workers(world: &World) -> Vec<Worker> {
    world.prepare().await;
    (0..WORKERS).map(|slot| world.worker(slot)).collect()
}

/// Every row's text, by pages.
async fn everything(worker: &Worker) -> Vec<String> {
    let mut all = Vec::new();
    let mut query = "limit=100".to_owned();
    loop {
        let page = worker.page(&query).await;
        all.extend(texts(&page));
        if page["next"].is_null() {
            return all;
        }
        query = format!("limit=100&before={}", page["next"]);
    }
}

pub(super) async fn five_hundred_at_once_are_five_hundred_rows(world: World) {
    let workers = workers(&world).await;
    let mut clients = JoinSet::new();
    for client in 0..500 {
        let worker = workers[client % workers.len()].clone();
        clients.spawn(async move { worker.populated().await });
    }
    let acknowledged: HashSet<String> = clients.join_all().await.into_iter().collect();
    assert_eq!(acknowledged.len(), 500, "no two workers gave the same data");
    let stored = everything(&workers[0]).await;
    assert_eq!(stored.len(), 500);
    assert_eq!(stored.into_iter().collect::<HashSet<_>>(), acknowledged);
    assert_eq!(workers[1].deleted().await, 500);
    assert_eq!(workers[2].total().await, 0);
}

pub(super) async fn rows_of_a_batch_keep_their_order(world: World) {
    let worker = world.prepared().await;
    let mut clients = JoinSet::new();
    for client in 0..100 {
        let worker = worker.clone();
        clients.spawn(async move { (client, worker.populated().await) });
    }
    // The tasks of this one thread begin in the order in which they were made.
    let mut acknowledged = clients.join_all().await;
    acknowledged.sort_unstable();
    let mut stored = everything(&worker).await;
    stored.reverse();
    let expected: Vec<String> = acknowledged.into_iter().map(|(_, data)| data).collect();
    assert_eq!(stored, expected);
}

pub(super) async fn deletes_and_populates_of_all_workers_add_up(world: World) {
    let workers = workers(&world).await;
    let mut clients = JoinSet::new();
    for worker in &workers {
        for _ in 0..4 {
            let worker = worker.clone();
            clients.spawn(async move {
                for _ in 0..25 {
                    worker.populated().await;
                }
                0
            });
        }
        let worker = worker.clone();
        clients.spawn(async move {
            let mut deleted = 0;
            for _ in 0..20 {
                deleted += worker.deleted().await;
            }
            deleted
        });
    }
    let deleted: u64 = clients.join_all().await.into_iter().sum();
    let remaining = workers[0].total().await;
    assert_eq!(deleted + remaining, 4 * 4 * 25);
    assert!(deleted > 0, "the deletes met no row: the test shows nothing");
}

pub(super) async fn a_client_that_goes_away_stops_nothing(world: World) {
    let worker = world.prepared().await;
    for _ in 0..10 {
        go_away(worker.populate());
    }
    worker.service.finish().await;
    assert_eq!(world.worker(1).total().await, 10, "each was stored, and once");

    let worker = world.worker(0);
    go_away(worker.delete());
    worker.service.finish().await;
    assert_eq!(world.worker(1).total().await, 0);
    assert_eq!(worker.populate().await.status, 503, "it is finished");
    assert_eq!(worker.delete().await.status, 503, "it is finished");
    assert_eq!(worker.get("/readyz").await.status, 503, "who takes no rows is not ready");
}

/// Lets the request begin, and drops it as hyper does when the client closes the connection.
fn go_away(request: impl Future) {
    let polled = pin!(request).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending), "it was over before the client could go away");
}
