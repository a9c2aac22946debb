//! Everything that happens in a child after the fork.
//!
//! # Why this order
//! A child begins as a copy of the master: with its descriptors, its signal handlers, its random
//! numbers and its buffers. [`main`] gives each of them up, or makes it its own, before any code of
//! the application runs.
//!
//! # Rooms
//! The parts of serving stand in rooms, each of which imports only those before it:
//! `proxy` `connection` `long` `request` `http` `drain` `accept`.
//! [`server`], which all connections share, and [`events`], the log events of all, stand beside them.

mod birth;
mod boot;
pub(crate) mod events;
mod heartbeat;
pub(crate) mod in_process;
mod polls;
mod recorder;
mod relay;
mod server;
mod telemetry;
mod turns;

mod accept;
mod connection;
mod drain;
mod http;
mod long;
mod proxy;
mod request;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub(crate) use birth::{BOOT_FAILED, Birth, PREPARE_FAILED, WorkerBirth, begin, begin_prepare};
use rand::RngExt;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::embed::{App, PrepareContext, Process, Tasks, WorkerContext};
use crate::ids::SlotSet;
use crate::logging::{self, Chain};
use crate::request::body_limits::Declared;
use crate::request::draining::Draining;
use crate::scoreboard::Doing;
use crate::sys::bell::Bell;
use crate::sys::channel::{Lower, Received};
use crate::sys::fork::InChild;
use crate::sys::readable::readable;
use crate::sys::signals as signal;
use crate::sys::signals::Signals;
use crate::tls::{self, Acceptor, Material};
use crate::wire::{MESSAGE_MAX, Order, Report};
use birth::log_boot_failure;
use boot::Booted;
use drain::WorkerEnd;
use events::WorkerEvent;
use heartbeat::{heartbeat, heartbeat_interval, keep_heartbeat, room_wait};
use http::handshake::HTTP_2;
use polls::Metronome;
use server::{Position, Server};
use telemetry::Telemetry;

/// Runs `prepare`; answers the exit code.
pub(crate) fn prepare(child: InChild, birth: &Birth<'_>, app: &impl App) -> i32 {
    if let Err(code) = begin_prepare(child, birth) {
        return code;
    }
    let context =
        PrepareContext { config: Arc::clone(&birth.config), generation: birth.generation };
    let run = || {
        let runtime = runtime(1, |builder| app.runtime(&birth.config, builder))?;
        let prepared = runtime.block_on(async {
            let telemetry = Telemetry::start(app, Process::Prepare(&context))?;
            let prepared = app.prepare(&context).await;
            telemetry.end().await;
            prepared
        });
        // Not dropped: that would wait for blocking tasks without limit.
        runtime.shutdown_background();
        prepared
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            let reason = Chain(error.as_ref()).to_string();
            logging::emit(&WorkerEvent::PrepareFailed { reason });
            PREPARE_FAILED
        }
        Err(_) => PREPARE_FAILED,
    }
}

/// Serves until it is told to drain. Returns the exit code.
pub(crate) fn main(child: InChild, mut worker: WorkerBirth<'_>, app: Arc<impl App>) -> i32 {
    let signals = [signal::TERM, signal::INT, signal::QUIT, signal::USR1];
    let caught = match begin(child, &worker, &signals) {
        Ok(caught) => caught,
        Err(code) => return code,
    };
    // Certificates and keys: their file in memory is closed before any code of the application runs.
    let tls = worker.tls.take().map(|tls| acceptor(&worker.birth.config, &tls)).transpose();
    let tls = match tls {
        Ok(tls) => tls,
        Err(error) => {
            log_boot_failure(worker.slot, format_args!("cannot speak TLS: {error}"));
            return BOOT_FAILED;
        }
    };
    // The runtime, the application, its requests.
    let threads = worker.birth.config.threads;
    let slot = worker.slot;
    let config = Arc::clone(&worker.birth.config);
    let theirs = Arc::clone(&app);
    let changed = |builder: &mut Builder| theirs.runtime(&config, builder);
    let code = catch_unwind(AssertUnwindSafe(|| match runtime(threads, changed) {
        Ok(runtime) => {
            let code = runtime.block_on(run(worker, tls, caught, app));
            // Tasks that still run have had their time.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            log_boot_failure(slot, format_args!("cannot build the runtime: {error}"));
            BOOT_FAILED
        }
    }));
    code.unwrap_or(BOOT_FAILED)
}

/// Builds a runtime; the application may change what is not set behind that.
#[expect(clippy::disallowed_methods, reason = "after the fork, and nowhere else")]
pub(crate) fn runtime(threads: u16, change: impl FnOnce(&mut Builder)) -> std::io::Result<Runtime> {
    let mut builder =
        if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    change(&mut builder);
    if threads > 1 {
        builder.worker_threads(usize::from(threads));
    }
    builder.on_thread_park(turns::end).enable_all().build()
}

/// The orders and signals that came in while the worker served.
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

/// The TLS configuration of connections.
fn acceptor(config: &Config, tls: &Material) -> std::io::Result<Acceptor> {
    let both: &[&[u8]] = &[HTTP_2, b"http/1.1"];
    let protocols = if config.http2.enabled { both } else { &both[1..] };
    tls::acceptor(&config.tls, tls, protocols)
}

