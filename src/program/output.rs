//! The standard output and standard error of a program, read line by line into the log.
//!
//! # Why nothing waits
//! A program that waits in write(2) for its log is a service that stands still. So the pipes are read all
//! the time, and lines that find no room in the ring are dropped and counted there, as access lines are.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinSet;

use crate::ids::Slot;
use crate::logging::{self, Lines, Stream};
use crate::sys::launch;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// After so many pieces in a row the keeper's other tasks have their turn.
const PIECES_IN_A_ROW: u32 = 8;

/// The ends of the pipes that the program writes to, and their readers' ends.
#[derive(Debug)]
pub(super) struct Pipes {
    readers: [OwnedFd; 2],
    pub(super) writers: [OwnedFd; 2],
}

/// The tasks that read the pipes.
#[derive(Debug)]
pub(super) struct Outputs(JoinSet<()>);

impl Pipes {
    /// # Errors
    /// The error of pipe(2).
    pub(super) fn open() -> io::Result<Self> {
        let pipe = || launch::output_pipe(Some(launch::PIPE_BYTES));
        let output = pipe()?;
        let errors = pipe()?;
        Ok(Self { readers: [output.0, errors.0], writers: [output.1, errors.1] })
    }

    /// The readers' ends; the others are closed, so that the end of the last writer is seen.
    pub(super) fn into_readers(self) -> [OwnedFd; 2] {
        self.readers
    }
}

impl Outputs {
    /// Reads these pipes, standard output first, in tasks of their own.
    ///
    /// # Errors
    /// Where the event loop cannot watch them.
    pub(super) fn read(readers: [OwnedFd; 2], slot: Slot, program: i32) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        for (reader, stream) in readers.into_iter().zip([Stream::Output, Stream::Errors]) {
            let reader = Receiver::from_owned_fd(reader)?;
            tasks.spawn(read(reader, move |line| logging::output(slot, program, stream, line)));
        }
        Ok(Self(tasks))
    }

    /// Waits until both have ended, for so long at the most: what waits in the pipes is read.
    pub(super) async fn finish(mut self, span: Duration) {
        let all = async { while self.0.join_next().await.is_some() {} };
        // A process that has left the group may hold a pipe.
        let _held = tokio::time::timeout(span, all).await;
    }
}

async fn read(mut pipe: Receiver, hand_on: impl Fn(&[u8])) {
    let mut piece = vec![0; PIECE];
    let mut lines = Lines::default();
    let mut row = 0;
    loop {
        match pipe.read(&mut piece).await {
            Ok(0) | Err(_) => return lines.finish(&hand_on),
            Ok(length) => lines.take(&piece[..length], &hand_on),
        }
        row += 1;
        if row % PIECES_IN_A_ROW == 0 {
            tokio::task::yield_now().await;
        }
    }
}
