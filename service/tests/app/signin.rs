//! The page with users, in a real browser, and what a person meets who is not signed in.

use fantoccini::key::Key;

use crate::browser::{Browser, Look, Program};
use crate::world::block_on;

const PASSWORD: &str = "correct horse";

/// Returns true if the button rests.
async fn rests(browser: &Browser, id: &str) -> bool {
    let script = format!("return document.getElementById('{id}').getAttribute('aria-disabled')");
    browser.run(&script).await == "true"
}

async fn shown(browser: &Browser, id: &str) -> bool {
    let script = format!("return document.getElementById('{id}').checkVisibility()");
    browser.run(&script).await == true
}

#[test]
fn user_signs_in_and_out_by_keyboard() {
    block_on(async {
        let program = Program::with_user("alice", PASSWORD, false).await;
        let browser = Browser::open(&program, Look::Light).await;
        assert!(shown(&browser, "signin").await && !shown(&browser, "session").await);
        assert!(rests(&browser, "populate").await && rests(&browser, "delete").await);
        assert!(!rests(&browser, "refresh").await, "reading is open");
        browser.click("#populate").await;
        let told = browser.text("#signin-text").await;
        assert_eq!(told, "The rows can be read without. Adding and deleting take a user.");
        let described =
            "return document.getElementById('populate').getAttribute('aria-describedby')";
        assert_eq!(browser.run(described).await, "signin-text");

        browser.press(Key::Tab).await;
        browser.run("document.querySelector('.skip').focus()").await;
        let mut visited = Vec::new();
        for _ in 0..3 {
            browser.press(Key::Tab).await;
            visited.push(browser.focus().await);
        }
        assert_eq!(visited, ["name", "password", "enter"]);
        browser.write("#name", "alice").await;
        browser.write("#password", "wrong password").await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice == "The name or the password is wrong.").await;
        assert_eq!(browser.focus().await, "password");
        assert_eq!(browser.run("return document.getElementById('password').value").await, "");
        browser.write("#password", PASSWORD).await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice == "Signed in as alice.").await;
        assert!(!shown(&browser, "signin").await && shown(&browser, "session").await);
        assert_eq!(browser.focus().await, "populate", "what comes next needs no search");
        assert_eq!(browser.text("#user").await, "alice");
        browser.press(Key::Enter).await;
        browser.told(|notice| notice.starts_with("Added ")).await;
        let cookies = browser.run("return document.cookie").await;
        assert_eq!(cookies, "", "no script sees the token");

        browser.visit(&program.origin).await;
        browser.told(|notice| notice.starts_with("Ready. ")).await;
        assert_eq!(browser.text("#user").await, "alice", "it is remembered");
        browser.run("document.getElementById('signout').focus()").await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice == "Signed out.").await;
        assert!(shown(&browser, "signin").await && rests(&browser, "populate").await);
        assert_eq!(browser.texts("#body tr").await.len(), 1, "the rows can be read");
        browser.close().await;
    });
}

#[test]
fn rows_are_hidden_where_reading_takes_a_user() {
    block_on(async {
        let program = Program::with_user("alice", PASSWORD, true).await;
        let browser = Browser::open(&program, Look::Dark).await;
        assert_eq!(browser.text("#empty").await, "Sign in to see the rows.");
        browser.write("#name", "alice").await;
        browser.write("#password", PASSWORD).await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice == "Signed in as alice.").await;
        browser.click("#populate").await;
        browser.told(|notice| notice.starts_with("Added ")).await;
        browser.click("#signout").await;
        browser.told(|notice| notice == "Signed out.").await;
        assert_eq!(browser.texts("#body tr").await.len(), 0);
        assert_eq!(browser.text("#empty").await, "Sign in to see the rows.");
        browser.close().await;
    });
}

