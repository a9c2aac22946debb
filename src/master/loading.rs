//! The slow part of a reload, in a process of its own: host names are looked up and log files are opened
//! there, while the master reaps children and heeds signals.
//!
//! # Why
//! A resolver that is silent takes 10 s, and a file system that is away any time. The process has the
//! user of the workers, so its answer is data: the master believes addresses that have the port of a
//! name that it asked for, and a reason for the log.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::events::MasterEvent;
use super::perform::reload_error;
use super::{Master, SIGNALS, now, policy};
use crate::access_format::one_line;
use crate::config::Error;
use crate::config::{Answers, Bind, BindAddress, Config, Draft, LogTarget};
use crate::embed::App;
use crate::ids::Generation;
use crate::logging;
use crate::supervisor::event::Event;
use crate::supervisor::policy::Policy;
use crate::sys::fork::{self, InChild, SingleThreaded};
use crate::sys::wait::Child;
use crate::sys::{process, signals, title};
use crate::time::Instant;

/// Bytes of an answer, and characters of a text in it, that are read.
const ANSWER_MAX: usize = 64 << 10;
const TEXT_MAX: usize = 1000;
/// Addresses that a name may stand for.
const ADDRESSES_MAX: usize = 64;

/// A configuration that is being loaded.
#[derive(Debug)]
pub(super) struct Loading {
    generation: Generation,
    draft: Draft,
    process: Child,
    reader: PipeReader,
    answer: Vec<u8>,
    deadline: Instant,
}

/// The answer of the process.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    names: Vec<(String, Result<Vec<SocketAddr>, String>)>,
    /// Why a log file could not be opened.
    logs: Option<String>,
}

impl Loading {
    /// By when it must have answered.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl AsFd for Loading {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.process.signal(signals::KILL);
    }
}

impl<A: App> Master<A> {
    /// Reads a further configuration, and opens what it needs, at once or after a process has answered.
    pub(super) fn load(&mut self, generation: Generation) -> Option<Event> {
        let draft = self.config().draft();
        if draft.names().is_empty() {
            match self.judge(&draft, &Answers::new()) {
                Err(error) => return Some(Event::Loaded(Err(reload_error(&error)))),
                Ok(config) if !has_files(&config) => {
                    return Some(Event::Loaded(self.open_with(generation, config)));
                }
                Ok(_) => {}
            }
        }
        match self.begin_loading(generation, draft) {
            Ok(loading) => {
                self.loading = Some(loading);
                None
            }
            Err(error) => {
                Some(Event::Loaded(Err(format!("failed to fork the loading process: {error}"))))
            }
        }
    }

    /// The configuration of the files, as far as it may take effect.
    fn judge(&self, draft: &Draft, answers: &Answers) -> Result<Config, Error> {
        let mut config = draft.finish(Some(self.config()), answers)?;
        config.keep_in_force(&self.lasting.started)?;
        if config.program.is_set() != self.config().program.is_set() {
            // A program shares one socket with its siblings; workers have one each.
            let why = "cannot change between a program and the application at a reload; restart";
            return Err(Error::Config(config.placed("program.command", why).into()));
        }
        Ok(config)
    }

    fn begin_loading(&mut self, generation: Generation, draft: Draft) -> io::Result<Loading> {
        let alone = SingleThreaded::prove().map_err(|names| io::Error::other(names.join(", ")))?;
        let deadline = now().after(self.config().boot_timeout);
        let (reader, writer) = io::pipe()?;
        let master = process::pid();
        let pid = fork::spawn(&alone, |child| {
            title::show(&alone, A::NAME, &format!("load (generation {generation})"), &self.name);
            self.answer(child, &draft, writer, master)
        })?;
        let process = Child::new(pid);
        let answer = Vec::new();
        Ok(Loading { generation, draft, process, reader, answer, deadline })
    }

