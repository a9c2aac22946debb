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
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::handle::{ChildHandle, Worker};
use super::metrics::Metrics;
use super::pidfile::PidFile;
use super::tls::{HandedTls, Tls};
use super::victims::Victims;
use super::{Master, SIGNALS, now};
use crate::access_format::one_line;
use crate::config::{AtStart, CHECK_VARIABLE, STATE_VARIABLE};
use crate::control::{Control, HandedControl};
use crate::embed::App;
use crate::ids::{ChildId, Generation, Slot, SlotSet};
use crate::listeners::{Handed, Listeners};
use crate::logging::Rings;
use crate::logging::journal::{self, Journal};
use crate::scoreboard::{SlotBoard, WorkerBoard};
use crate::supervisor::Supervisor;
use crate::supervisor::event::Event;
use crate::sys::channel::{self, Lower, Upper};
use crate::sys::exec::{self, FileId, Invocation};
use crate::sys::fork::{self, Blocked, InChild, SingleThreaded};
use crate::sys::{process, signals};
use crate::time::Instant;
use crate::wire::{Order, Report};

/// Names the descriptor that it answers through.
const ANSWER_VARIABLE: &str = "FERRICORN_INTERNAL_ANSWER";
/// Says that the server goes on without the terminal that it was started at. `execve` gives `HUP` its
/// default effect, so that the next image cannot see it.
const TERMINAL_VARIABLE: &str = "FERRICORN_INTERNAL_NOHUP";
/// Rises with every change to [`State`], to the supervisor's own types, to the messages between the
/// master and its children, and to what lies where in the memory that they share.
const STATE_VERSION: u32 = 19;

/// The state that one image leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    supervisor: Supervisor,
    listeners: Handed,
    tls: HandedTls,
    counters: i32,
    metrics: i32,
    /// The listener of the stats process, with the address that the configuration names.
    stats: Option<(SocketAddr, i32)>,
    /// The memory and the bell of each.
    rings: Vec<[i32; 2]>,
    handles: Vec<HandedChild>,
    armed: SlotSet,
    pidfile: Option<(PathBuf, i32)>,
    victims: Victims,
    ready: Option<i32>,
    /// The command of the next upgrade; `None` when it is no text.
    path: Option<String>,
    /// The configurations in use, as texts of files.
    configs: BTreeMap<Generation, String>,
    started: AtStart,
    control: HandedControl,
    journal: Journal,
    /// When the server was started, in milliseconds since 1970.
    began: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedChild {
    id: ChildId,
    pid: i32,
    /// Down and up.
    channel: [i32; 2],
    worker: Option<HandedWorker>,
    ring: Option<usize>,
    ended_at: Option<Instant>,
    is_unheard: bool,
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
    pub(super) tls: Tls,
    pub(crate) counters: SlotBoard,
    pub(crate) metrics: Metrics,
    pub(crate) rings: Rings,
    pub(super) handles: Vec<ChildHandle>,
    pub(super) armed: SlotSet,
    pub(crate) pidfile: Option<PidFile>,
    pub(super) victims: Victims,
    pub(crate) ready: Option<File>,
    pub(crate) path: Option<PathBuf>,
    pub(super) configs: BTreeMap<Generation, String>,
    pub(super) started: AtStart,
    pub(super) control: Control,
    pub(crate) journal: Journal,
    pub(super) began: SystemTime,
}

impl Inheritance {
    /// The settings that take effect at a start only, as they are in force.
    pub(crate) fn started(&self) -> &AtStart {
        &self.started
    }
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

/// The question to an image: could it take over?
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
    /// Its words on stderr.
    said: File,
}

/// Bytes that a check may say. Its stderr is full then.
const SAID_MAX: usize = 64 << 10;
/// The length of the part that the log quotes, in characters.
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

/// Returns true if the image before this one was to go on without its terminal.
pub(crate) fn take_terminal_flag(alone: &SingleThreaded) -> bool {
    let is_set = std::env::var_os(TERMINAL_VARIABLE).is_some();
    process::remove_from_environment(alone, &[TERMINAL_VARIABLE]);
    is_set
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
            channel::send_up(
                &exec::inherited(answer.ok_or_else(missing)?)?,
                &Report::Ready.encode(),
            )
        });
        answered.map_err(|error| format!("this binary cannot take over the state: {error}"))
    }
}

