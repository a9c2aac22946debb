//! The binary on disk takes over in place: same pid, same children, same sockets.
//!
//! Before that it is asked, as a child, whether it could: it reads the configuration, opens the logs,
//! reads what it would be handed, says through its channel that it could, and ends well. Any other
//! program may end well, too; none says so. Then this image blocks every signal, writes what it knows
//! to a file in memory, lets the descriptors live, and executes the path that it was started by. The
//! new image is an ordinary start that finds this file: it takes over the workers, and replaces them as on
//! a reload.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::lasting::{HandedLasting, Lasting};
use super::{Master, SIGNALS};
use crate::access_format::one_line;
use crate::config::{CHECK_VARIABLE, STATE_VARIABLE};
use crate::embed::App;
use crate::ids::Generation;
use crate::logging::journal::{self, Journal};
use crate::supervisor::event::Event;
use crate::sys::channel::{self, Lower};
use crate::sys::exec::{self, FileId, Handover, Invocation};
use crate::sys::fork::{self, Blocked, InChild, SingleThreaded};
use crate::sys::{process, signals};
use crate::wire::Report;

/// Names the descriptor that it answers through.
const ANSWER_VARIABLE: &str = "FERRICORN_INTERNAL_ANSWER";
/// Says that the server goes on without the terminal that it was started at. `execve` gives `HUP` its
/// default effect, so that the next image cannot see it.
const TERMINAL_VARIABLE: &str = "FERRICORN_INTERNAL_NOHUP";
/// Rises with every change to [`State`], to the supervisor's own types, to the messages between the
/// master and its children, and to what lies where in the memory that they share.
const STATE_VERSION: u32 = 23;

/// The state that one image leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    lasting: HandedLasting,
    former: Former,
}

/// The part of the state that the next image uses together with what it finds itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Former {
    /// The command of the next upgrade; `None` when it is no text.
    pub(crate) path: Option<String>,
    /// The configurations in use, as texts of files.
    pub(crate) configs: BTreeMap<Generation, String>,
    pub(crate) journal: Journal,
}

/// Why this image was started.
#[derive(Debug)]
pub(crate) enum Start {
    /// To serve.
    Afresh,
    /// To say whether it could take over.
    Check(Question),
    /// To take over.
    TakeOver(Box<Lasting>, Former),
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
        (None, Some(state)) => {
            let State { version: _, lasting, former } = State::read(state)?;
            Ok(Start::TakeOver(Box::new(Lasting::take_over(lasting)?), former))
        }
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
            let state = self.hand_over(&mut Handover::default())?;
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
        let failed = self.lasting.supervisor.is_upgrading().then(|| self.replace_image());
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
        let mut handover = Handover::default();
        let handed = self.hand_over(&mut handover).and_then(|state| {
            handover.keep()?;
            Ok((exec::keep(&state)?, state))
        });
        let error = match handed {
            Ok((number, _open)) => {
                let state = (STATE_VARIABLE, number.to_string());
                let terminal = (TERMINAL_VARIABLE, "1".to_owned());
                let count = 1 + usize::from(self.terminal.is_survived);
                self.invocation.execute(&[state, terminal][..count])
            }
            Err(error) => error,
        };
        format!("failed to execute {path}: {error}")
    }

    /// Returns the state in a file in memory.
    fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> io::Result<File> {
        let configs = self.configs.iter();
        let former = Former {
            path: self.invocation.path().to_str().map(str::to_owned),
            configs: configs.map(|(number, config)| (*number, config.hand_over())).collect(),
            journal: journal::read(Journal::clone),
        };
        let lasting = self.lasting.hand_over(handover);
        let state = State { version: STATE_VERSION, lasting, former };
        exec::memory_file("ferricorn-state", &serde_json::to_vec(&state)?)
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