async fn run(
    worker: WorkerBirth<'_>,
    tls: Option<Acceptor>,
    caught: Signals,
    app: Arc<impl App>,
) -> i32 {
    let slot = worker.slot;
    let position = position(&worker);
    let (Ok(caught), Ok(channel)) = (readable(caught), readable(worker.birth.channel)) else {
        log_boot_failure(slot, "cannot watch for signals and orders");
        return BOOT_FAILED;
    };
    let config = Arc::clone(&worker.birth.config);
    let context = WorkerContext {
        config: Arc::clone(&config),
        generation: worker.birth.generation,
        slot: worker.slot,
        counters: Arc::clone(&worker.counters),
        body_limits: Declared::new(config.limits.body),
        draining: Draining::default(),
        tasks: Tasks::default(),
    };
    let _tasks_end_with_it = EndsLeads(&context.draining);
    recorder::install(&worker.board, slot);
    let booted = tokio::select! {
        booted = boot::boot(&app, &context, &worker.listeners, tls) => booted,
        () = told_to_quit(&caught) => return 0,
    };
    let Booted { routes, telemetry } = match booted {
        Ok(booted) => booted,
        Err(error) => {
            log_boot_failure(slot, Chain(error.as_ref()));
            return BOOT_FAILED;
        }
    };
    let least = heartbeat_interval(config.stall_timeout);
    logging::wait_for_room(room_wait(Arc::clone(&worker.board), config.graceful_timeout, least));
    let enough = requests_max(&config);
    let bell = worker.listeners.bell(worker.slot).map(Bell::try_clone);
    let Some(Ok(Ok(bell))) = bell.map(|bell| bell.map(readable)) else {
        log_boot_failure(slot, "cannot watch the bell of its slot");
        return BOOT_FAILED;
    };
    let server = Arc::new(Server::new(position, &config, routes, worker.listeners, enough));
    server.place.take();
    server.board.set_doing(server.generation, Doing::Serving);
    server.accept_from(&SlotSet::from_iter([worker.slot]));
    let metronome = match (config.threads > 1).then(Metronome::start).transpose() {
        Ok(metronome) => metronome,
        Err(error) => {
            log_boot_failure(slot, format_args!("cannot start a thread: {error}"));
            return BOOT_FAILED;
        }
    };
    let heartbeat =
        tokio::spawn(keep_heartbeat(Arc::clone(&server), metronome, config.stall_timeout));
    if channel.get_ref().send(&Report::Ready.encode()).is_err() {
        return 0;
    }
    let end = heed_calls(&channel, &caught, &bell, &server).await;
    if end != WorkerEnd::Drain {
        server.routes.health.stop();
    }
    // Before anything is closed.
    context.draining.begin();
    server.board.set_doing(server.generation, Doing::Draining);
    end.finish(&server, &config, told_to_quit(&caught)).await;
    end.wait_for_tasks(&server, &context, told_to_quit(&caught)).await;
    app.stopped(&context).await;
    telemetry.end().await;
    heartbeat.abort();
    0
}

fn position(worker: &WorkerBirth<'_>) -> Position {
    Position {
        slot: worker.slot,
        generation: worker.birth.generation,
        counters: Arc::clone(&worker.counters),
        board: Arc::clone(&worker.board),
    }
}

/// Has leases last until the process is reaped from when this is dropped: the runtime ends tasks in any
/// order then, and one may still work when another gives its lease back.
struct EndsLeads<'a>(&'a Draining);

impl Drop for EndsLeads<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Does what it is told until it is to drain.
async fn heed_calls(
    channel: &AsyncFd<Lower>,
    caught: &AsyncFd<Signals>,
    bell: &AsyncFd<Bell>,
    server: &Arc<Server>,
) -> WorkerEnd {
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
                server.board.note_heartbeat(heartbeat(server.heartbeat_interval));
                server.help();
            }
            Call::Order(Order::Announce) => server.announce(),
            Call::Order(Order::Drain) => return WorkerEnd::Drain,
            Call::Order(Order::Stop) => return WorkerEnd::Stop,
            Call::Orphaned => return WorkerEnd::Orphaned,
            Call::ServedEnough => tell(channel, Report::ServedEnough),
            Call::Signals(numbers) => match heed_while_serving(&numbers, channel) {
                Heeded::Nothing => {}
                // Others must accept for this slot first; the master says when they do.
                Heeded::Leave => tell(channel, Report::ToldToLeave),
                Heeded::Quit => {
                    // So that its end is no death.
                    tell(channel, Report::ToldToLeave);
                    return WorkerEnd::Now;
                }
            },
        }
    }
}

/// Returns the meaning of a worker's signals.
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

fn heed_while_serving(numbers: &[i32], channel: &AsyncFd<Lower>) -> Heeded {
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
    channel: &AsyncFd<Lower>,
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
                    Ok(Received::Message { length, descriptors }) => {
                        let mut descriptors = descriptors.into_iter();
                        match (Order::decode(&message[..length]), descriptors.next()) {
                            (Ok(Order::Listener { address, slot }), Some(listener)) => {
                                server.listeners().receive(address, slot, listener);
                                return Call::Received;
                            }
                            (Ok(Order::Bell { slot }), Some(bell)) => {
                                if let Some(taker) = descriptors.next() {
                                    server.listeners().receive_bell(slot, [bell, taker]);
                                }
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
                // It is not silenced, which could hide it from a replacement: each ring is told anew.
                ready.clear_ready();
                return Call::Asked;
            }
            () = server.served_enough.notified() => return Call::ServedEnough,
        }
    }
}

fn tell(channel: &AsyncFd<Lower>, report: Report) {
    // A master that does not read is stopped or gone; in both cases it learns from our end.
    let _unread = channel.get_ref().send(&report.encode());
}

/// After how many requests this worker asks to be replaced. The random part keeps workers that began
/// together from going together.
fn requests_max(config: &Config) -> u64 {
    match config.max_requests {
        0 => 0,
        max => max.saturating_add(rand::rng().random_range(0..=config.max_requests_jitter)),
    }
}

#[cfg(test)]
mod tests;
