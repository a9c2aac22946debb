//! The master's end of the control socket: accepts, reads and writes without ever waiting, and within
//! bounds.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place;
use super::protocol::{self, Reply, Request};
use crate::ids::{ChildId, CommandId};
use crate::sys::exec::{self, Handover};
use crate::sys::local::{self, Peer};
use crate::sys::poll::Interest;
use crate::sys::process;
use crate::sys::socket::{SocketFile, file_id, listen_unix};
use crate::time::Instant;

/// Bytes that a request may have.
pub(super) const REQUEST_MAX: usize = 4096;
/// Clients at one time; further ones are told so.
const CLIENTS_MAX: usize = 64;
/// The time for a request, and for reading what was written.
const STALL: Duration = Duration::from_secs(1);
/// Clients that are accepted in one turn, and in each [`WINDOW`].
const ACCEPTED_TURN: usize = 8;
const ACCEPTED_MAX: usize = 256;
const WINDOW: Duration = Duration::from_millis(100);
/// Bytes that wait to be sent to one client; a line more may.
const OUTPUT: usize = 16 << 10;
/// Mode of the socket's file.
const MODE: u32 = 0o600;
/// Clients that wait to be accepted.
const BACKLOG: u32 = 128;

/// The exit codes of a client that is not served (sysexits.h).
const EXIT_BUSY: u8 = 75;
const EXIT_DENIED: u8 = 77;
const EXIT_USAGE: u8 = 64;

/// Something that the master polls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Listener,
    Client(CommandId),
}

/// The control socket and its clients.
#[derive(Debug, Default)]
pub(crate) struct Control {
    listener: Option<Listening>,
    clients: Vec<Client>,
    /// The number of the next client.
    next: u64,
    accepted: Accepted,
}

#[derive(Debug)]
struct Listening {
    socket: UnixListener,
    /// Its file; `None`: an abstract name.
    file: Option<OwnFile>,
}

/// A socket's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OwnFile {
    path: PathBuf,
    /// Device and inode, to know it again.
    id: Option<(u64, u64)>,
}

/// The clients that were accepted since then.
#[derive(Debug, Default)]
struct Accepted {
    since: Instant,
    count: usize,
}

#[derive(Debug)]
struct Client {
    id: CommandId,
    stream: UnixStream,
    input: Vec<u8>,
    /// Lines that are not sent yet.
    output: Vec<u8>,
    feed: Feed,
    /// Since when its request, or its reading, is waited for.
    since: Instant,
}

/// The source of a client's next lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Feed {
    /// Its request has not come to its end.
    Asking,
    /// The workers behind this one.
    Status { requests: bool, after: ChildId },
    /// The events from this one on.
    Events { cursor: u64, end: Option<End> },
    /// Nothing: the connection is closed when everything is sent.
    Ending,
}

/// The last line of an answer, behind the events before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) serial: u64,
    pub(crate) exit_code: u8,
    pub(crate) reason: Option<String>,
}

/// The part that one image leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedControl {
    listener: Option<(i32, Option<OwnFile>)>,
    clients: Vec<HandedClient>,
    next: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedClient {
    id: CommandId,
    stream: i32,
    input: Vec<u8>,
    output: Vec<u8>,
    feed: Feed,
}

/// The news of a client.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Nothing to act upon.
    Nothing,
    /// Its request.
    Request(Request),
    /// It is gone, or was dropped.
    Gone,
}

impl Feed {
    fn has_more(&self, next_event: u64) -> bool {
        match self {
            Self::Asking | Self::Ending => false,
            Self::Status { .. } => true,
            Self::Events { cursor, end } => *cursor < next_event || end.is_some(),
        }
    }
}

impl Control {
    /// Listens at a name of its own; one that is found without a file.
    ///
    /// # Errors
    /// The error of bind(2).
    pub(crate) fn listen_abstract(random: u64) -> io::Result<Self> {
        let socket = local::listen_abstract(&place::abstract_name(process::pid(), random))?;
        local::refuse_descriptors(&socket);
        Ok(Self { listener: Some(Listening { socket, file: None }), ..Self::default() })
    }

    /// Listens at a file.
    ///
    /// # Errors
    /// As [`listen_unix`].
    pub(crate) fn listen_file(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let socket = listen_unix(&path, SocketFile { mode: MODE, owner: (None, None) }, BACKLOG)?;
        local::refuse_descriptors(&socket);
        let file = Some(OwnFile { id: file_id(&path), path });
        Ok(Self { listener: Some(Listening { socket, file }), ..Self::default() })
    }

