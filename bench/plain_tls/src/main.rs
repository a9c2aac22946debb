//! The route of `examples/plain.rs` over TLS, on axum-server in one process, without a log.
//! Usage: `plain_tls ADDRESS CERTIFICATE KEY`.

use std::net::SocketAddr;

use axum::{Router, routing::get};
use axum_server::tls_rustls::RustlsConfig;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, certificate, key] = &arguments[..] else {
        return Err("three arguments".into());
    };
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is one")?;
    let config = RustlsConfig::from_pem_file(certificate, key).await?;
    let router = Router::new().route("/", get(|| async { "hello from plain axum\n" }));
    let address: SocketAddr = address.parse()?;
    axum_server::bind_rustls(address, config).serve(router.into_make_service()).await?;
    Ok(())
}
