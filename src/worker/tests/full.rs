//! Clients that wait for room in a full worker.

use super::client::{field, statuses};
use super::{LONG, Net, run_within};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// A request without its last byte.
const HALF: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1";

#[test]
fn the_longest_idle_connection_is_closed_for_a_new_client() {
    run_within(LONG, [9, 1], "worker_connections = 3", |net| async move {
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut talk = net.connect().await;
            talk.say(GET).await;
            assert_eq!(statuses(&talk.answer().await), [200]);
            held.push(talk);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // The first is not the longest idle one any more.
        held[0].say(GET).await;
        assert_eq!(statuses(&held[0].answer().await), [200]);
        for _ in 0..2 {
            let mut new = net.connect().await;
            new.say(GET).await;
            let answer = new.answer().await;
            assert_eq!(kept(&answer), (vec![200], None));
            held.push(new);
        }
        assert_eq!([held[1].rest().await, held[2].rest().await], ["", ""]);
        for at in [0, 3, 4] {
            held[at].say(GET).await;
            assert_eq!(statuses(&held[at].answer().await), [200], "{at}");
        }
        let said =
            "worker 0 is full: it has 3 connections, the most that worker_connections allows";
        assert_eq!(Net::all_error_lines().matches(said).count(), 1);
    });
}

#[test]
fn answers_of_a_full_worker_are_last_ones_while_a_client_waits() {
    run_within(LONG, [9, 2], "worker_connections = 2", |net| async move {
        let mut busy = [net.connect().await, net.connect().await];
        for talk in &mut busy {
            talk.say(HALF).await;
        }
        while net.server.conns.count() < 2 {
            tokio::task::yield_now().await;
        }
        let mut new = net.connect().await;
        new.say(GET).await;
        while !net.server.conns.is_short() {
            tokio::task::yield_now().await;
        }
        let [first, second] = &mut busy;
        first.say("2").await;
        assert_eq!(kept(&first.answer().await), (vec![200], Some("close")));
        assert_eq!(kept(&new.answer().await), (vec![200], None));
        second.say("2").await;
        assert_eq!(kept(&second.answer().await), (vec![200], None), "no client waits any more");
    });
}

/// The status of an answer, and what it says of its connection.
fn kept(answer: &str) -> (Vec<u16>, Option<&str>) {
    (statuses(answer), field(answer, "connection"))
}
