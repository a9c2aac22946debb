//! Permission to write: what other sites, and clients without a token, may not do.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::app::access::settings::WithUsers;
use crate::app::access::{self, Table};
use crate::app::{Access, Limits};
use crate::client::{Answer, send_body, send_with};
use crate::world::{Worker, World};

pub(super) async fn other_sites_are_403(world: World) {
    let worker = world.prepared().await;
    let own = ("host", "rows.example:5000");
    let fields: [(&[(&str, &str)], u16); 7] = [
        (&[own, ("sec-fetch-site", "cross-site")], 403),
        (&[own, ("sec-fetch-site", "same-site")], 403),
        (&[own, ("origin", "http://evil.example")], 403),
        (&[own, ("origin", "null")], 403),
        (&[own, ("origin", "http://rows.example:5000")], 201),
        (&[own, ("sec-fetch-site", "same-origin")], 201),
        (&[own], 201),
    ];
    for (fields, status) in fields {
        let answer = send_with(&worker.router, Method::POST, "/populate", fields).await;
        assert_eq!(answer.status.as_u16(), status, "{fields:?}");
        if status == 403 {
            let text = "a page of another site made this request; it is refused";
            assert_eq!(answer.error(), (403, text.into()), "{fields:?}");
            assert_eq!(answer.header("x-frame-options"), "DENY", "{fields:?}");
            let answer = send_with(&worker.router, Method::DELETE, "/delete", fields).await;
            assert_eq!(answer.status.as_u16(), 403, "{fields:?}");
        }
        let reading = send_with(&worker.router, Method::GET, "/data", fields).await;
        assert_eq!(reading.status, 200, "reading is open: {fields:?}");
    }
    assert_eq!(worker.total().await, 3, "no refused request has done anything");
}

/// Header fields of a request.
pub(super) type Fields<'a> = &'a [(&'a str, &'a str)];

/// The password of every user here.
const PASSWORD: &str = "correct horse";

/// A service with users.
pub(super) struct Guarded {
    pub(super) worker: Worker,
    folder: TempDir,
    limits: Arc<Limits>,
}

/// The `[access]` table of a test.
fn table(folder: &TempDir, read: bool) -> Table {
    Table {
        with_users: Some(WithUsers {
            users: folder.path().join("users"),
            secret: folder.path().join("users.secret"),
            lifetime: Duration::from_secs(3600),
            read,
            first_user: Zeroizing::default(),
        }),
        ..Table::default()
    }
}

impl Guarded {
    pub(super) async fn new(world: &World, read: bool) -> Self {
        world.prepare().await;
        let folder = TempDir::new().unwrap();
        let hash = bcrypt::hash(PASSWORD, 4).unwrap();
        fs::write(folder.path().join("users"), format!("alice:{hash}\nbob:{hash}\n")).unwrap();
        let limits = Arc::new(Limits::new().unwrap());
        let mut made = Self { worker: world.worker(0), folder, limits };
        made.reload(world, read);
        made
    }