    /// Removes the socket's file.
    pub(crate) fn close(self) {
        if let Some(Listening { file: Some(file), .. }) = self.listener
            && file.id.is_some()
            && file_id(&file.path) == file.id
        {
            // Not another one that was put there. A file that stays is no obstacle to the next server.
            let _stays = std::fs::remove_file(file.path);
        }
    }

    /// The socket's file, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        Some(&self.listener.as_ref()?.file.as_ref()?.path)
    }

    /// The descriptors to poll; `next_event` is the serial number of the event to come.
    pub(crate) fn sources(
        &self,
        now: Instant,
        next_event: u64,
    ) -> impl Iterator<Item = (Ask, BorrowedFd<'_>, Interest)> {
        let listener = self.listener.iter().filter(move |_| self.paused_until(now).is_none());
        let listener =
            listener.map(|listener| (Ask::Listener, listener.socket.as_fd(), Interest::Read));
        let clients = self.clients.iter().map(move |client| {
            let writes = !client.output.is_empty() || client.feed.has_more(next_event);
            let interest = if writes { Interest::Write } else { Interest::Read };
            (Ask::Client(client.id), client.stream.as_fd(), interest)
        });
        listener.chain(clients)
    }

    /// The end of the pause after too many clients at once.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        let until = self.accepted.since.after(WINDOW);
        (self.accepted.count >= ACCEPTED_MAX && now < until).then_some(until)
    }

    /// The next time at which a client is dropped, or accepted again.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let stalls = self.clients.iter().filter_map(Client::stalls_at);
        stalls.chain(self.paused_until(now)).min()
    }

    /// Accepts the clients that wait, a few of them.
    pub(crate) fn accept(&mut self, now: Instant) {
        if now >= self.accepted.since.after(WINDOW) {
            self.accepted = Accepted { since: now, count: 0 };
        }
        for _ in 0..ACCEPTED_TURN {
            let Some(listener) = &self.listener else { return };
            let stream = match listener.socket.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // No descriptors, say: the client stays in the queue, and polling for it would not wait.
                Err(_) => {
                    self.accepted = Accepted { since: now, count: ACCEPTED_MAX };
                    return;
                }
            };
            self.accepted.count = self.accepted.count.saturating_add(1);
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if let Some(refusal) = self.refusal(&stream) {
                // It fits into the socket's buffer, or the client learns less.
                let _lost = (&stream).write(&protocol::line(&refusal));
                continue;
            }
            let id = CommandId(self.next);
            self.next = self.next.saturating_add(1);
            let input = Vec::new();
            let output = Vec::new();
            let feed = Feed::Asking;
            self.clients.push(Client { id, stream, input, output, feed, since: now });
        }
    }

    /// The answer to a client that is not served. Where there are too many, one that has not asked makes
    /// room.
    fn refusal(&mut self, stream: &UnixStream) -> Option<Reply> {
        match local::peer(stream) {
            Ok(peer) if may_ask(peer, local::own_uid()) => {}
            Ok(peer) => {
                let who = match peer {
                    Peer { pid: ..=0, .. } => "a process outside its pid namespace".to_owned(),
                    Peer { uid, .. } => format!("user {uid}"),
                };
                let reason = format!(
                    "{who} may not control this server: only root and user {} may",
                    local::own_uid()
                );
                return Some(Reply::failed(EXIT_DENIED, reason));
            }
            Err(error) => return Some(Reply::failed(EXIT_DENIED, error.to_string())),
        }
        if self.clients.len() >= CLIENTS_MAX && !self.drop_silent() {
            let reason = format!("{CLIENTS_MAX} clients are connected already");
            return Some(Reply::failed(EXIT_BUSY, reason));
        }
        None
    }

    /// Drops the client whose request is awaited for longest. Returns false if there is none.
    fn drop_silent(&mut self) -> bool {
        let silent = self.clients.iter().filter(|client| client.feed == Feed::Asking);
        let silent = silent.min_by_key(|client| client.since).map(|client| client.id);
        silent.inspect(|id| self.drop_client(*id)).is_some()
    }

    fn at(&mut self, id: CommandId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    /// Reads what a client has sent.
    pub(crate) fn read(&mut self, now: Instant, id: CommandId) -> Heard {
        let Some(client) = self.at(id) else { return Heard::Nothing };
        match client.read(now) {
            Heard::Gone => {
                self.drop_client(id);
                Heard::Gone
            }
            heard @ (Heard::Request(_) | Heard::Nothing) => heard,
        }
    }

    /// Answers a client from this source from now on, behind this line.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        id: CommandId,
        reply: Option<&Reply>,
        feed: Feed,
    ) {
        if let Some(client) = self.at(id) {
            client.output.extend(reply.map(protocol::line).unwrap_or_default());
            client.feed = feed;
            client.since = now;
        }
    }

    /// Ends the events of a client before this one.
    pub(crate) fn conclude(&mut self, id: CommandId, conclusion: End) {
        if let Some(Client { feed: Feed::Events { end, .. }, .. }) = self.at(id) {
            *end = Some(conclusion);
        }
    }

    /// Sends a client its next lines, which `produce` appends and whose cost it returns; at most as much
    /// as the budget allows. Returns true if the client is gone.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        id: CommandId,
        next_event: u64,
        budget: &mut usize,
        mut produce: impl FnMut(&mut Feed, &mut Vec<u8>) -> usize,
    ) -> bool {
        let Some(client) = self.at(id) else { return false };
        if client.output.is_empty() {
            client.since = now;
        }
        while client.output.len() < OUTPUT && client.feed.has_more(next_event) && *budget > 0 {
            let cost = produce(&mut client.feed, &mut client.output);
            *budget = budget.saturating_sub(cost.max(1));
        }
        let is_gone = client.write(now).is_err();
        let is_over = client.feed == Feed::Ending && client.output.is_empty();
        if is_gone || is_over {
            self.drop_client(id);
        }
        is_gone
    }

    /// Drops the clients that have stalled, and returns them.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<CommandId> {
        let stalled =
            self.clients.iter().filter(|client| client.stalls_at().is_some_and(|at| at <= now));
        let stalled: Vec<CommandId> = stalled.map(|client| client.id).collect();
        self.clients.retain(|client| !stalled.contains(&client.id));
        stalled
    }

    fn drop_client(&mut self, id: CommandId) {
        self.clients.retain(|client| client.id != id);
    }

    pub(crate) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedControl {
        let listener = self.listener.as_ref().map(|listener| {
            let Listening { socket, file } = listener;
            (handover.add(socket), file.clone())
        });
        let client = |client: &'a Client| HandedClient {
            id: client.id,
            stream: handover.add(&client.stream),
            input: client.input.clone(),
            output: client.output.clone(),
            feed: client.feed.clone(),
        };
        let clients = self.clients.iter().map(client).collect();
        HandedControl { listener, clients, next: self.next }
    }

    /// # Errors
    /// When a descriptor is not open.
    pub(crate) fn take_over(now: Instant, handed: HandedControl) -> io::Result<Self> {
        let HandedControl { listener, clients, next } = handed;
        let listening = |(socket, file)| {
            Ok::<_, io::Error>(Listening { socket: exec::inherited(socket)?.into(), file })
        };
        let client = |client: HandedClient| {
            let HandedClient { id, stream, input, output, feed } = client;
            let stream = exec::inherited(stream)?.into();
            Ok(Client { id, stream, input, output, feed, since: now })
        };
        Ok(Self {
            listener: listener.map(listening).transpose()?,
            clients: clients.into_iter().map(client).collect::<io::Result<_>>()?,
            next,
            accepted: Accepted::default(),
        })
    }
}

