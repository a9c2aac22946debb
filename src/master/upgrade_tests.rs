//! The bytes that an image is handed that takes over: whatever they are, they are a state or refused.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::supervisor::policy::Policy;
use crate::time::Instant;

/// The text of a state that has something of everything.
fn written() -> String {
    let policy = Policy {
        workers: 2,
        workers_max: Slot::MAX,
        graceful_timeout: Duration::from_secs(30),
        announce: Duration::ZERO,
        boot_timeout: Duration::from_secs(60),
        stall_timeout: Duration::ZERO,
        max_lifetime: Duration::ZERO,
        max_memory: 1 << 30,
        stats: true,
        extensible: false,
    };
    let mut supervisor = Supervisor::new(policy, 7);
    let _orders = supervisor.handle(Instant::from_millis(5), Event::Started);
    let worker = json!({ "slot": 1, "generation": 1, "board": 9, "entries": 1000 });
    let unsent = [Order::Drain, Order::Close { address: 1 }];
    let handle = json!({
        "id": 3, "pid": 70, "channel": [8, 15], "worker": worker, "ring": 2, "ended_at": 7,
        "is_unheard": false,
        "unsent": unsent,
    });
    let state = json!({
        "version": STATE_VERSION,
        "supervisor": supervisor,
        "listeners": {
            "addresses": [null], "slots": 2, "bells": [4, 5], "relays": [[17, 18], [19, 20]], "passed": [14],
        },
        "tls": {
            "bundles": { "1": { "memory": 16, "expiries": [{ "file": "a.crt", "at": 4 }] } },
            "tickets": [17, 9],
            "look_at": 9,
        },
        "counters": 6,
        "metrics": 16,
        "stats": ["127.0.0.1:9464", 17],
        "rings": [[10, 11]],
        "handles": [handle],
        "armed": SlotSet::EMPTY,
        "pidfile": ["/run/pid", 12],
        "victims": Victims::new(Some(3)),
        "ready": 13,
        "path": "/usr/bin/ferricorn",
        "configs": { "1": "workers = 2" },
        "started": { "user": "" },
        "control": {
            "listener": 16,
            "file": { "path": "/run/control", "id": [1, 2] },
            "clients": [{
                "id": 4, "stream": 17, "input": [], "output": [10],
                "feed": { "Events": { "cursor": 2, "end": null } },
            }],
            "next": 5,
        },
        "journal": { "next": 0, "records": [], "bytes": 0 },
        "began": 1,
    });
    state.to_string()
}

/// The text, most often damaged: what is drawn at random never comes as far as a state.
fn nearly_written() -> impl Strategy<Value = Vec<u8>> {
    let pieces = &["", "-1", "1e99", "null", "[]", "{}", "\"\\u0000\"", "\u{7f}"][..];
    let piece = prop::sample::select(pieces);
    let bytes = prop::collection::vec(any::<u8>(), 0..3);
    let written_in =
        prop_oneof![3 => piece.prop_map(|piece| piece.as_bytes().to_vec()), 1 => bytes];
    let damage = (any::<prop::sample::Index>(), 0..4_usize, written_in);
    let damages = prop::collection::vec(damage, 0..4);
    (Just(written()), damages, 0..20).prop_map(|(text, damages, cut)| {
        let mut text = text.into_bytes();
        for (at, length, instead) in damages {
            let at = at.index(text.len());
            text.splice(at..(at + length).min(text.len()), instead);
        }
        if cut == 0 {
            text.truncate(text.len() / 2);
        }
        text
    })
}

#[test]
fn a_state_is_read_and_one_of_another_version_is_not() {
    let state = State::parse(written().as_bytes()).unwrap();
    assert_eq!((state.handles.len(), state.handles[0].unsent.len()), (1, 2));
    let older = written().replace(&format!("\"version\":{STATE_VERSION}"), "\"version\":1");
    let error = State::parse(older.as_bytes()).unwrap_err();
    assert_eq!(
        (error.kind(), &*error.to_string()),
        (io::ErrorKind::InvalidData, "it is of version 1")
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in nearly_written()) {
        match State::parse(&bytes) {
            Ok(state) => prop_assert_eq!(state.version, STATE_VERSION),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
