//! The PROXY protocol, versions 1 and 2: what stands before everything else on a connection that a
//! proxy has opened (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! # Why not a crate
//! `ppp` 2.3 and `proxy-header` 0.1 were tried. Both refuse `LOCAL` headers of an address family that
//! they do not know, which section 2.2 forbids, both take `+80` for a port, one calls a text header
//! wrong that is cut behind a space, and neither bounds a binary one. The second is the oracle of the
//! tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::request::client::Scheme;

/// Bytes of the longest text header (section 2.1).
const TEXT_MAX: usize = 107;
/// Bytes of the longest binary header that is read. Addresses take 216 at the most; the rest is room
/// for what proxies add, of which certificates' names are the longest.
const BINARY_MAX: usize = 4096;
/// Bytes of any header.
pub(crate) const HEADER_MAX: usize = BINARY_MAX;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = SIGNATURE.len() + 4;

/// The content of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// The client that opened the connection to the proxy; `None`: the proxy itself, or a client
    /// without an address. The peer is the socket's own then.
    pub(crate) source: Option<SocketAddr>,
    /// The scheme, where the proxy names it.
    pub(crate) scheme: Option<Scheme>,
}

/// The kind of the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Too few to say.
    More,
    /// A header of so many bytes.
    Header(Proxied, usize),
    /// No header, whatever follows.
    Wrong(&'static str),
}

/// Reads the header at the beginning of these bytes, which may be followed by anything.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let result = if begins(bytes, SIGNATURE) { binary(bytes) } else { text(bytes) };
    match result {
        Ok(Some((proxied, length))) => Parsed::Header(proxied, length),
        Ok(None) => Parsed::More,
        Err(why) => Parsed::Wrong(why),
    }
}

type Header = Result<Option<(Proxied, usize)>, &'static str>;

/// Returns true if the bytes are a beginning of, or begin with, what is expected.
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    let length = bytes.len().min(expected.len());
    bytes[..length] == expected[..length]
}

/// Section 2.1: `PROXY TCP4 192.0.2.7 192.0.2.1 50000 80` and a line end.
fn text(bytes: &[u8]) -> Header {
    if !begins(bytes, b"PROXY ") {
        return Err("it does not begin with a PROXY header");
    }
    let bounded = &bytes[..bytes.len().min(TEXT_MAX)];
    let Some(end) = memchr::memchr(b'\n', bounded) else {
        let is_long = bytes.len() >= TEXT_MAX;
        return if is_long { Err("its PROXY line is longer than 107 bytes") } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or("its PROXY line does not end in CR LF")?;
    let line = std::str::from_utf8(line).map_err(|_| "its PROXY line is not ASCII")?;
    let mut words = line.split(' ').skip(1);
    let source = match words.next() {
        // Whatever stands behind it is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(ends::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(ends::<Ipv6Addr>(words)?),
        Some(_) | None => return Err("its PROXY line names no protocol that there is"),
    };
    Ok(Some((Proxied { source, scheme: None }, end + 1)))
}

/// The source of `source destination source-port destination-port`; all of them must be right.
fn ends<'a, A: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<SocketAddr, &'static str> {
    let mut address = || -> Option<IpAddr> { words.next()?.parse::<A>().ok().map(Into::into) };
    let wrong = "its PROXY line has an address that is none of its protocol";
    let source = address().ok_or(wrong)?;
    let _destination = address().ok_or(wrong)?;
    let mut port = || -> Option<u16> { port(words.next()?) };
    let wrong = "its PROXY line has a port that is none";
    let source_port = port().ok_or(wrong)?;
    let _destination_port = port().ok_or(wrong)?;
    match words.next() {
        Some(_) => Err("its PROXY line has more words than it should"),
        None => Ok(SocketAddr::new(source, source_port)),
    }
}

/// Digits without zeros in front.
fn port(word: &str) -> Option<u16> {
    let is_plain = word == "0" || word.starts_with(|first: char| ('1'..='9').contains(&first));
    if is_plain { word.parse().ok() } else { None }
}

/// Section 2.2.
fn binary(bytes: &[u8]) -> Header {
    let Some((fixed, _)) = bytes.split_at_checked(FIXED) else {
        return Ok(None);
    };
    let command = fixed[12];
    let family = fixed[13];
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    // Judged before the rest is waited for.
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("its PROXY header has a version or command that there is not"),
    };
    let addresses = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err("its PROXY header has an address family that there is not"),
    };
    if length > BINARY_MAX {
        return Err("its PROXY header is longer than 4096 bytes");
    }
    if length < FIXED + addresses {
        return Err("its PROXY header is too short for its addresses");
    }
    let Some(rest) = bytes.get(FIXED..length) else {
        return Ok(None);
    };
    if is_local {
        // The family and all that follows mean nothing.
        return Ok(Some((Proxied::default(), length)));
    }
    let (addresses, additions) = rest.split_at(addresses);
    let scheme = scheme(additions)?;
    Ok(Some((Proxied { source: source(addresses), scheme }, length)))
}

/// The first of two addresses, with the first of the two ports that follow them.
fn source(addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    match addresses.len() {
        12 => {
            let address: [u8; 4] = addresses[..4].try_into().expect("four bytes are four");
            Some(SocketAddr::new(address.into(), port(8)))
        }
        36 => {
            let address: [u8; 16] = addresses[..16].try_into().expect("sixteen bytes are sixteen");
            Some(SocketAddr::new(address.into(), port(32)))
        }
        _ => None,
    }
}

/// Section 2.2.6: whether the client came over TLS, if the proxy says anything of it.
fn scheme(mut additions: &[u8]) -> Result<Option<Scheme>, &'static str> {
    const SSL: u8 = 0x20;
    const CLIENT_SSL: u8 = 0x01;
    let wrong = "its PROXY header has an addition that is cut";
    let mut scheme = None;
    while let Some((kind, rest)) = additions.split_first() {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(wrong)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(wrong)?;
        if *kind == SSL {
            let flags = value.first().ok_or(wrong)?;
            let is_secure = flags & CLIENT_SSL != 0;
            scheme = Some(if is_secure { Scheme::Https } else { Scheme::Http });
        }
        additions = rest;
    }
    Ok(scheme)
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
