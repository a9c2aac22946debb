//! gunicorn's settings that are not ours: those that live elsewhere here, and those that mean
//! nothing here, each with a sentence that says what to use instead.
//!
//! Source: the settings of gunicorn 27.0.1 (`gunicorn/config.py`). A setting of gunicorn's that is
//! missing here and from our own table is met with the message for unknown keys.

/// gunicorn's keys for settings that we have under another key.
const MOVED: &[(&str, &str)] = &[
    ("accesslog", "log.access"),
    ("access_logfile", "log.access"),
    ("access_log_format", "log.access_format"),
    ("access_logformat", "log.access_format"),
    ("errorlog", "log.error"),
    ("error_logfile", "log.error"),
    ("log_file", "log.error"),
    ("loglevel", "log.level"),
    ("log_level", "log.level"),
    ("limit_request_line", "limits.request_line"),
    ("limit_request_fields", "limits.request_fields"),
    ("limit_request_field_size", "limits.request_field_size"),
    ("raw_env", "env"),
    ("keep_alive", "keepalive"),
    ("pid", "pidfile"),
    ("name", "proc_name"),
    ("default_proc_name", "proc_name"),
    ("proxy_allow_from", "proxy_allow_ips"),
    ("certfile", "tls.certificate"),
    ("keyfile", "tls.key"),
    ("ca_certs", "tls.client_ca"),
    ("cert_reqs", "tls.client_auth"),
    ("http2_max_concurrent_streams", "http2.max_streams"),
    ("statsd_host", "stats.statsd"),
    ("statsd_prefix", "stats.statsd_prefix"),
    ("dogstatsd_tags", "stats.statsd_tags"),
];

/// A setting of gunicorn's that means nothing here.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its key in gunicorn's file.
    pub(crate) key: &'static str,
    /// Its options without their dashes.
    pub(crate) flags: &'static [&'static str],
    /// Its option's letter.
    pub(crate) short: Option<char>,
    /// The value that may follow the option.
    pub(crate) value: FlagValue,
    /// The alternative, after a colon.
    pub(crate) instead: &'static str,
}

/// The value that may follow an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagValue {
    Taken,
    None,
}

/// The key that we have for a key of gunicorn's.
pub(super) fn moved(key: &str) -> Option<&'static str> {
    MOVED.iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| *ours)
}

/// Returns the sentence about a key of gunicorn's that means nothing here.
pub(super) fn refused(key: &str) -> Option<&'static Refused> {
    REFUSED.iter().find(|refused| refused.key == key)
}

const fn takes(
    key: &'static str,
    flags: &'static [&'static str],
    instead: &'static str,
) -> Refused {
    Refused { key, flags, short: None, value: FlagValue::Taken, instead }
}

const fn switch(
    key: &'static str,
    flags: &'static [&'static str],
    instead: &'static str,
) -> Refused {
    Refused { key, flags, short: None, value: FlagValue::None, instead }
}

const fn lettered(mut refused: Refused, short: char) -> Refused {
    refused.short = Some(short);
    refused
}

const ADDRESS: &str = "an address is one option: use --bind HOST:PORT (bind in the file)";
const LINKED: &str = "the application is part of this program; leave the option out";
const RELOAD: &str = "send SIGHUP to reload the configuration, or SIGUSR2 after a new build";
const TLS_VERSION: &str = "TLS 1.2 and 1.3 are spoken; --tls-min-version 1.3 leaves 1.2 out";
const CIPHERS: &str = "the cipher suites of TLS 1.2 and 1.3 that are left are all sound (AEAD with \
                       forward secrecy); --tls-min-version 1.3 is the narrower choice";
const HANDSHAKE: &str =
    "the handshake belongs to accepting a connection, always; leave the option out";
const TLS_FILES: &str = "name the files with --certfile and --keyfile; a reload reads them again";
const HTTP2: &str = "HTTP/2 is spoken where a client speaks it; --http2-enabled false turns it off";
const HTTP2_SIZES: &str =
    "windows and frames of HTTP/2 have sizes of their own; leave the option out";
