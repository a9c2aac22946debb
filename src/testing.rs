//! Tests of an application: [`Server`] serves it within `cargo test`, [`Program`] starts the real
//! program.
//!
//! ```
//! # use axum::{Router, routing::get};
//! # use ferricorn::{App, BoxError, WorkerContext};
//! # struct Shop;
//! # impl App for Shop {
//! #     async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
//! #         Ok(Router::new().route("/", get("a shop")))
//! #     }
//! # }
//! #[tokio::main(flavor = "current_thread")] // in a test: #[tokio::test]
//! async fn main() -> Result<(), BoxError> {
//!     let server = ferricorn::testing::Server::start(Shop, "limits.body = 1000").await?;
//!     assert_eq!(server.url("/"), format!("http://{}/", server.address()));
//!     // … requests by any client …
//!     server.stop().await;
//!     Ok(())
//! }
//! ```

mod program;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

pub use program::{Program, RunningProgram};

use crate::config::Config;
use crate::embed::{App, BoxError, PrepareContext, WorkerContext};
use crate::ids::Generation;
use crate::worker::in_process::{self, InProcess};

/// Where servers of tests listen.
const FREE_PORT: &str = "bind = \"127.0.0.1:0\"\n";

type Stop = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// An application that is served within this process, through ferricorn's HTTP layer: its limits,
/// timeouts, headers and own answers are there. There is one worker, no master, and no access log;
/// events of `tracing` go where the test has them go. [`App::telemetry`] is not asked.
pub struct Server {
    address: SocketAddr,
    named: Vec<(String, SocketAddr)>,
    worker: WorkerContext,
    stop: Stop,
}

impl Server {
    /// Runs [`App::prepare`] and [`App::router`], and serves on a free port of 127.0.0.1, in the current
    /// runtime. The settings are the text of a `config.toml`; no variable of the environment counts.
    ///
    /// # Errors
    /// Those of the application, of the settings, and of listening.
    pub async fn start<A: App>(app: A, settings: &str) -> Result<Self, BoxError> {
        let server = InProcess::start(app, config::<A>(settings)?).await?;
        let address = server.address();
        let named = server.named().to_vec();
        let worker = server.context().clone();
        Ok(Self { address, named, worker, stop: Box::new(move || Box::pin(server.stop())) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the listener with this name listens; `None` if `bind` gives it to no TCP address.
    #[must_use]
    pub fn address_of(&self, listener: &str) -> Option<SocketAddr> {
        let named = self.named.iter().find(|(name, _)| name == listener);
        named.map(|(_, address)| *address)
    }

    /// The URL of a path that begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The context that the application was given.
    #[must_use]
    pub fn worker(&self) -> &WorkerContext {
        &self.worker
    }

    /// Stops as a worker does: finishes the requests in hand, within `graceful_timeout`, and runs
    /// [`App::stopped`]. A server that is only dropped ends with its runtime.
    pub async fn stop(self) {
        (self.stop)().await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A context of a worker without a server, for tests of [`App::router`]. The settings are the text of a
/// `config.toml`.
///
/// # Errors
/// Those of the settings, and the system's about shared memory.
pub fn worker_context<A: App>(settings: &str) -> Result<WorkerContext, BoxError> {
    in_process::worker_context(config::<A>(settings)?)
}

/// A context for tests of [`App::prepare`]. The settings are the text of a `config.toml`.
///
/// # Errors
/// Those of the settings.
pub fn prepare_context<A: App>(settings: &str) -> Result<PrepareContext, BoxError> {
    let config = Arc::new(config::<A>(settings)?);
    Ok(PrepareContext { config, generation: Generation::FIRST })
}

fn config<A: App>(settings: &str) -> Result<Config, BoxError> {
    let config = Config::from_toml(&with_free_port(settings), A::SETTINGS)?;
    Ok(config.with_app(A::SETTINGS, A::LISTENERS)?)
}

/// The settings, with a free port where they name no address.
fn with_free_port(settings: &str) -> String {
    let bind = if Config::lacks(settings, "bind") { FREE_PORT } else { "" };
    format!("{bind}{settings}")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use axum::Router;
    use axum::routing::get;

    use super::*;

    struct Shop;

    impl App for Shop {
        const LISTENERS: &'static [&'static str] = &["office"];

        async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
            Ok(Router::new().route("/", get("a shop")))
        }

        async fn router_for(&self, _: &str, _: &WorkerContext) -> Result<Router, BoxError> {
            Ok(Router::new().route("/", get("its office")))
        }
    }

    fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn listener_with_a_name_is_addressed() {
        crate::worker::runtime(1, |_| ()).unwrap().block_on(async {
            let bind = "bind = ['127.0.0.1:0', 'office=127.0.0.1:0']";
            let server = Server::start(Shop, bind).await.unwrap();
            let shop = server.address();
            let office = server.address_of("office").unwrap();
            assert_eq!(server.address_of("ofice"), None);
            let asked = tokio::task::spawn_blocking(move || (ask(shop), ask(office)));
            let (shop, office) = asked.await.unwrap();
            assert!(shop.ends_with("a shop") && office.ends_with("its office"), "{shop} {office}");
            server.stop().await;
            let refused = Server::start(Shop, "bind = 'ofice=127.0.0.1:0'").await.unwrap_err();
            assert!(refused.to_string().contains("(office)"), "{refused}");
        });
    }

    #[test]
    fn free_port_is_for_settings_without_an_address() {
        for (settings, is_added) in [
            ("", true),
            ("workers = 2", true),
            ("[stats]\nbind = '127.0.0.1:1'", true),
            ("bind='127.0.0.1:1'", false),
            ("bind = 'x:'", false),
            ("[shop]\nname = 'a'", true),
            ("bind = ['127.0.0.1:1']\nworkers = 1", false),
        ] {
            assert_eq!(with_free_port(settings).starts_with(FREE_PORT), is_added, "{settings}");
        }
    }
}
