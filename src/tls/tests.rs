//! Certificates of the tests' own authority, whole and broken.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

use super::*;
use crate::config::Config;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Writes a certificate for these names that is valid until the end of this year, and its key.
fn write(folder: &Path, name: &str, names: &[&str], year: i32) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 12, 31);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn config(folder: &Path, certificate: &str, key: &str) -> Config {
    let folder = folder.display();
    let text = format!("[tls]\ncertificate = '{folder}/{certificate}'\nkey = '{folder}/{key}'\n");
    Config::from_toml(&text, &[]).unwrap()
}

fn refused(folder: &Path, certificate: &str, key: &str) -> String {
    let problems = Bundle::of(&config(folder, certificate, key), now()).unwrap_err();
    let text: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.key, problem.reason)).collect();
    text.join("\n").replace(&format!("{}/", folder.display()), "")
}

#[test]
fn bundle_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", &["a.example", "*.b.example", "192.0.2.1"], 2030);
    let bundle = Bundle::of(&config(folder.path(), "a.crt", "a.key"), now()).unwrap().unwrap();
    assert_eq!(bundle.expiring(now(), EXPIRES_SOON).count(), 0);
    assert_eq!(bundle.expiring(now(), Duration::from_secs(5 * 366 * 24 * 3600)).count(), 1);
    let contents = files::Contents::decode(&bundle.content().unwrap()).unwrap();
    let [pair] = contents.pairs.as_slice() else { panic!("there is one") };
    let names = certificate::names(&pair.chain[0]);
    assert_eq!(names, ["a.example", "*.b.example", "192.0.2.1"]);
    assert!(Bundle::of(&Config::default(), now()).unwrap().is_none());
}

#[test]
fn broken_files_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "a", &["a.example"], 2030);
    write(folder, "b", &["b.example"], 2030);
    write(folder, "old", &["a.example"], 2021);
    let expired = refused(folder, "old.crt", "old.key");
    assert_eq!(expired, "tls.certificate: old.crt: the certificate expired on 2021-12-31");
    assert_eq!(
        refused(folder, "a.crt", "b.key"),
        "tls.key: b.key: the key does not belong to the certificate in a.crt: one of them is older, or \
         the server's own certificate is not the first one"
    );
    let none = refused(folder, "a.key", "a.key");
    assert_eq!(none, "tls.certificate: a.key: expected a certificate (PEM), found none");
    let none = refused(folder, "a.crt", "a.crt");
    assert_eq!(none, "tls.key: a.crt: expected a private key (PEM, not encrypted), found none");
    let whole = std::fs::read(folder.join("a.crt")).unwrap();
    std::fs::write(folder.join("half.crt"), &whole[..whole.len() / 2]).unwrap();
    let half = refused(folder, "half.crt", "a.key");
    assert!(half.starts_with("tls.certificate: half.crt: malformed PEM ("), "{half}");
    assert!(half.ends_with("): it may not be written whole yet"), "{half}");
    let absent = refused(folder, "absent.crt", "a.key");
    assert!(absent.starts_with("tls.certificate: absent.crt: no such file"), "{absent}");
}

#[test]
fn no_bytes_are_too_odd_for_a_bundle() {
    for bytes in [&b"c"[..], b"c\xff\xff\xff\xff", b"z\0\0\0\0", b"c\x01\0\0\0"] {
        assert!(files::Contents::decode(bytes).is_none(), "{bytes:?}");
    }
}
