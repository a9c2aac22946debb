//! The table of ferricorn's own settings: key, kind, default, names and one sentence each. The
//! command line, the file, the environment, the reference `config.toml` and the table of
//! `docs/settings.md` are made from it.
//!
//! Order matters: settings without a table come first, and a table's settings stand together.

use super::logs::{Level, LogFormat, WhenFull};
use super::network::{ForwardedFields, Network};
use super::program::{ProgramReady, StopSignal};
use super::skip::Skip;
use super::tls::{ClientAuth, TlsVersion};
use super::{bind, checks};
use crate::ids::Slot;

pub use super::setting::{Check, Setting};

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
/// A connection with more requests at once is a thousand clients, whose proxy may open a second one.
const STREAMS_MAX: u64 = 1000;

/// gunicorn's default format.
const ACCESS_FORMAT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

/// Every setting of ferricorn's own.
pub const SETTINGS: &[Setting] = &[
    Setting::list(
        "bind",
        "0.0.0.0:5000",
        "Addresses to listen on: \"host:port\", \":port\", \"[v6]:port\", \"unix:/path\" or \"fd://3\"; \
         with \"name=\" before it, for the application's routes of that name.",
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
    Setting::integer("threads", "1", 1..=THREADS_MAX, "Runtime threads in each worker.")
        .of_application(),
    Setting::duration(
        "timeout",
        "120",
        0..=DAY_MS,
        "A request that takes longer, but for its body's way in, is answered 504; 0: never.",
    )
    .flag("timeout", Some('t'))
    .of_application(),
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
        "announce",
        "0",
        0..=DAY_MS,
        "How long a server that is told to stop serves on before, with readiness 503, so that balancers \
         learn of it.",
    ),
    Setting::share(
        "drain_spread",
        "0.5",
        "WebSockets and event streams of a draining worker end evenly over this share of graceful_timeout.",
    )
    .of_application(),
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
    .flag_aliases(&["keepalive"])
    .of_application(),
    Setting::integer(
        "max_requests",
        "0",
        0..=COUNT_MAX,
        "A worker is replaced after so many requests; 0: never.",
    )
    .of_application(),
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
    )
    .of_application(),
    Setting::integer(
        "backlog",
        "2048",
        1..=BACKLOG_MAX,
        "Connections that may wait to be accepted, on each listening socket.",
    ),
    Setting::text("user", "", "User to become after binding, name or number; \"\": stay.")
        .or_word("")
        .check(checks::identity)
        .flag("user", Some('u'))
        .restart_only(),
    Setting::text(
        "group",
        "",
        "Group to become after binding, name or number; \"\": the user's own.",
    )
    .or_word("")
    .check(checks::identity)
    .flag("group", Some('g'))
    .restart_only(),
    Setting::mode("umask", "", "File mode creation mask, octal; \"\": as inherited.")
        .or_word("")
        .flag("umask", Some('m'))
        .restart_only(),
    Setting::mode(
        "unix_socket_mode",
        "",
        "Mode of a unix socket's file, octal; \"\": 0777 less umask.",
    )
    .or_word("")
    .restart_only(),
    Setting::path("pidfile", "", "File that holds the master's process id; \"\": none.")
        .or_word("")
        .flag("pid", Some('p'))
        .flag_aliases(&["pidfile"])
        .restart_only(),
    Setting::text("proc_name", "", "What the processes are called; \"\": the program's name.")
        .or_word("")
        .flag("name", Some('n'))
        .flag_aliases(&["proc-name"])
        .restart_only(),
    Setting::path(
        "chdir",
        "",
        "Folder to change to before anything is opened but this file and env_file; \"\": stay.",
    )
    .or_word("")
    .restart_only(),
    Setting::text(
        "control",
        "auto",
        "Control socket for `ferricorn status`, `reload` and the like: \"auto\" (found by itself, without \
         a file), a path, or \"\": none.",
    )
    .or_word("")
    .value_name("auto|PATH")
    .restart_only(),
    Setting::lines("env", "", "Variables for the environment of the workers: \"NAME=value\".")
        .or_word("")
        .check(checks::assignment)
        .flag("env", Some('e'))
        .value_name("NAME=VALUE")
        .secret(),
    Setting::path(
        "env_file",
        "",
        "File of NAME=value lines for the environment of the workers; settings are read from it, \
         too. Values are literal, in quotes what the quotes enclose. \"\": none.",
    )
    .or_word(""),
    Setting::list(
        "forwarded_allow_ips",
        "127.0.0.1,::1",
        "Peers whose forwarding headers are believed: addresses, networks, or \"*\" for all.",
    )
    .or_word("")
    .check(|text| Network::parse(text).map(drop))
    .env("FORWARDED_ALLOW_IPS")
    .value_name("NETWORK")
    .of_application(),
    Setting::choice(
        "forwarded_fields",
        "x-forwarded",
        ForwardedFields::WORDS,
        "The one family of forwarding headers that is believed; the other is ignored. What contradicts \
         itself is answered 400.",
    )
    .value_name("FAMILY")
    .of_application(),
    Setting::boolean(
        "proxy_protocol",
        "false",
        "Whether peers in proxy_allow_ips begin each connection with a PROXY header. \"v1\", \"v2\" and \
         \"auto\" mean true: the version is recognised.",
    )
    .synonyms(&[("v1", "true"), ("v2", "true"), ("auto", "true")])
    .of_application(),
    Setting::list(
        "proxy_allow_ips",
        "127.0.0.1,::1",
        "Peers that must begin with a PROXY header when proxy_protocol is on.",
    )
    .or_word("")
    .check(|text| Network::parse(text).map(drop))
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
        .or_word("")
        .flag("access-logfile", None)
        .of_application(),
    Setting::path("log.error", "-", "Where error lines go: \"-\" is stdout, \"\" is off.")
        .or_word("")
        .flag("error-logfile", None)
        .flag_aliases(&["log-file"]),
    Setting::choice(
        "log.level",
        "info",
        Level::WORDS,
        "The least severe level that the error log takes.",
    )
    .synonyms(&[("warn", "warning")]),
    Setting::text(
        "log.access_format",
        ACCESS_FORMAT,
        "The access log's format: gunicorn's atoms, or \"json\". A line is cut at 64 KiB.",
    )
    .check(checks::access_format)
    .flag("access-logformat", None)
    .of_application(),
    Setting::list(
        "log.skip",
        "",
        "Requests without an access line: \"/healthz\", \"/static/*\" (2xx, 3xx), \"4xx\", \"/a 200\".",
    )
    .check(|text| Skip::parse(text).map(drop))
    .value_name("RULE")
    .of_application(),
    Setting::duration(
        "log.slow",
        "0",
        0..=DAY_MS,
        "A request that takes longer is a warning in the error log, with its phases; 0: none is.",
    )
    .of_application(),
    Setting::choice("log.format", "text", LogFormat::WORDS, "The shape of the error log."),
    Setting::choice(
        "log.when_full",
        "drop",
        WhenFull::WORDS,
        "The fate of access lines while the log is not read: they are dropped and counted, or block.",
    ),
    Setting::size(
        "limits.request_line",
        "4094",
        0..=HEAD_BYTES_MAX,
        "A longer request line is answered 414; 0: no limit of its own.",
    )
    .flag("limit-request-line", None)
    .of_application(),
    Setting::integer(
        "limits.request_fields",
        "100",
        1..=FIELDS_MAX,
        "A request with more header fields is answered 431.",
    )
    .flag("limit-request-fields", None)
    .of_application(),
    Setting::size(
        "limits.request_field_size",
        "8190",
        0..=HEAD_BYTES_MAX,
        "A longer header field is answered 431; 0: no limit of its own.",
    )
    .flag("limit-request-field_size", None)
    .flag_aliases(&["limit-request-field-size"])
    .of_application(),
    Setting::size(
        "limits.body",
        "0",
        0..=SIZE_MAX,
        "A longer request body is answered 413; 0: no limit but those of the application's routes.",
    )
    .flag("limit-body", None)
    .of_application(),
    Setting::duration(
        "limits.header_timeout",
        "10",
        MOMENT_MS..=DAY_MS,
        "A request whose head takes longer is answered 408 and its connection closed.",
    )
    .flag("limit-header-timeout", None)
    .of_application(),
    Setting::duration(
        "limits.body_timeout",
        "30",
        MOMENT_MS..=DAY_MS,
        "A request whose body stands still for longer, or drips, is answered 408 and its connection closed.",
    )
    .flag("limit-body-timeout", None)
    .of_application(),
    Setting::text(
        "health.live",
        "/healthz",
        "Path that is answered 200 by every worker that serves, before the application's routes; \"\": none.",
    )
    .or_word("")
    .check(checks::whole_path)
    .value_name("PATH"),
    Setting::text(
        "health.ready",
        "/readyz",
        "Path that is answered 200 while the application is ready, and 503 otherwise and from the stop on; \
         \"\": none.",
    )
    .or_word("")
    .check(checks::whole_path)
    .value_name("PATH"),
    Setting::boolean(
        "http2.enabled",
        "true",
        "Whether HTTP/2 is spoken: on addresses of TLS by ALPN, on others with clients that begin so.",
    )
    .of_application(),
    Setting::integer(
        "http2.max_streams",
        "128",
        1..=STREAMS_MAX,
        "Requests that one connection of HTTP/2 may have open at once.",
    )
    .flag_aliases(&["http2-max-concurrent-streams"])
    .of_application(),
    Setting::list(
        "tls.bind",
        "",
        "Addresses that speak TLS, beside those of bind. None, and a certificate given: every TCP \
         address of bind speaks TLS.",
    )
    .or_word("")
    .check(bind::check)
    .value_name("ADDRESS"),
    Setting::list(
        "tls.certificate",
        "",
        "Files of certificate chains (PEM), the server's own certificate first; a client gets the first \
         one that has the name it asks for. A reload reads them again.",
    )
    .or_word("")
    .flag("certfile", None)
    .flag_aliases(&["tls-certificate"])
    .value_name("FILE"),
    Setting::list(
        "tls.key",
        "",
        "Files of private keys (PEM), one for each certificate, in the same order.",
    )
    .or_word("")
    .flag("keyfile", None)
    .flag_aliases(&["tls-key"])
    .value_name("FILE"),
    Setting::path(
        "tls.client_ca",
        "",
        "File of the authorities (PEM) that certificates of clients are checked against; \"\": none.",
    )
    .or_word("")
    .flag("ca-certs", None)
    .flag_aliases(&["tls-client-ca"])
    .value_name("FILE"),
    Setting::choice(
        "tls.client_auth",
        "none",
        ClientAuth::WORDS,
        "Whether a client shows a certificate: it is not asked for one, may show one, or must. What it \
         shows must be valid.",
    )
    .synonyms(&[("0", "none"), ("1", "optional"), ("2", "required")])
    .flag("cert-reqs", None)
    .flag_aliases(&["tls-client-auth"]),
    Setting::choice(
        "tls.min_version",
        "1.2",
        TlsVersion::WORDS,
        "The oldest version of TLS that is spoken.",
    ),
    Setting::lines(
        "program.command",
        "",
        "Program that serves in each slot instead of the application, and its arguments; {fd} and {fd1} \
         are the first two sockets, {slot} is the slot. `ferricorn run -- COMMAND` sets it.",
    )
    .or_word("")
    .value_name("WORD"),
    Setting::text(
        "program.ready",
        "notify",
        "The sign by which a program is ready: \"notify\" (READY=1), \"listen\", \"http:/path\" (2xx), \
         \"delay:2\" or \"auto\": notify or listen, which `ferricorn run` implies.",
    )
    .check(|text| ProgramReady::parse(text).map(drop))
    .value_name("SIGN"),
    Setting::choice(
        "program.stop_signal",
        "TERM",
        StopSignal::WORDS,
        "The signal that asks a program to drain and leave; KILL follows after graceful_timeout.",
    )
    .value_name("SIGNAL"),
    Setting::text(
        "stats.bind",
        "",
        "Address that serves /metrics and /status: \"127.0.0.1:9464\". It asks for no password. \"\": none.",
    )
    .or_word("")
    .check(|text| bind::stats(text).map(drop))
    .value_name("ADDRESS"),
    Setting::text(
        "stats.statsd",
        "",
        "StatsD server that is sent the counters once a second, by UDP: \"host:port\". \"\": none.",
    )
    .or_word("")
    .check(bind::check_statsd)
    .flag("statsd-host", None)
    .value_name("ADDRESS"),
    Setting::text(
        "stats.statsd_prefix",
        "",
        "What the names that the StatsD server is sent begin with.",
    )
    .or_word("")
    .check(checks::statsd_word)
    .flag("statsd-prefix", None),
    Setting::list(
        "stats.statsd_tags",
        "",
        "Tags that the StatsD server is sent with each number, as DogStatsD has them: \"name:value\".",
    )
    .check(checks::statsd_word)
    .flag("dogstatsd-tags", None)
    .value_name("TAG"),
];
