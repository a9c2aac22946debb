//! Writing without waiting, to a descriptor that other processes have, too.
//!
//! # The trap
//! Whether a write waits is a flag of the open file, which all of them share: one that was set may be
//! gone, and one that we set holds for the shell that started us. Room that poll(2) has found may be
//! taken by the time of the write. So the file is opened once more, for this process alone. A regular file
//! is not: nothing waits for its room, and its position is shared with those who write behind us.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

use super::poll::{self, Interest};

/// Bytes that a pipe has room for when poll(2) says so (pipe(7), `PIPE_BUF`).
const PIECE: usize = 4096;

/// Writes all of it, and waits for room before each piece, this long at most. Returns true if it is written.
pub(crate) fn in_time(descriptor: BorrowedFd<'_>, bytes: &[u8], timeout: Duration) -> bool {
    bytes.chunks(PIECE).all(|piece| {
        let _no_room = poll::wait(&[(descriptor, Interest::Write)], Some(timeout));
        at_once(descriptor, piece)
    })
}

/// Writes all of it if there is room, and returns true if it is written. Of a text that does not fit a part
/// may be.
pub(crate) fn at_once(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> bool {
    match send(descriptor.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Err(nix::Error::ENOTSOCK) => {}
        sent => return sent == Ok(bytes.len()),
    }
    if is_regular(descriptor) {
        return write_shared(descriptor, bytes).is_ok();
    }
    let mut options = File::options();
    options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(format!("/proc/self/fd/{}", descriptor.as_raw_fd())) {
        Ok(mut own) => own.write_all(bytes).is_ok(),
        // Another user's, or no /proc: as good as it gets.
        Err(_) => poll::is_writable(&descriptor) && write_shared(descriptor, bytes).is_ok(),
    }
}

fn is_regular(descriptor: BorrowedFd<'_>) -> bool {
    fstat(descriptor).is_ok_and(|status| {
        SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
    })
}

fn write_shared(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let length = nix::unistd::write(descriptor.as_fd(), bytes)?;
    if length == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    use super::super::exec;
    use super::*;

    /// The flags say that a write waits, and the other end does not read.
    #[test]
    fn full_pipe_and_full_socket_are_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        assert!(at_once(writer.as_fd(), b"line\n"));
        let mut line = [0; 5];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"line\n");
        while at_once(writer.as_fd(), &[b'x'; 4096]) {}
        assert!(!at_once(writer.as_fd(), b"line\n"));
        assert!(!in_time(writer.as_fd(), b"line\n", Duration::ZERO));
        let (_peer, socket) = UnixStream::pair().unwrap();
        while at_once(socket.as_fd(), &[b'x'; 4096]) {}
        assert!(!at_once(socket.as_fd(), &[b'x'; 4096]));
    }

    /// `{ ferricorn; date; } > file`: two of one position, neither writes over the other's text.
    #[test]
    fn text_in_a_file_moves_the_position_that_others_share() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"first\n").unwrap();
        assert!(at_once(file.as_file().as_fd(), b"second\n"));
        file.write_all(b"third\n").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"first\nsecond\nthird\n");
    }

    /// The file that the check of an upgrade has for its errors: it can neither grow nor shrink.
    #[test]
    fn text_is_written_into_memory_of_a_fixed_size() {
        let notepad = exec::notepad("test", 64).unwrap();
        assert!(in_time(notepad.as_fd(), b"reason\n", Duration::ZERO));
        let mut text = [0; 8];
        notepad.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"reason\n\0");
    }
}
