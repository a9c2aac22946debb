//! Hostile requests of writing routes, each with its answer.

use std::task::{Context, Waker};

use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferricorn::{Client, Scheme};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::access::{Fields, Guarded};
use crate::world::{World, occupy_blocking_threads};

/// A token with these claims, signed as the service does.
fn signed(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes()).unwrap();
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn unsigned(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

/// Claims of alice's, with some of them changed or taken away (null).
fn claims(changes: &Value) -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = json!({
        "iss": "ferricorn", "aud": "ferricorn", "sub": "alice",
        "iat": now, "exp": now + 60, "jti": "x",
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Tokens whose head, signature or shape is wrong.
fn malformed(good: &str) -> Vec<(&'static str, String)> {
    let (head, signature) = good.rsplit_once('.').unwrap();
    let payload = head.split_once('.').unwrap().1;
    let none = |word: &str, signature| {
        unsigned(&json!({ "alg": word, "typ": "JWT" }), &claims(&json!({})), signature)
    };
    let hs256 = json!({ "alg": "HS256", "typ": "JWT" });
    vec![
        ("alg none", none("none", "")),
        ("alg None", none("None", "")),
        ("alg none with a signature", none("none", signature)),
        ("alg HS512", none("HS512", signature)),
        ("alg EdDSA", none("EdDSA", signature)),
        ("alg RS256", none("RS256", signature)),
        ("no alg", unsigned(&json!({ "typ": "JWT" }), &claims(&json!({})), signature)),
        ("no signature", unsigned(&hs256, &claims(&json!({})), "")),
        ("another's signature", unsigned(&hs256, &claims(&json!({ "sub": "bob" })), signature)),
        ("signature cut", good[..good.len() - 1].into()),
        ("signature longer", format!("{good}A")),
        ("padding", format!("{good}=")),
        ("wrong key", signed(&"x".repeat(64), &claims(&json!({})))),
        (
            "empty key",
            unsigned(&hs256, &claims(&json!({})), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"),
        ),
        (
            "key in the header",
            unsigned(
                &json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "AAAA" } }),
                &claims(&json!({})),
                signature,
            ),
        ),
        (
            "unknown crit",
            unsigned(&json!({ "alg": "HS256", "crit": ["exp"] }), &claims(&json!({})), signature),
        ),
        ("two parts", head.into()),
        ("four parts", format!("{good}.x")),
        ("payload alone", payload.into()),
        ("dots", "..".into()),
        ("nonsense", "x".into()),
        ("not base64", "!!.!!.!!".into()),
        ("huge", format!("{}.{signature}", "x".repeat(7000))),
    ]
}

/// Tokens that are signed well, and say what none of ours does.
fn misleading(secret: &str) -> Vec<(&'static str, String)> {
    let own = |changes: Value| signed(secret, &claims(&changes));
    let now = jsonwebtoken::get_current_timestamp();
    vec![
        ("expired", own(json!({ "exp": now - 1 }))),
        ("expires now", own(json!({ "exp": now }))),
        ("no exp", own(json!({ "exp": null }))),
        ("exp a text", own(json!({ "exp": "9999999999" }))),
        ("exp a fraction", own(json!({ "exp": 1e300 }))),
        ("exp negative", own(json!({ "exp": -1 }))),
        ("made in the future", own(json!({ "iat": now + 3600, "exp": now + 7200 }))),
        ("no iat", own(json!({ "iat": null }))),
        ("not yet", own(json!({ "nbf": now + 3600 }))),
        ("nbf a text", own(json!({ "nbf": "soon" }))),
        ("other audience", own(json!({ "aud": "another" }))),
        ("several audiences", own(json!({ "aud": ["another", "third"] }))),
        ("no audience", own(json!({ "aud": null }))),
        ("other issuer", own(json!({ "iss": "another" }))),
        ("no issuer", own(json!({ "iss": null }))),
        ("no subject", own(json!({ "sub": null }))),
        ("subject a list", own(json!({ "sub": ["alice"] }))),
        ("unknown user", own(json!({ "sub": "mallory" }))),
        ("no jti", own(json!({ "jti": null }))),
        ("huge and signed", own(json!({ "padding": "x".repeat(5000) }))),
    ]
}

pub(super) async fn hostile_tokens_are_401(world: World) {
    let guarded = Guarded::new(&world, false).await;
    let secret = guarded.secret();
    let good = signed(&secret, &claims(&json!({})));
    for (what, token) in malformed(&good).into_iter().chain(misleading(&secret)) {
        let bearer = format!("Bearer {token}");
        let cookie = format!("ferricorn-token={token}");
        for field in [("authorization", bearer.as_str()), ("cookie", cookie.as_str())] {
            let answer = guarded.populate(&[field]).await;
            assert_eq!(answer.status, 401, "{what}: {field:?}");
            let text = "the token is not valid, or has expired; POST /login gives another one";
            assert_eq!(answer.error().1, text, "{what}");
            assert!(answer.header("www-authenticate").ends_with(r#"error="invalid_token""#));
            assert_eq!(answer.header("set-cookie"), "", "{what}");
        }
    }
    assert_eq!(guarded.populate(&[("authorization", &format!("Bearer {good}"))]).await.status, 201);
    assert_eq!(guarded.worker.total().await, 1, "no refused request has done anything");
}

pub(super) async fn hostile_fields_are_refused(world: World) {
    let guarded = Guarded::new(&world, false).await;
    let good = signed(&guarded.secret(), &claims(&json!({})));
    let bearer = format!("Bearer {good}");
    let cookie = format!("ferricorn-token={good}");
    let empty = "ferricorn-token=";
    let twice = format!("{cookie}; {cookie}");
    let quoted = format!("ferricorn-token=\"{good}\"");
    let folded = format!("Bearer {good}, Bearer {good}");
    let table: [(&str, Fields<'_>, u16); 14] = [
        ("two Authorization", &[("authorization", &bearer), ("authorization", &bearer)], 401),
        ("two in one", &[("authorization", &folded)], 401),
        ("two cookies", &[("cookie", &twice)], 401),
        ("two Cookie fields", &[("cookie", &cookie), ("cookie", &cookie)], 401),
        ("an empty one first", &[("cookie", empty), ("cookie", &cookie)], 401),
        ("quoted", &[("cookie", &quoted)], 401),
        ("empty bearer", &[("authorization", "Bearer ")], 401),
        ("no scheme", &[("authorization", &good)], 401),
        ("Basic", &[("authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==")], 401),
        ("wrong bearer, good cookie", &[("authorization", "Bearer x"), ("cookie", &cookie)], 401),
        ("token in a field of its own", &[("x-token", &good)], 401),
        ("another cookie", &[("cookie", "token=x")], 401),
        ("Basic, good cookie", &[("authorization", "Basic eDp5"), ("cookie", &cookie)], 201),
        ("bearer", &[("authorization", &bearer)], 201),
    ];
    for (what, fields, status) in table {
        assert_eq!(guarded.populate(fields).await.status.as_u16(), status, "{what}");
    }
    // A name cannot split a field of the answer: it comes back in none.
    let answer = guarded.login("alice\r\nset-cookie: x=1", "correct horse").await;
    assert_eq!((answer.status.as_u16(), answer.header("set-cookie")), (401, ""));
    let target = format!("/populate?token={good}");
    let answer = guarded.ask(Method::POST, &target, &[], "").await;
    assert_eq!(answer.status, 401, "a token in the target would be logged");
}

/// An unknown name costs a trial as a known one does: so many of either fill the places, each of them
/// waits, and one more is sent away.
pub(super) async fn unknown_name_takes_a_trial_as_well(world: World) {
    const PLACES: u8 = 16;
    let guarded = Guarded::new(&world, false).await;
    for name in ["alice", "mallory"] {
        let login = |number: u8| {
            let client = Client::new(Some([192, 0, 2, number].into()), Scheme::Http);
            let body = json!({ "name": name, "password": "wrong" }).to_string();
            let request = Request::post("/login").header("content-type", "application/json");
            let request = request.extension(client).body(Body::from(body)).unwrap();
            Box::pin(guarded.worker.router.clone().oneshot(request))
        };
        let occupied = occupy_blocking_threads();
        let mut waiting: Vec<_> = (0..PLACES).map(login).collect();
        for login in &mut waiting {
            let polled = login.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "{name} is tried");
        }
        let answer = login(PLACES).await.unwrap();
        assert_eq!(answer.status(), 503, "{name}");
        assert_eq!(answer.headers()["retry-after"], "1");
        drop(occupied);
        for login in waiting {
            assert_eq!(login.await.unwrap().status(), 401, "{name}");
        }
    }
}
