//! An application that does whatever a request asks of it, however bad: it blocks, hangs, panics,
//! leaks and dies. The tests that start real processes are its users.
//!
//! Every answer tells who gave it, in the fields `x-slot` and `x-pid`.
//!
//! | route | what happens |
//! |---|---|
//! | `/` | `ok` |
//! | `/pid`, `/slot` | the worker's pid, its slot |
//! | `/echo`, `/length` | the request's body, its length |
//! | `/slow?s=N` or `?ms=N` | answers after so long |
//! | `/sleep-extend?s=N` or `?ms=N` | the same, having asked for that much more time |
//! | `/block?s=N` or `?ms=N` | blocks the worker's event loop for so long, then answers |
//! | `/until?n=N` | answers when there is a file `go-N`, however late that is |
//! | `/never` | never answers |
//! | `/quiet?bytes=N` | begins to answer with so many bytes, and goes on without any more |
//! | `/big?mb=N` | an answer of so many mebibytes |
//! | `/panic` | panics |
//! | `/exit?code=N` | ends the worker with this code |
//! | `/abort`, `/overflow` | ends it by `SIGABRT`; overflows its stack |
//! | `/leak?mb=N` | holds on to so many mebibytes more |
//! | `/open?files=N` | holds on to so many open files more |
//! | `/tokens?ms=N` | takes what the limit of 1,000 a second gives for so long, and answers when it did |
//! | `/orphan?code=N` | leaves a grandchild behind that ends with this code |
//!
//! A request to `/until` or `/block` with `n=N` writes the file `begun-N` when its handler runs.
//!
//! How it boots, prepares and stops is said by three variables, or by the text of the file that
//! `<variable>_FILE` names, which is read anew each time:
//!
//! | variable | texts |
//! |---|---|
//! | `UNRULY_BOOT` | `exit`, `hang`, `block`, `panic`, `subscriber`, `error`, `slow`, `slow=MS`, `doomed` |
//! | `UNRULY_PREPARE` | `fail`, `hang`, `panic`, `slow`, `slow=MS`, `held`: until its file says otherwise |
//! | `UNRULY_STOP` | `hang`: a worker ignores every wish that it should leave; `slow`, `slow=MS` |
//!
//! A worker that is `doomed` panics as soon as it serves, and its process with it; before that it
//! leaves `doomed-PID`, which tells whose connections it had.
//!
//! `UNRULY_START=subreaper` makes the master inherit the orphans of its descendants, as process 1 does;
//! `thread`, `runtime`, `connection` and `subscriber` start what must not exist before the first fork.
//! `UNRULY_MASTER=panic` makes the master panic at its end.
#![expect(clippy::disallowed_methods, reason = "its purpose is to do what it should not")]
#![expect(clippy::exit, reason = "its purpose is to do what it should not")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, Query};
use axum::http::HeaderValue;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{any, get};
use ferricorn::shared::RateLimit;
use ferricorn::{App, BoxError, Deadline, PrepareContext, WorkerContext};
use http_body::Frame;
use nix::sys::socket::{SockaddrIn, getpeername};
use tracing_subscriber::util::SubscriberInitExt as _;

struct Unruly;

/// 1,000 tokens a second for all workers, and 10 at once.
static LIMIT: OnceLock<RateLimit> = OnceLock::new();

