//! Listeners on real sockets.

use std::net::TcpStream;

use serde_reflection::Tracer;

use super::handover::HandedSockets;
use super::*;
use crate::ids::SlotSet;

/// Finds out every variant of every enum in what is left to the next image.
pub(crate) fn trace(tracer: &mut Tracer) -> serde_reflection::Result<()> {
    tracer.trace_simple_type::<HandedSockets>()?;
    tracer.trace_simple_type::<Bound>()?;
    tracer.trace_simple_type::<SocketAddr>()?;
    Ok(())
}

/// Listeners at a free port of each of these addresses, for one slot.
fn open(binds: &[&str]) -> Listeners {
    let config = format!("bind = {binds:?}");
    let config = Config::from_toml(&config, &[]).expect("the settings are right");
    Listeners::open(&config, &[], Passed::default(), 1).expect("the ports are free")
}

fn bound(listeners: &mut Listeners, number: usize) -> &mut SocketAddr {
    match &mut listeners.addresses[number].as_mut().expect("it is open").bound {
        Bound::Tcp(address) => address,
        other => panic!("{other:?} is no TCP address"),
    }
}

/// An address that this machine does not have (RFC 5737).
const ELSEWHERE: &str = "192.0.2.1:9";

/// A slot is opened at every address or at none: a socket that no worker knows would be given
/// connections, and they would not be taken.
#[test]
fn a_slot_that_cannot_be_opened_everywhere_is_opened_nowhere() {
    let mut listeners = open(&["127.0.0.1:0", "127.0.0.1:0"]);
    let there = *bound(&mut listeners, 0);
    let good = std::mem::replace(bound(&mut listeners, 1), ELSEWHERE.parse().unwrap());
    let (opened, error) = listeners.grow(3, 16);
    assert_eq!(opened, []);
    assert!(error.is_some());
    assert_eq!((listeners.slots(), listeners.bells.len()), (1, 1));
    let clients: Vec<_> = (0..32).map(|_| TcpStream::connect(there).unwrap()).collect();
    assert_eq!(listeners.queue_length(Slot::new(0)), 32, "nobody waits where nobody is");
    drop(clients);
    *bound(&mut listeners, 1) = good;
    let (opened, error) = listeners.grow(2, 16);
    assert_eq!(opened, [(0, Slot::new(1)), (1, Slot::new(1))]);
    assert!(error.is_none(), "{error:?}");
}

/// The descriptors opened before that count, and are told.
#[test]
fn slots_that_were_opened_before_one_that_cannot_be_are_told() {
    let mut listeners = open(&["127.0.0.1:0", "127.0.0.1:0"]);
    // The second address has a socket for the second slot, and cannot have one for the third.
    let (first, _) = listeners.grow(2, 16);
    assert_eq!(first.len(), 2);
    listeners.slots = 1;
    listeners.bells.truncate(1);
    listeners.relays.truncate(1);
    if let Some(Address { sockets: Sockets::PerSlot(sockets), .. }) = &mut listeners.addresses[0] {
        sockets.truncate(1);
    }
    *bound(&mut listeners, 1) = ELSEWHERE.parse().unwrap();
    let (opened, error) = listeners.grow(4, 16);
    assert_eq!(opened, [(0, Slot::new(1))]);
    assert!(error.is_some());
    assert_eq!((listeners.slots(), listeners.bells.len()), (2, 2));
}

