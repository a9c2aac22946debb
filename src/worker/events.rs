//! The log events of `prepare` and of workers.

use super::request::phases::Phases;
use crate::ids::Slot;
use crate::log_event::log_lines;

log_lines! {
    /// A log event of a worker, or of `prepare`.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum WorkerEvent {
        /// `prepare` could not begin.
        PrepareUnborn = "prepare_start_failed", Error, "failed to begin prepare: {reason}" {
            reason: String,
        },
        /// The application's `prepare` failed.
        PrepareFailed = "application_prepare_failed", Error, "failed to prepare: {reason}" {
            reason: String,
        },
        /// The worker could not boot, or its application's `router` failed.
        BootFailed = "worker_boot_failed", Error, "failed to boot worker {slot}: {reason}" {
            slot: Slot,
            reason: String,
        },
        /// Code of the application panicked.
        Panicked = "panicked", Error, "panicked at {location}: {message}" {
            location: String,
            message as panic_message: String,
        },
        /// The service of the application has returned an error instead of an answer.
        ServiceFailed = "service_failed", Error,
            "the application's service failed for {method} {path}, which is answered 500: {reason}" {
            method: String,
            path: String,
            reason: String,
        },
        /// A handler panicked; its request is answered 500.
        HandlerPanicked = "request_panicked", Error,
            "answered 500 to {method} {path}: its handler panicked" { method: String, path: String },
        /// A request took longer than `timeout`; it is answered 504.
        RequestTimedOut = "request_timed_out", Warning,
            "answered 504 to {method} {path}: no answer after {seconds:.1} s" {
                method: String,
                path: String,
                seconds: f32,
            },
        /// A request took longer than `log.slow`, from the first byte of its head to the last one of its
        /// response; with its phases, as far as they are known. A response without an end of its own
        /// counts until its head.
        SlowRequest = "request_slow", Warning,
            "worker {slot} took {seconds:.3} s for {method} {path}: {phases}; request id {request_id}" {
                slot: Slot,
                method: String,
                path: String,
                seconds as duration_seconds: f32,
                phases: Phases,
                status: Option<u16>,
                outcome: &'static str,
                request_id: String,
            },
        /// A handler takes an address of a client that has none; its request is answered 500.
        AddressMissing = "client_address_missing", Error,
            "cannot give {method} {path} its ConnectInfo<SocketAddr>: the client is on a unix socket, \
             which has no address; answered 500; let the handler take ferricorn::Client or \
             ferricorn::PeerCredentials instead" { method: String, path: String },
        /// A client sent TLS to an address that speaks plain HTTP; logged once a minute.
        TlsOnPlainAddress = "tls_on_plain_address", Warning,
            "cannot read a request from {peer}: TLS was sent to an address that speaks plain HTTP; \
             answered 400" { peer: String },
        /// A client sent plain HTTP to an address that speaks TLS; logged once a minute.
        PlainOnTlsAddress = "plain_on_tls_address", Warning,
            "cannot read a request from {peer}: plain HTTP was sent to an address that speaks TLS; \
             answered 400" { peer: String },
        /// A client of HTTP/2 was cut off; logged once a minute.
        Flooded = "connection_flooded", Warning,
            "closed a connection of HTTP/2 from {peer}: it resets too many requests, or sends too much \
             beside them" { peer: String },
        /// A TLS handshake failed.
        HandshakeFailed = "tls_handshake_failed", Debug, "a TLS handshake with {peer} failed: {reason}" {
            peer: String,
            reason: String,
        },
        /// A connection was closed before its first request.
        ConnectionClosed = "connection_refused", Info, "closed a connection from {peer}: {reason}" {
            peer: String,
            reason: &'static str,
        },
        /// A connection ended with an error.
        ConnectionFailed = "connection_failed", Debug, "a connection ended badly: {reason}" {
            reason: String,
        },
        /// `worker_connections` is more than the limit of open files allows.
        ConnectionsLimited = "worker_connections_limited", Warning,
            "worker_connections is {configured}, and a process may have {files} files open here: \
             each worker takes {room} connections at the most" {
                configured: u32,
                files: u64,
                room as connections: u64,
            },
        /// A slot's listener cannot be watched.
        ListenerFailed = "listener_failed", Error, "failed to accept from slot {slot}: {reason}" {
            slot: Slot,
            reason: String,
        },
        /// Connections cannot be accepted; logged once a minute.
        AcceptFailed = "accept_failed", Error,
            "failed to accept a connection: {reason}; trying again" { reason: String },
        /// The worker has `worker_connections`, and clients wait; logged once a minute.
        ConnectionsFull = "worker_connections_reached", Warning,
            "worker {slot} is full: it has {connections} connections, the most that worker_connections \
             allows; new clients wait, the longest idle connections are closed for them" {
                slot: Slot,
                connections: usize,
            },
        /// Unfinished requests take more memory than they may have, and the largest are refused; logged once
        /// a minute.
        BudgetExceeded = "unfinished_requests_refused", Warning,
            "worker {slot} refuses {requests} unfinished requests: together they are larger than the \
             {limit} bytes that they may take of its memory; the largest are answered 431 or 408" {
                slot: Slot,
                requests: usize,
                limit as limit_bytes: u64,
            },
        /// A probe found the application not ready, when it was ready before.
        Unready = "application_not_ready", Warning, "worker {slot} is not ready: {reason}" {
            slot: Slot,
            reason: String,
        },
        /// A probe found the application ready again.
        ReadyAgain = "application_ready", Info, "worker {slot} is ready again" { slot: Slot },
        /// A metric of the application is not served; of several in a worker the first is logged.
        SeriesRefused = "series_refused", Warning,
            "worker {slot}: the metric {name} is not served: {reason}" {
                slot: Slot,
                name: String,
                reason: &'static str,
            },
        /// The drain reached its deadline; open connections are closed.
        DrainTimedOut = "drain_timed_out", Warning,
            "worker {slot}: cutting {connections} connections: its time is over" {
                slot: Slot,
                connections: usize,
            },
        /// Background tasks of the application that went on at the end of a drain were cut.
        TasksCut = "tasks_cut", Warning,
            "worker {slot}: cutting {tasks} background tasks: they must end when draining begins" {
                slot: Slot,
                tasks: usize,
            },
    }
}
