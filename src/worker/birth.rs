//! The state that a child is forked with, and its way to a worker or to `prepare`.

use std::sync::Arc;

use super::events::WorkerEvent;
use crate::access_format::one_line;
use crate::config::Config;
use crate::ids::{Generation, Slot};
use crate::listeners::Listeners;
use crate::logging;
use crate::scoreboard::{Doing, SlotBoard, WorkerBoard};
use crate::sys::channel::Lower;
use crate::sys::fork::{InChild, SingleThreaded};
use crate::sys::identity::Identity;
use crate::sys::process;
use crate::sys::signals as signal;
use crate::sys::signals::{self, Signals};
use crate::time::Instant;
use crate::tls::Material;

/// Exit code of a worker that could not boot, as in gunicorn.
pub(crate) const BOOT_FAILED: i32 = 3;
/// Exit code of a `prepare` that failed, as in gunicorn when the application cannot be loaded.
pub(crate) const PREPARE_FAILED: i32 = 4;

/// By how many thousandths of the memory a worker is likelier than the master to be killed when there
/// is none left: a worker is replaced, the master is not. More than they differ in size when idle, and
/// too little to make a worker go for another program.
const OUT_OF_MEMORY_BIAS: i32 = 20;

/// The state that every child is forked with.
pub(crate) struct Birth<'a> {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
    /// The master's signals, to be forgotten.
    pub(crate) signals: &'a Signals,
    /// The child's end of its channel; its end of file says that the master is gone.
    pub(crate) channel: Lower,
    pub(crate) master: i32,
    /// When it was forked.
    pub(crate) began: Instant,
    /// The user and the groups to take.
    pub(crate) identity: &'a Identity,
}

/// The further state that a worker is forked with.
pub(crate) struct WorkerBirth<'a> {
    pub(crate) birth: Birth<'a>,
    pub(crate) slot: Slot,
    pub(crate) listeners: Listeners,
    pub(crate) tls: Option<Material>,
    pub(crate) board: Arc<WorkerBoard>,
    pub(crate) counters: Arc<SlotBoard>,
}

/// Makes this process one that prepares a generation.
///
/// # Errors
/// The exit code, when it cannot be one.
pub(crate) fn begin_prepare(child: InChild, birth: &Birth<'_>) -> Result<(), i32> {
    process::extend_name("prep");
    log_panics();
    birth.signals.forget();
    // It has nothing to finish: every signal ends it.
    let reset =
        signals::reset(&[signal::TERM, signal::INT, signal::QUIT, signal::HUP, signal::USR1]);
    let become_it = reset.and_then(|()| birth.identity.assume());
    // After the change of user, which clears it (prctl(2), PR_SET_PDEATHSIG).
    if let Err(error) = become_it.and_then(|()| process::die_with_parent(signal::KILL)) {
        logging::emit(&WorkerEvent::PrepareUnborn { reason: error.to_string() });
        return Err(PREPARE_FAILED);
    }
    child.unblock_signals();
    if process::parent_pid() == birth.master { Ok(()) } else { Err(PREPARE_FAILED) }
}

/// Makes this process a worker that catches these signals: its name, its user, its end with the
/// master's.
///
/// # Errors
/// The exit code, when it cannot be one.
pub(crate) fn begin(
    child: InChild,
    worker: &WorkerBirth<'_>,
    caught: &[i32],
) -> Result<Signals, i32> {
    // 1. Its name, and its worth.
    process::extend_name(&format!("w{}", worker.slot));
    // Before the change of user, which forbids it. Where it cannot be, the kernel goes by size.
    let _expendable = process::be_expendable(OUT_OF_MEMORY_BIAS);
    log_panics();
    // 2. The master's signal handlers are forgotten before any signal is let in: ours would be
    //    written to the master's pipe.
    worker.birth.signals.forget();
    let caught = catch(worker, caught).map_err(|error| {
        log_boot_failure(worker.slot, &error);
        BOOT_FAILED
    })?;
    worker.board.set_doing(worker.birth.generation, Doing::Booting);
    // 3. Signals come in now.
    child.unblock_signals();
    Ok(caught)
}

/// Part of the error of a second global subscriber (tracing-core's `SetGlobalDefaultError`).
const SUBSCRIBER_IS_SET: &str = "SetGlobalDefaultError";

/// Has panics written to the error log, in one line. With `RUST_BACKTRACE` the trace follows on stderr.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let mut message = one_line(info.payload_as_str().unwrap_or("without a message"));
        if message.contains(SUBSCRIBER_IS_SET) {
            message.push_str("; return the subscriber's layers from App::telemetry instead");
        }
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        logging::emit(&WorkerEvent::Panicked { location, message });
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            before(info);
        }
    }));
}

/// Logs why a worker could not boot.
pub(super) fn log_boot_failure(slot: Slot, reason: impl ToString) {
    logging::emit(&WorkerEvent::BootFailed { slot, reason: reason.to_string() });
}

/// The worker's own signals, its belt against a lost master, and its user.
fn catch(worker: &WorkerBirth<'_>, numbers: &[i32]) -> std::io::Result<Signals> {
    let caught = Signals::catch(numbers)?;
    worker.birth.identity.assume()?;
    if worker.tls.is_some() {
        // After the change of user, too: it holds private keys from here on.
        process::forbid_core_dump()?;
    }
    // After the change of user, which clears it (prctl(2), PR_SET_PDEATHSIG).
    signals::alarm_when_orphaned(worker.birth.master)?;
    process::die_with_parent(signal::HUP)?;
    if let Ok(alone) = SingleThreaded::prove() {
        process::set_environment(&alone, &worker.birth.config.env);
    }
    // Its own generation's formats, which may name variables of its environment.
    logging::apply(&worker.birth.config.log)?;
    Ok(caught)
}
