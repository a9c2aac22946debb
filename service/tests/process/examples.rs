//! The examples, each tried as its head says.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::{Response, post};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};

/// Sends a request with these header fields.
fn ask(server: &Ferricorn, request: &str, fields: &str) -> Response {
    let mut connection = server.connect();
    let request = request.replacen("host: test\r\n", &format!("host: test\r\n{fields}"), 1);
    connection.send(request).expect("it is open");
    connection.response().expect("it is answered")
}

fn get(server: &Ferricorn, target: &str) -> Response {
    server.get(target).expect("it is answered")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leader {
    slot: u16,
    fence: u64,
    runs: u64,
}

/// Asks until the worker that leads answers, with a larger number than this.
fn leader_after(server: &Ferricorn, fence: u64) -> Leader {
    eventually("a worker leads", PATIENCE, || {
        let text = server.get("/").ok()?.text();
        let words: Vec<&str> = text.split_whitespace().collect();
        let [_, slot, _, number, _, runs] = words[..] else { panic!("{text}") };
        let number: u64 = number.parse().expect("a number");
        let slot = slot.parse().expect("a number");
        let leader = Leader { slot, fence: number, runs: runs.parse().expect("a number") };
        (number > fence).then_some(leader)
    })
}

#[test]
fn job_goes_on_in_another_worker_when_its_leader_is_killed() {
    let server = Ferricorn::example("leader").config("workers = 3").start();
    let mut fence = 0;
    for _ in 0..5 {
        let leader = leader_after(&server, fence);
        let runs = leader.runs;
        eventually("the job runs", PATIENCE, || {
            let now = leader_after(&server, leader.fence - 1);
            assert_eq!(now.fence, leader.fence, "one leads as long as it lives");
            (now.runs > runs).then_some(())
        });
        send(server.worker(leader.slot), Signal::SIGKILL);
        fence = leader.fence;
    }
    let leader = leader_after(&server, fence);
    assert_eq!(leader.fence, fence + 1, "no other task had it meanwhile");
    // A drain hands it on, too.
    server.signal(Signal::SIGHUP);
    leader_after(&server, leader.fence);
    server.stop();
}

/// The time from the death of the worker that leads until another one leads, 5 times or `FIGURE_KILLS`.
#[test]
fn lease_of_a_killed_worker_is_soon_free() {
    let kills = crate::log_figures::figure("FIGURE_KILLS", 5);
    let server = Ferricorn::example("leader").config("workers = 3").start();
    let mut fence = 0;
    let mut pauses = Vec::new();
    for _ in 0..kills {
        let leader = leader_after(&server, fence);
        eventually("every worker serves", PATIENCE, || (server.workers().len() == 3).then_some(()));
        let killed = Instant::now();
        send(server.worker(leader.slot), Signal::SIGKILL);
        let next = leader_after(&server, leader.fence);
        pauses.push(killed.elapsed());
        assert_eq!(next.fence, leader.fence + 1, "one worker at a time leads");
        fence = leader.fence;
    }
    server.stop();
    pauses.sort_unstable();
    let median = pauses[pauses.len() / 2];
    let longest = pauses[pauses.len() - 1];
    println!(
        "{} leaders killed: another leads after {median:?}, {longest:?} at the most",
        pauses.len()
    );
    // Without optimization, and beside other tests, it is another program.
    if !cfg!(debug_assertions) {
        assert!(longest < Duration::from_millis(50), "{longest:?}");
    }
}

#[test]
fn limit_holds_over_all_workers() {
    let server = Ferricorn::example("rate_limit").config("workers = 4").start();
    let statuses: Vec<u16> = (0..40).map(|_| get(&server, "/").status).collect();
    let allowed = statuses.iter().filter(|status| **status == 200).count();
    assert!((10..25).contains(&allowed), "{statuses:?}");
    let refused = eventually("the limit is reached", PATIENCE, || {
        Some(get(&server, "/")).filter(|answer| answer.status == 429)
    });
    assert_eq!(refused.field("retry-after"), "1");
    server.stop();
}

/// No window of a second holds more than 1,000 tokens and the 10 that may be taken at once, whatever is
/// killed meanwhile: of those tokens that were taken within it for certain.
#[test]
fn limit_of_a_thousand_a_second_is_kept_over_deaths() {
    let time = Duration::from_secs(crate::log_figures::figure("FIGURE_SECONDS", 3));
    let server = Ferricorn::unruly().config("workers = 8").start();
    let address = server.address();
    let (sender, received) = mpsc::channel();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let sender = sender.clone();
            let address = &address;
            scope.spawn(move || {
                while begun.elapsed() < time {
                    // One whose worker is killed is not answered: its tokens are not counted.
                    let answer = crate::client::Connection::open(address)
                        .and_then(|mut connection| connection.get("/tokens?ms=50"));
                    if let Ok(answer) = answer {
                        sender.send(answer.text()).expect("it is received");
                    }
                }
            });
        }
        let mut deaths: u32 = 0;
        while begun.elapsed() < time {
            if begun.elapsed() > Duration::from_millis(250) * deaths {
                let workers = server.workers();
                if let Some((_, pid)) = workers.get(deaths as usize % workers.len().max(1)) {
                    send(*pid, Signal::SIGKILL);
                }
                deaths += 1;
            }
            std::thread::yield_now();
        }
        assert!(deaths >= 10, "{deaths}");
    });
    drop(sender);
    let texts: Vec<String> = received.iter().collect();
    let times = |line: &str| -> Vec<u64> {
        line.split(' ').map(|time| time.parse().expect("a time")).collect()
    };
    let mut tokens: Vec<Vec<u64>> = texts.iter().flat_map(|text| text.lines()).map(times).collect();
    tokens.sort_unstable();
    let within = |start: u64| {
        let begins = tokens.iter().skip_while(|token| token[0] < start);
        begins.filter(|token| token[1] < start + 1_000_000).count()
    };
    let most = tokens.iter().map(|token| within(token[0])).max().unwrap_or_default();
    assert!(most <= 1010, "{most} of {} in a second", tokens.len());
    assert!(most > 300, "the limit is hardly reached: {most} of {}", tokens.len());
    server.stop();
}

