//! TLS to database servers: who asks for it has it, or is told why not.

use std::time::Duration;

use tokio::time::Instant;

use crate::app::store::{Start, Target, prepare};
use crate::servers::{PASSWORD, Server};
use crate::world::{Kind, World, block_on};

/// Far less than what a start waits for a server that is away.
const AT_ONCE: Duration = Duration::from_secs(20);

/// The options by which a URL asks for TLS.
struct Words {
    /// Never.
    never: &'static str,
    /// Always, with whoever it is.
    always: &'static str,
    /// Always, with the one that the URL names; behind it, whose word is taken for that.
    verified: &'static str,
    authority: &'static str,
}

const POSTGRES: Words = Words {
    never: "sslmode=disable",
    always: "sslmode=require",
    verified: "sslmode=verify-full",
    authority: "sslrootcert",
};

const MARIADB: Words = Words {
    never: "ssl-mode=DISABLED",
    always: "ssl-mode=REQUIRED",
    verified: "ssl-mode=VERIFY_IDENTITY",
    authority: "ssl-ca",
};

const SERVERS: [(Kind, Words); 2] = [(Kind::Postgres, POSTGRES), (Kind::Mariadb, MARIADB)];

/// Expects a start to be refused without a wait.
async fn refused(url: &str) -> String {
    let target = Target::parse(url).unwrap();
    let start = Start { connect_timeout: Duration::from_secs(60), connections: 20 };
    let began = Instant::now();
    let error = prepare(&target, start).await.unwrap_err().to_string();
    assert!(began.elapsed() < AT_ONCE, "{:?}: {error}", began.elapsed());
    assert!(error.starts_with(&format!("the database at {target} refuses: ")), "{error}");
    assert!(!error.contains(PASSWORD), "{error}");
    error
}

#[test]
fn a_server_that_takes_nothing_else_is_spoken_to_over_tls() {
    block_on(async {
        for (kind, words) in SERVERS {
            let server = Server::over_tls(kind);
            let mut world = World::on(&server).await;
            let plain = world.url.clone();
            let Words { never, always, verified, authority } = words;
            let trusted = format!("{verified}&{authority}={}", server.authority().display());
            for options in [String::new(), format!("?{always}"), format!("?{trusted}")] {
                world.url = format!("{plain}{options}");
                let worker = world.prepared().await;
                worker.populated().await;
                assert_eq!(worker.deleted().await, 1, "{kind:?} {options}");
            }
            refused(&format!("{plain}?{never}")).await;
            let error = refused(&format!("{plain}?{verified}")).await;
            assert!(error.contains("UnknownIssuer"), "nobody vouches for it here: {error}");
        }
    });
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_asked_for() {
    block_on(async {
        for (kind, words) in SERVERS {
            let server = Server::running(kind);
            let mut world = World::on(&server).await;
            let plain = world.url.clone();
            for options in [words.always, words.verified] {
                refused(&format!("{plain}?{options}")).await;
            }
            world.url = format!("{plain}?{}", words.never);
            world.prepared().await.populated().await;
        }
    });
}
