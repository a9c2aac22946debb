//! Every number that the decisions may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The part of one generation's configuration that is about supervision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Workers wanted.
    pub(crate) workers: u16,
    /// The most that may be wanted, by whatever way.
    pub(crate) workers_max: u16,
    /// The time for which a draining worker may finish.
    pub(crate) graceful_timeout: Duration,
    /// The time for which a server that is told to stop serves on before.
    pub(crate) announce: Duration,
    /// The time that `prepare`, a check or a boot may take.
    pub(crate) boot_timeout: Duration,
    /// The time for which a worker's event loop may be silent; zero: no limit.
    pub(crate) stall_timeout: Duration,
    /// Age at which a worker is replaced; zero: never.
    pub(crate) max_lifetime: Duration,
    /// Resident bytes above which a worker is replaced; 0: no limit.
    pub(crate) max_memory: u64,
    /// Metrics are served.
    pub(crate) stats: bool,
    /// Workers may ask for more time: they are keepers of programs, and kill those at the end of it.
    pub(crate) extensible: bool,
}

/// A quick stop, and what is asked to quit, has so long before it is killed. gunicorn's own figure.
pub(crate) const QUICK: Duration = Duration::from_secs(2);
/// Of the time in which a server must have stopped, so much is left to the last lines, and a quarter of
/// it at most.
pub(crate) const LAST_LINES: Duration = Duration::from_millis(250);
/// A process that `KILL` has not ended so long after the deadline of a stop waits in the kernel for
/// something that may never come: the server leaves without it.
pub(crate) const UNKILLABLE: Duration = Duration::from_secs(5);
/// From `ABRT` to `KILL`: time to write a core.
pub(crate) const ABORT: Duration = Duration::from_secs(2);
/// A life after readiness from which on a death is no sign of a worker that cannot live. It is the
/// longest delay of the back-off: who lives longer is not forked more often than the back-off would.
pub(crate) const HEALTHY_LIFE: Duration = Duration::from_secs(2);
/// The delay between forks after the second early death in a row; doubles from there.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// The longest delay between forks of one slot, before jitter adds up to a half.
pub(crate) const BACKOFF_LAST: Duration = HEALTHY_LIFE;
/// Early deaths in a row after which a slot is called failing, and its deaths are told in sum.
pub(crate) const FAILING: u32 = 5;
/// Ready workers of one slot that may be killed by hand in their first moments without its being held
/// against their replacements; then one more in each [`KILL_EXCUSED_AGAIN`]. Who kills by hand does not
/// come so far; what goes on killing (a guard of the machine's memory, a limit of processor time) must
/// not have the master fork without a pause.
pub(crate) const KILLS_EXCUSED: u32 = 100;
/// After how long one killing more is excused.
pub(crate) const KILL_EXCUSED_AGAIN: Duration = Duration::from_secs(1);
/// A fork that the kernel refused is tried again after this; doubles with each refusal in a row.
pub(crate) const FORK_RETRY: Duration = Duration::from_millis(250);
/// The longest pause after refusals.
pub(crate) const FORK_RETRY_LAST: Duration = Duration::from_secs(2);
/// The interval at which a server logs that it cannot get its workers up, or forked.
pub(crate) const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);
/// The time for which a reload's first replacement must live beside its predecessor.
pub(crate) const PROBATION: Duration = Duration::from_millis(100);
/// Failed replacements in a row that end a reload.
pub(crate) const RELOAD_FAILURES_MAX: u32 = 3;
/// Commands of clients that may wait for their end.
pub(crate) const COMMANDS_MAX: usize = 64;
/// Draining workers a slot may have before its next replacement waits for one to be gone.
pub(crate) const DRAINING_MAX: usize = 3;
/// From a queued connection to the look whether it is still there.
pub(crate) const LOOK_AFTER: Duration = Duration::from_millis(10);
/// From one look at an undrained slot to the next.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The same where no connection waits any more, but the slot's own worker shows no sign of life.
pub(crate) const LOOK_SELDOM: Duration = Duration::from_millis(250);
/// Looks in a row that must find an undrained slot empty before its siblings release it.
pub(crate) const QUIET_LOOKS: u8 = 3;
/// A slot undrained for so long gets no new connections from the kernel.
pub(crate) const STEER_AFTER: Duration = Duration::from_millis(100);
/// A worker that asks for more time has so much from then on, if its deadline is sooner. A keeper repeats it
/// as long as its program has time left.
pub(crate) const EXTENSION: Duration = Duration::from_secs(5);
/// The interval at which resident sizes are read, where they are limited.
pub(crate) const MEMORY_INTERVAL: Duration = Duration::from_secs(1);
/// A master that wakes so much later than it wanted did not run, and neither did its workers: what it
/// has seen of their silence counts for nothing.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// A master that wakes so much later than it wanted has slept with the machine: deadlines move too.
/// Much longer than a busy machine makes a connection wait, or nothing would ever end on one.
pub(crate) const ASLEEP: Duration = Duration::from_secs(10);
/// A silent worker is asked again after this, before anything is held against it.
pub(crate) const HEARTBEAT_AGAIN: Duration = Duration::from_secs(1);
