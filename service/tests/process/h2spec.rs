//! Conformance of HTTP/2 by h2spec (github.com/summerwind/h2spec), where it is installed:
//! `docs/development.md` has how to build it.
//!
//! # Why `/length`
//! Some cases send a malformed body or malformed trailers behind a head, and expect the reset of the stream.
//! A handler that answers without having read the body may be faster (RFC 9113 section 8.1 allows it).

use std::process::Command;

use crate::harness::{Ferricorn, PATIENCE};

/// The result of all of its cases.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// Numbers of those that passed, were skipped, and failed.
    summary: String,
    /// The names of those that failed.
    failed: Vec<String>,
}

/// Runs all cases, also the strict ones, against a server; `None`: it is not installed.
fn verdict(server: &Ferricorn, address: usize, options: &[&str]) -> Option<Verdict> {
    let address = crate::harness::parse_address(&server.addresses()[address]).tcp();
    let timeout = PATIENCE.as_secs().to_string();
    let output = Command::new("h2spec")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["--strict", "-P", "/length", "-o", &timeout])
        .args(options)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, end) = text.rsplit_once("\nFinished in ").unwrap_or_else(|| panic!("{text}"));
    let summary = end.lines().nth(1).unwrap_or_default().to_owned();
    let failures = text.split_once("\nFailures:").map_or("", |(_, failures)| failures);
    let failed = failures.lines().filter_map(|line| line.trim_start().strip_prefix("× "));
    Some(Verdict { summary, failed: failed.map(str::to_owned).collect() })
}

#[test]
fn h2spec_passes_over_tls_and_in_the_clear() {
    let builder = Ferricorn::unruly();
    crate::tls::localhost().write(builder.folder(), "a");
    let tls = "[tls]\nbind = \"127.0.0.1:0\"\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";
    let server = builder.config(&format!("workers = 1\n{tls}")).start();
    let Some(encrypted) = verdict(&server, 1, &["-t", "-k"]) else {
        println!("left out: h2spec, which is not installed (docs/development.md)");
        return server.stop();
    };
    let plain = verdict(&server, 0, &[]).expect("it is installed");
    println!("h2 over TLS: {}\nh2c: {}", encrypted.summary, plain.summary);
    assert_eq!(encrypted.failed, Vec::<String>::new());
    assert_eq!(encrypted.summary, "147 tests, 147 passed, 0 skipped, 0 failed");
    // On a plain address, bytes that are not the preface are a request of HTTP/1.1, and are answered as such:
    // 400, and the end of the connection. h2spec takes the answer for a frame that is not whole.
    assert_eq!(plain.failed, ["2: Sends invalid connection preface"]);
    assert_eq!(plain.summary, "147 tests, 146 passed, 0 skipped, 1 failed");
    server.stop();
}