/// Where one address cannot be steered the others are, and no stale program is left there.
#[test]
fn addresses_are_steered_each_for_itself() {
    let mut listeners = open(&["127.0.0.1:0", "127.0.0.1:0"]);
    let (_, error) = listeners.grow(2, 64);
    assert!(error.is_none(), "{error:?}");
    let there = [0, 1].map(|number| *bound(&mut listeners, number));
    listeners.steer(&SlotSet::from_iter([Slot::new(1)])).expect("it needs no privilege");
    // More than a program has room for: at the first address none can be chosen by it.
    let (_, first) = listeners.of_slot(Slot::new(0)).next().expect("it is open");
    let too_many: Vec<u32> = (0..4096).collect();
    steering::steer(first, &too_many).expect_err("the program is too long");
    let clients: Vec<_> = there
        .iter()
        .flat_map(|there| (0..32).map(|_| TcpStream::connect(*there).unwrap()))
        .collect();
    let waiting = |address, slot| {
        let listener = listeners.get(address, Slot::new(slot)).expect("it is open");
        socket::queue_length(listener).unwrap()
    };
    assert_eq!((waiting(1, 0), waiting(1, 1)), (0, 32), "the second is steered as it was");
    let old = waiting(0, 0);
    let new = waiting(0, 1);
    assert!(old > 0 && old + new == 32, "the kernel chooses at the first: {old}, {new}");
    drop(clients);
}

/// An address that is let go and wanted again at once is the same sockets: it cannot be opened a second
/// time, and who waits there stays.
#[test]
fn an_address_that_was_just_let_go_is_taken_back() {
    let mut listeners = open(&["127.0.0.1:0"]);
    let there = *bound(&mut listeners, 0);
    let config = |bind: &str| {
        Config::from_toml(&format!("bind = \"{bind}\""), &[]).expect("the setting is right")
    };
    let again = config(&there.to_string());
    let name = again.bind[0].to_string();
    listeners.addresses[0].as_mut().expect("it is open").bind = Some(name.clone());
    let waiting = TcpStream::connect(there).expect("it listens");
    assert_eq!(listeners.close_others(Instant::default(), &[]), [(0, format!("http://{there}"))]);
    let wider = config(&format!("0.0.0.0:{}", there.port()));
    let refused = listeners.open_missing(&wider).expect_err("both cannot be open").to_string();
    assert!(refused.contains("reload again in a second"), "{refused}");
    assert_eq!(listeners.open_missing(&again).expect("it is kept"), [format!("http://{there}")]);
    assert!(listeners.retired.is_empty(), "it is not closed any more");
    let all = SlotSet::from_iter([Slot::new(0)]);
    listeners.steer(&all).expect("it needs no privilege");
    let more = TcpStream::connect(there).expect("new connections begin");
    assert_eq!(listeners.queue_length(Slot::new(0)), 2);
    drop((waiting, more));
}

