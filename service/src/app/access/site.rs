//! Requests that a page of another site makes in a visitor's browser.
//!
//! # Why
//! A browser sends them from inside the visitor's network, with the visitor's cookies where these are
//! for any site. `Sec-Fetch-Site` says where the page comes from; browsers send it over TLS and to
//! localhost. `Origin` comes with every writing request of a script or a form. Programs send neither,
//! and are no page's tool.
//!
//! # The trap
//! A page that has its own name point here later (DNS rebinding) is the *same* site to the browser. Its
//! `Host` gives it away, where `access.hosts` says which names are meant. An address and localhost are
//! always known: a rebinding needs a name of the attacker's own.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ferricorn::Scheme;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The reason why a writing request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// A page of another site makes it.
    OtherSite,
    /// `access.hosts` does not name its `Host`.
    UnknownHost,
}

/// The names under which browsers reach the service. Without one, every name is its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts(Vec<Host>);

/// A name and a port, as `Host` and `Origin` have them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// In lower case, without a dot at the end; an IPv6 address without its brackets.
    name: String,
    port: Option<u16>,
}

impl Hosts {
    /// From the texts of `access.hosts`.
    ///
    /// # Errors
    /// A sentence about the first one that is no host name.
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let hosts = texts.into_iter().map(|text| {
            let host = Host::parse(text.as_bytes());
            host.ok_or_else(|| format!("expected a host name, or name:port, found {text:?}"))
        });
        hosts.collect::<Result<_, _>>().map(Self)
    }

    /// Returns true if a request for this host is meant for the service.
    fn admit(&self, own: Option<&Host>) -> bool {
        let Some(own) = own else { return self.0.is_empty() };
        self.0.is_empty() || own.is_local() || self.0.iter().any(|host| host.covers(own))
    }

    /// Returns true if this origin is the service's by its name alone: behind a proxy that puts its own
    /// name into `Host`.
    fn name_origin(&self, origin: &Host) -> bool {
        self.0.iter().any(|host| host == origin)
    }
}

impl Host {
    fn parse(text: &[u8]) -> Option<Self> {
        let authority = Authority::try_from(text).ok()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let name = authority.host();
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // A port that is no number is not left out: it would pass for the default one.
        let port = match authority.as_str().rsplit_once(':') {
            Some((before, port)) if !before.contains('[') || before.ends_with(']') => {
                Some(port.parse().ok()?)
            }
            _ => None,
        };
        (!name.is_empty()).then_some(Self { name, port })
    }

    /// The same without a port where it is the scheme's own.
    fn without_default(mut self, scheme: Scheme) -> Self {
        let default = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        self.port = self.port.filter(|port| *port != default);
        self
    }

    fn covers(&self, other: &Self) -> bool {
        self.name == other.name && self.port.is_none_or(|port| other.port == Some(port))
    }

    fn is_local(&self) -> bool {
        let name = self.name.as_str();
        name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
    }
}

/// Judges a writing request by its head.
///
/// # Errors
/// When a page of another site makes it, or one that passes for this site under a foreign name.
pub(super) fn judge(
    headers: &HeaderMap,
    uri: &Uri,
    scheme: Scheme,
    hosts: &Hosts,
) -> Result<(), Stranger> {
    let site = one(headers, &SEC_FETCH_SITE)?;
    let origin = one(headers, &ORIGIN)?;
    if site.is_none() && origin.is_none() {
        return Ok(());
    }
    let own = match uri.authority() {
        Some(authority) => Host::parse(authority.as_str().as_bytes()),
        None => one(headers, &HOST)?.and_then(|host| Host::parse(host.as_bytes())),
    };
    match (site.map(HeaderValue::as_bytes), origin) {
        (Some(b"same-origin" | b"none"), _) => {}
        (None, Some(origin)) if is_own_origin(origin, own.as_ref(), scheme, hosts) => {}
        (Some(_) | None, _) => return Err(Stranger::OtherSite),
    }
    if hosts.admit(own.as_ref()) { Ok(()) } else { Err(Stranger::UnknownHost) }
}

