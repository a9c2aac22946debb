//! Questions and commands to a running server, over its control socket.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};

use super::running;
#[cfg(feature = "top")]
use super::top;
use super::{complain, prefixed, print, status, why};
use crate::config::ClientSettings;
use crate::config::sources::Sources;
use crate::control::{Conclusion, Problem, Reply, Request, Server, Status, WorkerCount};
use crate::embed::Program;
use crate::ids::Slot;

/// The events that show how far a command is.
const PROGRESS: [&str; 16] = [
    "reload_started",
    "reload_problem",
    "reload_delayed",
    "reload_succeeded",
    "process_forked",
    "worker_ready",
    "worker_exited",
    "workers_scaled",
    "workers_scale_refused",
    "worker_due",
    "server_upgraded",
    "setting_deferred",
    "stop_started",
    "fork_failed",
    "process_killed",
    "slots_failed",
];
/// The commands.
pub(super) const NAMES: &[&str] = &[
    "status",
    #[cfg(feature = "top")]
    "top",
    "reload",
    "upgrade",
    "restart",
    "scale",
    "stop",
    "reopen",
    "events",
    "why",
];
/// The time that a server takes to end after its last line.
const END: Duration = Duration::from_secs(30);

/// A question or a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    pub(super) request: Request,
    pub(super) shown: Shown,
    /// The answer is wanted as JSON.
    pub(super) json: bool,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// As it is.
    Whole,
    /// Of the events those about the ends of workers in this slot.
    Ends { slot: u16 },
    /// On a screen, again and again.
    #[cfg(feature = "top")]
    Screen { is_once: bool },
}

/// Returns true if the word is a command to a running server.
pub(super) fn is_one(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The commands to a running server.
pub(super) fn commands() -> Vec<Command> {
    let switch = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    let command = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).arg(switch("json", "Print JSON"))
    };
    vec![
        command("status", "Print the state of the running server and of each worker")
            .arg(switch("requests", "List the requests in hand")),
        #[cfg(feature = "top")]
        command("top", "Show the state of the running server, again each second")
            .arg(switch("once", "Print one screen, 80 columns wide, and exit")),
        command("reload", "Reload the configuration; exit 0 when the workers are replaced, else 1"),
        command(
            "upgrade",
            "Replace the program by the one on disk, in place; exit 0 when it serves",
        ),
        command("restart", "Replace the workers of these slots, one after the other")
            .arg(slots().num_args(0..).help("Slots; none: all")),
        command("scale", "Change the number of workers, and wait until they serve").arg(
            Arg::new("WORKERS")
                .required(true)
                .allow_hyphen_values(true)
                .value_parser(worker_count)
                .help("A number, or a change such as +1 or -1"),
        ),
        command("stop", "Stop the server, and wait until it is gone")
            .arg(switch("quick", "Do not wait for requests")),
        command("reopen", "Open the log files again by their paths"),
        command("events", "Print the last events of the server")
            .arg(switch("follow", "Go on with those that follow")),
        command("why", "Explain the last ends of workers in a slot").arg(slots().required(true)),
    ]
}

fn slots() -> Arg {
    Arg::new("SLOT").value_parser(value_parser!(u16).range(..i64::from(Slot::MAX)))
}

/// # Errors
/// The expectation that the text does not meet.
fn worker_count(text: &str) -> Result<WorkerCount, String> {
    let expected = |_| format!("expected 1 to {}, or a change such as +1 or -1", Slot::MAX);
    match text.starts_with(['+', '-']) {
        true => text.parse().map(WorkerCount::By).map_err(expected),
        false => text.parse().map(WorkerCount::To).map_err(expected),
    }
}

/// The question or command that the arguments are; `None` where they are another.
pub(super) fn inquiry(name: &str, matches: &ArgMatches) -> Option<Inquiry> {
    let request = match name {
        "status" => Request::Status { requests: matches.get_flag("requests") },
        "top" => Request::Status { requests: true },
        "reload" => Request::Reload,
        "upgrade" => Request::Upgrade,
        "restart" => Request::Restart {
            slots: matches.get_many::<u16>("SLOT").into_iter().flatten().copied().collect(),
        },
        "scale" => Request::Scale { workers: *matches.get_one::<WorkerCount>("WORKERS")? },
        "stop" => Request::Stop { quick: matches.get_flag("quick") },
        "reopen" => Request::Reopen,
        "events" => Request::Events { follow: matches.get_flag("follow") },
        "why" => Request::Events { follow: false },
        _ => return None,
    };
    let json = matches.get_flag("json");
    let shown = match name {
        "why" => Shown::Ends { slot: *matches.get_one("SLOT")? },
        #[cfg(feature = "top")]
        "top" if !json => Shown::Screen { is_once: matches.get_flag("once") },
        _ => Shown::Whole,
    };
    Some(Inquiry { request, shown, json })
}

/// Asks the server, prints the answer, and returns the code for it.
pub(super) fn run(program: Program, sources: &Sources, inquiry: &Inquiry) -> ExitCode {
    let asked = || connect(sources).and_then(|server| ask(&server, inquiry));
    let done = match inquiry.shown {
        #[cfg(feature = "top")]
        Shown::Screen { is_once } => top::run(is_once, || look(&connect(sources)?)).map(|text| {
            let _gone = text.map(|text| print(&text));
            Conclusion { exit_code: 0, reason: None }
        }),
        Shown::Whole | Shown::Ends { .. } => asked(),
    };
    let (exit_code, reason) = match done {
        Ok(Conclusion { exit_code, reason }) => (exit_code, reason),
        Err(Problem { exit_code, reason }) => (exit_code, Some(reason)),
    };
    if inquiry.json && exit_code != 0 {
        let end = json!({ "type": "end", "exit_code": exit_code, "reason": reason });
        let _gone = print(&format!("{end}\n"));
    }
    if let Some(reason) = reason {
        complain(&prefixed(program, "", &plain(&reason)));
    }
    ExitCode::from(exit_code)
}

