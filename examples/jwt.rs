//! A login by a JSON Web Token (HS256), which every worker can check: all have the same key.
//!
//! Try: `JWT_KEY=… cargo run --example jwt`, `curl -d anna:secret 127.0.0.1:5000/login`.
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::{FromRequestParts, State};
use axum::http::{StatusCode, header::AUTHORIZATION, request::Parts};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ferricorn::{App, BoxError, Setting, WorkerContext};
use ring::hmac;
use serde_json::{Value, json};

struct Login;

#[derive(Clone)]
struct Key(Arc<hmac::Key>);

impl App for Login {
    const NAME: &'static str = "jwt";
    const SETTINGS: &'static [Setting] =
        &[Setting::text("jwt.key", "", "The key that signs.").env("JWT_KEY").secret()];

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let table: Value = worker.config().section("jwt")?;
        let key = table["key"].as_str().filter(|key| key.len() >= 32);
        let key = key.ok_or("jwt.key: expected 32 characters or more")?;
        let key = Key(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())));
        Ok(Router::new().route("/login", post(login)).route("/me", get(me)).with_state(key))
    }
}

fn now() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}

/// One user; `service/src/app/access` has hashes and a limit of trials.
async fn login(State(key): State<Key>, body: String) -> Result<Json<Value>, StatusCode> {
    if body != "anna:secret" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let claims = json!({ "sub": "anna", "exp": now() + 3600 });
    let signed = [json!({ "alg": "HS256", "typ": "JWT" }), claims]
        .map(|part| BASE64.encode(part.to_string()))
        .join(".");
    let signature = BASE64.encode(hmac::sign(&key.0, signed.as_bytes()));
    Ok(Json(json!({ "token": format!("{signed}.{signature}") })))
}

/// A user with a valid token: requests without one get 401 from handlers that take it.
struct User(String);

impl FromRequestParts<Key> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, key: &Key) -> Result<Self, StatusCode> {
        let field = parts.headers.get(AUTHORIZATION).and_then(|field| field.to_str().ok());
        let token = field.and_then(|field| field.strip_prefix("Bearer "));
        token.and_then(|token| user(token, key)).map(User).ok_or(StatusCode::UNAUTHORIZED)
    }
}

fn user(token: &str, Key(key): &Key) -> Option<String> {
    let (signed, signature) = token.rsplit_once('.')?;
    hmac::verify(key, signed.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
    let claims = BASE64.decode(signed.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    (claims["exp"].as_u64()? > now()).then(|| claims["sub"].as_str().map(str::to_owned))?
}

async fn me(User(name): User) -> String {
    format!("{name}\n")
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Login)
}