#[test]
fn event_stream_says_goodbye_in_a_drain() {
    let server = Ferricorn::example("sse").config("workers = 1").start();
    let mut connection = server.connect();
    // A connection that is kept would be handed to the next worker behind the stream's end.
    let fields = "connection: close\r\nlast-event-id: 6\r\nhost";
    let request = crate::client::get("/events").replacen("host", fields, 1);
    connection.send(request).expect("it is open");
    assert_eq!(connection.head().expect("it is answered"), 200);
    connection.wait_for_more().expect("events come");
    server.signal(Signal::SIGHUP);
    let rest = connection.rest().expect("it ends whole");
    let text = String::from_utf8_lossy(&rest);
    assert!(text.contains("id: 7\ndata: tick\n\n"), "{text}");
    assert!(text.contains("event: goodbye\ndata: come again\n\n"), "{text}");
    server.stop();
}

#[test]
fn visits_are_counted_by_all_workers() {
    let server = Ferricorn::example("visits").config("workers = 3").start();
    let numbers: Vec<String> = (0..20).map(|_| get(&server, "/").text()).collect();
    let expected: Vec<String> = (1..=20).map(|number| format!("visit {number}\n")).collect();
    assert_eq!(numbers, expected);
    server.stop();
}

#[test]
fn files_are_served_beside_the_api() {
    let builder = Ferricorn::example("static_files");
    std::fs::create_dir(builder.folder().join("public")).expect("the folder is ours");
    let server = builder
        .file("public/index.html", "<p>home</p>")
        .file("public/style.css", "p { color: red }")
        .config("workers = 2")
        .start();
    let css = get(&server, "/style.css");
    assert_eq!((css.status, css.field("content-type")), (200, "text/css"));
    let part = ask(&server, &crate::client::get("/style.css"), "range: bytes=0-0\r\n");
    assert_eq!((part.status, part.text()), (206, "p".to_owned()));
    assert_eq!(get(&server, "/some/page").text(), "<p>home</p>");
    assert_eq!(get(&server, "/api/time").status, 200);
    assert_eq!(get(&server, "/../config.toml").text(), "<p>home</p>");
    server.stop();
    let log = Ferricorn::example("static_files").config("workers = 1").fails_with(3);
    assert!(log.contains("public: No such file or directory"), "{log}");
}