/// Connects to the server that the arguments choose.
fn connect(sources: &Sources) -> Result<Server, Problem> {
    let ClientSettings { control, pidfile } = ClientSettings::read(sources);
    let is_file = !["", "auto"].contains(&control.as_str());
    if is_file {
        return Server::at(Path::new(&control));
    }
    let chosen = pidfile.and_then(|file| pid_in(&file));
    let same_file = || running::find(sources);
    let preferred = || i32::try_from(same_file()?.pid).ok();
    Server::find(chosen, preferred).or_else(|problem| {
        // Its configuration file may be another by now than the one that the server was started with.
        let published = same_file().map(|found| ClientSettings::read(&found.sources).control);
        match published.filter(|control| !["", "auto"].contains(&control.as_str())) {
            Some(path) => Server::at(Path::new(&path)),
            None => Err(problem),
        }
    })
}

/// The pid that `--pid` gives: itself, or in a file.
fn pid_in(file: &Path) -> Option<i32> {
    let number = |text: &str| text.trim().parse().ok();
    file.to_str().and_then(number).or_else(|| number(&fs::read_to_string(file).ok()?))
}

/// Asks for the state of the server.
#[cfg(feature = "top")]
fn look(server: &Server) -> Result<Status, Problem> {
    let mut found = Status::default();
    match server.ask(&Request::Status { requests: true }, |line| drop(found.take(line)))? {
        Some(Conclusion { exit_code: 0, .. }) => Ok(found),
        Some(Conclusion { exit_code, reason }) => {
            Err(Problem { exit_code, reason: reason.unwrap_or_default() })
        }
        None => Err(Problem { exit_code: 1, reason: closed(server) }),
    }
}

fn closed(server: &Server) -> String {
    format!("server {} has closed the connection", server.pid())
}

/// Asks, and prints the answer.
fn ask(server: &Server, inquiry: &Inquiry) -> Result<Conclusion, Problem> {
    let closed = || Conclusion { exit_code: 1, reason: Some(closed(server)) };
    let Inquiry { request, shown, json } = inquiry;
    if let Shown::Ends { slot } = shown {
        let mut events = Vec::new();
        let conclusion = server.ask(request, |line| events.push(line))?;
        let ends = why::ends(&events, *slot);
        let _gone = print(&if *json { why::json(*slot, &ends) } else { why::text(*slot, &ends) });
        return Ok(conclusion.unwrap_or_else(closed));
    }
    match request {
        Request::Status { .. } => {
            let mut found = Status::default();
            let conclusion = server.ask(request, |line| drop(found.take(line)))?;
            let conclusion = conclusion.unwrap_or_else(closed);
            if conclusion.exit_code == 0 {
                let _gone = print(&if *json { status::json(&found) } else { status::text(&found) });
            }
            Ok(conclusion)
        }
        Request::Events { .. } => {
            let conclusion = server.ask(request, |line| show(&line, *json))?;
            Ok(conclusion.unwrap_or(Conclusion { exit_code: 0, reason: None }))
        }
        Request::Stop { .. } => {
            let conclusion = server.ask(request, |line| show_progress(&line, *json))?;
            let is_gone = conclusion.is_none() && server.wait_for_end(END);
            let done = Conclusion { exit_code: 0, reason: None };
            Ok(conclusion.unwrap_or_else(|| if is_gone { done } else { closed() }))
        }
        Request::Reload
        | Request::Upgrade
        | Request::Restart { .. }
        | Request::Scale { .. }
        | Request::Reopen => {
            let conclusion = server.ask(request, |line| show_progress(&line, *json))?;
            let conclusion = conclusion.unwrap_or_else(closed);
            if *json && conclusion.exit_code == 0 {
                let _gone = print(&format!("{}\n", json!(Reply::DONE)));
            }
            Ok(conclusion)
        }
    }
}

/// Prints an event that shows how far a command is.
fn show_progress(line: &Value, json: bool) {
    if json {
        return show(line, json);
    }
    let event = word(line, "event");
    let is_worker = event != "process_forked" || line["fields"]["process"] == "worker";
    if PROGRESS.contains(&event) && is_worker {
        let _gone = print(&format!("{}\n", plain(word(line, "message"))));
    }
}

/// Prints an event.
fn show(line: &Value, json: bool) {
    let text = match line.get("events").and_then(Value::as_u64) {
        _ if json => line.to_string(),
        Some(skipped) => format!("{skipped} events are left out"),
        None => {
            let time = word(line, "time");
            let level = word(line, "level").to_uppercase();
            plain(&format!("{time} {level} {}: {}", word(line, "event"), word(line, "message")))
        }
    };
    let _gone = print(&format!("{text}\n"));
}

/// A text of an event.
pub(super) fn word<'a>(event: &'a Value, key: &str) -> &'a str {
    event.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A text without control characters, which a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter })
        .collect()
}