impl App for Unruly {
    async fn prepare(&self, _context: &PrepareContext) -> Result<(), BoxError> {
        match mode("UNRULY_PREPARE").as_str() {
            "" => Ok(()),
            "fail" => Err("the application does not want to".into()),
            "hang" => std::future::pending().await,
            "held" => {
                while mode("UNRULY_PREPARE") == "held" {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                Ok(())
            }
            "panic" => panic!("prepare panics, as it was told to"),
            slow => wait_as_told(slow).await,
        }
    }

    async fn router(&self, worker: &WorkerContext) -> Result<axum::Router, BoxError> {
        match mode("UNRULY_BOOT").as_str() {
            "" => {}
            "exit" => std::process::exit(9),
            "hang" => std::future::pending().await,
            "block" => std::thread::sleep(FOR_EVER),
            "subscriber" => tracing_subscriber::registry().init(),
            "panic" => panic!("the boot panics, as it was told to"),
            "error" => return Err("the worker does not want to".into()),
            "doomed" => drop(tokio::spawn(doomed())),
            slow => wait_as_told(slow).await?,
        }
        Ok(routes(worker))
    }

    async fn stopped(&self, _worker: &WorkerContext) {
        match mode("UNRULY_STOP").as_str() {
            "" => {}
            "hang" => std::future::pending().await,
            slow => wait_as_told(slow).await.expect("the tests know the modes"),
        }
    }
}

/// The master alone drops it: children leave without.
impl Drop for Unruly {
    fn drop(&mut self) {
        if mode("UNRULY_MASTER") == "panic" {
            panic!("the master panics, as it was told to");
        }
    }
}

/// The times of the monotonic clock before and after each token, in microseconds.
async fn tokens(numbers: Numbers) -> String {
    let limit = LIMIT.get().expect("it was made in main");
    let end = micros() + time(&numbers).as_micros();
    let mut text = String::new();
    while micros() < end {
        let before = micros();
        match limit.take("all") {
            Ok(()) => text.push_str(&format!("{before} {}\n", micros())),
            Err(wait) => std::thread::sleep(wait),
        }
    }
    text
}

fn micros() -> u128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("it exists");
    Duration::from(now).as_micros()
}

const FOR_EVER: Duration = Duration::from_secs(1_000_000);
const MEBIBYTE: usize = 1 << 20;

fn routes(worker: &WorkerContext) -> axum::Router {
    let slot = worker.slot();
    let pid = std::process::id();
    let fields = (HeaderValue::from(slot.number()), HeaderValue::from(pid));
    axum::Router::new()
        .route("/", get("ok\n"))
        .route("/tokens", get(tokens))
        .route("/pid", get(move || async move { format!("{pid}\n") }))
        .route("/slot", get(move || async move { format!("{slot}\n") }))
        .route("/echo", any(|body: Bytes| async { body }))
        .route("/length", any(|body: Bytes| async move { format!("{} bytes\n", body.len()) }))
        .route("/slow", get(slow))
        .route("/sleep-extend", get(sleep_extend))
        .route("/block", get(block))
        .route("/until", get(until))
        .route("/never", get(never))
        .route("/quiet", get(quiet))
        .route("/big", get(big))
        .route("/panic", any(panics))
        .route("/exit", get(exit))
        .route("/abort", get(abort))
        .route("/overflow", get(overflow))
        .route("/leak", get(leak))
        .route("/open", get(open))
        .route("/orphan", get(orphan))
        // The limit of the configuration is what is tested.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(move |mut response: Response| {
            let (slot, pid) = fields.clone();
            response.headers_mut().insert("x-slot", slot);
            response.headers_mut().insert("x-pid", pid);
            std::future::ready(response)
        }))
}

/// A request's numbers.
type Numbers = Query<HashMap<String, u64>>;

fn number(numbers: &Numbers, name: &str) -> u64 {
    numbers.get(name).copied().unwrap_or(0)
}

/// The time that the request names.
fn time(numbers: &Numbers) -> Duration {
    Duration::from_secs(number(numbers, "s")) + Duration::from_millis(number(numbers, "ms"))
}

fn mebibytes(numbers: &Numbers) -> usize {
    usize::try_from(number(numbers, "mb")).expect("a number of mebibytes") * MEBIBYTE
}

/// The one thread is busy with this from the look at the connections to the end: none comes between.
async fn doomed() {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let names = std::fs::read_dir("/proc/self/fd").expect("/proc is there").flatten();
    let numbers = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
    let client = |fd| getpeername::<SockaddrIn>(fd).ok();
    let clients: String = numbers
        .filter_map(client)
        .map(|number| format!("{}:{}\n", number.ip(), number.port()))
        .collect();
    std::fs::write(format!("doomed-{}", std::process::id()), clients).expect("the folder is ours");
    let ordinary = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        ordinary(panic);
        std::process::abort();
    }));
    panic!("the worker panics, as it was told to");
}

async fn slow(numbers: Numbers) -> &'static str {
    tokio::time::sleep(time(&numbers)).await;
    "slow\n"
}

async fn sleep_extend(deadline: Deadline, numbers: Numbers) -> &'static str {
    deadline.extend(time(&numbers));
    tokio::time::sleep(time(&numbers)).await;
    "slept\n"
}

async fn block(numbers: Numbers) -> Result<&'static str, String> {
    tell_begun(&numbers)?;
    std::thread::sleep(time(&numbers));
    Ok("blocked\n")
}

