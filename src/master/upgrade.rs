//! The binary on disk takes over in place: same pid, same children, same sockets.
//!
//! Before that it is asked, as a child, whether it could: it reads the configuration, opens the logs,
//! reads what it would be handed, says through its channel that it could, and ends well. Any other
//! program may end well, too; none says so. Then this image blocks every signal, writes what it knows
//! to a file in memory, lets the descriptors live, and executes the path that it was started by. The
//! new image is an ordinary start that finds the file instead of an empty desk; it adopts the workers,
//! and replaces them as on a reload.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::kid::{Kid, Worker};
use super::pidfile::PidFile;
use super::victims::Victims;
use super::{Master, SIGNALS};
use crate::config::AtStart;
use crate::embed::App;
use crate::ids::{ChildId, Generation, Slot, SlotSet};
use crate::listeners::{Handed, Listeners};
use crate::logging::Rings;
use crate::scoreboard::{SlotBoard, WorkerBoard};
use crate::supervisor::Supervisor;
use crate::supervisor::event::Event;
use crate::sys::channel::Channel;
use crate::sys::exec::{self, FileId, Invocation};
use crate::sys::fork::{Blocked, InChild, SingleThreaded};
use crate::sys::{process, signals};
use crate::wire::{Order, Report};

/// Names the descriptor with the state, for an image that takes over, or that could.
const STATE_VARIABLE: &str = "FERRICORN_INTERNAL_STATE";
/// Asks an image whether it could take over state of this version.
const CHECK_VARIABLE: &str = "FERRICORN_INTERNAL_CHECK";
/// Names the descriptor that it answers through.
const ANSWER_VARIABLE: &str = "FERRICORN_INTERNAL_ANSWER";
/// Rises with every change to [`State`], to the supervisor's own types, to the messages between the
/// master and its children, and to what lies where in the memory that they share.
const STATE_VERSION: u32 = 7;

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
    ready: Option<i32>,
    /// What is executed at the next upgrade; `None` when it is no text.
    path: Option<String>,
    /// The configurations that somebody uses, as texts of files.
    configs: BTreeMap<Generation, String>,
    started: AtStart,
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
    pub(crate) ready: Option<File>,
    pub(crate) path: Option<PathBuf>,
    pub(super) configs: BTreeMap<Generation, String>,
    pub(super) started: AtStart,
}

/// Why this image was started.
#[derive(Debug)]
pub(crate) enum Start {
    /// To serve.
    Afresh,
    /// To say whether it could take over.
    Check(Question),
    /// To take over.
    TakeOver(Box<Inheritance>),
}

/// Whether this image could take over.
#[derive(Debug)]
pub(crate) struct Question {
    version: u32,
    state: Option<i32>,
    answer: Option<i32>,
}

/// The check of the binary on disk that was begun last.
#[derive(Debug)]
pub(super) struct Check {
    /// The file that is checked.
    file: Option<FileId>,
    /// What it says on stderr.
    said: File,
}

/// Bytes that a check may say. Its stderr is full then.
const SAID_MAX: usize = 64 << 10;
/// How much of it the log quotes, in characters.
const QUOTE_MAX: usize = 1000;

/// Finds out why this image was started. What the image before has left in the environment is not for
/// the children of this one.
///
/// # Errors
/// When state was handed over that cannot be taken over.
pub(crate) fn start(alone: &SingleThreaded) -> io::Result<Start> {
    let variables = [CHECK_VARIABLE, STATE_VARIABLE, ANSWER_VARIABLE];
    let [check, state, answer] =
        variables.map(|name| std::env::var(name).ok()?.parse::<i32>().ok());
    process::remove_from_environment(alone, &variables);
    match (check, state) {
        (Some(version), state) => {
            let version = u32::try_from(version).unwrap_or(0);
            Ok(Start::Check(Question { version, state, answer }))
        }
        (None, None) => Ok(Start::Afresh),
        (None, Some(state)) => Ok(Start::TakeOver(Box::new(State::read(state)?.take_over()?))),
    }
}

impl Question {
    /// Says whether this image could take over, once everything else is found to be right.
    ///
    /// # Errors
    /// Why it could not, in words.
    pub(crate) fn answer(self) -> Result<(), String> {
        let Self { version, state, answer } = self;
        if version != STATE_VERSION {
            return Err(format!(
                "this binary cannot take over state of version {version}: it needs a restart"
            ));
        }
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let answered = state.ok_or_else(missing).and_then(State::read).and_then(|_| {
            let channel = Channel::from(exec::inherited(answer.ok_or_else(missing)?)?);
            channel.send(&Report::Ready.encode(), None)
        });
        answered.map_err(|error| format!("this binary cannot take over the state: {error}"))
    }
}

impl Check {
    /// # Errors
    /// What memfd_create(2) says.
    pub(super) fn begin(invocation: &Invocation) -> io::Result<Self> {
        let said = exec::notepad("ferricorn-check", SAID_MAX)?;
        Ok(Self { file: invocation.file().ok(), said })
    }

