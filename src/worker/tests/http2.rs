//! HTTP/2 by prior knowledge: streams side by side, each with its own limits, and floods.

use axum::body::Bytes;
use axum::http::{Method, Request, Response, StatusCode, Version};
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::{BIG, LONG, Net, SHORT, run_within};

/// The beginning of a client of HTTP/2: the preface, and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A connection of HTTP/2, and how it has ended.
pub(super) struct Peer {
    send: SendRequest<Bytes>,
    ended: JoinHandle<Result<(), h2::Error>>,
}

impl Net {
    async fn socket(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((std::net::IpAddr::from(self.from), 0).into()).expect("it is ours");
        socket.connect(self.address).await.expect("the server listens")
    }

    pub(super) async fn peer(&self) -> Peer {
        self.peer_with(&Builder::new()).await
    }

    async fn peer_with(&self, builder: &Builder) -> Peer {
        let (send, connection) = builder.handshake(self.socket().await).await.expect("hands");
        Peer { send, ended: tokio::spawn(connection) }
    }
}

impl Peer {
    /// Sends a request; its body is to come if it has one.
    pub(super) async fn send(
        &self,
        request: axum::http::request::Builder,
        has_body: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.expect("it is open");
        let request = request.version(Version::HTTP_2).body(()).expect("it is a request");
        send.send_request(request, !has_body).expect("it is open")
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.send(get(path), false).await.0.await.expect("it is answered");
        whole(response).await
    }
}

pub(super) fn get(path: &str) -> axum::http::request::Builder {
    Request::get(format!("http://a.example{path}"))
}

