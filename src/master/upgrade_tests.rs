//! The state that an image hands over: taken over whole, and refused when it is damaged.

use std::mem::ManuallyDrop;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::ids::{ChildId, Slot};
use crate::logging::Rings;
use crate::master::handle::{ChildHandle, Worker};
use crate::master::pidfile::PidFile;
use crate::master::tls::Tls;
use crate::scoreboard::WorkerBoard;
use crate::sys::exec::Passed;
use crate::time::Instant;
use crate::wire::Order;

/// A state that has something of everything.
fn lasting() -> Lasting {
    let text = "bind = ['127.0.0.1:0']\nworkers = 2\nstats.bind = '127.0.0.1:0'\n";
    let config = Config::from_toml(text, &[]).expect("the settings are right");
    let file = || exec::memory_file("ferricorn-test", b"").expect("there is memory");
    let mut rings = Rings::new().expect("there is memory");
    let opened = Lasting::open(&config, &[], Passed::default(), Some(file()), &mut rings);
    let mut lasting = opened.expect("the ports are free");
    lasting.metrics.settle(&config);
    lasting.tls = Tls::sample(file().into(), file().into());
    lasting.pidfile = Some(PidFile::inherit("/run/ferricorn.pid".into(), file()));
    let _orders = lasting.supervisor.handle(Instant::from_millis(5), Event::Started);
    let slot = Slot::new(1);
    let generation = Generation::FIRST;
    let board = WorkerBoard::new(2).expect("there is memory").into();
    let (channel, _child) = channel::pair().expect("there are descriptors");
    let worker = Some(Worker { slot, generation, board });
    let mut handle = ChildHandle::new(ChildId(3), 70, channel, worker);
    handle.unsent.extend([Order::Drain, Order::Close { address: 1 }]);
    (handle.ring, handle.ended_at, handle.is_unheard) =
        (Some(2), Some(Instant::from_millis(7)), true);
    lasting.handles.push(handle);
    lasting.armed.insert(slot);
    lasting
}

/// The text of the state that is handed over with this.
fn written(lasting: &Lasting) -> String {
    let former = Former {
        path: Some("/usr/bin/ferricorn".to_owned()),
        configs: BTreeMap::from([(Generation::FIRST, "workers = 2".to_owned())]),
        journal: Journal::default(),
    };
    let lasting = lasting.hand_over(&mut Handover::default());
    let state = State { version: STATE_VERSION, lasting, former };
    serde_json::to_string(&state).expect("it is text")
}

/// Such a text; its descriptors are closed.
static WRITTEN: LazyLock<String> = LazyLock::new(|| written(&lasting()));

/// The text, most often damaged: what is drawn at random never comes as far as a state.
fn nearly_written() -> impl Strategy<Value = Vec<u8>> {
    let pieces = &["", "-1", "1e99", "null", "[]", "{}", "\"\\u0000\"", "\u{7f}"][..];
    let piece = prop::sample::select(pieces);
    let bytes = prop::collection::vec(any::<u8>(), 0..3);
    let written_in =
        prop_oneof![3 => piece.prop_map(|piece| piece.as_bytes().to_vec()), 1 => bytes];
    let damage = (any::<prop::sample::Index>(), 0..4_usize, written_in);
    let damages = prop::collection::vec(damage, 0..4);
    (Just(WRITTEN.clone()), damages, 0..20).prop_map(|(text, damages, cut)| {
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
fn state_is_taken_over_as_it_was_handed_over() {
    let before = lasting();
    let text = written(&before);
    // As over execve(2): the numbers live on, their owners do not.
    let _lives_on = ManuallyDrop::new(before);
    let state = State::parse(text.as_bytes()).expect("it is of this version");
    assert_eq!(written(&Lasting::take_over(state.lasting).expect("they are open")), text);
}

#[test]
fn state_of_another_version_is_refused() {
    let version = format!("\"version\":{STATE_VERSION}");
    let older = WRITTEN.replace(&version, "\"version\":1");
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
