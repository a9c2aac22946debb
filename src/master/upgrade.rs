//! The binary on disk takes over in place: same pid, same children, same sockets.
//!
//! Before that it is asked, as a child, whether it could: it reads the configuration, looks at the
//! version of what it would be handed, and answers with its exit code. Then this image blocks every
//! signal, writes what it knows to a file in memory, lets the descriptors live, and executes the path
//! that it was started by. The new image is an ordinary start that finds the file instead of an empty
//! desk; it adopts the workers, and replaces them as on a reload.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Master;
use super::kid::{Kid, Worker};
use super::pidfile::PidFile;
use super::victims::Victims;
use crate::embed::App;
use crate::ids::{ChildId, Generation, Slot, SlotSet};
use crate::listeners::{Handed, Listeners};
use crate::logging::Rings;
use crate::scoreboard::{SlotBoard, WorkerBoard};
use crate::supervisor::Supervisor;
use crate::sys::channel::Channel;
use crate::sys::exec;
use crate::sys::fork::Blocked;
use crate::wire::Order;

/// Names the descriptor with the state, for an image that takes over.
const STATE_VARIABLE: &str = "FERRICORN_INTERNAL_STATE";
/// Asks an image whether it could take over state of this version.
const CHECK_VARIABLE: &str = "FERRICORN_INTERNAL_CHECK";
/// Rises with every change to [`State`], to the supervisor's own types, to what stands where in shared
/// memory, and to the messages between the master and its workers.
const STATE_VERSION: u32 = 5;

/// What one image leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    supervisor: Supervisor,
    listeners: Handed,
    counters: i32,
    rings: [i32; 2],
    kids: Vec<HandedKid>,
    armed: SlotSet,
    pidfile: Option<(PathBuf, i32)>,
    victims: Victims,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedKid {
    id: ChildId,
    pid: i32,
    channel: i32,
    worker: Option<HandedWorker>,
    ring: Option<usize>,
    ended: bool,
    unsent: VecDeque<Order>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedWorker {
    slot: Slot,
    generation: Generation,
    board: i32,
    entries: usize,
}

/// [`State`] with its descriptors taken over.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(super) supervisor: Supervisor,
    pub(crate) listeners: Listeners,
    pub(crate) counters: SlotBoard,
    pub(crate) rings: Rings,
    pub(super) kids: Vec<Kid>,
    pub(super) armed: SlotSet,
    pub(crate) pidfile: Option<PidFile>,
    pub(super) victims: Victims,
}

/// Why this image was started.
#[derive(Debug)]
pub(crate) enum Start {
    /// To serve.
    Afresh,
    /// To say whether it could take over state of this version.
    Check { version: u32 },
    /// To take over.
    TakeOver(Box<Inheritance>),
}

/// Finds out why this image was started.
///
/// # Errors
/// When state was handed over that cannot be taken over.
pub(crate) fn start() -> io::Result<Start> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    if let Some(version) = number(CHECK_VARIABLE) {
        return Ok(Start::Check { version: u32::try_from(version).unwrap_or(0) });
    }
    match number(STATE_VARIABLE) {
        None => Ok(Start::Afresh),
        Some(descriptor) => {
            let mut text = String::new();
            File::from(exec::inherited(descriptor)?).read_to_string(&mut text)?;
            let state: State = serde_json::from_str(&text)?;
            Ok(Start::TakeOver(Box::new(state.take_over()?)))
        }
    }
}

/// Whether this image can take over state of that version.
pub(crate) fn can_take_over(version: u32) -> bool {
    version == STATE_VERSION
}

impl HandedWorker {
    fn take_over(self) -> io::Result<Worker> {
        let board = WorkerBoard::inherit(exec::inherited(self.board)?, self.entries)?;
        Ok(Worker { slot: self.slot, generation: self.generation, board: board.into() })
    }
}