#[test]
fn sign_in_is_legible_and_named() {
    block_on(async {
        let program = Program::with_user("alice", PASSWORD, false).await;
        for look in [Look::Light, Look::Dark, Look::Narrow(360)] {
            let browser = Browser::open(&program, look).await;
            let least = browser.run(crate::page::CONTRAST).await;
            assert!(least[0].as_f64().unwrap() >= 4.5, "{look:?}: {least}");
            let labels = "return [...document.querySelectorAll('input')]
                .map((field) => [...field.labels].map((label) => label.textContent).join())";
            assert_eq!(browser.run(labels).await, serde_json::json!(["Name", "Password"]));
            let wide = "return document.documentElement.scrollWidth - innerWidth";
            assert_eq!(browser.run(wide).await, 0, "{look:?}: it fits");
            browser.picture(&format!("signin-{look:?}.png").replace(['(', ')'], "-")).await;
            browser.close().await;
        }
    });
}

#[test]
fn expired_session_is_told_and_asks_again() {
    block_on(async {
        let program = Program::with_user("alice", PASSWORD, false).await;
        let browser = Browser::open(&program, Look::Light).await;
        browser.write("#name", "alice").await;
        browser.write("#password", PASSWORD).await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice == "Signed in as alice.").await;
        // The cookie goes in another tab.
        browser.run("return fetch('/logout', { method: 'POST' }).then(() => 1)").await;
        browser.click("#populate").await;
        browser.told(|notice| notice.starts_with("You are not signed in any more.")).await;
        assert!(shown(&browser, "signin").await && rests(&browser, "populate").await);
        browser.close().await;
    });
}

#[test]
fn five_fast_clicks_make_five_rows() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let click = "for (let i = 0; i < 5; i += 1) document.getElementById('populate').click()";
        browser.run(click).await;
        browser.told(|notice| notice.starts_with("Added 5 rows. Worker ")).await;
        assert_eq!(browser.text("#total").await, "5");
        assert_eq!(browser.texts("#body tr.fresh").await.len(), 5);
        browser.close().await;
    });
}

#[test]
fn timed_out_write_may_have_been_stored() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let late = "const asked = window.fetch;
            window.fetch = (path, sent) => sent.method === 'POST'
                ? asked(path, sent).then(() => { throw new DOMException('', 'TimeoutError') })
                : asked(path, sent)";
        browser.run(late).await;
        browser.click("#populate").await;
        let told = "The server took too long to answer. The row may have been stored: “Refresh” \
                    shows it.";
        browser.told(|notice| notice == told).await;
        browser.click("#refresh").await;
        browser.told(|notice| notice.starts_with("Up to date.")).await;
        assert_eq!(browser.text("#total").await, "1", "it was stored");
        browser.close().await;
    });
}

#[test]
fn mistyped_address_has_a_way_back() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        for path in ["/rows", "/populate"] {
            browser.visit(&format!("{}{path}", program.origin)).await;
            assert_eq!(browser.text("h1").await, "There is no page here");
            browser.click("main a").await;
            browser.told(|notice| notice.starts_with("Ready. Worker ")).await;
        }
        browser.close().await;
    });
}

#[test]
fn nothing_dead_is_shown_without_scripts() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        // What a browser without scripts makes of the page.
        let shown = "return new Promise((resolve) => {
            const asked = new XMLHttpRequest();
            asked.open('GET', '/');
            asked.responseType = 'document';
            asked.setRequestHeader('accept', 'text/html');
            asked.onload = () => {
                const page = asked.responseXML;
                const used = [...page.querySelectorAll('button, input, select')];
                resolve([used.length, used.filter((it) => !it.closest('[hidden], dialog')).length,
                    page.querySelectorAll('noscript').length]);
            };
            asked.send() })";
        let shown = browser.run(shown).await;
        assert!(shown[0].as_u64().unwrap() > 5, "{shown}");
        assert_eq!((shown[1].as_u64(), shown[2].as_u64()), (Some(0), Some(1)), "{shown}");
        browser.close().await;
    });
}