    /// The secret that was made.
    pub(super) fn secret(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("users.secret")).unwrap();
        text.trim().to_owned()
    }

    /// Does as a `HUP`: the files are read again.
    fn reload(&mut self, world: &World, read: bool) {
        let table = table(&self.folder, read);
        access::prepare(&table).unwrap();
        let access = Access::new(&table, Arc::clone(&self.limits)).unwrap();
        self.worker = world.worker_with(1, access);
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        send_body(&self.worker.router, method, path, fields, body).await
    }

    pub(super) async fn login(&self, name: &str, password: &str) -> Answer {
        let body = json!({ "name": name, "password": password }).to_string();
        self.ask(Method::POST, "/login", &[JSON], &body).await
    }

    async fn token(&self, name: &str) -> String {
        let answer = self.login(name, PASSWORD).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    pub(super) async fn populate(&self, fields: &[(&str, &str)]) -> Answer {
        self.ask(Method::POST, "/populate", fields, "").await
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const NO_TOKEN: &str = "a token is required; POST /login gives one";

pub(super) async fn writing_takes_a_token_where_users_are(world: World) {
    let guarded = Guarded::new(&world, false).await;
    for (method, path) in [(Method::POST, "/populate"), (Method::DELETE, "/delete")] {
        let answer = guarded.ask(method, path, &[], "").await;
        assert_eq!(answer.error(), (401, NO_TOKEN.into()));
        assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="ferricorn""#);
    }
    for path in ["/data", "/", "/assets/app.js"] {
        assert_eq!(guarded.worker.get(path).await.status, 200, "{path} is open");
    }
    let answer = guarded.login("alice", PASSWORD).await;
    let cookie = answer.header("set-cookie").to_owned();
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(answer.json().as_object().unwrap().len(), 1, "{answer:?}");
    assert_eq!(
        cookie,
        format!("ferricorn-token={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=3600")
    );
    let bearer = format!("Bearer {token}");
    assert_eq!(guarded.populate(&[("authorization", &bearer)]).await.status, 201);
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(guarded.populate(&[("cookie", cookie)]).await.status, 201);
    let foreign = [("cookie", cookie), ("host", "a.example"), ("origin", "http://b.example")];
    assert_eq!(guarded.populate(&foreign).await.status, 403, "the cookie is no excuse");
    let deleted = guarded.ask(Method::DELETE, "/delete", &[("authorization", &bearer)], "").await;
    assert_eq!(deleted.json()["message"], "2 rows deleted");

    let session = guarded.ask(Method::GET, "/login", &[("cookie", cookie)], "").await;
    assert_eq!(session.json(), json!({ "users": true, "name": "alice", "read": true }));
    let session = guarded.ask(Method::GET, "/login", &[], "").await;
    assert_eq!(session.json(), json!({ "users": true, "name": null, "read": true }));
    let out = guarded.ask(Method::POST, "/logout", &[("cookie", cookie)], "").await;
    assert_eq!(out.status, 200);
    assert!(out.header("set-cookie").ends_with("Max-Age=0"), "{out:?}");
}

pub(super) async fn login_is_json_or_a_form(world: World) {
    let guarded = Guarded::new(&world, false).await;
    let right = r#"{"name":"alice","password":"correct horse"}"#;
    let form = "name=alice&password=correct+horse";
    let long = format!(r#"{{"name":"alice","password":"{}"}}"#, "x".repeat(1025));
    let huge = format!(r#"{{"name":"alice","password":"{}"}}"#, "x".repeat(5000));
    let utf8 = ("content-type", "application/json; charset=utf-8");
    let table: [(Fields<'_>, &str, u16); 14] = [
        (&[JSON], right, 200),
        (&[utf8], right, 200),
        (&[FORM], form, 200),
        (&[FORM], right, 400),
        (&[JSON], form, 400),
        (&[], right, 400),
        (&[("content-type", "text/plain")], right, 400),
        (&[JSON], "", 400),
        (&[JSON], "[]", 400),
        (&[JSON], r#"{"name":"alice","password":12345678}"#, 400),
        (&[JSON], r#"{"name":"alice"}"#, 400),
        (&[JSON], r#"{"name":"","password":""}"#, 400),
        (&[JSON], &long, 400),
        (&[JSON], &huge, 400),
    ];
    for (fields, body, status) in table {
        let answer = guarded.ask(Method::POST, "/login", fields, body).await;
        assert_eq!(answer.status.as_u16(), status, "{fields:?} {body}");
        if status == 400 {
            let text = "expected name and password, as JSON or as a form";
            assert_eq!(answer.error(), (400, text.into()), "nothing of the body is repeated");
        }
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    for (name, password) in [("alice", "wrong"), ("Alice", PASSWORD), ("carl", PASSWORD)] {
        let answer = guarded.login(name, password).await;
        assert_eq!(answer.error(), (401, "the name or the password is wrong".into()), "{name}");
        assert_eq!(answer.header("set-cookie"), "");
    }
    let foreign = [JSON, ("sec-fetch-site", "cross-site")];
    assert_eq!(guarded.ask(Method::POST, "/login", &foreign, right).await.status, 403);
    assert_eq!(guarded.ask(Method::POST, "/logout", &foreign, "").await.status, 403);
}

pub(super) async fn without_users_nothing_takes_a_token(world: World) {
    let worker = world.prepared().await;
    let body = r#"{"name":"alice","password":"correct horse"}"#;
    let answer = send_body(&worker.router, Method::POST, "/login", &[JSON], body).await;
    assert_eq!(answer.error(), (404, "there are no users; a token is not required".into()));
    let session = worker.get("/login").await;
    assert_eq!(session.json(), json!({ "users": false, "name": null, "read": true }));
    let fields = [("authorization", "Bearer nonsense")];
    assert_eq!(send_with(&worker.router, Method::POST, "/populate", &fields).await.status, 201);
}

pub(super) async fn reading_takes_a_token_where_told(world: World) {
    let guarded = Guarded::new(&world, true).await;
    assert_eq!(guarded.worker.get("/data").await.error(), (401, NO_TOKEN.into()));
    for path in ["/", "/assets/app.js"] {
        assert_eq!(guarded.worker.get(path).await.status, 200, "{path} is open");
    }
    let session = guarded.worker.get("/login").await;
    assert_eq!(session.json(), json!({ "users": true, "name": null, "read": false }));
    let bearer = format!("Bearer {}", guarded.token("bob").await);
    let fields = [("authorization", bearer.as_str())];
    assert_eq!(guarded.ask(Method::GET, "/data", &fields, "").await.status, 200);
}

pub(super) async fn token_of_a_removed_user_ends_at_reload(world: World) {
    let mut guarded = Guarded::new(&world, false).await;
    let alice = guarded.token("alice").await;
    let bob = guarded.token("bob").await;
    let status = async |guarded: &Guarded, token: &str| {
        let bearer = format!("Bearer {token}");
        guarded.populate(&[("authorization", &bearer)]).await.status.as_u16()
    };
    let users = guarded.folder.path().join("users");
    let bobs = fs::read_to_string(&users).unwrap();
    let bobs = bobs.lines().find(|line| line.starts_with("bob:")).unwrap().to_owned();
    fs::write(&users, bobs).unwrap();
    assert_eq!(status(&guarded, &alice).await, 201, "until the next reload");
    guarded.reload(&world, false);
    assert_eq!(status(&guarded, &alice).await, 401);
    assert_eq!(status(&guarded, &bob).await, 201, "the secret is the same");
    fs::remove_file(guarded.folder.path().join("users.secret")).unwrap();
    guarded.reload(&world, false);
    assert_eq!(status(&guarded, &bob).await, 401, "another secret ends every token");
}

pub(super) async fn failed_logins_are_limited_over_workers(world: World) {
    let mut guarded = Guarded::new(&world, false).await;
    for number in 0..10 {
        let answer = guarded.login(&format!("user{number}"), "wrong password").await;
        assert_eq!(answer.status, 401);
        // Another worker, with the same limits.
        guarded.reload(&world, false);
    }
    let answer = guarded.login("alice", PASSWORD).await;
    assert_eq!(answer.error(), (429, "too many failed logins; see Retry-After".into()));
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=6).contains(&seconds), "{answer:?}");
}
