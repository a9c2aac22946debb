//! The master's end with real sockets and a clock of the tests' own.

use std::io::BufRead;

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(1_000_000 + millis)
}

fn control() -> (Control, impl Fn() -> UnixStream) {
    let random: u64 = rand::random();
    let control = Control::listen_abstract(random).expect("a new name");
    let name = place::abstract_name(process::pid(), random);
    (control, move || local::connect_abstract(&name, STALL).expect("it listens"))
}

/// Events, of which there are so many, as lines of their own number.
fn produce(feed: &mut Feed, output: &mut Vec<u8>) -> usize {
    let Feed::Events { cursor, end } = feed else { return 1 };
    match end.take_if(|end| end.serial <= *cursor) {
        Some(End { exit_code, reason, .. }) => {
            output.extend(protocol::line(&Reply::End { exit_code, reason }));
            *feed = Feed::Ending;
        }
        None => {
            output.extend(format!("{:>99}\n", *cursor).bytes());
            *cursor += 1;
        }
    }
    1
}

fn said(stream: &UnixStream) -> Vec<String> {
    io::BufReader::new(stream).lines().map(|line| line.expect("it is text")).collect()
}

#[test]
fn client_that_asks_nothing_is_dropped_after_a_second() {
    let (mut control, connect) = control();
    let clients: Vec<UnixStream> = (0..3).map(|_| connect()).collect();
    control.accept(at(0));
    (&clients[1]).write_all(b"{\"command\":\"status\"").unwrap();
    assert!(matches!(control.read(at(500), CommandId(1)), Heard::Nothing));
    (&clients[2]).write_all(b"{\"command\":\"reload\"}\n").unwrap();
    let heard = control.read(at(500), CommandId(2));
    assert!(matches!(heard, Heard::Request(Request::Reload)), "{heard:?}");
    control.answer(at(500), CommandId(2), None, Feed::Events { cursor: 9, end: None });
    assert_eq!(control.deadline(at(500)), Some(at(1000)));
    assert_eq!(control.expire(at(999)), []);
    assert_eq!(control.expire(at(1000)), [CommandId(0), CommandId(1)]);
    assert_eq!(control.deadline(at(1000)), None, "a command may take its time");
    assert_eq!(said(&clients[0]), [""; 0]);
}

#[test]
fn malformed_and_long_requests_are_answered_and_closed() {
    let (mut control, connect) = control();
    let clients = [connect(), connect()];
    control.accept(at(0));
    (&clients[0]).write_all(b"{\"command\":\"dance\"}\n").unwrap();
    (&clients[1]).write_all(&[b'x'; REQUEST_MAX + 1]).unwrap();
    for id in [CommandId(0), CommandId(1), CommandId(1)] {
        assert!(matches!(control.read(at(0), id), Heard::Nothing));
    }
    for id in [CommandId(0), CommandId(1)] {
        assert!(!control.send(at(0), id, 0, &mut 1, produce));
    }
    assert!(control.clients.is_empty());
    let [malformed, long] = clients.map(|client| said(&client).concat());
    assert!(malformed.contains("\"exit_code\":64,\"reason\":\"malformed request: unknown"));
    assert!(long.contains("the request is longer than 4096 bytes"), "{long}");
}

#[test]
fn client_that_does_not_read_costs_a_bounded_buffer_for_a_second() {
    let (mut control, connect) = control();
    let client = connect();
    control.accept(at(0));
    let id = CommandId(0);
    control.answer(at(0), id, None, Feed::Events { cursor: 0, end: None });
    for turn in 0..1000 {
        let is_gone = control.send(at(turn / 10), id, u64::MAX, &mut 1000, produce);
        assert!(!is_gone && control.clients[0].output.len() <= OUTPUT + 100);
    }
    let since = control.clients[0].since;
    assert_eq!(control.expire(since.after(STALL)), [id]);
    let lines = said(&client);
    let numbers = lines.iter().filter_map(|line| line.trim().parse::<usize>().ok());
    assert!(numbers.take(lines.len() - 1).eq(0..lines.len() - 1), "no line is lost before the end");
}

#[test]
fn end_comes_behind_the_events_before_it() {
    let (mut control, connect) = control();
    let client = connect();
    control.accept(at(0));
    let id = CommandId(0);
    control.answer(at(0), id, None, Feed::Events { cursor: 7, end: None });
    control.conclude(id, End { serial: 9, exit_code: 1, reason: Some("why".to_owned()) });
    assert!(!control.send(at(0), id, 20, &mut 100, produce));
    let lines = said(&client);
    assert_eq!(lines[0].trim(), "7");
    assert_eq!(lines[1].trim(), "8");
    assert_eq!(lines[2..], [r#"{"type":"end","exit_code":1,"reason":"why"}"#]);
}

#[test]
fn clients_beyond_the_limit_take_the_place_of_silent_ones() {
    let (mut control, connect) = control();
    let clients: Vec<UnixStream> = (0..CLIENTS_MAX).map(|_| connect()).collect();
    (0..CLIENTS_MAX).for_each(|_| control.accept(at(0)));
    let silent = connect();
    let last = connect();
    control.accept(at(1));
    assert_eq!(control.clients.len(), CLIENTS_MAX);
    let ids: Vec<u64> = control.clients.iter().map(|client| client.id.0).collect();
    assert!(ids.into_iter().eq(2..2 + CLIENTS_MAX as u64), "the first two made room");
    assert_eq!(said(&clients[0]), [""; 0]);
    // Those that have asked are left alone.
    for client in &mut control.clients {
        client.feed = Feed::Events { cursor: 0, end: None };
    }
    let refused = connect();
    control.accept(at(2));
    assert!(said(&refused).concat().contains("\"exit_code\":75"));
    assert_eq!(control.sources(at(2), 0).count(), CLIENTS_MAX + 1);
    drop((silent, last));
}

#[test]
fn flood_of_clients_is_not_polled_for() {
    let (mut control, _) = control();
    control.accept(at(0));
    control.accepted.count = ACCEPTED_MAX;
    assert_eq!(control.sources(at(99), 0).count(), 0);
    assert_eq!(control.deadline(at(0)), Some(at(100)));
    assert_eq!(control.sources(at(100), 0).count(), 1);
}

#[test]
fn only_root_and_the_servers_user_may_ask() {
    let peer = |pid, uid| Peer { pid, uid };
    assert!(may_ask(peer(7, 0), 1000) && may_ask(peer(7, 1000), 1000));
    assert!(!may_ask(peer(7, 1001), 1000) && !may_ask(peer(7, 65_534), 0));
    assert!(!may_ask(peer(0, 0), 0), "its pid namespace is not seen");
}

#[test]
fn clients_live_on_in_the_next_image() {
    let (mut control, connect) = control();
    let client = connect();
    control.accept(at(0));
    control.answer(at(0), CommandId(0), None, Feed::Events { cursor: 3, end: None });
    let text = serde_json::to_string(&control.hand_over(&mut Handover::default())).unwrap();
    // As over execve(2): the numbers live on, their owners do not.
    let _lives_on = std::mem::ManuallyDrop::new(control);
    let handed = serde_json::from_str(&text).unwrap();
    let mut control = Control::take_over(at(5), handed).unwrap();
    control.conclude(CommandId(0), End { serial: 4, exit_code: 0, reason: None });
    assert!(!control.send(at(5), CommandId(0), 4, &mut 100, produce));
    assert_eq!(said(&client).len(), 2);
    let _other = connect();
    control.accept(at(5));
    assert_eq!(control.clients[0].id, CommandId(1));
}