#[test]
fn uploads_become_files_or_nothing() {
    let server = Ferricorn::example("uploads").config("workers = 2").start();
    let long = "u".repeat(1 << 20);
    let put = |path: &str, body: &str| post(path, body).replacen("POST", "PUT", 1);
    let answer = ask(&server, &put("/files/a", &long), "");
    assert_eq!((answer.status, answer.text()), (201, "1048576 bytes\n".to_owned()));
    assert_eq!(ask(&server, &put("/files/..%2Fb", "x"), "").status, 404);
    // One that breaks off leaves nothing.
    let mut connection = server.connect();
    let broken = put("/files/c", &long);
    connection.send(&broken[..broken.len() / 2]).expect("it is open");
    drop(connection);
    let folder = server.folder().join("uploads");
    eventually("the file that was begun is gone", PATIENCE, || {
        let names = std::fs::read_dir(&folder)
            .expect("it is there")
            .map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.collect();
        (names == ["a"]).then_some(())
    });
    assert_eq!(std::fs::read(folder.join("a")).expect("it is there"), long.as_bytes());
    server.stop();
}

#[test]
fn token_of_one_worker_is_good_for_all() {
    let key = "0123456789abcdef0123456789abcdef";
    let server = Ferricorn::example("jwt").env("JWT_KEY", key).config("workers = 4").start();
    assert_eq!(ask(&server, &post("/login", "anna:wrong"), "").status, 401);
    let answer = ask(&server, &post("/login", "anna:secret"), "").text();
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let token = answer["token"].as_str().expect("a token");
    let me = |token: &str| {
        let field = format!("authorization: Bearer {token}\r\n");
        ask(&server, &crate::client::get("/me"), &field)
    };
    assert!((0..12).all(|_| me(token).text() == "anna\n"));
    let forged = token.replacen('e', "f", 1);
    assert_eq!((me(&forged).status, me("").status), (401, 401));
    server.stop();
    let log = Ferricorn::example("jwt").fails_with(3);
    assert!(log.contains("jwt.key: expected 32 characters or more"), "{log}");
}

#[test]
fn chat_reaches_the_clients_of_every_worker() {
    let server = Ferricorn::example("chat").config("workers = 4").start();
    let address = server.address().tcp();
    let url = format!("ws://{address}/chat");
    let mut clients: Vec<_> = (0..12)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("it serves");
            stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
            tungstenite::client(&url, stream).expect("it is a WebSocket").0
        })
        .collect();
    for number in 0..clients.len() {
        let line = format!("line {number}");
        clients[number].send(Message::text(&*line)).expect("it is open");
        for client in &mut clients {
            assert_eq!(client.read().expect("every client gets it"), Message::text(&*line));
        }
    }
    drop(clients);
    // Its tasks see that the clients have left.
    let folder = server.stop_and_keep();
    let log = std::fs::read_to_string(folder.path().join("stdout")).expect("it is written");
    assert!(log.contains("Shutting down") && !log.contains("cutting"), "{log}");
}

/// A collector of OTLP over HTTP: the bodies that it was sent.
fn collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut bytes = Vec::new();
            let length = |head: &str| -> usize {
                let value = head.split("content-length: ").nth(1).expect("a length");
                value.split("\r\n").next().expect("a value").parse().expect("a number")
            };
            loop {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).expect("it sends");
                bytes.extend_from_slice(&piece[..read]);
                let Some(end) = bytes.windows(4).position(|pair| pair == b"\r\n\r\n") else {
                    continue;
                };
                if bytes.len() - end - 4 == length(&String::from_utf8_lossy(&bytes[..end])) {
                    break;
                }
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").expect("it reads");
            if sender.send(bytes).is_err() {
                return;
            }
        }
    });
    (address, received)
}

#[test]
fn spans_continue_the_trace_of_the_client_and_reach_the_collector() {
    let builder = Ferricorn::example("otel");
    let (address, received) = collector();
    let config =
        format!("workers = 2\n[log]\naccess_format = \"json\"\n[otel]\ncollector = \"{address}\"");
    let server = builder.config(&config).start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let span = "00f067aa0ba902b7";
    let field = format!("traceparent: 00-{trace}-{span}-01\r\n");
    assert_eq!(ask(&server, &crate::client::get("/traced"), &field).status, 404);
    server.wait_log(&format!("\"trace_id\":\"{trace}\",\"span_id\":\"{span}\""));
    // The worker that has the span sends it at its end, at the latest.
    server.stop();
    let spans = received.recv_timeout(PATIENCE).expect("spans come");
    let id: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&trace[2 * at..2 * at + 2], 16).unwrap()).collect();
    let has = |bytes: &[u8]| spans.windows(bytes.len()).any(|pair| pair == bytes);
    assert!(has(&id) && has(b"request_id") && has(b"/traced"), "{spans:?}");
}
