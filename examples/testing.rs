//! An application with its tests: `cargo test --example testing`.
//!
//! `ferricorn::testing::Server` serves it within the test, through the same HTTP layer as in production;
//! `ferricorn::testing::Program` starts the real program, with a master and workers.
use axum::extract::State;
use axum::{Router, routing::get};
use ferricorn::{App, BoxError, Setting, WorkerContext};

struct Greeter;

impl App for Greeter {
    const NAME: &'static str = "greeter";
    const SETTINGS: &'static [Setting] =
        &[Setting::text("greeter.word", "hello", "The word that greets.")];

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let table: serde_json::Value = worker.config().section("greeter")?;
        let word = table["word"].as_str().unwrap_or_default().to_owned();
        Ok(Router::new().route("/", get(greet)).with_state(word))
    }
}

async fn greet(State(word): State<String>) -> String {
    format!("{word}\n")
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Greeter)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has a runtime of its own")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    use ferricorn::testing::{Server, worker_context};

    use super::*;

    /// Any client does; this one needs no crate.
    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test]
    async fn greeting_is_the_setting() {
        let server = Server::start(Greeter, "[greeter]\nword = 'ahoy'").await.unwrap();
        let address = server.address();
        let ask =
            tokio::task::spawn_blocking(move || (get(address, "/"), get(address, "/healthz")));
        let (greeting, health) = ask.await.unwrap();
        assert!(greeting.starts_with("HTTP/1.1 200 ") && greeting.ends_with("\r\n\r\nahoy\n"));
        assert!(health.starts_with("HTTP/1.1 200 "), "ferricorn's own answers are there: {health}");
        server.stop().await;
    }

    #[tokio::test]
    async fn router_can_be_built_alone() {
        let worker = worker_context::<Greeter>("").unwrap();
        assert!(Greeter.router(&worker).await.unwrap().has_routes());
        assert!(worker_context::<Greeter>("greeter.wrod = 'x'").is_err());
    }
}
