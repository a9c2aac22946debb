//! Printing for the children that run as another user than the master: from the pipes beside their rings,
//! line by line, to the server's own standard output and standard error.
//!
//! A pipe is not read while the stream that it goes to takes nothing: so the child waits, as it would if it
//! had the stream itself, and the logger does not.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::logging::{Lines, Printer, Stream};
use crate::sys::poll::{Interest, Readiness};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// The judgement of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is printed.
    Pass,
    /// It is printed as a quotation.
    Quote,
    /// It is not printed: a log event replaces it.
    Replace,
}

/// The lines that have begun and are taken for whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    All,
    /// Those behind which nothing has come since they were asked for last.
    Stale,
}

/// All pipes, and the streams that they go to.
#[derive(Debug, Default)]
pub(super) struct Printing {
    pipes: Vec<Pipe>,
    /// Standard output and standard error; none as long as there is no pipe.
    printers: Vec<Printer>,
    piece: Vec<u8>,
}

/// The reading end of a child's standard output or standard error; non-blocking.
#[derive(Debug)]
struct Pipe {
    /// The place of the ring that it is beside.
    place: usize,
    stream: Stream,
    reader: File,
    lines: Lines,
    /// True if there may be something to read.
    is_ready: bool,
    /// True if nothing has come for a while behind a line that has begun.
    is_stale: bool,
}

impl Printing {
    /// Adds the pipes beside the ring at this place: standard output first.
    ///
    /// # Errors
    /// The error of dup(2).
    pub(super) fn add(&mut self, place: usize, readers: Vec<OwnedFd>) -> io::Result<()> {
        if !readers.is_empty() && self.printers.is_empty() {
            let output = Printer::new(io::stdout().as_fd())?;
            self.printers = vec![output, Printer::new(io::stderr().as_fd())?];
            self.piece = vec![0; PIECE];
        }
        for (reader, stream) in readers.into_iter().zip([Stream::Output, Stream::Errors]) {
            let reader = reader.into();
            let lines = Lines::default();
            self.pipes.push(Pipe { place, stream, reader, lines, is_ready: true, is_stale: false });
        }
        Ok(())
    }

    /// Reads a piece of each pipe in which there may be something. Returns true if there was.
    pub(super) fn read(&mut self, mut judge: impl FnMut(usize, &[u8]) -> Verdict) -> bool {
        let mut is_found = false;
        let Self { pipes, printers, piece } = self;
        pipes.retain_mut(|pipe| {
            let printer = &mut printers[pipe.stream as usize];
            if !pipe.is_ready || printer.is_waiting() {
                return true;
            }
            let place = pipe.place;
            let mut print = |line: &[u8]| print(printer, line, judge(place, line));
            match pipe.reader.read(piece) {
                // No process has the other end.
                Ok(0) => {
                    pipe.lines.finish(print);
                    return false;
                }
                Ok(length) => {
                    (pipe.is_ready, pipe.is_stale) = (length == piece.len(), false);
                    pipe.lines.take(&piece[..length], &mut print);
                    is_found = true;
                }
                // There is nothing by now.
                Err(error) => pipe.is_ready = error.kind() == ErrorKind::Interrupted,
            }
            true
        });
        is_found
    }

    /// Takes lines that have begun for whole ones.
    pub(super) fn finish(&mut self, begun: Begun, mut judge: impl FnMut(usize, &[u8]) -> Verdict) {
        for pipe in &mut self.pipes {
            let was_stale = std::mem::replace(&mut pipe.is_stale, true);
            if was_stale || begun == Begun::All {
                let printer = &mut self.printers[pipe.stream as usize];
                let place = pipe.place;
                pipe.lines.finish(|line| print(printer, line, judge(place, line)));
            }
        }
    }

    /// Writes as much as is taken without waiting. Returns the number of lines that are lost.
    pub(super) fn write(&mut self) -> u64 {
        self.printers.iter_mut().map(Printer::write).sum()
    }

    /// Drops the lines that are read and not written yet. Returns their number.
    pub(super) fn give_up(&mut self) -> u64 {
        self.printers.iter_mut().map(Printer::give_up).sum()
    }

    /// Returns true if a line has begun.
    pub(super) fn is_mid_line(&self) -> bool {
        self.pipes.iter().any(|pipe| pipe.lines.is_mid_line())
    }

    /// Has every pipe be read the next time, whether or not it was waited for.
    pub(super) fn look_everywhere(&mut self) {
        self.pipes.iter_mut().for_each(|pipe| pipe.is_ready = true);
    }

    /// Returns the descriptors to be waited for.
    pub(super) fn descriptors(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        let waiting = self.printers.iter().filter(|printer| printer.is_waiting());
        let waiting = waiting.map(|printer| (printer.as_fd(), Interest::Write));
        let heard = self.pipes.iter().filter(|pipe| is_heard(&self.printers, pipe));
        waiting.chain(heard.map(|pipe| (pipe.reader.as_fd(), Interest::Read))).collect()
    }

    /// Notes what was found of these descriptors.
    pub(super) fn note(&mut self, found: &[Readiness]) {
        let Self { pipes, printers, .. } = self;
        let waiting = printers.iter().filter(|printer| printer.is_waiting()).count();
        let heard = pipes.iter_mut().filter(|pipe| is_heard(printers, pipe));
        for (pipe, ready) in heard.zip(found.iter().skip(waiting)) {
            pipe.is_ready |= ready.readable;
        }
    }
}