    /// In a child: finds out, as the user of the workers, and answers; the exit code.
    fn answer(
        &mut self,
        child: InChild,
        draft: &Draft,
        mut writer: PipeWriter,
        master: i32,
    ) -> i32 {
        logging::have_no_ring();
        process::extend_name("load");
        let begun = self
            .shed(&child, &[writer.as_raw_fd()])
            // Every signal ends it.
            .and_then(|()| signals::reset(&SIGNALS))
            .and_then(|()| self.identity.assume())
            // After the change of user, which clears it (prctl(2), PR_SET_PDEATHSIG).
            .and_then(|()| process::die_with_parent(signals::KILL));
        child.unblock_signals();
        if process::parent_pid() != master {
            return FAILED;
        }
        let answer = match begun {
            Ok(()) => self.find_out(draft),
            Err(error) => Answer { logs: Some(error.to_string()), ..Answer::default() },
        };
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        i32::from(writer.write_all(&text).is_err())
    }

    fn find_out(&self, draft: &Draft) -> Answer {
        let answers = draft.look_up();
        let addresses = |binds: &Vec<Bind>| {
            let tcp = |bind: &Bind| match &bind.address {
                BindAddress::Tcp(address) => Some(*address),
                BindAddress::Unix(_) | BindAddress::Fd(_) => None,
            };
            binds.iter().filter_map(tcp).collect()
        };
        let plain = |(name, answer): &(String, Result<Vec<Bind>, String>)| {
            (name.clone(), answer.as_ref().map(addresses).map_err(Clone::clone))
        };
        // What else is wrong the master finds itself.
        let config = self.judge(draft, &answers).ok();
        let entered = self.home.as_ref().map_or(Ok(()), std::env::set_current_dir);
        let logs = config.filter(|_| entered.is_ok());
        let logs = logs.and_then(|config| logging::open_each(&config.log).err());
        Answer { names: answers.iter().map(plain).collect(), logs }
    }

    /// Reads a part of the answer, and opens what the configuration needs when that is whole.
    pub(super) fn take_answer(&mut self, is_readable: bool) {
        let Some(loading) = &mut self.loading else { return };
        if !self.lasting.supervisor.is_loading() {
            // A stop has ended the reload.
            self.loading = None;
            return;
        }
        let ended = if is_readable { loading.read() } else { None };
        let is_late = loading.deadline <= now();
        let answer = match ended {
            None if is_late => {
                Err("host names and log files took longer than boot_timeout".to_owned())
            }
            None => return,
            Some(answer) => answer.and_then(|answer| checked(&loading.draft.names(), answer)),
        };
        let Some(loading) = self.loading.take() else { return };
        let loaded = answer.and_then(|answers| {
            let config = self.judge(&loading.draft, &answers);
            let config = config.map_err(|error| reload_error(&error))?;
            self.open_with(loading.generation, config)
        });
        self.step(Event::Loaded(loaded));
    }

    /// Opens what a further configuration needs, and keeps it.
    fn open_with(&mut self, generation: Generation, mut config: Config) -> Result<Policy, String> {
        let before = std::env::current_dir().ok();
        let entered = self.home.as_ref().map_or(Ok(()), |home| {
            std::env::set_current_dir(home)
                .map_err(|error| format!("cannot enter the folder {}: {error}", home.display()))
        });
        config.settle(std::env::current_dir().ok());
        let opened = entered.and_then(|()| self.open_for(generation, &config));
        if let Err(reason) = opened {
            // A folder that is gone by now is missed by the next generation, not by this one.
            let _gone = before.map(std::env::set_current_dir);
            self.lasting.metrics.close_others(self.configs.values().map(Arc::as_ref));
            return Err(reason);
        }
        for key in config.not_in_force(&self.lasting.started) {
            logging::emit(&MasterEvent::Deferred { key: key.to_string() });
        }
        let loaded = policy(&config);
        self.configs.insert(generation, Arc::new(config));
        Ok(loaded)
    }
}

/// Exit code of a process that could not begin.
const FAILED: i32 = 1;

impl Loading {
    /// Reads what has come; the answer at its end.
    fn read(&mut self) -> Option<Result<Answer, String>> {
        let mut bytes = [0; 4096];
        let died = || "the process that looks up names and opens log files has died".to_owned();
        match self.reader.read(&mut bytes) {
            Ok(0) => Some(serde_json::from_slice(&self.answer).map_err(|_| died())),
            Ok(length) if self.answer.len() + length <= ANSWER_MAX => {
                self.answer.extend_from_slice(&bytes[..length]);
                None
            }
            Ok(_) | Err(_) => Some(Err(died())),
        }
    }
}

