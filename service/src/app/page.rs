//! The page that a person opens in a browser: three files, no build step, nothing from elsewhere.
//!
//! Each is sent with a tag made from its content, and asked for again every time: after an upgrade
//! no browser mixes the old page with the new script.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get};

use super::answer;
use super::routes::readable;

/// The permissions of the page: its own files, its own server, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// The text for clients that ask for no HTML.
const PLAIN: &str = "ferricorn, the iron unicorn\n\n\
    POST   /populate   stores a row of ten random characters\n\
    DELETE /delete     removes every row\n\
    GET    /data       the rows, newest first (limit, before)\n\
    GET    /healthz    this worker lives\n\
    GET    /readyz     the database answers\n\n\
    In a browser this is a page.\n";

/// A file that is part of the binary.
struct File {
    content_type: &'static str,
    content: &'static str,
    tag: &'static str,
}

/// A file of `page/`, with its tag computed as the binary is built.
macro_rules! file {
    ($name:literal, $content_type:literal) => {{
        const CONTENT: &str = include_str!(concat!("page/", $name));
        const TAG: [u8; 18] = tag(CONTENT.as_bytes());
        const TEXT: &str = match std::str::from_utf8(&TAG) {
            Ok(text) => text,
            Err(_) => panic!("a tag is ASCII"),
        };
        File { content_type: $content_type, content: CONTENT, tag: TEXT }
    }};
}

static PAGE: File = file!("index.html", "text/html; charset=utf-8");
static MISSING: File = file!("missing.html", "text/html; charset=utf-8");
static STYLE: File = file!("app.css", "text/css; charset=utf-8");
static SCRIPT: File = file!("app.js", "text/javascript; charset=utf-8");
static ICON: File = file!("icon.svg", "image/svg+xml");

/// The page of an address that has none, for a browser that asks for a page: a person gets a way back.
/// `None`: a program asks.
pub(super) fn missing(
    status: StatusCode,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) || !wants_html(headers) {
        return None;
    }
    let mut response =
        answer::typed(HeaderValue::from_static(MISSING.content_type), MISSING.content);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    Some(response)
}

/// The routes of the page and its files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", readable(get(index)))
        .route("/assets/app.css", asset(&STYLE))
        .route("/assets/app.js", asset(&SCRIPT))
        .route("/assets/icon.svg", asset(&ICON))
}

async fn index(request: Request) -> Response {
    let headers = request.headers();
    let mut response = if wants_html(headers) {
        let mut response = file(&PAGE, headers);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    } else {
        answer::typed(HeaderValue::from_static("text/plain; charset=utf-8"), PLAIN)
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Browsers name HTML; curl and load generators do not, and are given text.
fn wants_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        value.as_bytes().windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html"))
    })
}

fn asset<S: Clone + Send + Sync + 'static>(of: &'static File) -> MethodRouter<S> {
    readable(get(move |request: Request| async move { file(of, request.headers()) }))
}

fn file(of: &'static File, headers: &HeaderMap) -> Response {
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == of.tag);
    let mut response = answer::typed(
        HeaderValue::from_static(of.content_type),
        if known { "" } else { of.content },
    );
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_static(of.tag));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A quoted entity tag (RFC 9110 section 8.8.3): the content's FNV-1a hash in hexadecimal.
const fn tag(content: &[u8]) -> [u8; 18] {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < content.len() {
        hash = (hash ^ content[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    let bytes = hash.to_be_bytes();
    let mut tag = [b'"'; 18];
    let mut at = 0;
    while at < bytes.len() {
        tag[2 * at + 1] = HEX[(bytes[at] >> 4) as usize];
        tag[2 * at + 2] = HEX[(bytes[at] & 15) as usize];
        at += 1;
    }
    tag
}