/// Returns true if the peer is root or the server's user, in a pid namespace that the server sees.
fn may_ask(peer: Peer, own: u32) -> bool {
    peer.pid > 0 && (peer.uid == 0 || peer.uid == own)
}

impl Client {
    /// When it is dropped, unless it does what is waited for.
    fn stalls_at(&self) -> Option<Instant> {
        let is_waited_for = self.feed == Feed::Asking || !self.output.is_empty();
        is_waited_for.then(|| self.since.after(STALL))
    }

    fn read(&mut self, now: Instant) -> Heard {
        let mut bytes = [0; REQUEST_MAX];
        let length = match (&self.stream).read(&mut bytes) {
            Ok(0) => return Heard::Gone,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Heard::Nothing,
            Err(_) => return Heard::Gone,
        };
        // A client asks once.
        if self.feed != Feed::Asking {
            return Heard::Gone;
        }
        self.input.extend_from_slice(&bytes[..length]);
        let refuse = |client: &mut Self, reason: String| {
            client.output = protocol::line(&Reply::failed(EXIT_USAGE, reason));
            client.feed = Feed::Ending;
            client.since = now;
            Heard::Nothing
        };
        let end = self.input.iter().position(|byte| *byte == b'\n');
        match end.map(|end| protocol::request(&self.input[..end])) {
            _ if end.unwrap_or(self.input.len()) > REQUEST_MAX => {
                refuse(self, format!("the request is longer than {REQUEST_MAX} bytes"))
            }
            Some(Ok(request)) => {
                self.input = Vec::new();
                Heard::Request(request)
            }
            Some(Err(reason)) => refuse(self, reason),
            None => Heard::Nothing,
        }
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        match (&self.stream).write(&self.output) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => {
                self.output.drain(..length);
                self.since = now;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
