//! The table of ferricorn's own settings: key, kind, default, names and one sentence each. The
//! command line, the file, the environment, the reference `config.toml` and the README's table are
//! made from it.
//!
//! Order matters: settings without a table come first, as TOML wants them, and a table's settings
//! stand together.

use super::{bind, network};
use crate::ids::Slot;

pub use super::setting::{Check, Setting};

/// As many workers as there can be slots.
const WORKERS_MAX: u64 = Slot::MAX as u64;
/// More runtime threads than this in one worker only contend; more workers are what helps.
const THREADS_MAX: u64 = 64;
/// A day: what is waited for longer than this is not waited for.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// A year: a longer life is no life limit.
const YEAR_MS: u64 = 366 * DAY_MS;
/// A tenth of a second: no client sends a request's head and no worker boots much faster.
const MOMENT_MS: u64 = 100;
/// `net.core.somaxconn` was 16 bits wide for decades; a longer queue is a longer outage.
const BACKLOG_MAX: u64 = 65_535;
/// Beyond the descriptors that any one process is commonly allowed.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// A request's head is held whole in memory, in each connection.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// Where gunicorn ends, too.
const FIELDS_MAX: u64 = 32_768;
/// A tebibyte: beyond it a size is a misspelt unit.
const SIZE_MAX: u64 = 1 << 40;
/// Counts that a worker never reaches are no counts.
const COUNT_MAX: u64 = 1 << 53;
/// The highest descriptor the kernel can be told to allow (`fs.nr_open`'s own limit).
const FD_MAX: u64 = 1 << 30;

/// gunicorn's default format.
const ACCESS_FORMAT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

