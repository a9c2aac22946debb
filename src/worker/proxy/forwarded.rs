//! The word of a trusted peer about the client behind it: `Forwarded` (RFC 7239), or `X-Forwarded-For`
//! and `X-Forwarded-Proto`.
//!
//! # The traps
//! - Every client may send these fields, and proxies add to what they receive. So they are read from the
//!   right, where the nearest proxy has written, and only as far as that writer is trusted: what stands
//!   to the left of the first address that is not trusted is hearsay.
//! - A proxy sees to one kind of field and may pass on the other as a client made it up. So one kind is
//!   read, by the configuration, and the other one is ignored.
//! - A value that is malformed where it is read is not believed in part: the client is then the peer.
//! - Fields that say two different things of one client are an attempt to be taken for another one, or a
//!   proxy that passes on what it should replace. Which of them is true is not known: the request is
//!   refused.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::header::{FORWARDED, GetAll};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{ForwardedFields, Network};
use crate::request::client::{Client, Scheme};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Networks whose members are believed.
#[derive(Clone, Debug)]
pub(crate) struct Trusted(Vec<Network>);

impl Trusted {
    pub(crate) fn new(networks: &[Network]) -> Self {
        Self(networks.to_vec())
    }

    /// Returns true if a peer is one of them. A peer without an address is: who may connect to a unix
    /// socket is the file's business (as in gunicorn's `forwarded_allow_ips`).
    pub(crate) fn has_peer(&self, peer: Option<SocketAddr>) -> bool {
        peer.is_none_or(|peer| self.has(peer.ip()))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// The word of a field about the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Nothing.
    Unsaid,
    /// That it is not known, or not to be known.
    Hidden,
    Known(IpAddr),
}

/// The word of one kind of field about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    origin: Origin,
    scheme: Option<Scheme>,
}

/// Why a field is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// It does not follow its grammar.
    Malformed,
    /// It says two different things.
    Contradiction,
}

/// Fields that say two different things of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction;

/// Returns true if a field of this name speaks of a client behind the peer.
pub(crate) fn is_one(name: &HeaderName) -> bool {
    *name == FORWARDED || *name == X_FORWARDED_FOR || *name == X_FORWARDED_PROTO
}

/// Returns the client behind a trusted peer, by this family of fields.
///
/// # Errors
/// When the fields contradict each other.
pub(crate) fn client(
    headers: &HeaderMap,
    peer: Client,
    trusted: &Trusted,
    family: ForwardedFields,
) -> Result<Client, Contradiction> {
    let claim = match family {
        ForwardedFields::Forwarded => forwarded(&headers.get_all(FORWARDED), trusted),
        ForwardedFields::XForwarded => x_forwarded(
            &headers.get_all(X_FORWARDED_FOR),
            &headers.get_all(X_FORWARDED_PROTO),
            trusted,
        ),
    };
    let claim = match claim {
        Ok(claim) => claim,
        Err(Doubt::Malformed) => return Ok(peer),
        Err(Doubt::Contradiction) => return Err(Contradiction),
    };
    let address = match claim.origin {
        Origin::Unsaid => peer.address(),
        Origin::Hidden => None,
        Origin::Known(address) => Some(address),
    };
    Ok(peer.behind(address, claim.scheme.unwrap_or(peer.scheme())))
}

/// RFC 7239 section 4: elements, the last of which was added by the nearest proxy.
fn forwarded(values: &GetAll<'_, HeaderValue>, trusted: &Trusted) -> Result<Claim, Doubt> {
    let mut claim = Claim { origin: Origin::Unsaid, scheme: None };
    for value in values.iter().rev() {
        let mut elements = Vec::new();
        let mut rest = value.as_bytes();
        loop {
            elements.push(element(&mut rest)?);
            match rest.split_first() {
                Some((b',', behind)) => rest = behind,
                Some(_) => return Err(Doubt::Malformed),
                None => break,
            }
        }
        for element in elements.into_iter().flatten().rev() {
            claim = element;
            if !is_read_on(claim.origin, trusted) {
                return Ok(claim);
            }
        }
    }
    Ok(claim)
}

/// Returns true if the client that was found is a proxy that is trusted, too, so that it may say more.
fn is_read_on(origin: Origin, trusted: &Trusted) -> bool {
    match origin {
        Origin::Known(address) => trusted.has(address),
        Origin::Hidden | Origin::Unsaid => false,
    }
}

/// One element: `name=value` pairs between semicolons. `None` where there are none, which a list may
/// have (RFC 9110 section 5.6.1). Ends at a comma or at the end.
fn element(rest: &mut &[u8]) -> Result<Option<Claim>, Doubt> {
    let mut origin = None;
    let mut scheme = None;
    let mut is_empty = true;
    loop {
        *rest = rest.trim_ascii_start();
        let name = token(rest);
        if !name.is_empty() {
            is_empty = false;
            let value = pair_value(rest)?;
            if name.eq_ignore_ascii_case(b"for") {
                set_once(&mut origin, node(&value)?)?;
            } else if name.eq_ignore_ascii_case(b"proto") {
                set_once(&mut scheme, scheme_named(&value)?)?;
            }
        }
        *rest = rest.trim_ascii_start();
        match rest.split_first() {
            Some((b';', behind)) => *rest = behind,
            _ if is_empty => return Ok(None),
            _ => return Ok(Some(Claim { origin: origin.unwrap_or(Origin::Unsaid), scheme })),
        }
    }
}

