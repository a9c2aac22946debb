//! Streams, in whatever pieces they come.

use proptest::prelude::*;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nx: #\r\n\r\n";

/// Reads a stream in pieces; returns where in it what is wrong was found.
fn read(stream: &str, cuts: &[usize]) -> (Framing, Option<(usize, Own)>) {
    let mut framing = Framing::default();
    let mut cuts = cuts.iter();
    let mut begun = 0;
    let mut rest = stream.as_bytes();
    while !rest.is_empty() {
        let length = cuts.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        let (now, later) = rest.split_at(length);
        if let Err(flaw) = framing.read(now) {
            return (framing, Some((begun + flaw.at, flaw.own)));
        }
        (begun, rest) = (begun + length, later);
    }
    (framing, None)
}

/// Where what is wrong begins, at the earliest, and how it is refused.
fn flaw(stream: &str) -> Option<(usize, Own)> {
    read(stream, &[]).1
}

#[test]
fn framing_ends_where_requests_end() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na#b\n\n";
    let chunked = "POST / HTTP/1.1\nTransfer-Encoding:\tChunked \n\n\
        3;a=\"b\"\r\n\n\n#\r\n00\r\nx: #\r\n\r\n";
    for stream in [GET, post, chunked, &[GET, post, "\r\n\n", chunked, GET].concat()] {
        let (framing, flaw) = read(stream, &[]);
        assert_eq!((framing.state, flaw), (State::Target, None), "{stream:?}");
    }
    for (stream, state) in [
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", State::Body(3)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1A\r\nab", State::Chunk(24)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", State::Trailer),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", State::Target),
    ] {
        let (framing, flaw) = read(stream, &[]);
        assert_eq!((framing.state, flaw), (state, None), "{stream:?}");
    }
}

/// A tunnel's bytes may look like anything.
#[test]
fn framing_ends_with_a_request_for_a_tunnel() {
    let tunnel = "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n";
    let (framing, flaw) = read(&[GET, tunnel, "# \x16\x03\n\n"].concat(), &[]);
    assert_eq!((framing.state, flaw), (State::Off, None));
    assert_eq!(read("CONNECTED / HTTP/1.1\r\n\r\n", &[]).0.state, State::Target);
}

#[test]
fn framing_refuses_what_hyper_would_hide() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for fields in [
        "Content-Length: 4\r\nContent-Length: 4",
        "content-length:0\r\nCONTENT-LENGTH: \t4 ",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length: junk",
        "Content-Length: 4\nTransfer-Encoding: gzip",
    ] {
        let first = fields.find('\n').expect("there are two") + 1;
        let found = flaw(&format!("{GET}{head}{fields}\r\n\r\n"));
        assert_eq!(found, Some((GET.len() + head.len() + first, Own::Length)), "{fields:?}");
    }
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (chunks, at) in [
        ("0\r\n\n", 3),
        ("0\r\nx: y\n\r\n", 3),
        ("0\r\nx: y\r\n\n", 9),
        ("0\n\r\n", 0),
        ("1;x\na\r\n0\r\n\r\n", 0),
        ("1\r\na\n0\r\n\r\n", 4),
        ("1\r\na\r\n0\n\n", 6),
    ] {
        let found = flaw(&format!("{head}{chunks}{GET}"));
        assert_eq!(found, Some((head.len() + at, Own::Chunks)), "{chunks:?}");
    }
    assert_eq!(flaw(&format!("{GET}\r\nGET /#")), Some((GET.len() + 2, Own::Target)));
}

#[test]
fn framing_leaves_to_hyper_what_hyper_refuses() {
    for fields in [
        "Content-Length: x",
        "Content-Length: ",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        let (framing, flaw) = read(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\nGET /#"), &[]);
        assert_eq!((framing.state, flaw), (State::Off, None), "{fields:?}");
    }
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in ["x\r\n", "1\r\nab\r\n", "ffffffffffffffffff\r\n"] {
        let (framing, flaw) = read(&format!("{head}{chunks}"), &[]);
        assert_eq!((framing.state, flaw), (State::Off, None), "{chunks:?}");
    }
}

/// The part of a line that is kept is bounded, and a length cannot hide behind that.
#[test]
fn framing_keeps_little_of_a_long_line() {
    let spaces = " ".repeat(5000);
    let cuts: Vec<usize> = (0..6000).map(|_| 1).collect();
    for (field, found) in [("x-y: ", None), ("Content-Length: ", Some(Own::Length))] {
        let stream = format!("GET / HTTP/1.1\r\n{field}{spaces}4\r\n\r\n");
        let (framing, flaw) = read(&stream, &cuts);
        assert_eq!(flaw.map(|(_, own)| own), found, "{field}");
        assert!(framing.kept.capacity() <= 2 * KEPT_MAX);
    }
}

proptest! {
    #[test]
    fn framing_does_not_depend_on_the_pieces(
        requests in proptest::collection::vec(0_usize..8, 1..6),
        cuts in proptest::collection::vec(1_usize..40, 0..80),
    ) {
        let parts = [
            GET,
            "\r\nPUT /x HTTP/1.1\r\ncontent-length: 7\r\n\r\n\r\n\r\n0\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\n\r\n\r\r\n0\r\nx: y\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
            "GET /#x HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\na",
        ];
        let stream: String = requests.iter().map(|at| parts[*at]).collect();
        let (whole, found) = read(&stream, &[]);
        let (cut, found_in_pieces) = read(&stream, &cuts);
        prop_assert_eq!(found.map(|(_, own)| own), found_in_pieces.map(|(_, own)| own));
        if let (Some((at, _)), Some((in_pieces, _))) = (found, found_in_pieces) {
            // A line in pieces is refused at its last one, before hyper has all of it.
            prop_assert!(in_pieces >= at && !stream[at..in_pieces].contains('\n'));
        } else {
            prop_assert_eq!(whole.state, cut.state);
        }
    }
}