/// A container without IPv6 has `::1 localhost` in its hosts file all the same.
#[test]
fn address_of_a_name_that_is_absent_is_left_out_beside_another() {
    let here = Bind::from(BindAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    let elsewhere = |port: u16| {
        Bind::from(BindAddress::Tcp(SocketAddr::new("192.0.2.1".parse().unwrap(), port)))
    };
    let named = |binds: &[Bind]| Config::from_names(&[("host", binds)]);
    let mut listeners =
        Listeners::open(&named(&[elsewhere(9), here.clone()]), &[], Passed::default(), 1).unwrap();
    assert_eq!(listeners.names().len(), 1);
    assert!(listeners.names()[0].starts_with("http://127.0.0.1:"));
    // A reload looks for it again, beside what is open.
    let again = named(&[elsewhere(9), here]);
    assert_eq!(listeners.open_missing(&again).unwrap(), [""; 0]);
    let refused = |config: &Config| {
        Listeners::open(config, &[], Passed::default(), 1).unwrap_err().to_string()
    };
    let none = refused(&named(&[elsewhere(9), elsewhere(10)]));
    assert!(none.contains("192.0.2.1:9") && none.contains("does not have that address"), "{none}");
    refused(&named(&[elsewhere(9)]));
}

/// Three slots at one address, of which the second alone is sent new connections.
fn steered() -> (Listeners, SocketAddr, Config, SlotSet) {
    let mut listeners = open(&["127.0.0.1:0"]);
    let (_, error) = listeners.grow(3, 64);
    assert!(error.is_none(), "{error:?}");
    let there = *bound(&mut listeners, 0);
    let second = SlotSet::from_iter([Slot::new(1)]);
    listeners.steer(&second).expect("it needs no privilege");
    (listeners, there, Config::default(), second)
}

fn waiting(listeners: &Listeners, there: SocketAddr) -> [u32; 3] {
    let clients: Vec<_> = (0..32).map(|_| TcpStream::connect(there).expect("it listens")).collect();
    let lengths = [0, 1, 2].map(|slot| listeners.queue_length(Slot::new(slot)));
    drop(clients);
    lengths
}

/// Whatever sockets of the group a worker has shut down: the kernel numbers them anew.
#[test]
fn mended_address_is_steered_as_before() {
    for spoiled in [&[0][..], &[1], &[2], &[0, 1], &[2, 0], &[0, 1, 2]] {
        let (mut listeners, there, config, second) = steered();
        for slot in spoiled {
            let socket = listeners.get(0, Slot::new(*slot)).expect("it is open");
            socket::stop_listening(socket).expect("it listens");
        }
        assert!(!listeners.mend(Instant::from_millis(1), &config, &second));
        assert_eq!(waiting(&listeners, there), [0, 32, 0], "{spoiled:?}");
        let third = SlotSet::from_iter([Slot::new(2)]);
        listeners.steer(&third).expect("it needs no privilege");
        // The first clients still wait where they were sent.
        assert_eq!(waiting(&listeners, there), [0, 32, 32], "{spoiled:?}");
    }
}

/// A worker that has a socket of the group may have all connections sent to itself.
#[test]
fn steering_by_a_worker_is_put_right() {
    let (mut listeners, there, config, second) = steered();
    let first = listeners.get(0, Slot::new(0)).expect("it is open");
    crate::sys::filter::steer(first, &[0]).expect("it needs no privilege");
    assert_eq!(waiting(&listeners, there), [32, 0, 0]);
    listeners.mend(Instant::from_millis(1), &config, &second);
    assert_eq!(waiting(&listeners, there), [32, 32, 0]);
}

/// A filter that no process can take back keeps every client out.
#[test]
fn altered_listener_is_opened_anew() {
    let (mut listeners, there, config, second) = steered();
    let mend = |listeners: &mut Listeners, seconds: u64| {
        listeners.mend(Instant::from_millis(seconds * 1000), &config, &second)
    };
    assert!(!mend(&mut listeners, 1));
    let old = listeners.get(0, Slot::new(1)).expect("it is open").as_raw_fd();
    let before = listeners.get(0, Slot::new(1)).expect("it is open").try_clone_to_owned();
    let before = before.expect("there are descriptors");
    crate::sys::filter::deafen(before.as_fd()).expect("it needs no privilege");
    // The options are many, and are not looked at each time.
    assert!(!mend(&mut listeners, 10));
    assert!(mend(&mut listeners, 11), "workers lack the socket at descriptor {old}");
    assert_eq!(waiting(&listeners, there), [0, 32, 0]);
    assert!(socket::has_stopped_listening(before.as_fd()));
    // Workers that are not replaced yet have the old sockets: that alters nothing.
    assert!(!mend(&mut listeners, 30) && !mend(&mut listeners, 60));
    assert_eq!(waiting(&listeners, there), [0, 64, 0]);
}

/// The look of a stopping server finds listeners that it has closed itself.
#[test]
fn listeners_that_a_stop_has_closed_stay_closed() {
    let mut listeners = open(&["127.0.0.1:0"]);
    let there = *bound(&mut listeners, 0);
    let config = Config::default();
    let begun = Instant::from_millis(0);
    listeners.stop(begun);
    listeners.expire(begun.after(Duration::from_secs(9)));
    TcpStream::connect(there).expect_err("it is closed");
    assert!(!listeners.mend(begun.after(Duration::from_secs(10)), &config, &SlotSet::EMPTY));
    TcpStream::connect(there).expect_err("it is closed for good");
}