/// Returns true if a log goes to a file.
fn has_files(config: &Config) -> bool {
    let is_file = |target: &LogTarget| matches!(target, LogTarget::File(_));
    is_file(&config.log.access) || is_file(&config.log.error)
}

/// The answers to these names, each with the port that was asked for.
///
/// # Errors
/// The reason why a log file could not be opened; that the answers are none.
fn checked(names: &[&str], answer: Answer) -> Result<Answers, String> {
    let shown = |text: &str| one_line(text).chars().take(TEXT_MAX).collect::<String>();
    if let Some(reason) = answer.logs {
        return Err(shown(&reason));
    }
    let find = |name: &&str| {
        let found = answer.names.iter().find(|(other, _)| other == name);
        let port = name.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let is_right = |addresses: &[SocketAddr]| {
            (1..=ADDRESSES_MAX).contains(&addresses.len())
                && addresses.iter().all(|address| Some(address.port()) == port)
        };
        let found = match found.map(|(_, found)| found) {
            Some(Ok(addresses)) if is_right(addresses) => {
                let bind = |address: &SocketAddr| Bind::found(name, BindAddress::Tcp(*address));
                Ok(addresses.iter().map(bind).collect())
            }
            Some(Err(reason)) => Err(shown(reason)),
            Some(Ok(_)) | None => return Err(format!("no addresses were found for {name:?}")),
        };
        Ok(((*name).to_owned(), found))
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        serde_json::from_str(text).expect("it has the form of an answer")
    }

    #[test]
    fn only_addresses_of_the_asked_port_are_believed() {
        let good = r#"{"names":[["a.test:80",{"Ok":["192.0.2.1:80","[2001:db8::1]:80"]}],
            ["admin=a.test:80",{"Ok":["192.0.2.1:80"]}],["x",{"Ok":[]}]]}"#;
        let names = ["a.test:80", "admin=a.test:80"];
        let found = checked(&names, answer(good)).expect("it answers what was asked");
        let address = |text: &str| BindAddress::Tcp(text.parse().unwrap());
        let binds = ["192.0.2.1:80", "[2001:db8::1]:80"].map(|text| Bind::from(address(text)));
        assert_eq!(found[0], (names[0].to_owned(), Ok(binds.to_vec())));
        let admin = Bind { name: Some("admin".to_owned()), address: address("192.0.2.1:80") };
        assert_eq!(found[1], (names[1].to_owned(), Ok(vec![admin])));
        for bad in [
            r#"{"names":[]}"#,
            r#"{"names":[["a.test:80",{"Ok":[]}]]}"#,
            r#"{"names":[["a.test:80",{"Ok":["192.0.2.1:80","192.0.2.1:22"]}]]}"#,
        ] {
            let refused = checked(&["a.test:80"], answer(bad)).expect_err(bad);
            assert_eq!(refused, "no addresses were found for \"a.test:80\"");
        }
        let many = vec!["\"192.0.2.1:80\""; ADDRESSES_MAX + 1].join(",");
        let many = format!(r#"{{"names":[["a.test:80",{{"Ok":[{many}]}}]]}}"#);
        checked(&["a.test:80"], answer(&many)).expect_err("no name has so many");
    }

    #[test]
    fn texts_of_an_answer_are_one_line_of_bounded_length() {
        let long = format!("a\\nb{}", "x".repeat(2000));
        let told = answer(&format!(r#"{{"names":[["a.test:80",{{"Err":"{long}"}}]]}}"#));
        let found = checked(&["a.test:80"], told).expect("it is an answer");
        let reason = found[0].1.clone().expect_err("it was an error");
        assert!(!reason.contains('\n') && reason.chars().count() == TEXT_MAX, "{reason}");
        let told = answer(&format!(r#"{{"names":[],"logs":"{long}"}}"#));
        assert!(!checked(&[], told).expect_err("a log").contains('\n'));
    }
}
