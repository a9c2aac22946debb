//! Connections that go through a relay: what their notes say, and what is believed of one.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::super::connection::conns::Wait;
use super::super::request::record::ConnEntry;
use super::client::{Talk, body, field};
use super::{LONG, Net, run_within};
use crate::ids::Slot;
use crate::request::local::Origin;
use crate::sys::acceptor::{Accepted, Acceptor};
use crate::sys::clock;
use crate::sys::relay::{Giver, Taken};
use crate::time::Instant;
use crate::wire::IdleNote;

const PROXIED: &str = "proxy_protocol = true\nproxy_allow_ips = '127.0.0.0/8'";
const WHO: &str = "GET /who HTTP/1.1\r\nHost: a\r\nX-Request-Id: i\r\n\r\n";

/// A connection that came in by the first address, and is idle.
fn note() -> IdleNote {
    let since = Instant::from_millis(clock::coarse_millis());
    IdleNote { address: 0, since, source: None, is_https: false }
}

/// Puts a new connection with this note into the relay of the server, which takes from that alone.
async fn give(net: &Net, giver: &Giver, note: &[u8]) -> Talk {
    net.server.stop_accepting(|_| true).await;
    let talk = net.connect().await;
    let accepted = Acceptor::new(net.listener().as_fd()).and_then(|listener| listener.accept());
    let Ok(Accepted::Tcp(stream, _)) = accepted else { panic!("it is connected") };
    giver.give(note, stream.as_fd()).expect("the relay has room");
    talk
}

fn giver(net: &Net) -> Giver {
    net.server.listeners().take_relay(Slot::new(0)).expect("it has not been taken").0
}

#[test]
fn note_tells_the_client_that_a_proxy_has_named() {
    run_within(LONG, [25, 1], PROXIED, |net| async move {
        let header = "PROXY TCP6 2001:db8::7 ::1 50000 443\r\n";
        let mut talk = net.connect().await;
        talk.say(format!("{header}{WHO}")).await;
        assert_eq!(body(&talk.answer().await), "2001:db8::7 http 2001:db8::7 i");
        net.rested(1).await;
        net.server.stop_taking().await;
        let taker = net.server.listeners().taker(Slot::new(0)).map(|taker| taker.try_clone());
        let taker = taker.expect("each slot has one").expect("there are descriptors");
        net.server.begin_to_give();
        let given = async {
            while taker.waiting() == 0 || net.server.conns.count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = given => {}
            never = net.server.give_idle() => match never {},
        }
        let mut bytes = [0; 64];
        let Ok(Taken::Socket(_, length)) = taker.take(&mut bytes) else { panic!("it is there") };
        let note = IdleNote::decode(&bytes[..length]).expect("it is a note");
        let source = "[2001:db8::7]:50000".parse().ok();
        assert_eq!((note.address, note.source, note.is_https), (0, source, false));
        let idle = Instant::from_millis(clock::coarse_millis()).since(note.since);
        assert!(idle >= Duration::from_millis(500), "it is parked after a second: {idle:?}");
    });
}

/// A parked connection begins anew with the next byte, which must be the first of a request.
#[test]
fn rest_of_a_body_that_a_task_reads_is_no_request() {
    run_within(LONG, [25, 5], "", |net| async move {
        let inner = "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut talk = net.connect().await;
        let length = inner.len();
        talk.say(format!("POST /detached HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"))
            .await;
        assert_eq!(body(&talk.answer().await), "detached");
        for _ in 0..20 {
            net.server.conns.park_idle();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(net.server.conns.parked(), 0);
        talk.say(inner).await;
        for _ in 0..2 {
            talk.say(WHO).await;
            assert_eq!(body(&talk.answer().await), "127.0.25.5 http 127.0.25.5 i");
        }
        // Behind a request that nothing reads any more it may.
        while net.server.conns.parked() == 0 {
            net.server.conns.park_idle();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn connection_goes_on_as_its_note_says() {
    run_within(LONG, [25, 2], PROXIED, |net| async move {
        let giver = giver(&net);
        let before = Instant::from_millis(clock::coarse_millis() - 5000);
        let source = "192.0.2.9:50000".parse().ok();
        let note = IdleNote { since: before, source, is_https: true, ..note() };
        let mut talk = give(&net, &giver, &note.encode()).await;
        net.rested(1).await;
        assert!(net.server.conns.longest(Wait::Next) >= Duration::from_millis(5000));
        for _ in 0..2 {
            talk.say(WHO).await;
            let answer = talk.answer().await;
            assert_eq!(body(&answer), "192.0.2.9 https 192.0.2.9 i");
            assert_eq!(field(&answer, "connection"), None);
        }
    });
}

/// A proxy that is not trusted (any more), and an address that is not open (any more).
#[test]
fn note_that_is_not_believed_ends_the_connection_with_its_answer() {
    run_within(LONG, [25, 3], "", |net| async move {
        let giver = giver(&net);
        let source = "192.0.2.9:50000".parse().ok();
        let notes = [
            IdleNote { source, ..note() },
            IdleNote { is_https: true, ..note() },
            IdleNote { address: 9, ..note() },
        ];
        for note in notes {
            let mut talk = give(&net, &giver, &note.encode()).await;
            talk.say(WHO).await;
            let answer = talk.answer().await;
            assert_eq!(body(&answer), "127.0.25.3 http 127.0.25.3 i", "{note:?}");
            assert_eq!(field(&answer, "connection"), Some("close"), "{note:?}");
            assert_eq!(talk.rest().await, "");
        }
    });
}

#[test]
fn socket_without_a_fitting_note_is_closed() {
    run_within(LONG, [25, 4], "", |net| async move {
        let giver = giver(&net);
        // The second address is a unix socket's.
        let elsewhere = IdleNote { address: 1, ..note() }.encode();
        let mut later = note().encode();
        later[0] += 1;
        let long = [&note().encode()[..], &[0]].concat();
        for message in [&elsewhere[..], &later, &long, b"note"] {
            let mut talk = give(&net, &giver, message).await;
            assert_eq!(talk.rest().await, "", "{message:?}");
        }
        assert_eq!(net.server.conns.count(), 0);
        // One that has been idle for longer than any may be.
        let since = Instant::from_millis(0);
        let mut talk = give(&net, &giver, &IdleNote { since, ..note() }.encode()).await;
        assert_eq!(talk.rest().await, "");
        let mut talk = give(&net, &giver, &note().encode()).await;
        talk.say(WHO).await;
        assert_eq!(body(&talk.answer().await), "127.0.25.4 http 127.0.25.4 i");
    });
}

/// The stream lies with the entry, and what is spoken on it has gone: there may be many thousands.
#[test]
fn parked_connection_takes_no_memory_for_requests() {
    run_within(LONG, [25, 6], "", |net| async move {
        let entry = Arc::new(ConnEntry::new(&net.server, None, None, Origin::default()));
        let task = net.server.conversation(Arc::clone(&entry), false);
        let sizes = [size_of_val(&task), size_of_val(&*entry), size_of_val(&*entry.conn)];
        assert!(sizes.iter().sum::<usize>() <= 960, "{sizes:?}");
    });
}
