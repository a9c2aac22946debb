//! PROXY headers on real connections.

use std::time::Duration;

use super::client::{body, statuses};
use super::{LONG, Net, run, run_within};

const ON: &str = "proxy_protocol = true\nproxy_allow_ips = '127.0.2.0/28'\n\
    forwarded_allow_ips = ['127.0.2.1', '10.0.0.0/8']";

const WHO: &str = "GET /who HTTP/1.1\r\nHost: a\r\nX-Request-Id: i\r\n\r\n";

fn v2(command: u8, additions: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 22, 127, 0, 0, 1, 0xc3, 0x50, 0, 80];
    let length = u16::try_from(addresses.len() + additions.len()).unwrap();
    let fixed = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11], &length.to_be_bytes()].concat();
    [&fixed[..], &addresses, additions].concat()
}

#[test]
fn a_proxy_names_whom_it_speaks_for_once_for_all_requests() {
    run([2, 1], ON, |net| async move {
        let mut talk = net.connect().await;
        talk.say(format!("PROXY TCP4 203.0.113.21 127.0.0.1 50000 80\r\n{WHO}{WHO}")).await;
        for _ in 0..2 {
            assert_eq!(body(&talk.answer().await), "203.0.113.21 http 203.0.113.21 i");
        }
        let mut talk = net.connect().await;
        talk.say(v2(0x21, &[0x20, 0, 5, 1, 0, 0, 0, 0])).await;
        talk.say(WHO).await;
        assert_eq!(body(&talk.answer().await), "203.0.113.22 https 203.0.113.22 i");
        let line = r#"http "GET /who HTTP/1.1" 200 ok i "-" "-""#;
        net.counted(3).await;
        assert_eq!(Net::access_lines("203.0.113.21"), [line, line]);
    });
}

#[test]
fn a_header_may_come_in_pieces() {
    run_within(LONG, [2, 2], ON, |net| async move {
        for header in [b"PROXY TCP4 203.0.113.22 127.0.0.1 50000 80\r\n".to_vec(), v2(0x21, &[])] {
            let mut talk = net.connect().await;
            for byte in header {
                talk.say([byte]).await;
                tokio::task::yield_now().await;
            }
            talk.say(WHO).await;
            assert_eq!(body(&talk.answer().await), "203.0.113.22 http 203.0.113.22 i");
        }
    });
}

#[test]
fn a_proxys_own_connection_is_its_own() {
    run([2, 3], ON, |net| async move {
        for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, &[])] {
            let mut talk = net.connect().await;
            talk.say([&header[..], WHO.as_bytes()].concat()).await;
            assert_eq!(body(&talk.answer().await), "127.0.2.3 http 127.0.2.3 i");
        }
        let mut talk = net.connect_unix().await;
        talk.say(format!("PROXY UNKNOWN\r\n{WHO}")).await;
        assert_eq!(body(&talk.answer().await), "- http - i");
        let mut talk = net.connect_unix().await;
        talk.say(format!("PROXY TCP6 2001:db8::23 ::1 1 2\r\n{WHO}")).await;
        assert_eq!(body(&talk.answer().await), "2001:db8::23 http 2001:db8::23 i");
    });
}

/// The forwarding headers are of the client that the proxy names, not of the proxy.
#[test]
fn what_a_proxied_client_forwards_is_judged_by_its_own_address() {
    run([2, 1], ON, |net| async move {
        let request = "GET /who HTTP/1.1\r\nHost: a\r\nX-Request-Id: i\r\n\
            X-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n";
        let stranger = format!("PROXY TCP4 203.0.113.24 127.0.0.1 50000 80\r\n{request}");
        assert_eq!(body(&net.ask(stranger).await), "203.0.113.24 http 203.0.113.24 i");
        let friend = format!("PROXY TCP4 10.0.0.24 127.0.0.1 50000 80\r\n{request}");
        assert_eq!(body(&net.ask(friend).await), "198.51.100.1 http 10.0.0.24 i");
    });
}

#[test]
fn who_must_say_it_and_does_not_is_turned_away() {
    run([2, 4], ON, |net| async move {
        assert_eq!(net.ask(WHO).await, "");
        assert_eq!(net.ask("PROXY TCP4 203.0.113.25 127.0.0.1 0x7 80\r\n").await, "");
        assert_eq!(net.ask(v2(0x21, &[4])).await, "");
        let mut talk = net.connect().await;
        talk.say("PROXY TCP4 203").await;
        talk.hang_up().await;
        assert_eq!(talk.rest().await, "");
        let mut talk = net.connect().await;
        talk.hang_up().await;
        assert_eq!(talk.rest().await, "", "who only looks whether somebody listens");
        let lines = net.error_lines();
        let said: Vec<&str> = lines.iter().filter_map(|line| line.rsplit(": ").next()).collect();
        assert_eq!(
            said,
            [
                "it does not begin with a PROXY header",
                "its PROXY line has a port that is none",
                "its PROXY header has an addition that is cut",
                "it ended within its PROXY header",
            ]
        );
        assert!(
            lines.iter().all(|line| line.starts_with("INFO] closed a connection from 127.0.2.4:"))
        );
        assert_eq!(net.own_access_lines(), Vec::<String>::new());
    });
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection() {
    run([2, 5], ON, |net| async move {
        assert_eq!(net.ask("").await, "");
        assert_eq!(net.ask("PROXY TCP4 ").await, "");
        let late = "its PROXY header did not come in time";
        let lines = net.error_lines();
        assert_eq!(lines.iter().filter(|line| line.ends_with(late)).count(), 2, "{lines:?}");
    });
}

/// As in gunicorn: ordinary HTTP from elsewhere is served, a header from there is refused.
#[test]
fn who_must_not_say_it_is_not_believed() {
    run([2, 99], ON, |net| async move {
        let mut talk = net.connect().await;
        talk.say(WHO).await;
        assert_eq!(body(&talk.answer().await), "127.0.2.99 http 127.0.2.99 i");
        let header = "PROXY TCP4 203.0.113.26 127.0.0.1 50000 80\r\n";
        assert_eq!(statuses(&net.ask(format!("{header}{WHO}")).await), [400]);
        assert_eq!(statuses(&net.ask(v2(0x21, WHO.as_bytes())).await), [400]);
        net.counted(3).await;
        assert_eq!(Net::access_lines("203.0.113.26"), Vec::<String>::new());
    });
}

#[test]
fn a_connection_without_its_header_is_fresh() {
    run([2, 6], ON, |net| async move {
        let mut silent = net.connect().await;
        let mut begun = net.connect().await;
        begun.say("PROXY TCP4 203.0.113.27 127.").await;
        while net.server.conns.count() < 2 {
            tokio::task::yield_now().await;
        }
        net.server.drain();
        net.server.conns.close_idle(Duration::ZERO);
        let header = "PROXY TCP4 203.0.113.27 127.0.0.1 50000 80\r\n";
        begun.say(&header["PROXY TCP4 203.0.113.27 127.".len()..]).await;
        silent.say(header).await;
        tokio::task::yield_now().await;
        net.server.conns.close_idle(Duration::ZERO);
        for talk in [&mut silent, &mut begun] {
            talk.say(WHO).await;
            let answer = talk.rest().await;
            assert_eq!(statuses(&answer), [200]);
            assert!(answer.contains("connection: close"), "{answer}");
        }
    });
}