/// Returns true if what is read of the pipe can be printed.
fn is_heard(printers: &[Printer], pipe: &Pipe) -> bool {
    !printers[pipe.stream as usize].is_waiting()
}

fn print(printer: &mut Printer, line: &[u8], verdict: Verdict) {
    match verdict {
        Verdict::Pass => printer.add(line),
        Verdict::Quote => printer.add(format!("{:?}", String::from_utf8_lossy(line)).as_bytes()),
        Verdict::Replace => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::sys::poll;

    /// Pipes whose lines go to a pipe each: the ends that children write to, and those where lines come out.
    fn piped() -> (Printing, [io::PipeWriter; 2], [io::PipeReader; 2]) {
        let (to_output, output) = nonblocking();
        let (to_errors, errors) = nonblocking();
        let mut printing = Printing::default();
        let (printed, first) = io::pipe().expect("a pipe");
        let (complaints, second) = io::pipe().expect("a pipe");
        let printer = |end: io::PipeWriter| Printer::new(end.as_fd()).expect("a descriptor");
        printing.printers = vec![printer(first), printer(second)];
        printing.piece = vec![0; PIECE];
        printing.add(3, vec![output, errors]).expect("there are printers");
        (printing, [to_output, to_errors], [printed, complaints])
    }

    fn nonblocking() -> (io::PipeWriter, OwnedFd) {
        let (reader, writer) = crate::sys::launch::output_pipe(None).expect("a pipe");
        (io::PipeWriter::from(writer), reader)
    }

    fn pass(place: usize, _: &[u8]) -> Verdict {
        assert_eq!(place, 3);
        Verdict::Pass
    }

    fn printed(from: &mut io::PipeReader) -> String {
        let mut text = [0; 4096];
        let ready = poll::wait(&[(from.as_fd(), Interest::Read)], Some(std::time::Duration::ZERO));
        if !ready.expect("it can be polled")[0].readable {
            return String::new();
        }
        let length = from.read(&mut text).expect("it is open");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn lines_are_printed_whole_each_where_it_belongs() {
        let (mut printing, [mut output, mut errors], [mut first, mut second]) = piped();
        output.write_all(b"one\ntw").expect("there is room");
        errors.write_all(b"error\n").expect("there is room");
        assert!(printing.read(pass) && printing.is_mid_line());
        assert_eq!(printing.write(), 0);
        assert_eq!((printed(&mut first), printed(&mut second)), ("one\n".into(), "error\n".into()));
        printing.finish(Begun::Stale, pass);
        assert!(printing.is_mid_line(), "it has just begun");
        output.write_all(b"o").expect("there is room");
        let descriptors = printing.descriptors();
        let found = poll::wait(&descriptors, None).expect("it can be polled");
        printing.note(&found);
        assert!(printing.read(pass));
        printing.finish(Begun::Stale, pass);
        assert!(printing.is_mid_line(), "more of it has come");
        printing.finish(Begun::Stale, pass);
        assert_eq!(printing.write(), 0);
        assert_eq!(printed(&mut first), "two\n");
        output.write_all(b"the last").expect("there is room");
        drop((output, errors));
        printing.look_everywhere();
        assert!(printing.read(pass));
        printing.look_everywhere();
        assert!(!printing.read(pass));
        assert_eq!(printing.write(), 0);
        assert!(printing.descriptors().is_empty(), "the pipes have ended");
        assert_eq!(printed(&mut first), "the last\n");
    }

    #[test]
    fn quotations_and_replaced_lines_are_no_lines_of_their_writers() {
        let (mut printing, [mut output, _errors], [mut first, _second]) = piped();
        output.write_all(b"a\n[x] [7] [y]\n[x] [8] [y]\n").expect("there is room");
        printing.read(|_, line| match line {
            b"a" => Verdict::Pass,
            b"[x] [7] [y]" => Verdict::Quote,
            _ => Verdict::Replace,
        });
        assert_eq!(printing.write(), 0);
        assert_eq!(printed(&mut first), "a\n\"[x] [7] [y]\"\n");
    }

    /// A reader that stands still keeps the child's pipe full, and nothing is read ahead.
    #[test]
    fn pipe_is_not_read_while_its_stream_takes_nothing() {
        let (mut printing, [mut output, mut errors], [mut first, mut second]) = piped();
        let line = [b'x'; 1023];
        for _ in 0..60 {
            output.write_all(&[&line[..], b"\n"].concat()).expect("there is room");
        }
        while printing.read(pass) && printing.write() == 0 && !printing.printers[0].is_waiting() {
            for _ in 0..60 {
                output.write_all(&[&line[..], b"\n"].concat()).expect("there is room");
            }
            printing.look_everywhere();
        }
        errors.write_all(b"error\n").expect("there is room");
        let found = poll::wait(&printing.descriptors(), None).expect("it can be polled");
        assert_eq!(found.len(), 2, "the stream that is full, and the pipe of the other");
        printing.note(&found);
        assert!(printing.read(pass));
        assert_eq!(printing.write(), 0);
        assert_eq!(printed(&mut second), "error\n");
        let mut count = 0;
        while printing.printers[0].is_waiting() {
            count += printed(&mut first).len();
            assert_eq!(printing.write(), 0);
        }
        while let text = printed(&mut first)
            && !text.is_empty()
        {
            count += text.len();
        }
        assert_eq!(count % 1024, 0);
    }
}
