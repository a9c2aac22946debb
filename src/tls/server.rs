//! The TLS configurations of workers, and the client of the health check.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use super::files::Contents;
use super::{Acceptor, Material, Tickets, certificate};
use crate::config::{ClientAuth, Tls, TlsVersion};

/// Makes what connections shake hands with. `protocols` are offered by ALPN, the preferred one first.
///
/// # Errors
/// When the bundle cannot be read, or is not whole.
pub(crate) fn acceptor(
    tls: &Tls,
    material: &Material,
    protocols: &[&[u8]],
) -> io::Result<Acceptor> {
    let mut content = material.bundle.content()?;
    let contents = Contents::decode(&content);
    content.fill(0);
    let contents = contents.ok_or(io::ErrorKind::InvalidData)?;
    let provider = Arc::new(ring::default_provider());
    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let policy = policy(tls, &contents);
    let verifier = verifier(tls.client_auth, &contents.authorities, &provider)?;
    let resolver = Certificates::new(contents, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer =
        Arc::new(Tickets::new(material.tickets.as_fd().try_clone_to_owned()?, &policy)?);
    // A session that is kept here would be known to one worker alone.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Acceptor::new(config))
}

/// The rules that a session depends on which is resumed without another look at a client's certificate.
fn policy(tls: &Tls, contents: &Contents) -> Vec<u8> {
    let mut policy = vec![tls.client_auth as u8];
    for authority in &contents.authorities {
        policy.extend(authority.len().to_le_bytes());
        policy.extend_from_slice(authority);
    }
    policy
}

fn verifier(
    auth: ClientAuth,
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ClientCertVerifier>> {
    if auth == ClientAuth::None {
        return Ok(Arc::new(NoClientAuth));
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(io::Error::other)?;
    }
    let provider = Arc::clone(provider);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional | ClientAuth::None => builder.allow_unauthenticated(),
    };
    let verifier = builder.build().map_err(io::Error::other)?;
    Ok(verifier)
}

/// The certificates, of which a client gets the first one that fits.
#[derive(Debug)]
struct Certificates(Vec<Named>);

/// A certificate with the names that it stands for.
#[derive(Debug)]
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Certificates {
    fn new(contents: Contents, provider: &CryptoProvider) -> io::Result<Self> {
        let named = |pair: super::Pair| {
            let names = pair.chain.first().map(|leaf| certificate::names(leaf)).unwrap_or_default();
            let key = CertifiedKey::from_der(pair.chain, pair.key, provider);
            Ok(Named { names, key: Arc::new(key.map_err(io::Error::other)?) })
        };
        contents.pairs.into_iter().map(named).collect::<io::Result<_>>().map(Self)
    }

    /// The first certificate with this name, or the first one at all, that can sign so.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let can_sign = |named: &&Named| named.key.key.choose_scheme(schemes).is_some();
        let is_named = |named: &&Named| {
            name.is_some_and(|name| named.names.iter().any(|own| stands_for(own, name)))
        };
        let fits = self.0.iter().filter(can_sign).find(is_named);
        fits.or_else(|| self.0.iter().find(can_sign)).map(|named| &named.key)
    }
}

/// Returns true if a certificate's name, which may begin with `*.`, stands for this one.
fn stands_for(own: &str, name: &str) -> bool {
    match own.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => own == name,
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.choose(name.as_deref(), hello.signature_schemes()).cloned()
    }
}

/// A client that takes any certificate: it asks a server of this machine, whose name it does not know.
pub(crate) struct Client(ClientConnection);

impl Client {
    /// # Errors
    /// When there is no version of TLS to speak, as a sentence.
    pub(crate) fn new() -> Result<Self, String> {
        let failed = |error: rustls::Error| format!("failed to begin TLS: {error}");
        let name = ServerName::try_from("localhost").expect("it is a name");
        let config = trusting_client().map_err(failed)?;
        ClientConnection::new(Arc::new(config), name).map(Self).map_err(failed)
    }

    /// Speaks TLS on a stream.
    pub(crate) fn over<S: Read + Write>(self, stream: S) -> impl Read + Write {
        StreamOwned::new(self.0, stream)
    }
}

fn trusting_client() -> Result<ClientConfig, rustls::Error> {
    let provider = ring::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    Ok(ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms)))
        .with_no_client_auth())
}

#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_stands_for_one_label() {
        assert!(stands_for("a.example", "a.example"));
        assert!(stands_for("*.example", "a.example"));
        assert!(!stands_for("*.example", "b.a.example"));
        assert!(!stands_for("*.example", "example"));
        assert!(!stands_for("a.example", "b.example"));
    }
}