impl State {
    fn take_over(self) -> io::Result<Inheritance> {
        let kid = |handed: HandedKid| {
            let channel = Channel::from(exec::inherited(handed.channel)?);
            let worker = handed.worker.map(HandedWorker::take_over).transpose()?;
            let mut kid = Kid::new(handed.id, handed.pid, channel, worker);
            (kid.ended, kid.ring, kid.unsent) = (handed.ended, handed.ring, handed.unsent);
            Ok::<_, io::Error>(kid)
        };
        let pidfile = self.pidfile.map(|(path, number)| {
            exec::inherited(number).map(|file| PidFile::inherit(path, File::from(file)))
        });
        Ok(Inheritance {
            supervisor: self.supervisor,
            listeners: Listeners::take_over(self.listeners)?,
            counters: SlotBoard::inherit(exec::inherited(self.counters)?)?,
            rings: Rings::inherit(exec::inherited(self.rings[0])?, exec::inherited(self.rings[1])?),
            kids: self.kids.into_iter().map(kid).collect::<io::Result<_>>()?,
            armed: self.armed,
            pidfile: pidfile.transpose()?,
            victims: self.victims,
        })
    }
}

impl<A: App> Master<A> {
    /// In a child: asks the binary on disk. Returns only when it cannot be executed.
    pub(super) fn check_new_binary(&self) -> i32 {
        let error = self.invocation.execute(CHECK_VARIABLE, &STATE_VERSION.to_string());
        tracing::error!("failed to execute {}: {error}", self.invocation.path().display());
        CANNOT_EXECUTE
    }

    /// Executes the binary on disk in place of this image. Returns only when that fails; then nothing
    /// has changed.
    pub(super) fn replace_image(&self) -> io::Error {
        // Until the new image has handlers, and for good if it comes: they are pending there.
        let blocked = Blocked::all();
        let error = match self.hand_over() {
            Ok(state) => match exec::keep(&state) {
                Ok(number) => self.invocation.execute(STATE_VARIABLE, &number.to_string()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.keep_no_more();
        drop(blocked);
        error
    }

    fn hand_over(&self) -> io::Result<File> {
        let worker = |worker: &Worker| {
            Ok::<_, io::Error>(HandedWorker {
                slot: worker.slot,
                generation: worker.generation,
                board: exec::keep(&*worker.board)?,
                entries: worker.board.entries(),
            })
        };
        let kid = |kid: &Kid| {
            Ok(HandedKid {
                id: kid.id,
                pid: kid.pid,
                channel: exec::keep(&kid.channel)?,
                worker: kid.worker.as_ref().map(worker).transpose()?,
                ring: kid.ring,
                ended: kid.ended,
                unsent: kid.unsent.clone(),
            })
        };
        let pidfile = self.pidfile.as_ref().map(|pidfile| {
            exec::keep(pidfile.file()).map(|number| (pidfile.path().to_owned(), number))
        });
        let [memory, bell] = self.rings.descriptors();
        let state = State {
            version: STATE_VERSION,
            supervisor: self.supervisor.clone(),
            listeners: self.listeners.hand_over()?,
            counters: exec::keep(&*self.counters)?,
            rings: [exec::keep(&memory)?, exec::keep(&bell)?],
            kids: self.kids.iter().map(kid).collect::<io::Result<_>>()?,
            armed: self.armed,
            pidfile: pidfile.transpose()?,
            victims: self.victims.clone(),
        };
        exec::memory_file("ferricorn-state", serde_json::to_string(&state)?.as_bytes())
    }

    fn keep_no_more(&self) {
        self.listeners.keep_no_more();
        exec::keep_no_more(&*self.counters);
        self.rings.descriptors().iter().for_each(exec::keep_no_more);
        for kid in &self.kids {
            exec::keep_no_more(&kid.channel);
            kid.worker.iter().for_each(|worker| exec::keep_no_more(&*worker.board));
        }
        self.pidfile.iter().for_each(|pidfile| exec::keep_no_more(pidfile.file()));
    }
}

/// What a shell answers for a command that it cannot execute.
const CANNOT_EXECUTE: i32 = 126;
