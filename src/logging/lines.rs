//! Lines of text out of what a process writes to a pipe: pure.

/// The longest line; what is beyond it is the next one.
pub(crate) const LINE_MAX: usize = 32 << 10;

/// Puts the pieces that were read from a pipe together to lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end has not been read.
    begun: Vec<u8>,
}

impl Lines {
    /// Takes a piece, and hands on each line that it completes, without its end.
    pub(crate) fn take(&mut self, piece: &[u8], mut hand_on: impl FnMut(&[u8])) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.begin(&rest[..end], &mut hand_on);
            hand_on(without_return(&self.begun));
            self.begun.clear();
            rest = &rest[end + 1..];
        }
        self.begin(rest, hand_on);
    }

    /// Returns true if a line has begun whose end was not read.
    pub(crate) fn is_mid_line(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Hands on what was left without an end.
    pub(crate) fn finish(&mut self, hand_on: impl FnOnce(&[u8])) {
        if !self.begun.is_empty() {
            hand_on(without_return(&self.begun));
            self.begun.clear();
        }
    }

    fn begin(&mut self, mut bytes: &[u8], mut hand_on: impl FnMut(&[u8])) {
        while let Some((fits, rest)) = bytes.split_at_checked(LINE_MAX - self.begun.len())
            && !rest.is_empty()
        {
            self.begun.extend_from_slice(fits);
            hand_on(&self.begun);
            self.begun.clear();
            bytes = rest;
        }
        self.begun.extend_from_slice(bytes);
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.take(piece, |line| found.push(line.to_vec()));
        }
        lines.finish(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn pieces_become_lines() {
        let pieces = [b"on".to_vec(), b"e\r\ntwo\n\nth".to_vec(), b"ree".to_vec()];
        assert_eq!(lines_of(&pieces), [&b"one"[..], b"two", b"", b"three"]);
    }

    #[test]
    fn long_lines_are_several() {
        let long = vec![b'a'; LINE_MAX + 9];
        let pieces = [long.clone(), long, b"\nb\n".to_vec(), vec![b'c'; LINE_MAX], b"\n".to_vec()];
        let [a, c] = [b'a', b'c'].map(|byte| vec![byte; LINE_MAX]);
        assert_eq!(lines_of(&pieces), [a.clone(), a, vec![b'a'; 18], b"b".to_vec(), c]);
    }

    proptest! {
        /// The pieces that the kernel makes of a text do not show.
        #[test]
        fn lines_do_not_depend_on_pieces(
            text in "[a-c\n]{0,60}",
            cuts in proptest::collection::vec(0..60_usize, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let bytes = text.as_bytes();
            let pieces: Vec<Vec<u8>> = cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect();
            let whole: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines_of(&pieces), whole);
        }
    }
}
