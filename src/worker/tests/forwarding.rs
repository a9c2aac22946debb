//! Who the client is, and what a request's id is, to handlers, the log and the client itself.

use super::client::{body, field};
use super::{Net, run};

const TRUSTED: &str = "forwarded_allow_ips = ['127.0.1.1', '10.0.0.0/8']";

#[test]
fn a_trusted_peer_speaks_for_its_client() {
    run([1, 1], TRUSTED, |net| async move {
        let answer = net
            .ask(
                "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: of-1\r\n\
                 X-Forwarded-For: 9.9.9.9, 203.0.113.11, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\r\n",
            )
            .await;
        assert_eq!(body(&answer), "203.0.113.11 https 127.0.1.1 of-1");
        net.counted(1).await;
        let lines = Net::access_lines("203.0.113.11");
        assert_eq!(lines, [r#"https "GET /who HTTP/1.1" 200 ok of-1 "-" "-""#]);
        let answer = net
            .ask(
                "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: of-2\r\n\
                 Forwarded: for=\"[2001:db8::11]\";proto=https\r\n\r\n",
            )
            .await;
        assert_eq!(body(&answer), "2001:db8::11 https 127.0.1.1 of-2");
    });
}

#[test]
fn anybody_else_speaks_for_himself() {
    run([1, 2], TRUSTED, |net| async move {
        let answer = net
            .ask(
                "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: of-3\r\n\
                 Forwarded: for=203.0.113.12;proto=https\r\n\
                 X-Forwarded-For: 203.0.113.12\r\nX-Forwarded-Proto: https\r\n\r\n",
            )
            .await;
        assert_eq!(body(&answer), "127.0.1.2 http 127.0.1.2 of-3");
        net.counted(1).await;
        assert_eq!(Net::access_lines("203.0.113.12"), Vec::<String>::new());
        assert_eq!(net.own_access_lines().len(), 1);
    });
}

#[test]
fn who_may_use_a_unix_socket_is_trusted() {
    run([1, 3], TRUSTED, |net| async move {
        let mut talk = net.connect_unix().await;
        talk.say(
            "GET /who HTTP/1.1\r\nHost: a\r\nX-Request-Id: of-4\r\n\
             X-Forwarded-For: 203.0.113.13\r\n\r\n",
        )
        .await;
        assert_eq!(body(&talk.answer().await), "203.0.113.13 http - of-4");
        talk.say("GET /who HTTP/1.1\r\nHost: a\r\nX-Request-Id: of-5\r\n\r\n").await;
        assert_eq!(body(&talk.answer().await), "- http - of-5", "and each request is its own");
    });
}

#[test]
fn the_id_is_the_same_everywhere() {
    run([1, 4], "", |net| async move {
        let mut talk = net.connect().await;
        for said in ["a-Well.Formed_1", "", "two words", "{\"forged\":1}"] {
            let field_line =
                if said.is_empty() { String::new() } else { format!("X-Request-Id: {said}\r\n") };
            talk.say(format!("GET /who HTTP/1.1\r\nHost: a\r\n{field_line}\r\n")).await;
            let answer = talk.answer().await;
            let echoed = field(&answer, "x-request-id").expect("it is echoed").to_owned();
            assert_eq!(body(&answer), format!("127.0.1.4 http 127.0.1.4 {echoed}"));
            match said {
                "a-Well.Formed_1" => assert_eq!(echoed, said),
                _ => assert_eq!((echoed.len(), echoed.contains(' ')), (32, false), "{echoed}"),
            }
            let logged = format!(r#"http "GET /who HTTP/1.1" 200 ok {echoed} "-" "-""#);
            talk.say("GET /who HTTP/1.1\r\nHost: b\r\nX-Request-Id: next\r\n\r\n").await;
            talk.answer().await;
            assert!(net.own_access_lines().contains(&logged), "{logged}");
        }
    });
}

#[test]
fn refused_requests_have_their_id_and_their_client_too() {
    run([1, 1], TRUSTED, |net| async move {
        let answer = net
            .ask("GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.14\r\nX-Request-Id: of-6\r\n\r\n")
            .await;
        assert_eq!(field(&answer, "x-request-id"), Some("of-6"));
        net.counted(1).await;
        let lines = Net::access_lines("203.0.113.14");
        assert_eq!(lines, [r#"http "GET / HTTP/1.1" 400 ok of-6 "-" "-""#]);
    });
}

#[test]
fn an_absolute_target_names_the_host() {
    run([1, 5], "", |net| async move {
        let answer = net
            .ask(
                "GET http://a.example/who HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n",
            )
            .await;
        assert!(body(&answer).starts_with("127.0.1.5 http"), "{answer}");
    });
}