/// The one value of a field. Two of them contradict each other, and neither is believed.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Stranger> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Stranger::OtherSite) } else { Ok(first) }
}

/// Returns true if the origin is this service's own.
fn is_own_origin(origin: &HeaderValue, own: Option<&Host>, scheme: Scheme, hosts: &Hosts) -> bool {
    // `null`, and schemes of browsers' extensions, are no site's.
    let (theirs, rest) = match origin.as_bytes() {
        [b'h', b't', b't', b'p', b':', b'/', b'/', rest @ ..] => (Scheme::Http, rest),
        [b'h', b't', b't', b'p', b's', b':', b'/', b'/', rest @ ..] => (Scheme::Https, rest),
        _ => return false,
    };
    let Some(origin) = Host::parse(rest).map(|host| host.without_default(theirs)) else {
        return false;
    };
    // In the clear every host on the way can make a page. The other way round, a proxy may end TLS
    // without a word.
    if scheme == Scheme::Https && theirs == Scheme::Http {
        return false;
    }
    let own = own.cloned().map(|host| host.without_default(theirs));
    own.is_some_and(|own| own == origin) || hosts.name_origin(&origin)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(fields: &[(&str, &str)], scheme: Scheme, hosts: &[&str]) -> Result<(), Stranger> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let hosts = Hosts::parse(hosts.iter().copied()).unwrap();
        judge(&headers, &Uri::from_static("/populate"), scheme, &hosts)
    }

    /// The verdicts on fields over HTTP, without `access.hosts`.
    #[test]
    fn site_is_judged_by_what_browsers_send() {
        const OWN: (&str, &str) = ("host", "example.org:5000");
        let table: [(&[(&str, &str)], bool); 22] = [
            (&[], true),
            (&[OWN], true),
            (&[OWN, ("sec-fetch-site", "same-origin")], true),
            (&[OWN, ("sec-fetch-site", "none")], true),
            (&[OWN, ("sec-fetch-site", "same-site")], false),
            (&[OWN, ("sec-fetch-site", "cross-site")], false),
            (&[OWN, ("sec-fetch-site", "")], false),
            (&[OWN, ("sec-fetch-site", "Same-Origin")], false),
            (&[OWN, ("sec-fetch-site", "none"), ("sec-fetch-site", "none")], false),
            (
                &[OWN, ("sec-fetch-site", "cross-site"), ("origin", "http://example.org:5000")],
                false,
            ),
            (&[OWN, ("origin", "http://example.org:5000")], true),
            (&[OWN, ("origin", "http://EXAMPLE.org.:5000")], true),
            (&[OWN, ("origin", "https://example.org:5000")], true),
            (&[OWN, ("origin", "http://example.org")], false),
            (&[OWN, ("origin", "http://example.org:5001")], false),
            (&[OWN, ("origin", "http://example.org:5000.evil.example")], false),
            (&[OWN, ("origin", "http://example.org:5000@evil.example")], false),
            (&[OWN, ("origin", "http://evil.example")], false),
            (&[OWN, ("origin", "null")], false),
            (&[OWN, ("origin", "")], false),
            (&[("origin", "http://example.org:5000")], false),
            (&[OWN, OWN, ("origin", "http://example.org:5000")], false),
        ];
        for (fields, own) in table {
            let expected = if own { Ok(()) } else { Err(Stranger::OtherSite) };
            assert_eq!(judged(fields, Scheme::Http, &[]), expected, "{fields:?}");
        }
    }

    #[test]
    fn default_ports_are_the_schemes() {
        for (host, origin, own) in [
            ("example.org", "http://example.org:80", true),
            ("example.org:80", "http://example.org", true),
            ("example.org", "https://example.org", true),
            ("example.org:443", "https://example.org", true),
            ("example.org", "http://example.org:443", false),
            ("[::1]", "http://[::1]", true),
            ("[::1]:5000", "http://[::1]:5000", true),
            ("[::1]:5000", "http://[::1]:5001", false),
        ] {
            let fields = [("host", host), ("origin", origin)];
            assert_eq!(judged(&fields, Scheme::Http, &[]).is_ok(), own, "{host} {origin}");
        }
    }

    #[test]
    fn page_in_the_clear_is_not_the_site_over_tls() {
        let fields = [("host", "example.org"), ("origin", "http://example.org")];
        assert_eq!(judged(&fields, Scheme::Https, &[]), Err(Stranger::OtherSite));
        let fields = [("host", "example.org"), ("origin", "https://example.org")];
        assert_eq!(judged(&fields, Scheme::Https, &[]), Ok(()));
    }

    #[test]
    fn rebound_name_is_no_excuse() {
        let hosts = ["rows.example", "admin.example:8443"];
        for (host, known) in [
            ("rows.example", true),
            ("rows.example:5000", true),
            ("ROWS.example.", true),
            ("admin.example:8443", true),
            ("admin.example", false),
            ("evil.example", false),
            ("evil.example:5000", false),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("localhost:5000", true),
        ] {
            let expected = if known { Ok(()) } else { Err(Stranger::UnknownHost) };
            let fields = [("host", host), ("sec-fetch-site", "same-origin")];
            assert_eq!(judged(&fields, Scheme::Http, &hosts), expected, "{host}");
            let origin = format!("http://{host}");
            let fields = [("host", host), ("origin", origin.as_str())];
            assert_eq!(judged(&fields, Scheme::Http, &hosts), expected, "{host}");
            assert_eq!(judged(&[("host", host)], Scheme::Http, &hosts), Ok(()), "no browser");
        }
    }

    #[test]
    fn proxy_that_replaces_host_needs_its_name_told() {
        let fields = [("host", "localhost:5000"), ("origin", "https://rows.example")];
        assert_eq!(judged(&fields, Scheme::Http, &[]), Err(Stranger::OtherSite));
        assert_eq!(judged(&fields, Scheme::Http, &["rows.example"]), Ok(()));
        let other = [("host", "localhost:5000"), ("origin", "https://rows.example:8443")];
        assert_eq!(judged(&other, Scheme::Http, &["rows.example"]), Err(Stranger::OtherSite));
    }

    #[test]
    fn absolute_target_is_the_host() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("http://example.org"));
        headers.insert(HOST, HeaderValue::from_static("other.example"));
        let uri = Uri::from_static("http://example.org/populate");
        assert_eq!(judge(&headers, &uri, Scheme::Http, &Hosts::default()), Ok(()));
    }

    #[test]
    fn host_that_is_none_is_refused_in_words() {
        for text in ["", "http://x", "a b", "user@x", "x:port", "x/"] {
            let error = Hosts::parse([text]).unwrap_err();
            assert_eq!(error, format!("expected a host name, or name:port, found {text:?}"));
        }
    }

    proptest! {
        /// Of two authorities that differ, neither passes for the other.
        #[test]
        fn no_origin_passes_for_another(
            own in "[a-z0-9.:\\[\\]@-]{0,20}",
            other in "[a-z0-9.:\\[\\]@/-]{0,20}",
        ) {
            let origin = format!("http://{other}");
            let fields = [("host", own.as_str()), ("origin", origin.as_str())];
            let own = Host::parse(own.as_bytes()).map(|host| host.without_default(Scheme::Http));
            let other = Host::parse(other.as_bytes()).map(|host| host.without_default(Scheme::Http));
            let same = own.is_some() && own == other;
            prop_assert_eq!(judged(&fields, Scheme::Http, &[]).is_ok(), same);
        }

        #[test]
        fn odd_fields_are_judged_without_a_panic(
            site in proptest::option::of("\\PC{0,20}"),
            origin in proptest::collection::vec(any::<u8>(), 0..40),
            host in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                (SEC_FETCH_SITE, site.map(String::into_bytes)),
                (ORIGIN, Some(origin)),
                (HOST, Some(host)),
            ] {
                if let Some(Ok(value)) = value.map(|value| HeaderValue::from_bytes(&value)) {
                    headers.insert(name, value);
                }
            }
            let hosts = Hosts::parse(["rows.example"]).unwrap();
            let _judged = judge(&headers, &Uri::from_static("/"), Scheme::Http, &hosts);
        }
    }
}
