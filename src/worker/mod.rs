//! Everything that happens in a child after the fork.
//!
//! # Why this order
//! A child begins as a copy of the master: with its descriptors, its signal handlers, its random
//! numbers and its buffers. [`main`] gives each of them up, or makes it its own, before any code of
//! the application runs.

mod accept;
mod body;
mod conns;
mod fairness;
mod forwarded;
mod fragments;
mod heads;
mod io;
mod leave;
mod own;
mod proxy;
mod server;
mod service;
mod strict;
mod ticket;
mod turns;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use conns::Conn;
use rand::RngExt;
pub(crate) use service::InHand;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::embed::{App, PrepareContext, WorkerContext};
use crate::ids::{Generation, Slot, SlotSet};
use crate::listeners::Listeners;
use crate::logging;
use crate::scoreboard::{Doing, SlotBoard, WorkerBoard};
use crate::sys::bell::Bell;
use crate::sys::channel::{Channel, Received};
use crate::sys::fork::{InChild, SingleThreaded};
use crate::sys::process::{self, Identity};
use crate::sys::readable::readable;
use crate::sys::signals::{self, Signals};
use crate::sys::{clock, signals as signal};
use crate::time::Instant;
use crate::wire::{MESSAGE_MAX, Order, Report};
use leave::Leaving;
use server::Server;

/// Exit code of a worker that could not boot, as in gunicorn.
const BOOT_FAILED: i32 = 3;
/// Exit code of a `prepare` that failed, as in gunicorn when the application cannot be loaded.
const PREPARE_FAILED: i32 = 4;

/// By how many thousandths of the memory a worker is likelier than the master to be killed when there
/// is none left: a worker is replaced, the master is not. More than they differ in size when idle, and
/// too little to make a worker go for another program.
const OUT_OF_MEMORY_BIAS: i32 = 20;

/// What every child is born with.
pub(crate) struct Birth<'a> {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
    /// The master's signals, to be forgotten.
    pub(crate) signals: &'a Signals,
    /// The child's end of its channel; its end of file says that the master is gone.
    pub(crate) channel: Channel,
    pub(crate) master: i32,
    /// Whom to become.
    pub(crate) identity: &'a Identity,
}

/// What a worker is born with besides.
pub(crate) struct WorkerBirth<'a> {
    pub(crate) birth: Birth<'a>,
    pub(crate) slot: Slot,
    pub(crate) listeners: Listeners,
    pub(crate) board: Arc<WorkerBoard>,
    pub(crate) counters: Arc<SlotBoard>,
}

/// Runs `prepare`; answers the exit code.
pub(crate) fn prepare(child: InChild, birth: &Birth<'_>, app: &impl App) -> i32 {
    process::extend_name("prep");
    log_panics();
    birth.signals.forget();
    // It has nothing to finish: every signal ends it.
    let reset =
        signals::reset(&[signal::TERM, signal::INT, signal::QUIT, signal::HUP, signal::USR1]);
    let become_it = reset.and_then(|()| birth.identity.assume());
    // After the change of user, which clears it (prctl(2), PR_SET_PDEATHSIG).
    if let Err(error) = become_it.and_then(|()| process::die_with_parent(signal::KILL)) {
        tracing::error!("failed to begin prepare: {error}");
        return PREPARE_FAILED;
    }
    child.unblock_signals();
    if process::parent_pid() != birth.master {
        return PREPARE_FAILED;
    }
    let context =
        PrepareContext { config: Arc::clone(&birth.config), generation: birth.generation };
    let run = || match runtime(1) {
        Ok(runtime) => runtime.block_on(app.prepare(&context)),
        Err(error) => Err(error.into()),
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            tracing::error!("failed to prepare: {}", Chain(error.as_ref()));
            PREPARE_FAILED
        }
        Err(_) => PREPARE_FAILED,
    }
}

/// Serves until it is told to leave; answers the exit code.
pub(crate) fn main(child: InChild, worker: WorkerBirth<'_>, app: &impl App) -> i32 {
    // 1. Its name, and its worth.
    process::extend_name(&format!("w{}", worker.slot));
    // Before the change of user, which forbids it. Where it cannot be, the kernel goes by size.
    let _expendable = process::be_expendable(OUT_OF_MEMORY_BIAS);
    log_panics();
    // 2. The master's signal handlers are forgotten before any signal is let in: ours would be
    //    written to the master's pipe.
    worker.birth.signals.forget();
    let caught = match catch(&worker) {
        Ok(caught) => caught,
        Err(error) => {
            tracing::error!("failed to boot worker {}: {error}", worker.slot);
            return BOOT_FAILED;
        }
    };
    worker.board.set_doing(worker.birth.generation, Doing::Booting);
    // 3. The random stream is the master's, as it was in every sibling: a new one.
    reseed();
    // 4. Signals come in now.
    child.unblock_signals();
    // 5. The runtime, the application, its requests.
    let threads = worker.birth.config.threads;
    let code = catch_unwind(AssertUnwindSafe(|| match runtime(threads) {
        Ok(runtime) => {
            let code = runtime.block_on(run(worker, caught, app));
            // Tasks that still run have had their time.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            tracing::error!("failed to build the runtime: {error}");
            BOOT_FAILED
        }
    }));
    code.unwrap_or(BOOT_FAILED)
}