async fn whole(response: Response<RecvStream>) -> (StatusCode, String) {
    let (head, mut body) = response.into_parts();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("it is whole");
        body.flow_control().release_capacity(data.len()).expect("it was taken");
        text.extend_from_slice(&data);
    }
    (head.status, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn streams_are_answered_side_by_side() {
    run_within(LONG, [9, 1], "", |net| async move {
        let peer = net.peer().await;
        let mut slow = Vec::new();
        for _ in 0..20 {
            slow.push(peer.send(get("/slow"), false).await.0);
        }
        assert_eq!(peer.get("/").await, (StatusCode::OK, "hello".to_owned()));
        for response in slow {
            let response = response.await.expect("it is answered");
            assert_eq!(response.version(), Version::HTTP_2);
            assert!(response.headers().contains_key("x-request-id"));
            assert_eq!(whole(response).await, (StatusCode::OK, "slow".to_owned()));
        }
        let (response, mut body) = peer.send(get("/echo").method(Method::POST), true).await;
        body.send_data(Bytes::from_static(b"an echo"), true).expect("it is open");
        let response = response.await.expect("it is answered");
        assert_eq!(whole(response).await.1, "an echo");
        net.counted(22).await;
        let lines = net.own_access_lines();
        let of = |target: &str| {
            let line = format!("http \"{target} HTTP/2.0\" 200 ");
            lines.iter().filter(|logged| logged.starts_with(&line)).count()
        };
        assert_eq!([of("GET /"), of("GET /slow"), of("POST /echo")], [1, 20, 1], "{lines:?}");
        assert!(net.server.board.held().is_empty());
        assert_eq!(net.server.conns.count(), 1);
    });
}

#[test]
fn strict_rules_hold_in_each_stream() {
    run_within(LONG, [9, 2], "", |net| async move {
        let peer = net.peer().await;
        let wide = "b".repeat(8190);
        let requests = [
            (get("/").header("host", "b.example"), 400),
            (get("/").header("x", wide), 431),
            (get(&format!("/{}", "a".repeat(4094))), 414),
            (get("/echo").method(Method::POST).header("content-length", "1001"), 413),
            (Request::builder().method(Method::CONNECT).uri("a.example:80"), 501),
        ];
        for (request, expected) in requests {
            let response = peer.send(request, true).await.0.await.expect("it is answered");
            assert_eq!(response.status(), expected);
            assert!(!response.headers().contains_key("connection"), "{response:?}");
            assert!(response.headers().contains_key("x-content-type-options"));
        }
        assert_eq!(peer.get("/").await.0, StatusCode::OK, "the connection goes on");
    });
}

#[test]
fn each_stream_has_its_own_timeouts() {
    run_within(SHORT, [9, 3], "timeout = 0.5", |net| async move {
        let peer = net.peer().await;
        let never = peer.send(get("/never"), false).await.0;
        let (stalled, _body) = peer.send(get("/echo").method(Method::POST), true).await;
        assert_eq!(peer.get("/").await.0, StatusCode::OK);
        let status = |response: Result<Response<RecvStream>, h2::Error>| {
            response.expect("it is answered").status()
        };
        assert_eq!(status(stalled.await), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(status(never.await), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(peer.get("/").await.0, StatusCode::OK);
    });
}

#[test]
fn answer_that_is_not_read_ends_its_own_stream() {
    // Long enough for the client that reads, on a busy machine.
    run_within("header_timeout = 2\nbody_timeout = 2\n", [9, 4], "", |net| async move {
        // Its window for all streams together has room beside the one that is full.
        let mut builder = Builder::new();
        builder.initial_connection_window_size(1 << 20);
        let peer = net.peer_with(&builder).await;
        let unread = peer.send(get("/big"), false).await.0.await.expect("its head comes");
        let mut body = unread.into_body();
        let mut ended = None;
        while ended.is_none() {
            // Its window is never opened again.
            ended = body.data().await.and_then(Result::err);
            assert_eq!(peer.get("/").await.0, StatusCode::OK);
        }
        assert_eq!(ended.and_then(|error| error.reason()), Some(Reason::CANCEL));
        // One that is read comes whole, however long it takes.
        let all = peer.send(get("/big"), false).await.0.await.expect("it is answered");
        assert_eq!(whole(all).await.1.len(), BIG);
    });
}

/// A client that lets nothing of an answer out takes no part of it from the beginning.
#[test]
fn answer_without_a_window_ends_its_own_stream() {
    run_within(SHORT, [9, 16], "", |net| async move {
        let mut builder = Builder::new();
        builder.initial_window_size(0);
        let peer = net.peer_with(&builder).await;
        let unread = peer.send(get("/big"), false).await.0.await.expect("its head comes");
        let ended = unread.into_body().data().await.expect("it has no end").expect_err("it is cut");
        assert_eq!(ended.reason(), Some(Reason::CANCEL));
    });
}

#[test]
fn drain_says_goodbye_and_serves_what_was_on_its_way() {
    run_within(LONG, [9, 5], "", |net| async move {
        let peer = net.peer().await;
        let mut slow = Vec::new();
        for _ in 0..5 {
            slow.push(peer.send(get("/slow"), false).await.0);
        }
        assert_eq!(peer.get("/").await.0, StatusCode::OK);
        net.server.drain();
        for response in slow {
            assert_eq!(response.await.expect("it is answered").status(), StatusCode::OK);
        }
        let mut send = peer.send.clone();
        drop(peer.send);
        peer.ended.await.expect("no panic").expect("it ends without an error");
        let error = std::future::poll_fn(|cx| send.poll_ready(cx)).await.expect_err("it is closed");
        assert!(error.is_go_away() || error.is_io() || error.reason().is_none(), "{error:?}");
    });
}

#[test]
fn idle_connection_ends_after_keepalive() {
    run_within(LONG, [9, 6], "keepalive = 0.3", |net| async move {
        let peer = net.peer().await;
        assert_eq!(peer.get("/").await.0, StatusCode::OK);
        peer.ended.await.expect("no panic").expect("it ends without an error");
        net.server.until(|open| open == 0).await;
    });
}

#[test]
fn requests_that_are_reset_in_haste_end_the_connection() {
    run_within(LONG, [9, 7], "", |net| async move {
        let other = net.peer().await;
        let peer = net.peer().await;
        let mut resets = 0;
        loop {
            let Ok(mut send) = peer.send.clone().ready().await else { break };
            let request = get("/never").version(Version::HTTP_2).body(()).expect("a request");
            let Ok((_response, mut stream)) = send.send_request(request, true) else { break };
            // Its request is begun by then.
            tokio::task::yield_now().await;
            stream.send_reset(Reason::CANCEL);
            resets += 1;
            assert!(resets < 100_000, "nothing ends it");
        }
        peer.ended.await.expect("no panic").expect_err("it is cut off");
        assert_eq!(other.get("/").await.0, StatusCode::OK);
    });
}

/// Uploads as clients make them: several at once, up to the windows, and to paths that read nothing.
#[test]
fn uploads_up_to_the_windows_are_no_flood() {
    run_within(LONG, [9, 12], "", |net| async move {
        let peer = net.peer().await;
        let body = Bytes::from(vec![b'x'; 300 << 10]);
        for (path, expected) in [("/unlimited", 200), ("/nothing", 413), ("/nothing", 413)] {
            let mut running = Vec::new();
            for _ in 0..4 {
                let request = get(path).method(Method::POST).header("content-length", body.len());
                let (response, mut send) = peer.send(request, true).await;
                // The client sends what the windows let out; a refused body is reset.
                let _reset = send.send_data(body.clone(), true);
                running.push(response);
            }
            for response in running {
                let response = response.await.expect("it is answered");
                assert_eq!(response.status(), expected, "{path}");
                let (_, text) = whole(response).await;
                assert!(expected != 200 || text == body.len().to_string(), "{path}: {text}");
            }
        }
        assert_eq!(peer.get("/").await.0, StatusCode::OK, "the connection goes on");
    });
}

#[test]
fn connection_says_goodbye_after_an_answer_where_none_is_kept() {
    run_within(LONG, [9, 13], "keepalive = 0", |net| async move {
        let peer = net.peer().await;
        assert_eq!(peer.get("/").await.0, StatusCode::OK);
        // A client that holds on to its connection is let go all the same.
        let Peer { send, ended } = peer;
        ended.await.expect("no panic").expect("it ends in order");
        drop(send);
    });
}

/// Sends these frames again and again; returns how many bytes were taken before the connection ended.
async fn flood(net: &Net, frames: &[u8]) -> usize {
    let mut socket = net.socket().await;
    socket.write_all(PREFACE).await.expect("it is open");
    let (mut reader, mut writer) = socket.split();
    let chunk = frames.repeat(64);
    let write = async {
        let mut taken = 0;
        while taken < 64 << 20 {
            match writer.write_all(&chunk).await {
                Ok(()) => taken += chunk.len(),
                Err(_) => break,
            }
        }
        taken
    };
    let read = async {
        let mut bytes = vec![0; 64 << 10];
        while matches!(reader.read(&mut bytes).await, Ok(1..)) {}
    };
    let (taken, ()) = tokio::join!(write, read);
    taken
}

#[test]
fn floods_beside_requests_end_the_connection() {
    run_within(LONG, [9, 8], "", |net| async move {
        let other = net.peer().await;
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).expect("it is short");
            [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
        };
        let floods = [
            ("ping", frame(6, 0, 0, &[0; 8])),
            ("settings", frame(4, 0, 0, &[0, 3, 0, 0, 0, 9])),
            ("priority", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
            ("window update", frame(8, 0, 0, &[0, 0, 0, 1])),
            ("unknown", frame(99, 0, 0, &[0; 20])),
        ];
        for (name, frames) in floods {
            let taken = flood(&net, &frames).await;
            assert!(taken < 8 << 20, "{name}: {taken} bytes");
            assert_eq!(other.get("/").await.0, StatusCode::OK, "behind {name}");
        }
        // A head that never ends.
        let headers = [0, 0, 3, 1, 0, 0, 0, 0, 1, 0x82, 0x86, 0x84];
        let mut socket = net.socket().await;
        socket.write_all(&[PREFACE, &headers].concat()).await.expect("it is open");
        let continuation = frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b']).repeat(64);
        let mut taken = 0;
        while socket.write_all(&continuation).await.is_ok() {
            taken += continuation.len();
            assert!(taken < 8 << 20, "CONTINUATION: {taken} bytes");
        }
        assert_eq!(other.get("/").await.0, StatusCode::OK);
    });
}

#[test]
fn http2_can_be_turned_off() {
    run_within(LONG, [9, 9], "http2.enabled = false", |net| async move {
        let mut talk = net.connect().await;
        talk.say(PREFACE).await;
        let answer = talk.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    });
}

#[test]
fn preface_may_come_in_pieces() {
    run_within(SHORT, [9, 14], "", |net| async move {
        // No piece is passed on before it is known what it begins.
        for split in [1, 4, 17] {
            let mut socket = net.socket().await;
            socket.set_nodelay(true).expect("it is open");
            socket.write_all(&PREFACE[..split]).await.expect("it is open");
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            socket.write_all(&PREFACE[split..]).await.expect("it is open");
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.expect("it answers in frames");
            assert_eq!(head[3], 4, "settings: {head:?}");
        }
        let request = b"PROPFIND / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        for (split, rest, status) in [
            (1, &request[1..], "HTTP/1.1 405"),
            (2, &request[2..], "HTTP/1.1 405"),
            (14, &b" HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 400"),
            (5, b"", "HTTP/1.1 408"),
        ] {
            let mut socket = net.socket().await;
            socket.set_nodelay(true).expect("it is open");
            socket.write_all(&PREFACE[..split]).await.expect("it is open");
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            socket.write_all(rest).await.expect("it is open");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.expect("it is answered");
            assert!(answer.starts_with(status), "{split}: {answer}");
        }
    });
}

#[test]
fn drain_waits_for_a_client_that_takes_its_answer_in_small_pieces() {
    run_within(LONG, [9, 15], "", |net| async move {
        let mut builder = Builder::new();
        builder.initial_window_size(20);
        let peer = net.peer_with(&builder).await;
        let response = peer.send(get("/as-long"), false).await.0.await.expect("it is answered");
        net.server.drain();
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data.expect("it comes whole");
            length += data.len();
            // Of a slow client, in all more time than a silent one has.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            body.flow_control().release_capacity(data.len()).expect("it was taken");
        }
        assert_eq!(length, 191);
        peer.ended.await.expect("no panic").expect("it ends without an error");
    });
}

/// A client that pauses with a part of its answer has the time of a reader, not that of a silent one.
#[test]
fn drain_waits_for_a_client_that_pauses_within_its_answer() {
    run_within(LONG, [9, 17], "", |net| async move {
        let mut builder = Builder::new();
        builder.initial_window_size(20);
        let peer = net.peer_with(&builder).await;
        let response = peer.send(get("/as-long"), false).await.0.await.expect("it is answered");
        net.server.drain();
        let mut body = response.into_body();
        let mut length = 0;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        while let Some(data) = body.data().await {
            let data = data.expect("it comes whole");
            length += data.len();
            body.flow_control().release_capacity(data.len()).expect("it was taken");
        }
        assert_eq!(length, 191);
        peer.ended.await.expect("no panic").expect("it ends without an error");
    });
}

/// A client that was told all keeps no worker: its answers are out, and the end is said.
#[test]
fn drain_does_not_wait_for_a_client_that_keeps_its_end_open() {
    run_within(LONG, [9, 18], "", |net| async move {
        let mut socket = net.socket().await;
        // A request for `/`, with names and values that are in HPACK's table, but for the host.
        let request = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x01, 1, b'a'];
        socket.write_all(&[PREFACE, &request].concat()).await.expect("it is open");
        let mut is_answered = false;
        let mut is_pinged = false;
        let mut head = [0; 9];
        while socket.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("it is short")];
            socket.read_exact(&mut payload).await.expect("frames come whole");
            match head[3] {
                // The end of the answer.
                0 if head[4] & 1 == 1 => {
                    is_answered = true;
                    net.server.drain();
                }
                6 if head[4] == 0 => {
                    is_pinged = true;
                    let pong = [&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat();
                    socket.write_all(&pong).await.expect("it is open");
                }
                _ => {}
            }
        }
        assert!(is_answered && is_pinged);
        // Its own end stays open.
        net.server.until(|open| open == 0).await;
        drop(socket);
    });
}
