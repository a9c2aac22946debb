//! The configuration: what was asked for, from which layer, resolved to typed values.
//!
//! Layers: defaults < `config.toml` < environment < command line. One table of settings
//! ([`settings`]) is the source of the command line, the file, the environment, the reference
//! `config.toml` and the documentation.

mod bind;
mod resolve;
pub mod settings;
mod units;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use bind::Bind;

/// Everything that the server and its application were told, checked and typed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen.
    pub bind: Vec<Bind>,
    /// How many workers, at least 1; `"auto"` has become the number of CPUs this process may use.
    pub workers: u16,
    /// Runtime threads in each worker.
    pub threads: u16,
    /// How long a request may take until it is answered 504; zero: for ever.
    pub timeout: Duration,
    /// How long a worker's event loop may be silent; zero: for ever.
    pub stall_timeout: Duration,
    /// How long a leaving worker may finish its requests.
    pub graceful_timeout: Duration,
    /// How long `prepare` and a worker's boot may take.
    pub boot_timeout: Duration,
    /// How long an idle keep-alive connection stays open.
    pub keepalive: Duration,
    /// Requests after which a worker is replaced; 0: never.
    pub max_requests: u64,
    /// The largest random addition to `max_requests`.
    pub max_requests_jitter: u64,
    /// Resident bytes above which a worker is replaced; 0: no limit.
    pub max_memory: u64,
    /// Age at which a worker is replaced; zero: never.
    pub max_lifetime: Duration,
    /// Connections that one worker holds open at the most.
    pub worker_connections: u32,
    /// Connections that may wait to be accepted, on each listening socket.
    pub backlog: u32,
    /// User to become after binding (name or number); empty: stay.
    pub user: String,
    /// Group to become after binding (name or number); empty: the user's own.
    pub group: String,
    /// File mode creation mask; `None`: as inherited.
    pub umask: Option<u32>,
    /// Mode of a unix socket's file; `None`: 0777 less the umask.
    pub unix_socket_mode: Option<u32>,
    /// File that holds the master's pid while it runs; `None`: none.
    pub pidfile: Option<PathBuf>,
    /// What the processes are called; empty: `ferricorn`.
    pub proc_name: String,
    /// Folder to change to before anything else is opened; `None`: stay.
    pub chdir: Option<PathBuf>,
    /// Variables for the environment of the workers, from `env_file` and then `env`.
    pub env: Vec<(String, String)>,
    /// Peers whose forwarding headers are believed.
    pub forwarded_allow_ips: Vec<Network>,
    /// Whether peers in `proxy_allow_ips` begin a connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Peers that must begin with a PROXY header, when `proxy_protocol` is on.
    pub proxy_allow_ips: Vec<Network>,
    /// Descriptor that is told once every worker serves; `None`: nobody asks.
    pub ready_fd: Option<i32>,
    /// Logs.
    pub log: Log,
    /// Limits of a request.
    pub limits: Limits,
    /// Every setting with its value and where it came from, the application's own among them.
    settings: resolve::Resolved,
    /// Where the layers come from, to read them again.
    sources: resolve::Sources,
}

/// The `[log]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// Where access lines go.
    pub access: LogTarget,
    /// Where error lines go.
    pub error: LogTarget,
    /// The least severe level that is written.
    pub level: Level,
    /// The access log's format: gunicorn's atoms, or `json`.
    pub access_format: String,
    /// The shape of the error log.
    pub format: LogFormat,
    /// What happens to access lines while nobody reads them.
    pub when_full: WhenFull,
}

/// Where a log goes: `-` is stdout, empty is nowhere, else a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Severities of the error log, with gunicorn's names; the least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

/// The shape of the error log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `[time] [pid] [LEVEL] message`, as gunicorn writes it.
    Text,
    /// One JSON object a line.
    Json,
}

/// What happens to access lines while the log's buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// They are dropped, counted, and accounted for in a line of their own.
    Drop,
    /// The request waits.
    Block,
}

/// The `[limits]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request line; longer ones are answered 414. 0: no limit of its own.
    pub request_line: usize,
    /// Header fields of a request; more are answered 431.
    pub request_fields: usize,
    /// Bytes of one header field; longer ones are answered 431. 0: no limit of its own.
    pub request_field_size: usize,
    /// Bytes of a request body; longer ones are answered 413. 0: no limit.
    pub body: u64,
    /// How long the head of a request may take: then 408 and closed.
    pub header_timeout: Duration,
    /// How long a request body may stand still: then 408 and closed.
    pub body_timeout: Duration,
}

/// A network in CIDR notation: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}