    /// What it has said, in one line.
    pub(super) fn said(&self) -> Option<String> {
        let mut bytes = vec![0; SAID_MAX];
        let length = self.said.read_at(&mut bytes, 0).unwrap_or(0);
        // What was not written is zero.
        let end = bytes[..length].iter().position(|byte| *byte == 0).unwrap_or(length);
        let text = String::from_utf8_lossy(&bytes[..end]);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
        (!lines.is_empty()).then(|| lines.join("; ").chars().take(QUOTE_MAX).collect())
    }
}

impl HandedWorker {
    fn take_over(self) -> io::Result<Worker> {
        let board = WorkerBoard::inherit(exec::inherited(self.board)?, self.entries)?;
        Ok(Worker { slot: self.slot, generation: self.generation, board: board.into() })
    }
}

impl State {
    /// # Errors
    /// `InvalidData` when it is another version's.
    fn read(descriptor: i32) -> io::Result<Self> {
        let mut text = Vec::new();
        File::from(exec::inherited(descriptor)?).read_to_end(&mut text)?;
        Self::parse(&text)
    }

    /// # Errors
    /// As [`State::read`].
    fn parse(text: &[u8]) -> io::Result<Self> {
        let state: Self = serde_json::from_slice(text)?;
        if state.version != STATE_VERSION {
            let error = format!("it is of version {}", state.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(state)
    }

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
            ready: self.ready.map(exec::inherited).transpose()?.map(File::from),
            path: self.path.map(PathBuf::from),
            configs: self.configs,
            started: self.started,
        })
    }
}

impl<A: App> Master<A> {
    /// In a child: asks the binary on disk. Returns only when it cannot be executed.
    pub(super) fn check_new_binary(&self, child: InChild, channel: &Channel) -> i32 {
        let error = self.ask_new_binary(child, channel);
        // It is what the log quotes.
        let _full = writeln!(
            io::stderr(),
            "failed to execute {}: {error}",
            self.invocation.path().display()
        );
        CANNOT_EXECUTE
    }

    fn ask_new_binary(&self, child: InChild, channel: &Channel) -> io::Error {
        let asked = || {
            if let Some(check) = &self.check {
                exec::replace_stderr(&check.said)?;
            }
            // It is shown what it would be handed, and none of it is given to it.
            let state = self.hand_over()?;
            self.keep_no_more();
            // From here on signals end it: the master's handlers would write to the master's pipe.
            self.signals.forget();
            signals::reset(&SIGNALS)?;
            child.unblock_signals();
            Ok((exec::keep(&state)?, exec::keep(channel)?, state))
        };
        match asked() {
            Ok((state, answer, _open)) => self.invocation.execute(&[
                (CHECK_VARIABLE, STATE_VERSION.to_string()),
                (STATE_VARIABLE, state.to_string()),
                (ANSWER_VARIABLE, answer.to_string()),
            ]),
            Err(error) => error,
        }
    }

    /// Executes the binary on disk in place of this image, once everything is told that signals have
    /// said by now: what has been caught would be lost with the pipe of this image. What comes later
    /// is pending when the new image lets signals in. Returns when one of them took the order back, or
    /// when it cannot be executed; then nothing has changed.
    pub(super) fn upgrade(&mut self) {
        let blocked = Blocked::all();
        let caught = self.signals.take().unwrap_or_default();
        self.heed(caught);
        self.step(Event::Tick);
        let failed = self.supervisor.is_upgrading().then(|| self.replace_image());
        drop(blocked);
        if let Some(reason) = failed {
            self.step(Event::UpgradeFailed { reason });
        }
    }

    /// Returns only when it fails, and says why.
    fn replace_image(&mut self) -> String {
        let path = self.invocation.path().display().to_string();
        let checked = self.check.take().and_then(|check| check.file);
        if checked.is_none() || checked != self.invocation.file().ok() {
            return format!("{path} has changed since its check");
        }
        let handed = self.hand_over().and_then(|state| Ok((exec::keep(&state)?, state)));
        let error = match handed {
            Ok((number, _open)) => self.invocation.execute(&[(STATE_VARIABLE, number.to_string())]),
            Err(error) => error,
        };
        self.keep_no_more();
        format!("failed to execute {path}: {error}")
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
        let ready = self.ready.as_ref().map(exec::keep);
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
            ready: ready.transpose()?,
            path: self.invocation.path().to_str().map(str::to_owned),
            configs: self.configs.iter().map(|(it, config)| (*it, config.hand_over())).collect(),
            started: self.started.clone(),
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
        self.ready.iter().for_each(exec::keep_no_more);
    }
}

/// What a shell answers for a command that it cannot execute.
const CANNOT_EXECUTE: i32 = 126;

#[cfg(test)]
#[path = "handed_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod odd_bytes;