async fn until(deadline: Deadline, numbers: Numbers) -> Result<&'static str, String> {
    deadline.extend(FOR_EVER);
    tell_begun(&numbers)?;
    let go = format!("go-{}", number(&numbers, "n"));
    while !std::path::Path::new(&go).exists() {
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    Ok("gone on\n")
}

fn tell_begun(numbers: &Numbers) -> Result<(), String> {
    match numbers.get("n") {
        Some(n) => std::fs::write(format!("begun-{n}"), "").map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

async fn never() -> &'static str {
    std::future::pending().await
}

async fn quiet(numbers: Numbers) -> Body {
    let bytes = usize::try_from(number(&numbers, "bytes")).expect("a number of bytes");
    Body::new(Quiet(Some(vec![b'q'; bytes]).filter(|bytes| !bytes.is_empty())))
}

/// The body of a stream of events that has one event at its beginning, or none.
struct Quiet(Option<Vec<u8>>);

impl HttpBody for Quiet {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
            None => Poll::Pending,
        }
    }
}

async fn big(numbers: Numbers) -> Body {
    Body::from(vec![b'b'; mebibytes(&numbers)])
}

async fn open(numbers: Numbers) -> Result<&'static str, String> {
    for _ in 0..number(&numbers, "files") {
        let file = std::fs::File::open("/dev/null").map_err(|error| error.to_string())?;
        let _nobodys = std::os::fd::IntoRawFd::into_raw_fd(file);
    }
    Ok("open\n")
}

async fn panics() -> &'static str {
    panic!("the handler panics, as it was told to")
}

async fn exit(numbers: Numbers) -> &'static str {
    std::process::exit(i32::try_from(number(&numbers, "code")).expect("an exit code"))
}

async fn abort() -> &'static str {
    std::process::abort()
}

async fn overflow() -> String {
    format!("{}\n", deeper(1))
}

/// Takes a kibibyte of stack for each level, of which there are too many.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 128]);
    match std::hint::black_box(depth) {
        u64::MAX => room[0],
        depth => deeper(depth + 1) + std::hint::black_box(room)[1],
    }
}

async fn leak(numbers: Numbers) -> String {
    let leaked = Vec::leak(vec![1_u8; mebibytes(&numbers)]);
    format!("{} bytes leaked\n", std::hint::black_box(leaked).len())
}

/// The shell that is waited for leaves another one behind.
async fn orphan(numbers: Numbers) -> Result<&'static str, String> {
    let script = format!("(exit {}) &", number(&numbers, "code"));
    match Command::new("sh").arg("-c").arg(script).status() {
        Ok(status) if status.success() => Ok("left\n"),
        other => Err(format!("{other:?}")),
    }
}

/// Returns the text of the variable, or of the file that it names.
fn mode(variable: &str) -> String {
    let text = match std::env::var(format!("{variable}_FILE")) {
        Ok(path) => std::fs::read_to_string(path).unwrap_or_default(),
        Err(_) => std::env::var(variable).unwrap_or_default(),
    };
    text.trim().to_owned()
}

async fn wait_as_told(slow: &str) -> Result<(), BoxError> {
    let millis = match slow.split_once('=') {
        None if slow == "slow" => 300,
        Some(("slow", millis)) => millis.parse()?,
        _ => return Err(format!("unknown mode {slow:?}").into()),
    };
    tokio::time::sleep(Duration::from_millis(millis)).await;
    Ok(())
}

fn main() -> ExitCode {
    let limit = RateLimit::new(10, Duration::from_millis(1)).expect("memory can be shared");
    LIMIT.set(limit).expect("main runs once");
    match mode("UNRULY_START").as_str() {
        "subreaper" => nix::sys::prctl::set_child_subreaper(true).expect("needs no privilege"),
        "connection" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("it has one");
            let connection = std::net::TcpStream::connect(address).expect("it listens");
            Box::leak(Box::new((listener, connection)));
        }
        "subscriber" => tracing_subscriber::registry().init(),
        "thread" => drop(std::thread::spawn(|| std::thread::sleep(FOR_EVER))),
        "runtime" => {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            return runtime.expect("a runtime").block_on(async { ferricorn::main(Unruly) });
        }
        _ => {}
    }
    ferricorn::main(Unruly)
}
