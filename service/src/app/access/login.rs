//! `POST /login` gives a token for a name and a password, `GET /login` says which user is signed in,
//! and `POST /logout` takes the page's cookie away.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ferricorn::Client;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::limits::Attempt;
use super::refusal::Refusal;
use super::users::Known;
use super::{OwnSite, credentials};
use crate::app::answer;
use crate::app::service::Service;

/// Bytes of a login's body at the most.
const BODY_MAX: usize = 4096;
/// Bytes of a password at the most; bcrypt looks at the first 72.
const PASSWORD_MAX: usize = 1024;

/// The body of a login, as JSON or as a form. It has no `Debug`: that would show the password.
#[derive(Deserialize)]
struct Asked {
    name: String,
    password: String,
}

/// The body of `GET /login`.
#[derive(Serialize)]
struct Session {
    /// There are users: writing takes a token.
    users: bool,
    /// The user of the token that came with the request.
    name: Option<String>,
    /// The rows may be read.
    read: bool,
}

pub(crate) async fn session(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let access = service.access();
    let session = Session {
        users: access.login.is_some(),
        name: access.login.as_ref().and_then(|login| login.user(&headers).ok()),
        read: access.judge_read(&headers).is_ok(),
    };
    let body = serde_json::to_vec(&session).expect("it is plain data");
    answer::json(StatusCode::OK, body)
}

pub(crate) async fn logout(
    _: OwnSite,
    State(service): State<Arc<Service>>,
    client: Client,
) -> Result<Response, Refusal> {
    let login = service.access().login.as_ref().ok_or(Refusal::NoUsers)?;
    let cookie = credentials::cookie(None, login.tokens.lifetime(), client.scheme());
    let mut response = answer::json(StatusCode::OK, r#"{"message":"signed out"}"#);
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

pub(crate) async fn login(
    _: OwnSite,
    State(service): State<Arc<Service>>,
    client: Client,
    request: Request,
) -> Result<Response, Refusal> {
    let login = service.access().login.as_ref().ok_or(Refusal::NoUsers)?;
    let (head, body) = request.into_parts();
    let Asked { name, password } = read(&head.headers, body).await?;
    let password = Zeroizing::new(password);
    let attempt = Attempt::new(client.address(), &name);
    login.limits.take(attempt).map_err(Refusal::TooMany)?;
    let (hash, known) = login.users.hash_for(&name);
    let verified = login.hasher.verify(hash, password).await;
    let is_right = verified.map_err(|_| {
        login.limits.forgive(attempt);
        Refusal::Busy
    })?;
    if !is_right || known == Known::No {
        report(client, known);
        return Err(Refusal::WrongPassword);
    }
    login.limits.forgive(attempt);
    let token = login.tokens.issue(&name).map_err(|error| {
        tracing::error!("cannot sign a token: {error}; the login is refused");
        Refusal::Busy
    })?;
    let cookie = credentials::cookie(Some(&token), login.tokens.lifetime(), client.scheme());
    let mut response = answer::json(StatusCode::OK, format!(r#"{{"token":"{token}"}}"#));
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// Logs a failed login. Not the name: a password that is typed into its field would be logged.
fn report(client: Client, known: Known) {
    let whose = match known {
        Known::Yes => "of a known user",
        Known::No => "of an unknown name",
    };
    match client.address() {
        Some(address) => tracing::warn!("login failed: wrong password {whose}, from {address}"),
        None => tracing::warn!("login failed: wrong password {whose}, from a unix socket"),
    }
}

/// Reads the name and the password.
///
/// # Errors
/// When they are not there. What is wrong is said without a word of the body.
async fn read(headers: &HeaderMap, body: Body) -> Result<Asked, Refusal> {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next()).unwrap_or_default();
    let kind = kind.trim_ascii();
    let is_json = kind.eq_ignore_ascii_case(b"application/json");
    if !is_json && !kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        return Err(Refusal::NoLogin);
    }
    // One that is too long, or breaks off, is no login either.
    let bytes = to_bytes(body, BODY_MAX).await.map_err(|_| Refusal::NoLogin)?;
    let asked: Option<Asked> = if is_json {
        serde_json::from_slice(&bytes).ok()
    } else {
        serde_urlencoded::from_bytes(&bytes).ok()
    };
    asked
        .filter(|asked| !asked.name.is_empty() && !asked.password.is_empty())
        .filter(|asked| asked.password.len() <= PASSWORD_MAX)
        .ok_or(Refusal::NoLogin)
}
