//! Paths, methods, headers and the page.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Method, Request};
use ferricorn::{Client, Scheme};
use http_body::Frame;
use tower::ServiceExt;

use crate::client::{Answer, send, send_with};
use crate::world::{Worker, World};

const PATHS: [(&str, &str); 7] = [
    ("/", "GET,HEAD,OPTIONS"),
    ("/data", "GET,HEAD,OPTIONS"),
    ("/assets/app.css", "GET,HEAD,OPTIONS"),
    ("/assets/app.js", "GET,HEAD,OPTIONS"),
    ("/assets/icon.svg", "GET,HEAD,OPTIONS"),
    ("/populate", "POST,OPTIONS"),
    ("/delete", "DELETE,OPTIONS"),
];

async fn browse(worker: &Worker, path: &str) -> Answer {
    let accept = [("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    send_with(&worker.router, Method::GET, path, &accept).await
}

pub(super) async fn an_unknown_path_is_404(world: World) {
    let worker = world.prepared().await;
    for path in ["/nothing", "/populate/", "/data/1", "/assets/", "/assets/app.map"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = send(&worker.router, method, path).await;
            assert_eq!(answer.error(), (404, "there is nothing at this path".into()), "{path}");
        }
    }
}

pub(super) async fn a_known_path_has_its_methods_alone(world: World) {
    let worker = world.prepared().await;
    for (path, allowed) in PATHS {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if allowed.split(',').any(|known| known == method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = send(&worker.router, method.clone(), path).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
            if method != Method::HEAD {
                let text = "this path does not have this method; see Allow";
                assert_eq!(answer.error(), (405, text.into()), "{method} {path}");
            }
        }
    }
    assert_eq!(worker.total().await, 0, "no refused request has done anything");
}

pub(super) async fn options_is_204_with_allow_on_known_paths(world: World) {
    let worker = world.prepared().await;
    for (path, allowed) in PATHS {
        let answer = send(&worker.router, Method::OPTIONS, path).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""), "{path}");
        assert_eq!(answer.header("allow"), allowed, "{path}");
        assert_shielded(&answer);
    }
    assert_eq!(send(&worker.router, Method::OPTIONS, "/nothing").await.status, 404);
}

/// A body that reports when it is polled: over HTTP/1.1 that is when 100 is sent.
struct Polled(Arc<AtomicBool>);

impl HttpBody for Polled {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.store(true, Ordering::Relaxed);
        Poll::Ready(None)
    }
}

pub(super) async fn body_is_not_read_when_nothing_is_there(world: World) {
    let worker = world.prepared().await;
    for (method, path, status, is_read) in [
        ("POST", "/nothing", 404, false),
        ("GET", "/nothing", 404, false),
        ("GET", "/populate", 405, false),
        ("PUT", "/", 405, false),
        ("POST", "/populate", 201, true),
    ] {
        let polled = Arc::new(AtomicBool::new(false));
        let body = Body::new(Polled(Arc::clone(&polled)));
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let answer = worker.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        assert_eq!(polled.load(Ordering::Relaxed), is_read, "{method} {path}");
    }
}