/// RFC 7239 section 4: a parameter occurs once in an element.
fn set_once<T: PartialEq>(place: &mut Option<T>, value: T) -> Result<(), Doubt> {
    if let Some(before) = place {
        return Err(if *before == value { Doubt::Malformed } else { Doubt::Contradiction });
    }
    *place = Some(value);
    Ok(())
}

/// Takes a token (RFC 9110 section 5.6.2) from the front, which may be empty.
fn token<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = rest.iter().position(|byte| !allowed(*byte)).unwrap_or(rest.len());
    let (token, behind) = rest.split_at(end);
    *rest = behind;
    token
}

/// Takes `=` and a token or a quoted string (RFC 9110 section 5.6.4) from the front.
fn pair_value(rest: &mut &[u8]) -> Result<Vec<u8>, Doubt> {
    let Some((b'=', behind)) = rest.split_first() else { return Err(Doubt::Malformed) };
    *rest = behind;
    let Some((b'"', behind)) = rest.split_first() else {
        let value = token(rest);
        return if value.is_empty() { Err(Doubt::Malformed) } else { Ok(value.to_vec()) };
    };
    *rest = behind;
    let mut value = Vec::new();
    loop {
        let (byte, behind) = rest.split_first().ok_or(Doubt::Malformed)?;
        *rest = behind;
        match byte {
            b'"' => return Ok(value),
            b'\\' => {
                let (byte, behind) = rest.split_first().ok_or(Doubt::Malformed)?;
                *rest = behind;
                value.push(*byte);
            }
            byte => value.push(*byte),
        }
    }
}

/// RFC 7239 section 6: an address with or without a port, `unknown`, or a name that hides one.
fn node(value: &[u8]) -> Result<Origin, Doubt> {
    let text = std::str::from_utf8(value).map_err(|_| Doubt::Malformed)?;
    let is_name = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(allowed))
    };
    let (host, port) = match text.rsplit_once(':') {
        // The last colon of an address in brackets without a port is one of its own.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let is_port = |port: &str| {
        is_name(port) || (port.len() <= 5 && port.parse::<u16>().is_ok() && !port.starts_with('+'))
    };
    if !port.is_none_or(is_port) {
        return Err(Doubt::Malformed);
    }
    if host.eq_ignore_ascii_case("unknown") || is_name(host) {
        return Ok(Origin::Hidden);
    }
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => {
            let address: Ipv6Addr = host.parse().map_err(|_| Doubt::Malformed)?;
            Ok(Origin::Known(IpAddr::V6(address).to_canonical()))
        }
        None => Ok(Origin::Known(IpAddr::V4(host.parse().map_err(|_| Doubt::Malformed)?))),
    }
}

fn scheme_named(value: &[u8]) -> Result<Scheme, Doubt> {
    if value.eq_ignore_ascii_case(b"https") {
        Ok(Scheme::Https)
    } else if value.eq_ignore_ascii_case(b"http") {
        Ok(Scheme::Http)
    } else {
        Err(Doubt::Malformed)
    }
}

/// The fields that every proxy knows and no standard describes. Each is believed or not for itself.
fn x_forwarded(
    addresses: &GetAll<'_, HeaderValue>,
    schemes: &GetAll<'_, HeaderValue>,
    trusted: &Trusted,
) -> Result<Claim, Doubt> {
    let mut origin = Ok(Origin::Unsaid);
    let mut place = None;
    for (at, element) in from_the_right(addresses).enumerate() {
        origin = address(element);
        place = origin.is_ok().then_some(at);
        if !origin.is_ok_and(|origin| is_read_on(origin, trusted)) {
            break;
        }
    }
    let scheme = match x_scheme(schemes, place, from_the_right(addresses).count()) {
        Ok(scheme) => scheme,
        Err(Doubt::Malformed) => None,
        Err(Doubt::Contradiction) => return Err(Doubt::Contradiction),
    };
    Ok(Claim { origin: origin.unwrap_or(Origin::Unsaid), scheme })
}

/// The scheme that belongs to the address at this place of so many. A proxy may have added one for
/// each address; otherwise they must all say the same.
fn x_scheme(
    schemes: &GetAll<'_, HeaderValue>,
    place: Option<usize>,
    addresses: usize,
) -> Result<Option<Scheme>, Doubt> {
    let mut first = None;
    let mut own = None;
    let mut count = 0;
    let mut differ = false;
    for element in from_the_right(schemes) {
        let scheme = scheme_named(element)?;
        if place == Some(count) {
            own = Some(scheme);
        }
        differ |= *first.get_or_insert(scheme) != scheme;
        count += 1;
    }
    if own.is_some() && count == addresses {
        return Ok(own);
    }
    if differ { Err(Doubt::Contradiction) } else { Ok(first) }
}

/// The elements of a list that may be in several fields, the last one first; no empty ones.
fn from_the_right<'a>(values: &GetAll<'a, HeaderValue>) -> impl Iterator<Item = &'a [u8]> {
    let elements = |value: &'a HeaderValue| value.as_bytes().rsplit(|byte| *byte == b',');
    let elements = values.iter().rev().flat_map(elements).map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(element: &[u8]) -> Result<Origin, Doubt> {
    let text = std::str::from_utf8(element).map_err(|_| Doubt::Malformed)?;
    if text.eq_ignore_ascii_case("unknown") {
        return Ok(Origin::Hidden);
    }
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse().ok().or_else(bracketed);
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| Origin::Known(address.to_canonical())).ok_or(Doubt::Malformed)
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