impl Check {
    /// # Errors
    /// The error of memfd_create(2).
    pub(super) fn begin(invocation: &Invocation) -> io::Result<Self> {
        let said = exec::notepad("ferricorn-check", SAID_MAX)?;
        Ok(Self { file: invocation.file().ok(), said })
    }

    /// Returns its words, in one line.
    pub(super) fn said(&self) -> Option<String> {
        let mut bytes = vec![0; SAID_MAX];
        let length = self.said.read_at(&mut bytes, 0).unwrap_or(0);
        // What was not written is zero.
        let end = bytes[..length].iter().position(|byte| *byte == 0).unwrap_or(length);
        let line = one_line(&String::from_utf8_lossy(&bytes[..end]));
        (!line.is_empty()).then(|| line.chars().take(QUOTE_MAX).collect())
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
        let handle = |handed: HandedChild| {
            let [down, up] = handed.channel;
            let channel = Upper::inherit([exec::inherited(down)?, exec::inherited(up)?]);
            let worker = handed.worker.map(HandedWorker::take_over).transpose()?;
            let mut handle = ChildHandle::new(handed.id, handed.pid, channel, worker);
            (handle.ended_at, handle.is_unheard) = (handed.ended_at, handed.is_unheard);
            (handle.ring, handle.unsent) = (handed.ring, handed.unsent);
            Ok::<_, io::Error>(handle)
        };
        let ring = |[memory, bell]: [i32; 2]| {
            Ok::<_, io::Error>([exec::inherited(memory)?, exec::inherited(bell)?])
        };
        let rings: Vec<_> = self.rings.into_iter().map(ring).collect::<io::Result<_>>()?;
        let pidfile = self.pidfile.map(|(path, number)| {
            exec::inherited(number).map(|file| PidFile::inherit(path, File::from(file)))
        });
        let stats =
            self.stats.map(|(bind, number)| Ok::<_, io::Error>((bind, exec::inherited(number)?)));
        Ok(Inheritance {
            supervisor: self.supervisor,
            listeners: Listeners::take_over(self.listeners)?,
            tls: Tls::take_over(self.tls)?,
            counters: SlotBoard::inherit(exec::inherited(self.counters)?)?,
            metrics: Metrics::inherit(exec::inherited(self.metrics)?, stats.transpose()?)?,
            rings: Rings::inherit(rings),
            handles: self.handles.into_iter().map(handle).collect::<io::Result<_>>()?,
            armed: self.armed,
            pidfile: pidfile.transpose()?,
            victims: self.victims,
            ready: self.ready.map(exec::inherited).transpose()?.map(File::from),
            path: self.path.map(PathBuf::from),
            configs: self.configs,
            started: self.started,
            control: Control::take_over(now(), self.control)?,
            journal: self.journal,
            began: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_millis(self.began))
                .unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }
}

impl<A: App> Master<A> {
    /// In a child: asks the binary on disk. Returns only when it cannot be executed.
    pub(super) fn check_new_binary(&self, child: InChild, channel: &Lower) -> i32 {
        let error = self.ask_new_binary(child, channel);
        // It is what the log quotes.
        let _full = writeln!(
            io::stderr(),
            "failed to execute {}: {error}",
            self.invocation.path().display()
        );
        CANNOT_EXECUTE
    }

    fn ask_new_binary(&self, child: InChild, channel: &Lower) -> io::Error {
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
            let [down, up] = channel.descriptors();
            let numbers = (exec::keep(&state)?, exec::keep(up)?);
            // The last one is the caller's to drop.
            fork::close_all_but(&child, &[numbers.0, numbers.1, down.as_raw_fd()])?;
            child.unblock_signals();
            Ok((numbers.0, numbers.1, state))
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
        self.take_signals();
        self.heed();
        self.step(Event::Tick);
        let failed = self.supervisor.is_upgrading().then(|| self.replace_image());
        drop(blocked);
        if let Some(reason) = failed {
            self.step(Event::UpgradeFailed { reason });
        }
    }

