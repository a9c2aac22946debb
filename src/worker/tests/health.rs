//! Probes, which are answered before the application's routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::client::{body, field, statuses};
use super::{Net, run};
use crate::embed::BoxError;

/// The readiness of the application of the tests.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Readiness {
    Ready,
    Failed,
    Silent,
    Panics,
}

// ORDERING: a number that stands for itself: Relaxed.
impl Readiness {
    pub(super) async fn answer(readiness: Arc<AtomicU8>) -> Result<(), BoxError> {
        match readiness.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err("the disk is full".into()),
            2 => std::future::pending().await,
            _ => panic!("as it was told to"),
        }
    }
}

const NOT_READY: &str = r#"{"error":"the service is not ready"}"#;

impl Net {
    async fn probe(&self, method: &str, path: &str) -> String {
        self.ask(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
    }

    fn says(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Relaxed);
    }
}

#[test]
fn probes_are_answered_for_every_application() {
    run([5, 200], "", |net| async move {
        let live = net.probe("GET", "/healthz").await;
        assert_eq!(statuses(&live), [200]);
        assert_eq!(body(&live), r#"{"status":"alive"}"#);
        assert_eq!(field(&live, "content-type"), Some("application/json"));
        assert_eq!(field(&live, "x-content-type-options"), Some("nosniff"));
        let ready = net.probe("GET", "/readyz?why").await;
        assert_eq!(statuses(&ready), [200]);
        assert_eq!(body(&ready), r#"{"status":"ready"}"#);
        for path in ["/healthz", "/readyz"] {
            let head = net.probe("HEAD", path).await;
            assert_eq!((statuses(&head), body(&head)), (vec![200], ""), "{path}");
            let options = net.probe("OPTIONS", path).await;
            assert_eq!(statuses(&options), [204], "{path}");
            assert_eq!(field(&options, "allow"), Some("GET,HEAD,OPTIONS"), "{path}");
            let wrong = net.probe("DELETE", path).await;
            assert_eq!(statuses(&wrong), [405], "{path}");
            assert_eq!(field(&wrong, "allow"), Some("GET,HEAD,OPTIONS"), "{path}");
        }
        // They pass the layers that the application has for ferricorn's own answers.
        assert_eq!(field(&ready, "x-own"), Some("marked"));
        assert_eq!(net.own_access_lines().len(), 8);
    });
}

#[test]
fn probe_keeps_its_connection() {
    run([5, 201], "", |net| async move {
        let mut talk = net.connect().await;
        for path in ["/readyz", "/healthz", "/readyz", "/"] {
            talk.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(statuses(&talk.answer().await), [200], "{path}");
        }
    });
}

#[test]
fn paths_of_probes_are_the_applications_where_they_are_none() {
    run([5, 202], "health = { live = '/who', ready = '' }", |net| async move {
        assert_eq!(body(&net.probe("GET", "/who").await), r#"{"status":"alive"}"#);
        for path in ["/healthz", "/readyz", ""] {
            assert_ne!(statuses(&net.probe("GET", path).await), [200], "{path:?}");
        }
    });
}

#[test]
fn application_that_is_not_ready_is_503_with_its_cause_in_the_log() {
    run([5, 203], "", |net| async move {
        for readiness in [Readiness::Failed, Readiness::Failed, Readiness::Panics] {
            net.says(readiness);
            let answer = net.probe("GET", "/readyz").await;
            assert_eq!((statuses(&answer), body(&answer)), (vec![503], NOT_READY));
            assert_eq!(statuses(&net.probe("GET", "/healthz").await), [200]);
        }
        net.says(Readiness::Ready);
        assert_eq!(statuses(&net.probe("GET", "/readyz").await), [200]);
        let log = Net::all_error_lines();
        assert_eq!(log.matches("worker 0 is not ready: the disk is full").count(), 1, "{log}");
        assert!(log.contains("worker 0 is ready again"), "{log}");
    });
}

#[test]
fn silent_application_is_not_ready_after_two_seconds() {
    run([5, 204], "", |net| async move {
        net.says(Readiness::Silent);
        let begun = tokio::time::Instant::now();
        let answer = net.probe("GET", "/readyz").await;
        assert_eq!((statuses(&answer), body(&answer)), (vec![503], NOT_READY));
        assert!(begun.elapsed().as_millis() >= 2000, "{:?}", begun.elapsed());
    });
}

#[test]
fn nothing_is_ready_while_the_server_stops() {
    run([5, 205], "", |net| async move {
        net.server.routes.health.stop();
        let answer = net.probe("GET", "/readyz").await;
        assert_eq!(statuses(&answer), [503]);
        assert_eq!(body(&answer), r#"{"error":"the server is stopping"}"#);
        assert_eq!(statuses(&net.probe("GET", "/healthz").await), [200]);
    });
}