pub(super) async fn head_is_get_without_a_body(world: World) {
    let worker = world.prepared().await;
    for (path, _) in PATHS.iter().filter(|(_, allowed)| allowed.contains("HEAD")) {
        let get = send(&worker.router, Method::GET, path).await;
        let head = send(&worker.router, Method::HEAD, path).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, "", "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    }
}

pub(super) async fn every_answer_carries_the_security_headers(world: World) {
    let worker = world.prepared().await;
    let requests = [
        (Method::POST, "/populate", 201),
        (Method::GET, "/data", 200),
        (Method::GET, "/data?limit=0", 400),
        (Method::DELETE, "/delete", 200),
        (Method::GET, "/", 200),
        (Method::GET, "/assets/app.js", 200),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/populate", 405),
    ];
    for (method, path, status) in requests {
        let answer = send(&worker.router, method, path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_shielded(&answer);
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; frame-ancestors 'none'",
            "{path}"
        );
    }
    let page = browse(&worker, "/").await;
    assert_shielded(&page);
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
}

fn assert_shielded(answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert!(answer.header("permissions-policy").contains("camera=()"));
    assert_eq!(answer.header("x-worker"), "0");
    assert_eq!(answer.header("server"), "");
    assert_eq!(answer.header("strict-transport-security"), "", "this was not TLS");
}

pub(super) async fn who_came_over_tls_is_told_to_stay_there(world: World) {
    let worker = world.prepared().await;
    for (path, status) in [("/", 200), ("/nothing", 404), ("/populate", 405), ("/data", 200)] {
        for (scheme, told) in [(Scheme::Https, "max-age=31536000"), (Scheme::Http, "")] {
            let request = Request::builder().uri(path).extension(Client::new(None, scheme));
            let request = request.body(Body::empty()).unwrap();
            let answer = worker.router.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{path}");
            let found = answer.headers().get("strict-transport-security");
            assert_eq!(found.map_or("", |found| found.to_str().unwrap()), told, "{path}");
        }
    }
}

/// A body whose client goes away in the middle of it.
struct Half {
    is_said: bool,
}

impl HttpBody for Half {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(match std::mem::replace(&mut self.is_said, true) {
            false => Ok(Frame::data(Bytes::from_static(b"half"))),
            true => Err(std::io::ErrorKind::ConnectionReset.into()),
        }))
    }
}

pub(super) async fn a_body_means_nothing_and_is_read_to_its_end(world: World) {
    let worker = world.prepared().await;
    let ask = async |method: &str, path: &str, body: Body| {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        worker.router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(ask("POST", "/populate", Body::from("{}")).await, 201);
    assert_eq!(ask("GET", "/data", Body::from("{}")).await, 200);
    for (method, path) in [("POST", "/populate"), ("DELETE", "/delete"), ("GET", "/")] {
        let body = Body::new(Half { is_said: false });
        assert_eq!(ask(method, path, body).await, 400, "{method} {path}");
    }
    assert_eq!(worker.total().await, 1, "half a request is not done");
}

pub(super) async fn the_page_and_its_files_are_tagged(world: World) {
    let worker = world.prepared().await;
    let mut tags = Vec::new();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/assets/app.css", "text/css; charset=utf-8"),
        ("/assets/app.js", "text/javascript; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        let whole = browse(&worker, path).await;
        assert_eq!((whole.status.as_u16(), whole.header("content-type")), (200, content_type));
        assert_eq!(whole.header("cache-control"), "no-cache");
        let tag = whole.header("etag").to_owned();
        assert!(tag.len() == 18 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");

        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
            let headers = [("accept", "text/html"), ("if-none-match", known.as_str())];
            let known = send_with(&worker.router, Method::GET, path, &headers).await;
            assert_eq!((known.status.as_u16(), known.body.as_str()), (304, ""), "{path}");
            assert_eq!(known.header("etag"), tag);
        }
        let headers = [("accept", "text/html"), ("if-none-match", "\"other\"")];
        assert_eq!(send_with(&worker.router, Method::GET, path, &headers).await.body, whole.body);
        tags.push(tag);
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each file has its own");
}

pub(super) async fn who_asks_for_no_html_gets_text(world: World) {
    let worker = world.prepared().await;
    for accept in ["*/*", "application/json", ""] {
        let answer = send_with(&worker.router, Method::GET, "/", &[("accept", accept)]).await;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("vary"), "accept");
        assert!(answer.body.contains("POST   /populate"), "{}", answer.body);
    }
    let page = browse(&worker, "/").await;
    assert_eq!(page.header("vary"), "accept");
    assert!(page.body.starts_with("<!doctype html>"), "{}", page.body);
    let elsewhere = ["http:", "https:", "//cdn", "style=", "onclick=", "<style", "<script>"];
    for forbidden in elsewhere {
        assert!(!page.body.contains(forbidden), "{forbidden} in the page");
    }
}
