//! The tests' own authority, its certificates, and clients that trust it and nothing else.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    SignatureAlgorithm, date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
};

/// The authority of every certificate here.
fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().expect("there are random numbers");
        CertifiedIssuer::self_signed(params, key).expect("it can sign")
    })
}

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An algorithm of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Algorithm {
    Ecdsa,
    Rsa,
}

impl Algorithm {
    fn signature(self) -> &'static SignatureAlgorithm {
        match self {
            Self::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            Self::Rsa => &PKCS_RSA_SHA256,
        }
    }
}

fn sign(params: &CertificateParams, algorithm: Algorithm) -> (Certificate, KeyPair) {
    let key = match algorithm {
        Algorithm::Ecdsa => KeyPair::generate_for(algorithm.signature()),
        // ring makes no RSA keys.
        Algorithm::Rsa => KeyPair::from_pem_and_sign_algo(RSA_KEY, algorithm.signature()),
    };
    let key = key.expect("there are random numbers");
    let certificate = params.signed_by(&key, authority()).expect("the authority signs it");
    (certificate, key)
}

impl Pair {
    /// A server's certificate for these names, valid until the end of this year.
    pub(crate) fn server(names: &[&str], algorithm: Algorithm, year: i32) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("they are names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        Self::of(&params, algorithm)
    }

    /// The same, valid until so many seconds after the epoch.
    pub(crate) fn server_until(names: &[&str], seconds: i64) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("they are names");
        params.not_before = date_time_ymd(2020, 1, 1);
        let passed = std::time::Duration::from_secs(seconds.unsigned_abs());
        params.not_after = date_time_ymd(1970, 1, 1) + passed;
        Self::of(&params, Algorithm::Ecdsa)
    }

    /// A client's certificate.
    pub(crate) fn client(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Self::of(&params, Algorithm::Ecdsa)
    }

    fn of(params: &CertificateParams, algorithm: Algorithm) -> Self {
        let (certificate, key) = sign(params, algorithm);
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes it into a folder, as `NAME.crt` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        let file = |extension: &str| folder.join(format!("{name}.{extension}"));
        std::fs::write(file("crt"), &self.certificate).expect("the folder is ours");
        std::fs::write(file("key"), &self.key).expect("the folder is ours");
        // The server may run as another user.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(file("key"), mode).expect("the file is ours");
    }
}

/// A certificate for `localhost`.
pub(crate) fn localhost() -> Pair {
    Pair::server(&["localhost"], Algorithm::Ecdsa, 2099)
}

/// The authority's certificate, as PEM.
pub(crate) fn authority_pem() -> String {
    authority().pem()
}

/// The settings of a client that speaks these versions and has this certificate.
pub(crate) fn client_config(
    versions: &[&'static SupportedProtocolVersion],
    pair: Option<&Pair>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority().der().clone()).expect("it is a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("there are versions")
        .with_root_certificates(roots);
    match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            use tokio_rustls::rustls::pki_types::CertificateDer;
            use tokio_rustls::rustls::pki_types::pem::PemObject;
            let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
            let chain = chain.collect::<Result<_, _>>().expect("it is PEM");
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("it is PEM");
            builder.with_client_auth_cert(chain, key).expect("they belong together")
        }
    }
}

/// A client of a server that is called `localhost`; all of them share their sessions.
pub(crate) fn client() -> ClientConnection {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| Arc::new(client_config(&[&TLS13, &TLS12], None)));
    let name = ServerName::try_from("localhost").expect("it is a name");
    ClientConnection::new(Arc::clone(config), name).expect("the settings are right")
}

/// A key that was made for these tests, and is used by nothing else.
const RSA_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCmXgdgbf9cJtua
02uuXEgQOzibIVe5xIdPO6DMXBVwxAlQxI1NtyqT/f5FUKF8PwHeOKWYWJcAdJkb
4vnNXBB2rQmVM4GHWnXFrK0VJNoXWO/qsCGzBfITD/5HVdnR/aGslx+viqrAqmef
HoQ4nuTC6Ls6YfW+w9T7qV27+snXkgXac4xWg8jhFawF1KKvO1Wvl2QqkJ/dBNy6
fkaZ6TdeqJKcSlQWTRWXK/NZUeIyRFFOqycSwtGPYGhk5iqirN1grF0KD/vuCw4o
Fey2XxwRiHE1y2q1o8EGb+Yxn7DaDjwqFzHfvh86OXBoAv9fFbsyXRnM78lGsbKz
p4fWJl2pAgMBAAECgf8PTDn7BUEKZkrfryrB4s7mhjme62zY1jRTTSM5fnFbi95Z
qIX5mlPkcM2ZsMs9DQkFVrU/j4mvNDy2/LJDU74bVHwNGE4TXHZjahHcdFj1resa
Crvv096xH3qPCm99DcYSmLQjGRLiH1iQ3ZSIWKNee/3FmOA4SRuE1WUV6RM/4vgb
tmKeeswWXiOkMHwda7933XzENoE/jExkupxJBsMOkU7gGjSeVFvFPN5Ix0rBHa6s
zFycwCGZw1AG5+IsApb6jwIVQp5c5hoqwqOjv1Fwt61dhk694v5OONVUYOexv7GF
qmi+yolgxpTuOHgyl+H5M5i0b4hoI28iTDEIZAMCgYEA20tPiFIaiBoPJ4k1BgCP
fiPiFrnKmOFjvq+Nd8VHVMVrLjvzw9LUQOxqnijS3jCdfWNyltai0Eglc//fkzSS
rGkakYdJsWxo0Gl1n0PEQ4/XEZXYH+xim8qOnLrTnakeYasnBVdyLXtTFiTYeDch
Rku+MwjzQ7ZIbVu8+rs8HusCgYEAwjbRN+AI8Kj00/5g53TA6KEZLxTEYas7CV0T
kLAgLPK/L7VEgCjF3A/vPT3oU7CnhDGvWtTlPZ9hvlilQRtNuJePU93RJe6hUNIs
hf+xRdO9JU2251F5GLP9ysBmxuzs8P9GLpal+Cu78SQJrzIlm8KvwifnqrrrU8gF
BssRWLsCgYEAk6P5kOMOH9HDoC+dNkRMV3WbMwe1IgalG+2fhiKY6rbbeU49yPp5
kphZE9CSX6tFbPT2Yh1xkl7wcE+126rKkS9WBuKZt80wKBjIawi56269Moa68os4
vIC8UULrVDtXTBRp+guswHhGMSNvZkhfq681B7Ef7tebnZzk9731NS8CgYEAsLTJ
pYoc+ELyB9TCfLWZM9AoJtNBXxA59eoO/C2UCPGRDKpkOite4zxIU7N5KHRp5niC
cSWVsnzKpTLooRVjoNmdWhRP0LCPbAbe5cjglYTy6vcLvOo/QT+7YfevS72UVC4f
wBHnzqaUKPK+MP5yg4ce/YvrWEccCK3MDQNEtDMCgYEAmM6D4uMyqnbaOxL+oKy/
JpLF+o7U5i1n/LV/gu7u25IKGuxI7tjNpTMKN3tA8nCcTRUqcPvyMWUc1S6IEW7h
4ZJoyMwRbgzZwzBvW4qVQhhqqxRV+tWJOUzRnh2kZ9w1SM94aBcnOsaKnwqpva8G
rwz+iCsvkOZwbfqvpYxEvTU=
-----END PRIVATE KEY-----
";
