//! The client's end of the control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::place::{self, Candidate};
use super::protocol::{self, Reply, Request};
use crate::sys::local::{self, Peer};

/// The time for connecting, and for each line of an answer that nothing delays.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time for connecting to a server that was found, which may be another user's and not answer.
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(1);
/// A line is shorter.
const LINE_MAX: u64 = 1 << 20;

/// No such server (`EX_UNAVAILABLE`, sysexits.h).
const EXIT_ABSENT: u8 = 69;
/// Not allowed (`EX_NOPERM`).
const EXIT_DENIED: u8 = 77;

/// The reason why a server cannot be asked.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) exit_code: u8,
    pub(crate) reason: String,
}

/// A connection to the control socket of a server.
#[derive(Debug)]
pub(crate) struct Server {
    stream: UnixStream,
    pid: i32,
    uid: u32,
}

/// The last line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conclusion {
    pub(crate) exit_code: u8,
    pub(crate) reason: Option<String>,
}

fn absent(reason: impl Into<String>) -> Problem {
    Problem { exit_code: EXIT_ABSENT, reason: reason.into() }
}

impl Server {
    /// Connects to the server at this file.
    ///
    /// # Errors
    /// When no server is there, or this user may not ask it.
    pub(crate) fn at(path: &Path) -> Result<Self, Problem> {
        let stream = local::connect(path, TIMEOUT).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let reason = format!("cannot control the server at {}: {error}", path.display());
                Problem { exit_code: EXIT_DENIED, reason }
            }
            _ => absent(format!("no server at the control socket {}: {error}", path.display())),
        })?;
        let peer = local::peer(&stream).map_err(|error| absent(error.to_string()))?;
        Ok(Self { stream, pid: peer.pid, uid: peer.uid })
    }

    /// Connects to the server with this pid, or to the one that this user may control; among several
    /// to the one that `preferred` returns.
    ///
    /// # Errors
    /// When there is none, or more than one, or this user may control none of them.
    pub(crate) fn find(
        pid: Option<i32>,
        preferred: impl FnOnce() -> Option<i32>,
    ) -> Result<Self, Problem> {
        let candidates = place::candidates().into_iter();
        let chosen = candidates.filter(|candidate| pid.is_none_or(|pid| pid == candidate.pid));
        let own = local::own_uid();
        let is_ours = |server: &Self| own == 0 || own == server.uid;
        let (mut ours, others): (Vec<Self>, Vec<Self>) =
            chosen.filter_map(connect).partition(is_ours);
        if ours.len() > 1
            && let Some(preferred) = preferred()
            && ours.iter().any(|server| server.pid == preferred)
        {
            ours.retain(|server| server.pid == preferred);
        }
        let Some(last) = ours.pop() else {
            return Err(match (others.first(), pid) {
                (Some(Self { pid, uid, .. }), _) => Problem {
                    exit_code: EXIT_DENIED,
                    reason: format!(
                        "user {own} may not control server {pid}: only root and user {uid} may"
                    ),
                },
                (None, Some(pid)) => absent(format!("no server with pid {pid} runs here")),
                (None, None) => absent("no server runs here"),
            });
        };
        if ours.is_empty() {
            return Ok(last);
        }
        let pids = ours.iter().map(|server| server.pid).chain([last.pid]);
        let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        let pids = pids.join(", ");
        Err(absent(format!("several servers run here: choose one with --pid (pids {pids})")))
    }

    /// Waits until the server's process has ended; false at the timeout.
    pub(crate) fn wait_for_end(&self, timeout: Duration) -> bool {
        local::wait_for_end(self.pid, timeout)
    }

    /// The pid of the server.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends the request and hands on each line of the answer, until the last one. `None`: the server
    /// has closed the connection before.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) fn ask(
        &self,
        request: &Request,
        mut take: impl FnMut(Value),
    ) -> Result<Option<Conclusion>, Problem> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let seconds = TIMEOUT.as_secs();
                absent(format!("server {} does not answer within {seconds} s", self.pid))
            }
            _ => absent(format!("server {} does not answer: {error}", self.pid)),
        };
        let timeout = (!request.may_last()).then_some(TIMEOUT);
        self.stream.set_read_timeout(timeout).map_err(failed)?;
        // A server that refuses has answered, and closed its end, without reading.
        let sent = (&self.stream).write_all(&protocol::line(request));
        let mut reader = BufReader::new(&self.stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match io::Read::take(&mut reader, LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) if sent.is_err() => return sent.map(|()| None).map_err(failed),
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
            let Ok(value) = serde_json::from_slice::<Value>(&line) else { continue };
            match serde_json::from_value(value.clone()) {
                Ok(Reply::End { exit_code, reason }) => {
                    return Ok(Some(Conclusion { exit_code, reason }));
                }
                // A word of another version is nothing to fail for.
                Ok(_) | Err(_) => take(value),
            }
        }
    }
}

/// The server at an abstract name, if its process is the one in the name.
fn connect(candidate: Candidate) -> Option<Server> {
    let stream = local::connect_abstract(&candidate.name, CANDIDATE_TIMEOUT).ok()?;
    let Peer { pid, uid } = local::peer(&stream).ok()?;
    (pid == candidate.pid).then_some(Server { stream, pid, uid })
}