/// Every setting of ferricorn's own.
pub const SETTINGS: &[Setting] = &[
    Setting::list(
        "bind",
        "0.0.0.0:5000",
        "Addresses to listen on: \"host:port\", \":port\", \"[v6]:port\", \"unix:/path\" or \
         \"fd://3\".",
    )
    .not_empty()
    .check(bind::check)
    .env_shaped("PORT", "0.0.0.0:{}")
    .flag("bind", Some('b'))
    .value_name("ADDRESS"),
    Setting::integer(
        "workers",
        "4",
        1..=WORKERS_MAX,
        "Worker processes, or \"auto\": as many as there are CPUs that this process may use.",
    )
    .or_word("auto")
    .env("WEB_CONCURRENCY")
    .flag("workers", Some('w')),
    Setting::integer("threads", "1", 1..=THREADS_MAX, "Runtime threads in each worker."),
    Setting::duration(
        "timeout",
        "120",
        0..=DAY_MS,
        "A request that takes longer is answered 504; 0: never.",
    )
    .flag("timeout", Some('t')),
    Setting::duration(
        "stall_timeout",
        "120",
        0..=DAY_MS,
        "A worker whose event loop is silent for longer is aborted and replaced; 0: never.",
    ),
    Setting::duration(
        "graceful_timeout",
        "30",
        0..=DAY_MS,
        "How long a stopping worker may finish its requests.",
    ),
    Setting::duration(
        "boot_timeout",
        "60",
        MOMENT_MS..=DAY_MS,
        "How long the preparation of the application and a worker's boot may take.",
    ),
    Setting::duration(
        "keepalive",
        "75",
        0..=DAY_MS,
        "How long an idle keep-alive connection stays open; longer than the load balancer in front \
         keeps it. 0: closed after each answer.",
    )
    .flag("keep-alive", None)
    .flag_aliases(&["keepalive"]),
    Setting::integer(
        "max_requests",
        "0",
        0..=COUNT_MAX,
        "A worker is replaced after so many requests; 0: never.",
    ),
    Setting::integer(
        "max_requests_jitter",
        "0",
        0..=COUNT_MAX,
        "The largest random addition to max_requests, so that workers are not replaced together.",
    ),
    Setting::size(
        "max_memory",
        "0",
        0..=SIZE_MAX,
        "A worker whose resident memory is larger is replaced; 0: never.",
    ),
    Setting::duration(
        "max_lifetime",
        "0",
        0..=YEAR_MS,
        "A worker that is older is replaced; 0: never.",
    ),
    Setting::integer(
        "worker_connections",
        "1000",
        1..=CONNECTIONS_MAX,
        "Connections that one worker holds open at the most.",
    ),
    Setting::integer(
        "backlog",
        "2048",
        1..=BACKLOG_MAX,
        "Connections that may wait to be accepted, on each listening socket.",
    ),
    Setting::text("user", "", "User to become after binding, name or number; \"\": stay.")
        .flag("user", Some('u'))
        .restart_only(),
    Setting::text(
        "group",
        "",
        "Group to become after binding, name or number; \"\": the user's own.",
    )
    .flag("group", Some('g'))
    .restart_only(),
    Setting::mode("umask", "", "File mode creation mask, octal; \"\": as inherited.")
        .or_word("")
        .flag("umask", Some('m'))
        .restart_only(),
    Setting::mode(
        "unix_socket_mode",
        "",
        "Mode of a unix socket's file, octal; \"\": 0777 less the umask.",
    )
    .or_word("")
    .restart_only(),
    Setting::path("pidfile", "", "File that holds the master's process id; \"\": none.")
        .flag("pid", Some('p'))
        .flag_aliases(&["pidfile"])
        .restart_only(),
    Setting::text("proc_name", "", "What the processes are called; \"\": ferricorn.")
        .flag("name", Some('n'))
        .flag_aliases(&["proc-name"])
        .restart_only(),
    Setting::path(
        "chdir",
        "",
        "Folder to change to before anything is opened but this file and env_file; \"\": stay.",
    )
    .restart_only(),
    Setting::lines("env", "", "Variables for the environment of the workers: \"NAME=value\".")
        .check(check_assignment)
        .flag("env", Some('e'))
        .value_name("NAME=VALUE")
        .secret(),
    Setting::path(
        "env_file",
        "",
        "File of NAME=value lines for the environment of the workers; settings are read from it, \
         too. \"\": none.",
    ),
    Setting::list(
        "forwarded_allow_ips",
        "127.0.0.1,::1",
        "Peers whose forwarding headers are believed: addresses, networks, or \"*\" for all.",
    )
    .check(check_network)
    .env("FORWARDED_ALLOW_IPS")
    .value_name("NETWORK"),
    Setting::boolean(
        "proxy_protocol",
        "false",
        "Whether peers in proxy_allow_ips begin each connection with a PROXY header.",
    ),
    Setting::list(
        "proxy_allow_ips",
        "127.0.0.1,::1",
        "Peers that must begin with a PROXY header when proxy_protocol is on.",
    )
    .check(check_network)
    .flag("proxy-allow-from", None)
    .flag_aliases(&["proxy-allow-ips"])
    .value_name("NETWORK"),
    Setting::integer(
        "ready_fd",
        "",
        0..=FD_MAX,
        "Descriptor that is told once every worker serves; \"\": none.",
    )
    .or_word("")
    .restart_only(),
    Setting::path("log.access", "-", "Where access lines go: \"-\" is stdout, \"\" is off.")
        .flag("access-logfile", None),
    Setting::path("log.error", "-", "Where error lines go: \"-\" is stdout, \"\" is off.")
        .flag("error-logfile", None)
        .flag_aliases(&["log-file"]),
    Setting::choice(
        "log.level",
        "info",
        &["debug", "info", "warning", "error", "critical"],
        "The least severe level that the error log takes.",
    ),
    Setting::text(
        "log.access_format",
        ACCESS_FORMAT,
        "The access log's format: gunicorn's atoms, or \"json\". A line is cut at 64 KiB.",
    )
    .check(check_access_format)
    .flag("access-logformat", None),
    Setting::choice("log.format", "text", &["text", "json"], "The shape of the error log."),
    Setting::choice(
        "log.when_full",
        "drop",
        &["drop", "block"],
        "What access lines do while nobody reads them: they are dropped and counted, or block.",
    ),
    Setting::size(
        "limits.request_line",
        "4094",
        0..=HEAD_BYTES_MAX,
        "A longer request line is answered 414; 0: no limit of its own.",
    )
    .flag("limit-request-line", None),
    Setting::integer(
        "limits.request_fields",
        "100",
        1..=FIELDS_MAX,
        "A request with more header fields is answered 431.",
    )
    .flag("limit-request-fields", None),
    Setting::size(
        "limits.request_field_size",
        "8190",
        0..=HEAD_BYTES_MAX,
        "A longer header field is answered 431; 0: no limit of its own.",
    )
    .flag("limit-request-field_size", None)
    .flag_aliases(&["limit-request-field-size"]),
    Setting::size(
        "limits.body",
        "1MiB",
        0..=SIZE_MAX,
        "A longer request body is answered 413; 0: no limit.",
    )
    .flag("limit-body", None),
    Setting::duration(
        "limits.header_timeout",
        "10",
        MOMENT_MS..=DAY_MS,
        "A request whose head takes longer is answered 408 and its connection closed.",
    )
    .flag("limit-header-timeout", None),
    Setting::duration(
        "limits.body_timeout",
        "30",
        MOMENT_MS..=DAY_MS,
        "A request whose body stands still for longer is answered 408 and its connection closed.",
    )
    .flag("limit-body-timeout", None),
];

fn check_network(text: &str) -> Result<(), String> {
    network::Network::parse(text).map(drop)
}

/// `NAME=value`, where the name is one that a shell could set; the text may be a secret.
fn check_assignment(text: &str) -> Result<(), String> {
    let Some((name, _)) = text.split_once('=') else {
        return Err("expected \"NAME=value\", found a text without \"=\"".to_owned());
    };
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let word = name.chars().all(|rest| rest.is_ascii_alphanumeric() || "_.-".contains(rest));
    if begins && word {
        return Ok(());
    }
    Err(format!("expected a name before \"=\" (letters, digits, \"_\"), found {name:?}"))
}

fn check_access_format(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(
            "expected a format or \"json\", found \"\"; log.access = \"\" turns the log off".into(),
        );
    }
    crate::logging::access_format_error(text).map_or(Ok(()), Err)
}
