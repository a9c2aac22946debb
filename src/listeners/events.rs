//! The log events of listeners.

use crate::ids::Slot;
use crate::log_event::log_lines;

log_lines! {
    /// A log event of the listeners.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum ListenerEvent {
        /// A socket of the service manager is used.
        Adopted = "socket_adopted", Info,
            "taking over descriptor {descriptor} {name} from the service manager" {
                descriptor: i32,
                name: String,
            },
        /// The machine lacks one address of a host name, and has another.
        Absent = "address_absent", Warning, "{reason}; its name is served at {served}" {
            reason: String,
            served: String,
        },
        /// A process that shares the listener has made its accept(2) wait, or shut it down, as only a worker
        /// that was taken over does.
        Mended = "listener_mended", Warning,
            "a process that shares the listener at {address} {harm}; it is put right" {
                address: String,
                harm: String,
            },
        /// The same, and clients are refused there until a restart.
        MendFailed = "listener_mend_failed", Error,
            "a process that shares the listener at {address} {harm}; cannot put it right: {reason}" {
                address: String,
                harm: String,
                reason: String,
            },
        /// A process has shut down the queue by which a slot's idle connections are handed over, as only a
        /// worker that was taken over does: they are closed when a worker drains, until a restart.
        RelayEnded = "relay_ended", Warning,
            "a process has shut down the queue of kept connections of slot {slot}; until a restart they are \
             closed when its worker drains" {
                slot: Slot,
            },
        /// New connections are not refused while the last worker drains: those that arrive then are lost.
        RefuseFailed = "refuse_failed", Warning,
            "failed to refuse new connections at {address}: {reason}" {
                address: String,
                reason: String,
            },
    }
}
