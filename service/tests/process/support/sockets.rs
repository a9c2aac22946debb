//! Clients of WebSockets over TLS that send messages and wait for the echo of each.
//!
//! # When a client may send again
//! A Close frame with code 1012 (service restart) in place of an echo: the server ends the connection in
//! order, and has a message either before the frame or not at all.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_rustls::rustls::StreamOwned;
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, client};

use crate::client::{Address, PATIENCE};
use crate::seen::{Begun, Running, Seen};

/// Messages of a connection.
const MESSAGES: u64 = 300;

/// So many clients of `examples/live.rs`.
pub(crate) fn load(address: &Address, count: usize) -> Running {
    let address = address.tcp();
    Running::begin_threads(count, move |seen, stop| {
        while !stop.load(Ordering::Relaxed) {
            let begun = Begun::now(None);
            let stream = match TcpStream::connect(address) {
                Ok(stream) => stream,
                Err(error) => {
                    let is_refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
                    seen.note_lost(begun, &error, is_refused);
                    if is_refused {
                        return;
                    }
                    continue;
                }
            };
            let begun = begun.on(stream.local_addr().ok());
            stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
            let stream = StreamOwned::new(crate::tls::client(), stream);
            match client("ws://localhost/socket?ms=1000000", stream) {
                Ok((socket, _)) => talk(socket, begun, seen, stop),
                Err(HandshakeError::Failure(error)) => seen.note_lost(begun, error, false),
                Err(HandshakeError::Interrupted(_)) => seen.note_lost(begun, "it stalls", false),
            }
        }
    })
}

/// Sends a message after the other on a connection, until the server ends it.
fn talk(
    mut socket: WebSocket<impl std::io::Read + std::io::Write>,
    opened: Begun,
    seen: &Seen,
    stop: &AtomicBool,
) {
    for number in 0..MESSAGES {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = opened.again();
        let message = Message::text(format!("message {number}"));
        match exchange(&mut socket, &message) {
            Ok(true) => seen.note_answer(),
            Ok(false) => {
                seen.note_again();
                // Its answer to the Close frame goes out, and the end comes in.
                while socket.read().is_ok() {}
                return;
            }
            Err(error) => return seen.note_lost(begun, error, false),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // The server may be ending it, too.
    let _ended = socket.close(None);
    while socket.read().is_ok() {}
}

/// Sends a message. Returns true if its echo has come, false if the server has ended the connection in
/// order.
fn exchange(
    socket: &mut WebSocket<impl std::io::Read + std::io::Write>,
    message: &Message,
) -> Result<bool, Error> {
    // What is wrong with the connection shows in the read: a Close frame may have come before.
    let sent = socket.send(message.clone());
    loop {
        match socket.read() {
            Ok(received) if received == *message => return Ok(true),
            Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1012 => return Ok(false),
            // The application says something of its own at the beginning.
            Ok(Message::Text(text)) if !text.starts_with("message ") => {}
            Ok(other) => return Err(Error::Io(std::io::Error::other(format!("{other:?}")))),
            Err(error) => return Err(sent.err().unwrap_or(error)),
        }
    }
}
