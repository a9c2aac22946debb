//! The log events of the master's shell: the start, listeners, settings, and what workers held.

use crate::ids::{Generation, Pid, Slot};
use crate::log_event::log_lines;

log_lines! {
    /// A log event of the master.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum MasterEvent {
        /// The server starts.
        Starting = "server_starting", Info, "Starting {program} {version}" {
            program: String,
            version: String,
        },
        /// The configuration file that the server has read.
        Configured = "configuration_read", Info,
            "Configuration: {file} ({changed} of {settings} settings differ from their default)" {
                file: String,
                changed: usize,
                settings: usize,
            },
        /// No configuration file was named, and the default one does not exist.
        Unconfigured = "configuration_absent", Info,
            "Configuration: no {file} in {folder}: defaults ({changed} of {settings} settings \
             differ)" {
                file: String,
                folder: String,
                changed: usize,
                settings: usize,
            },
        /// The server continues in a new image, in the same process.
        Upgraded = "server_upgraded", Info, "Upgraded in place to {program} {version}" {
            program: String,
            version: String,
        },
        /// An address is open.
        Listening = "listening", Info, "Listening at: {address} ({pid})" {
            address: String,
            pid as process_pid: Pid,
        },
        /// The address of the metrics is open.
        StatsListening = "stats_listening", Info, "Serving metrics at: {address}" {
            address: String,
        },
        /// An address of an earlier configuration is closed.
        NotListening = "listening_ended", Info, "No longer listening at: {address}" {
            address: String,
        },
        /// The size of the server.
        Size = "workers_configured", Info, "Using workers: {workers}, threads in each: {threads}" {
            workers: u16,
            threads: u16,
        },
        /// A setting is accepted, but will not do what it seems to.
        Doubtful = "setting_doubtful", Warning, "{text}" { text as reason: String },
        /// `backlog` is above the kernel's limit.
        BacklogLimited = "backlog_limited", Warning,
            "backlog is {backlog}, but the kernel lets only {limit} connections wait on a listener; \
             raise net.core.somaxconn or lower backlog" { backlog: u32, limit: u32 },
        /// A changed setting is not in force until the next start.
        Deferred = "setting_deferred", Warning,
            "{key} has changed: that takes effect at the next start" { key as setting: String },
        /// One of several problems for which a configuration is not reloaded.
        ReloadProblem = "reload_problem", Error, "cannot reload: {reason}" { reason: String },
        /// A process could not enter the folder of its generation, and works in the master's.
        FolderFailed = "folder_failed", Warning,
            "cannot enter the folder of generation {generation}: {reason}" {
                generation: Generation,
                reason: String,
            },
        /// `bind` has changed, but the service manager's sockets are used.
        BindIgnored = "bind_ignored", Warning,
            "bind has changed, but the service manager's addresses count instead",
        /// The kernel selects listeners without regard to which slots are live.
        SteeringFailed = "steering_failed", Warning,
            "failed to steer new connections: {reason}; they are spread less evenly, none is lost" {
                reason: String,
            },
        /// The control socket that `control` names could not be opened; the server runs without one.
        ControlFailed = "control_failed", Error,
            "cannot open the control socket {path}: {reason}; the server runs without one" {
                path: String,
                reason: String,
            },
        /// A server in the foreground stops with its terminal.
        TerminalGone = "terminal_gone", Info, "the controlling terminal is gone",
        /// Listeners for more workers could not be opened.
        SlotsFailed = "slots_failed", Error,
            "failed to open listeners for {workers} workers: {reason}" {
                workers: u16,
                reason: String,
            },
        /// The log settings of a new generation are not in force.
        LogSettingsFailed = "log_settings_failed", Error,
            "failed to apply the log settings: {reason}" { reason: String },
        /// The backlog of a new generation is not in force.
        BacklogFailed = "backlog_failed", Error, "failed to apply the new backlog: {reason}" {
            reason: String,
        },
        /// Health checks cannot find the addresses of this server.
        PublishFailed = "publish_failed", Warning, "failed to publish the addresses: {reason}" {
            reason: String,
        },
        /// `ready_fd` could not be written to.
        ReadyFdFailed = "ready_fd_failed", Warning, "failed to tell ready_fd: {reason}" {
            reason: String,
        },
        /// Children could not be reaped.
        ReapFailed = "reap_failed", Error,
            "cannot reap children: {reason}; trying again at the next exit" { reason: String },
        /// A child could not close the descriptors that it shares with the master.
        ShedFailed = "shed_failed", Error,
            "cannot close the master's descriptors: {reason}" { reason: String },
        /// A child could not make the pipes of the logger its standard streams.
        StreamsFailed = "streams_failed", Error,
            "cannot take standard streams of its own: {reason}" { reason: String },
        /// The service manager could not be notified.
        NotifyFailed = "notify_failed", Debug, "failed to tell the service manager: {reason}" {
            reason: String,
        },
        /// The kernel has killed processes of this control group that are no children of the master.
        StrangersKilled = "oom_kills_elsewhere", Warning,
            "processes of this control group that the kernel has killed for want of memory and that \
             are no children of this server: {count}" { count: usize },
        /// A certificate expires within 14 days; logged once a day.
        CertificateExpires = "certificate_expires", Warning,
            "the certificate in {file} expires in {days} days: replace it, and reload" {
                file: String,
                days: u64,
            },
        /// A certificate has expired while the server runs; logged once a day.
        CertificateExpired = "certificate_expired", Error,
            "the certificate in {file} has expired: replace it, and reload" { file: String },
        /// Requests that a stalled worker holds.
        RequestsHeld = "requests_held", Error,
            "worker {slot} (pid {pid}) holds {requests}; {state}" {
                slot: Slot,
                pid as process_pid: Pid,
                count: usize,
                requests: String,
                state: String,
            },
        /// Requests that were lost with their worker.
        RequestsLost = "requests_lost", Error,
            "worker {slot} (pid {pid}) took with it {requests}; {state}" {
                slot: Slot,
                pid as process_pid: Pid,
                count: usize,
                requests: String,
                state: String,
            },
    }
}