const STDOUT: &str = "logs go to stdout or to the files in [log]; let the platform collect them";
const PYTHON_LOGGING: &str = "it configures Python's logging; use the [log] table";
const METRICS: &str = "the queue of each listener is among the numbers of [stats]; leave it out";
const STRICT: &str = "requests are parsed strictly; leave the option out";
const HOOK: &str = "hooks are methods of the Rust trait `App`; leave the key out";
const DIRTY: &str = "there are no dirty arbiters; use spawn_blocking in the application";
const ASGI: &str = "every worker runs a tokio runtime; leave the option out";
const CONTROL: &str = "use --control: \"auto\", a path, or \"\" for no control socket";
const UWSGI: &str = "only HTTP is spoken; let the proxy in front use HTTP";

/// Every setting of gunicorn's that means nothing here, in gunicorn's order.
pub(crate) const REFUSED: &[Refused] = &[
    takes("wsgi_app", &[], LINKED),
    lettered(
        takes(
            "worker_class",
            &["worker-class"],
            "every worker is asynchronous; for runtime threads in each worker use --threads",
        ),
        'k',
    ),
    switch("reload", &["reload"], RELOAD),
    takes("reload_engine", &["reload-engine"], RELOAD),
    takes("reload_extra_files", &["reload-extra-file"], RELOAD),
    switch("spew", &["spew"], "there is no trace of every line; use --log-level debug"),
    switch(
        "preload_app",
        &["preload"],
        "the program is loaded before workers are forked, always; leave the option out",
    ),
    switch("sendfile", &["no-sendfile"], "the application decides how it sends files"),
    switch(
        "reuse_port",
        &["reuse-port"],
        "every worker has a listening socket of its own, always; leave the option out",
    ),
    lettered(
        switch(
            "daemon",
            &["daemon"],
            "it stays in the foreground; let systemd, a container or nohup run it",
        ),
        'D',
    ),
    takes(
        "worker_tmp_dir",
        &["worker-tmp-dir"],
        "heartbeats are in shared memory and need no folder; leave the option out",
    ),
    switch(
        "initgroups",
        &["initgroups"],
        "a change of user takes the user's groups along, always; leave the option out",
    ),
    takes("tmp_upload_dir", &[], "request bodies are not written to files; leave the key out"),
    takes(
        "secure_scheme_headers",
        &[],
        "X-Forwarded-Proto of peers in forwarded_allow_ips is believed; leave the key out",
    ),
    switch("disable_redirect_access_to_syslog", &["disable-redirect-access-to-syslog"], STDOUT),
    switch("capture_output", &["capture-output"], STDOUT),
    takes("logger_class", &["logger-class"], PYTHON_LOGGING),
    takes("logconfig", &["log-config"], PYTHON_LOGGING),
    takes("logconfig_dict", &[], PYTHON_LOGGING),
    takes("logconfig_json", &["log-config-json"], PYTHON_LOGGING),
    takes("syslog_addr", &["log-syslog-to"], STDOUT),
    switch("syslog", &["log-syslog"], STDOUT),
    takes("syslog_prefix", &["log-syslog-prefix"], STDOUT),
    takes("syslog_facility", &["log-syslog-facility"], STDOUT),
    lettered(switch("enable_stdio_inheritance", &["enable-stdio-inheritance"], STDOUT), 'R'),
    switch("enable_backlog_metric", &["enable-backlog-metric"], METRICS),
    takes("pythonpath", &["pythonpath"], LINKED),
    takes("paste", &["paste", "paster"], LINKED),
    takes("raw_paste_global_conf", &["paste-global"], LINKED),
    takes("on_starting", &[], HOOK),
    takes("on_reload", &[], HOOK),
    takes("when_ready", &[], HOOK),
    takes("pre_fork", &[], HOOK),
    takes("post_fork", &[], HOOK),
    takes("post_worker_init", &[], HOOK),
    takes("worker_int", &[], HOOK),
    takes("worker_abort", &[], HOOK),
    takes("pre_exec", &[], HOOK),
    takes("pre_request", &[], HOOK),
    takes("post_request", &[], HOOK),
    takes("child_exit", &[], HOOK),
    takes("worker_exit", &[], HOOK),
    takes("nworkers_changed", &[], HOOK),
    takes("on_exit", &[], HOOK),
    takes("ssl_context", &[], TLS_FILES),
    takes("protocol", &["protocol"], UWSGI),
    takes("uwsgi_allow_ips", &["uwsgi-allow-from"], UWSGI),
    takes("ssl_version", &["ssl-version"], TLS_VERSION),
    switch("suppress_ragged_eofs", &["suppress-ragged-eofs"], HANDSHAKE),
    switch("do_handshake_on_connect", &["do-handshake-on-connect"], HANDSHAKE),
    takes("ciphers", &["ciphers"], CIPHERS),
    takes("http_protocols", &["http-protocols"], HTTP2),
    takes("http2_cleartext", &["http2-cleartext"], HTTP2),
    takes("http2_initial_window_size", &["http2-initial-window-size"], HTTP2_SIZES),
    takes("http2_max_frame_size", &["http2-max-frame-size"], HTTP2_SIZES),
    takes("http2_max_header_list_size", &["http2-max-header-list-size"], HTTP2_SIZES),
    switch("permit_obsolete_folding", &["permit-obsolete-folding"], STRICT),
    switch("strip_header_spaces", &["strip-header-spaces"], STRICT),
    switch("permit_unconventional_http_method", &["permit-unconventional-http-method"], STRICT),
    switch("permit_unconventional_http_version", &["permit-unconventional-http-version"], STRICT),
    switch("casefold_http_method", &["casefold-http-method"], STRICT),
    takes("forwarder_headers", &["forwarder-headers"], STRICT),
    takes("header_map", &["header-map"], STRICT),
    takes("asgi_loop", &["asgi-loop"], ASGI),
    takes("asgi_lifespan", &["asgi-lifespan"], ASGI),
    takes("asgi_disconnect_grace_period", &["asgi-disconnect-grace-period"], ASGI),
    takes(
        "websocket_max_message_size",
        &["websocket-max-message-size"],
        "the application limits its websocket messages itself",
    ),
    takes("http_parser", &["http-parser"], "there is one HTTP parser; leave the option out"),
    takes("root_path", &["root-path"], "nest the application's routes under the path instead"),
    takes("dirty_apps", &["dirty-app"], DIRTY),
    takes("dirty_workers", &["dirty-workers"], DIRTY),
    takes("dirty_timeout", &["dirty-timeout"], DIRTY),
    takes("dirty_threads", &["dirty-threads"], DIRTY),
    takes("dirty_graceful_timeout", &["dirty-graceful-timeout"], DIRTY),
    takes("on_dirty_starting", &[], DIRTY),
    takes("dirty_post_fork", &[], DIRTY),
    takes("dirty_worker_init", &[], DIRTY),
    takes("dirty_worker_exit", &[], DIRTY),
    takes("control_socket", &["control-socket"], CONTROL),
    takes("control_socket_mode", &["control-socket-mode"], CONTROL),
    switch("control_socket_disable", &["no-control-socket"], CONTROL),
    // Not gunicorn's, but those of other servers.
    takes("host", &["host"], ADDRESS),
    takes("port", &["port"], ADDRESS),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::settings::SETTINGS;

    #[test]
    fn moved_keys_lead_to_keys_that_exist() {
        for (theirs, ours) in MOVED {
            assert!(SETTINGS.iter().any(|setting| setting.key == *ours), "{theirs} → {ours}");
        }
    }

    #[test]
    fn no_option_is_both_refused_and_ours() {
        let mut names = BTreeSet::new();
        let ours = SETTINGS.iter().flat_map(|setting| {
            [setting.long_flag()]
                .into_iter()
                .chain(setting.aliases.iter().map(|alias| (*alias).to_owned()))
        });
        let theirs =
            REFUSED.iter().flat_map(|refused| refused.flags.iter().map(|flag| (*flag).to_owned()));
        for name in ours.chain(theirs) {
            assert!(names.insert(name.clone()), "--{name} has two meanings");
        }
        let mut letters = BTreeSet::from(['c', 'h', 'V', 'v']);
        let ours = SETTINGS.iter().filter_map(|setting| setting.short);
        for letter in ours.chain(REFUSED.iter().filter_map(|refused| refused.short)) {
            assert!(letters.insert(letter), "-{letter} has two meanings");
        }
    }
}