/// Has panics written to the error log, in one line. With `RUST_BACKTRACE` the trace follows on stderr.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let what = info.payload_as_str().unwrap_or("without a message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!("panicked at {place}: {what}");
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            before(info);
        }
    }));
}

/// The worker's own signals, its belt against a lost master, and its user.
fn catch(worker: &WorkerBirth<'_>) -> std::io::Result<Signals> {
    let caught = Signals::catch(&[signal::TERM, signal::INT, signal::QUIT, signal::USR1])?;
    worker.birth.identity.assume()?;
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

/// `rand` has no protection across `fork` since 0.9: without this, all workers draw the same numbers.
fn reseed() {
    if rand::rng().reseed().is_err() {
        // The system's source is gone; a stream that siblings share must not be used.
        std::process::abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "after the fork, and nowhere else")]
fn runtime(threads: u16) -> std::io::Result<Runtime> {
    let mut builder =
        if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    if threads > 1 {
        builder.worker_threads(usize::from(threads));
    }
    builder.on_thread_park(turns::end).enable_all().build()
}

/// What came in while the worker served.
enum Call {
    Order(Order),
    /// A listener that was opened after the fork.
    Received,
    /// A sibling asks for help.
    Asked,
    /// The master is gone.
    Orphaned,
    Signals(Vec<i32>),
    ServedEnough,
}

async fn run(worker: WorkerBirth<'_>, caught: Signals, app: &impl App) -> i32 {
    let (Ok(caught), Ok(channel)) = (readable(caught), readable(worker.birth.channel)) else {
        tracing::error!("failed to watch for signals and orders");
        return BOOT_FAILED;
    };
    let config = Arc::clone(&worker.birth.config);
    let context = WorkerContext {
        config: Arc::clone(&config),
        generation: worker.birth.generation,
        slot: worker.slot,
        counters: Arc::clone(&worker.counters),
    };
    let router = tokio::select! {
        router = app.router(&context) => router,
        () = told_to_quit(&caught) => return 0,
    };
    let router = match router {
        // Else axum makes every route anew for each of its requests.
        Ok(router) => router.with_state(()),
        Err(error) => {
            tracing::error!("failed to boot worker {}: {}", worker.slot, Chain(error.as_ref()));
            return BOOT_FAILED;
        }
    };
    logging::wait_for_room(patience(Arc::clone(&worker.board), config.graceful_timeout));
    let enough = requests_max(&config);
    let place = (worker.slot, worker.birth.generation);
    let boards = (worker.counters, Arc::clone(&worker.board));
    let bell = worker.listeners.bell(worker.slot).map(Bell::try_clone);
    let Some(Ok(Ok(bell))) = bell.map(|bell| bell.map(readable)) else {
        tracing::error!("failed to watch the bell of slot {}", worker.slot);
        return BOOT_FAILED;
    };
    let server = Arc::new(Server::new(place, &config, router, boards, worker.listeners, enough));
    server.place.take();
    server.board.set_doing(server.generation, Doing::Serving);
    server.accept_from(&SlotSet::from_iter([worker.slot]));
    let pulse = tokio::spawn(pulse(Arc::clone(&server), worker.board, config.stall_timeout));
    if channel.get_ref().send(&Report::Ready.encode(), None).is_err() {
        return 0;
    }
    let leaving = heed_calls(&channel, &caught, &bell, &server).await;
    server.board.set_doing(server.generation, Doing::Leaving);
    leaving.finish(&server, &config, told_to_quit(&caught)).await;
    app.stopped(&context).await;
    pulse.abort();
    0
}

/// Does what it is told until it is to leave.
async fn heed_calls(
    channel: &AsyncFd<Channel>,
    caught: &AsyncFd<Signals>,
    bell: &AsyncFd<Bell>,
    server: &Arc<Server>,
) -> Leaving {
    let mut accepting = SlotSet::from_iter([server.slot]);
    loop {
        match next_call(channel, caught, bell, server).await {
            Call::Order(Order::Accept(slots)) => {
                accepting = slots;
                server.accept_from(&accepting);
            }
            Call::Order(Order::Listener { .. } | Order::Bell { .. }) | Call::Received => {
                server.accept_from(&accepting);
            }
            Call::Order(Order::Close { address }) => server.close(address),
            Call::Asked => {
                server.board.beat(Instant::from_millis(clock::monotonic_millis()));
                server.help();
            }
            Call::Order(Order::Drain) => return Leaving::Drain,
            Call::Order(Order::Stop) => return Leaving::Stop,
            Call::Orphaned => return Leaving::Orphaned,
            Call::ServedEnough => tell(channel, Report::ServedEnough),
            Call::Signals(numbers) => match heed_while_serving(&numbers, channel) {
                Heeded::Nothing => {}
                // Others must accept for this slot first; the master says when they do.
                Heeded::Leave => tell(channel, Report::ToldToLeave),
                Heeded::Quit => return Leaving::Now,
            },
        }
    }
}

/// What a worker makes of its signals.
enum Heeded {
    Nothing,
    Leave,
    Quit,
}

fn heed(numbers: &[i32]) -> Heeded {
    let mut heeded = Heeded::Nothing;
    for number in numbers {
        match *number {
            signal::INT | signal::QUIT => return Heeded::Quit,
            signal::TERM => heeded = Heeded::Leave,
            // `USR1` changes nothing about its life.
            _ => {}
        }
    }
    heeded
}

fn heed_while_serving(numbers: &[i32], channel: &AsyncFd<Channel>) -> Heeded {
    if numbers.contains(&signal::USR1) {
        // The files are the logger's, which takes its orders from the master.
        tell(channel, Report::ToldToReopen);
    }
    heed(numbers)
}

/// Ends when `INT` or `QUIT` comes.
async fn told_to_quit(caught: &AsyncFd<Signals>) {
    while let Ok(mut ready) = caught.readable().await {
        let numbers = caught.get_ref().take().unwrap_or_default();
        ready.clear_ready();
        if matches!(heed(&numbers), Heeded::Quit) {
            return;
        }
    }
}

async fn next_call(
    channel: &AsyncFd<Channel>,
    caught: &AsyncFd<Signals>,
    bell: &AsyncFd<Bell>,
    server: &Server,
) -> Call {
    loop {
        tokio::select! {
            ready = channel.readable() => {
                let Ok(mut ready) = ready else { return Call::Orphaned };
                let mut message = [0; MESSAGE_MAX];
                match channel.get_ref().receive(&mut message) {
                    // What cannot be received now may be later; only the end is the end.
                    Ok(Received::Nothing) | Err(_) => ready.clear_ready(),
                    Ok(Received::End) => return Call::Orphaned,
                    Ok(Received::Message { length, descriptor }) => {
                        match (Order::decode(&message[..length]), descriptor) {
                            (Ok(Order::Listener { address, slot }), Some(listener)) => {
                                server.listeners().receive(address, slot, listener);
                                return Call::Received;
                            }
                            (Ok(Order::Bell { slot }), Some(bell)) => {
                                server.listeners().receive_bell(slot, bell);
                                return Call::Received;
                            }
                            (Ok(order), _) => return Call::Order(order),
                            // Another version's order: not for us.
                            (Err(_), _) => {}
                        }
                    }
                }
            }
            ready = caught.readable() => {
                let Ok(mut ready) = ready else { return Call::Orphaned };
                let numbers = caught.get_ref().take().unwrap_or_default();
                ready.clear_ready();
                if !numbers.is_empty() {
                    return Call::Signals(numbers);
                }
            }
            ready = bell.readable() => {
                let Ok(mut ready) = ready else { return Call::Orphaned };
                // It is not silenced, which could hide it from a successor: each ring is told anew.
                ready.clear_ready();
                return Call::Asked;
            }
            () = server.served_enough.notified() => return Call::ServedEnough,
        }
    }
}

fn tell(channel: &AsyncFd<Channel>, report: Report) {
    // A master that does not read is stopped or gone; in both cases it learns from our end.
    let _unread = channel.get_ref().send(&report.encode(), None);
}

/// The heartbeat, and the sweep of connections that stand still. At rest it beats just often enough
/// for the master.
async fn pulse(server: Arc<Server>, board: Arc<WorkerBoard>, stall_timeout: Duration) {
    let slow = (stall_timeout / 4).max(Duration::from_millis(10));
    loop {
        board.beat(Instant::from_millis(clock::monotonic_millis()));
        server.conns.sweep();
        let changed = server.conns.changed.notified();
        let at_rest = server.conns.count() == 0;
        match (at_rest, stall_timeout.is_zero()) {
            (false, true) => tokio::time::sleep(server.conns.interval()).await,
            (false, false) => tokio::time::sleep(server.conns.interval().min(slow)).await,
            (true, true) => changed.await,
            (true, false) => {
                // The first connection begins the sweeps.
                let _either = tokio::time::timeout(slow, changed).await;
            }
        }
    }
}

/// What a line that waits for room does (`log.when_full = "block"`). It blocks the event loop: so it
/// beats in its place, and looks whether the worker was told to leave. Then it has half of the time
/// that there is; the rest is for those who wait behind it.
fn patience(
    board: Arc<WorkerBoard>,
    graceful_timeout: Duration,
) -> impl Fn() -> logging::Patience + Send + Sync {
    move || {
        let now = Instant::from_millis(clock::monotonic_millis());
        board.beat(now);
        match board.dismissed() {
            Some(since) if now >= since.after(graceful_timeout / 2) => logging::Patience::IsOver,
            Some(_) | None => logging::Patience::Lasts,
        }
    }
}

/// After how many requests this worker asks to be replaced. The random part keeps workers that began
/// together from going together.
fn requests_max(config: &Config) -> u64 {
    match config.max_requests {
        0 => 0,
        max => max.saturating_add(rand::rng().random_range(0..=config.max_requests_jitter)),
    }
}

/// An error with its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