    /// Returns only when it fails, and says why.
    fn replace_image(&mut self) -> String {
        // What it has not published by now would be lost.
        self.publish_metrics();
        let path = self.invocation.path().display().to_string();
        let checked = self.check.take().and_then(|check| check.file);
        if checked.is_none() || checked != self.invocation.file().ok() {
            return format!("{path} has changed since its check");
        }
        let handed = self.hand_over().and_then(|state| Ok((exec::keep(&state)?, state)));
        let error = match handed {
            Ok((number, _open)) => {
                let state = (STATE_VARIABLE, number.to_string());
                let terminal = (TERMINAL_VARIABLE, "1".to_owned());
                let count = 1 + usize::from(self.terminal.is_survived);
                self.invocation.execute(&[state, terminal][..count])
            }
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
        let handle = |handle: &ChildHandle| {
            let [down, up] = handle.channel.descriptors();
            Ok(HandedChild {
                id: handle.id,
                pid: handle.pid(),
                channel: [exec::keep(down)?, exec::keep(up)?],
                worker: handle.worker.as_ref().map(worker).transpose()?,
                ring: handle.ring,
                ended_at: handle.ended_at,
                is_unheard: handle.is_unheard,
                unsent: handle.unsent.clone(),
            })
        };
        let pidfile = self.pidfile.as_ref().map(|pidfile| {
            exec::keep(pidfile.file()).map(|number| (pidfile.path().to_owned(), number))
        });
        let ready = self.ready.as_ref().map(exec::keep);
        let stats = self.metrics.listener();
        let stats = stats.map(|(bind, listener)| Ok::<_, io::Error>((bind, exec::keep(listener)?)));
        let rings = self.rings.descriptors();
        let rings = rings.map(|[memory, bell]| Ok([exec::keep(&memory)?, exec::keep(&bell)?]));
        let state = State {
            version: STATE_VERSION,
            supervisor: self.supervisor.clone(),
            listeners: self.listeners.hand_over()?,
            tls: self.tls.hand_over()?,
            counters: exec::keep(&*self.counters)?,
            metrics: exec::keep(self.metrics.memory())?,
            stats: stats.transpose()?,
            rings: rings.collect::<io::Result<_>>()?,
            handles: self.handles.iter().map(handle).collect::<io::Result<_>>()?,
            armed: self.armed,
            pidfile: pidfile.transpose()?,
            victims: self.victims.clone(),
            ready: ready.transpose()?,
            path: self.invocation.path().to_str().map(str::to_owned),
            configs: self.configs.iter().map(|(it, config)| (*it, config.hand_over())).collect(),
            started: self.started.clone(),
            control: self.control.hand_over()?,
            journal: journal::read(Journal::clone),
            began: self
                .began
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)),
        };
        exec::memory_file("ferricorn-state", serde_json::to_string(&state)?.as_bytes())
    }

    fn keep_no_more(&self) {
        self.listeners.keep_no_more();
        self.tls.keep_no_more();
        exec::keep_no_more(&*self.counters);
        exec::keep_no_more(self.metrics.memory());
        self.metrics.listener().inspect(|(_, listener)| exec::keep_no_more(*listener));
        self.rings.descriptors().flatten().for_each(|descriptor| exec::keep_no_more(&descriptor));
        for handle in &self.handles {
            handle.channel.descriptors().into_iter().for_each(exec::keep_no_more);
            handle.worker.iter().for_each(|worker| exec::keep_no_more(&*worker.board));
        }
        self.pidfile.iter().for_each(|pidfile| exec::keep_no_more(pidfile.file()));
        self.ready.iter().for_each(exec::keep_no_more);
        self.control.keep_no_more();
    }
}

/// The exit code of a shell for a command that it cannot execute.
const CANNOT_EXECUTE: i32 = 126;

#[cfg(test)]
#[path = "handed_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod odd_bytes;
