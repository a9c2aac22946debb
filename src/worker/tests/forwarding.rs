//! The client, and a request's id, as handlers, the log and the client itself see them.

use std::os::unix::fs::MetadataExt as _;

use super::client::{body, field, statuses};
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
        // The other family is the client's own.
        let answer = net
            .ask(
                "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: of-2\r\n\
                 X-Forwarded-For: 203.0.113.9\r\nForwarded: for=127.0.0.1;proto=https\r\n\r\n",
            )
            .await;
        assert_eq!(body(&answer), "203.0.113.9 http 127.0.1.1 of-2");
        let answer =
            net.ask("GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: http, https\r\n\r\n").await;
        assert_eq!((statuses(&answer), field(&answer, "connection")), (vec![400], Some("close")));
        let error = r#"{"error":"the forwarding headers contradict each other"}"#;
        assert_eq!(body(&answer), error);
    });
}

#[test]
fn forwarded_is_believed_alone_when_it_is_configured() {
    let settings = format!("{TRUSTED}\nforwarded_fields = 'forwarded'");
    run([1, 1], &settings, |net| async move {
        let answer = net
            .ask(
                "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: of-2\r\n\
                 X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http, https\r\n\
                 Forwarded: for=\"[2001:db8::11]\";proto=https\r\n\r\n",
            )
            .await;
        assert_eq!(body(&answer), "2001:db8::11 https 127.0.1.1 of-2");
        let wrong = "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=1.1.1.1;for=2.2.2.2\r\n\r\n";
        assert_eq!(statuses(&net.ask(wrong).await), [400]);
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

/// It is the one that the application logs.
#[test]
fn id_of_the_application_is_kept_and_logged() {
    run([1, 6], "", |net| async move {
        let mut talk = net.connect().await;
        let get = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: client-1\r\n\r\n")
        };
        talk.say(get("/own-id")).await;
        let answer = talk.answer().await;
        assert_eq!(answer.matches("x-request-id").count(), 1, "{answer}");
        assert_eq!(field(&answer, "x-request-id"), Some("of=the app/7"));
        talk.say(get("/odd-id?two")).await;
        let answer = talk.answer().await;
        let both = "x-request-id: first\r\nx-request-id: second\r\n";
        assert!(answer.contains(both), "{answer}");
        // The access log could not name it.
        talk.say(get("/odd-id")).await;
        let answer = talk.answer().await;
        assert_eq!(field(&answer, "x-request-id"), Some("client-1"));
        net.counted(3).await;
        let line =
            |path: &str, id: &str| format!(r#"http "GET {path} HTTP/1.1" 200 ok {id} "-" "-""#);
        let expected = [
            line("/own-id", "of=the app/7"),
            line("/odd-id?two", "first"),
            line("/odd-id", "client-1"),
        ];
        assert_eq!(net.own_access_lines(), expected);
    });
}

fn own_user() -> u32 {
    std::fs::metadata("/proc/self").expect("there is /proc").uid()
}

/// axum says that an extension is missing; that an address is, is ours to say.
#[test]
fn connect_info_on_a_unix_socket_is_refused_in_words() {
    run([1, 7], "", |net| async move {
        let get =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: u7\r\n\r\n");
        let mut tcp = net.connect().await;
        tcp.say(get("/address")).await;
        assert_eq!(body(&tcp.answer().await), "127.0.1.7");
        tcp.say(get("/user")).await;
        assert_eq!(body(&tcp.answer().await), "unknown");
        let mut unix = net.connect_unix().await;
        unix.say(get("/user")).await;
        let own = format!("{} Some({})", own_user(), std::process::id());
        assert_eq!(body(&unix.answer().await), own);
        // Another answer with this status and length is left as it is.
        unix.say(get("/as-long")).await;
        let answer = unix.answer().await;
        assert_eq!((statuses(&answer), body(&answer)), (vec![500], "m".repeat(191).as_str()));
        unix.say(get("/address")).await;
        let answer = unix.rest().await;
        assert_eq!(statuses(&answer), [500]);
        let error = r#"{"error":"the client has no address: it is on a unix socket"}"#;
        assert_eq!((body(&answer), field(&answer, "x-own")), (error, Some("marked")));
        let line =
            "cannot give GET /address its ConnectInfo<SocketAddr>: the client is on a unix socket";
        assert!(Net::all_error_lines().contains(line));
    });
}
