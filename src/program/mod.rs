//! Any program as the worker of a slot: its keeper.
//!
//! # Why a keeper
//! The supervisor's rules are for workers that report on a channel, note heartbeats on a board, drain when
//! they are told to, and exit by themselves. A foreign program does none of that. So a worker of ours stands
//! between: the keeper, forked by the master as every worker is, starts the program as its child, and
//! speaks for it. The master sees a worker like others, knows no program's pid, and reads nothing that a
//! program has written: notes and output are the keeper's to read, which has given up every privilege.
//!
//! The program is the leader of a process group; what it has started and not waited for becomes the
//! keeper's child when its parent ends. At the end of the program, or of the keeper, all of the group is
//! killed, so that no process is left behind.
//!
//! A keeper ends as its program does: with the same code, or by the same signal. So what the
//! master logs, counts and decides by is the program's own end.

mod command;
mod deadline;
pub(crate) mod events;
mod keeper;
mod note;
mod output;
mod ready;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use self::command::ProgramContext;
use self::events::ProgramEvent;
use self::keeper::{Keeper, Life};
use self::output::{Outputs, Pipes};
use self::ready::{Sign, Target};
use crate::config::Config;
use crate::ids::Pid;
use crate::logging;
use crate::sys::fork::{InChild, SingleThreaded};
use crate::sys::launch::{Group, Launch};
use crate::sys::notes::NoteSocket;
use crate::sys::readable::readable;
use crate::sys::wait::Ended;
use crate::sys::{process, signals, waiting};
use crate::worker::{self, BOOT_FAILED, Birth, PREPARE_FAILED, WorkerBirth};

/// The signals that a keeper catches.
const SIGNALS: [i32; 6] =
    [signals::TERM, signals::INT, signals::QUIT, signals::USR1, signals::ABRT, signals::CHLD];

/// Judges the command of a generation, in the process that prepares it; returns the exit code.
pub(crate) fn prepare(child: InChild, birth: &Birth<'_>) -> i32 {
    if let Err(code) = worker::begin_prepare(child, birth) {
        return code;
    }
    let program = birth.config.program.command.first().map_or("", String::as_str);
    let own = birth.config.env.iter().rev().find(|(name, _)| name == "PATH");
    let path =
        own.map_or_else(|| std::env::var("PATH").unwrap_or_default(), |value| value.1.clone());
    match command::find(program, &path) {
        Ok(_) => 0,
        Err(reason) => {
            logging::emit(&ProgramEvent::Refused { reason });
            PREPARE_FAILED
        }
    }
}

/// Keeps a program in its slot until it has ended; returns the exit code.
pub(crate) fn main(child: InChild, worker: WorkerBirth<'_>) -> i32 {
    let slot = worker.slot;
    let caught = match worker::begin(child, &worker, &SIGNALS) {
        Ok(caught) => caught,
        Err(code) => return code,
    };
    let keep = |runtime: tokio::runtime::Runtime| {
        let ended = runtime.block_on(async move {
            match start(worker, caught) {
                Ok((keeper, sign, outputs)) => keeper.keep(sign, outputs).await,
                Err(event) => {
                    logging::emit(&event);
                    Ended::Code(BOOT_FAILED)
                }
            }
        });
        runtime.shutdown_background();
        ended
    };
    match worker::runtime(1, |_| ()).map(keep) {
        Ok(Ended::Code(code)) => code,
        Ok(Ended::Signal { number, .. }) => {
            signals::die_by(number);
            BOOT_FAILED
        }
        Err(error) => {
            let reason = format!("cannot build the runtime: {error}");
            logging::emit(&ProgramEvent::WatchFailed { slot, reason });
            BOOT_FAILED
        }
    }
}

/// Starts the program, and opens what its keeper watches.
///
/// # Errors
/// The log event that says why it cannot be done.
fn start(
    worker: WorkerBirth<'_>,
    caught: signals::Signals,
) -> Result<(Keeper, Sign, Outputs), ProgramEvent> {
    let slot = worker.slot;
    let config = Arc::clone(&worker.birth.config);
    let watched = |error: io::Error| ProgramEvent::WatchFailed { slot, reason: error.to_string() };
    process::adopt_orphans().map_err(watched)?;
    let notes = NoteSocket::new("ferricorn").map_err(watched)?;
    let pipes = Pipes::open().map_err(watched)?;
    let sockets = worker.listeners.for_program(&config);
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|(socket, ..)| *socket).collect();
    let names: Vec<Option<&str>> = sockets.iter().map(|(_, _, name)| *name).collect();
    let context = ProgramContext {
        slot,
        generation: worker.birth.generation,
        names: &names,
        notify: notes.address(),
        stall_timeout: config.stall_timeout,
    };
    let group = launch(&config, &context, &descriptors, &pipes)
        .map_err(|reason| ProgramEvent::StartFailed { slot, reason })?;
    let program = group.pid();
    logging::emit(&ProgramEvent::Started { slot, program: Pid(program) });
    if let Some(error) = group.unguarded() {
        let reason = error.to_string();
        logging::emit(&ProgramEvent::Unguarded { slot, program: Pid(program), reason });
    }
    let numbers = descriptors.iter().map(|socket| waiting::number(*socket));
    let sign = Sign {
        slot,
        ready: config.program.ready.clone(),
        sockets: numbers.collect::<io::Result<_>>().map_err(watched)?,
        target: sockets.first().and_then(|(_, address, _)| Target::of(address)),
    };
    let owned = descriptors.iter().map(|socket| socket.try_clone_to_owned());
    let listeners: Vec<OwnedFd> = owned.collect::<io::Result<_>>().map_err(watched)?;
    let outputs = Outputs::read(pipes.into_readers(), slot, program).map_err(watched)?;
    let life = Life::begin(worker.birth.began.after(keeper::less_margin(config.boot_timeout)));
    let keeper = Keeper {
        slot,
        generation: worker.birth.generation,
        board: worker.board,
        channel: readable(worker.birth.channel).map_err(watched)?,
        caught: readable(caught).map_err(watched)?,
        notes: readable(notes).map_err(watched)?,
        config,
        listeners,
        group,
        life,
    };
    Ok((keeper, sign, outputs))
}

/// Executes the command in a context.
///
/// # Errors
/// Why that cannot be done, in words.
fn launch(
    config: &Config,
    context: &ProgramContext<'_>,
    descriptors: &[BorrowedFd<'_>],
    pipes: &Pipes,
) -> Result<Group, String> {
    let alone =
        SingleThreaded::prove().map_err(|names| format!("{} threads exist", names.len()))?;
    let arguments = command::expanded(&config.program.command, context)?;
    let inherited = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let launch = Launch {
        arguments: &arguments,
        descriptors,
        outputs: [pipes.writers[0].as_fd(), pipes.writers[1].as_fd()],
        variables: &command::variables(context),
        of_pid: if context.stall_timeout.is_zero() { &OF_PID[..1] } else { &OF_PID },
        removed: &command::removed(inherited),
    };
    let program = arguments.first().map_or("", String::as_str);
    launch.start(&alone).map_err(|error| format!("cannot execute {program}: {error}"))
}

/// Variables that hold the pid of the program that they are for.
const OF_PID: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];
