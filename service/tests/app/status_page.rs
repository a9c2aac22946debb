//! The status page of the stats process in a real browser, on the real program.

use std::collections::HashSet;
use std::process::Command;

use fantoccini::key::Key;
use serde_json::{Value, json};

use crate::browser::{Browser, Look, PATIENCE, Program};
use crate::page::CONTRAST;
use crate::servers::free_port;
use crate::world::{block_on, eventually};

/// A program with a status page.
struct Served {
    program: Program,
    status: String,
}

impl Served {
    async fn start() -> Self {
        let bind = format!("127.0.0.1:{}", free_port());
        let program = Program::start_with(&["--workers", "2", "--stats-bind", &bind]).await;
        Self { program, status: format!("http://{bind}/status") }
    }

    async fn open(&self, look: Look) -> Browser {
        let browser = Browser::launch(look).await;
        browser.visit(&self.status).await;
        browser.told(|notice| notice == "Live.").await;
        browser
    }
}

/// The words of the table's rows.
async fn rows(browser: &Browser) -> Vec<Vec<String>> {
    let script = "return [...document.querySelectorAll('#rows tr')]
        .map((row) => [...row.cells].map((cell) => cell.textContent))";
    serde_json::from_value(browser.run(script).await).unwrap()
}

async fn ask(program: &Program) {
    let asked = Command::new("curl").args(["-sS", "-o", "/dev/null"]).arg(&program.origin).status();
    assert!(asked.unwrap().success());
}

#[test]
fn page_shows_workers_requests_and_a_death() {
    block_on(async {
        let served = Served::start().await;
        let browser = served.open(Look::Light).await;
        assert_eq!(rows(&browser).await.len(), 2);
        let heading = browser.text("#title").await;
        assert_eq!(heading, format!("ferricorn {}", env!("CARGO_PKG_VERSION")));
        eventually(PATIENCE, async || {
            ask(&served.program).await;
            let values = browser.texts("#plots p").await;
            let is_known = |value: &String| !value.contains('–');
            (values.len() == 3 && values.iter().all(is_known)).then_some(())
        })
        .await;
        let drawn = "return [...document.querySelectorAll('#plots path')].filter((it) => it.getAttribute('d')).length";
        assert!(browser.run(drawn).await.as_u64() >= Some(3));
        assert_eq!(browser.run(LIVES).await.as_u64(), Some(2), "one for each worker");

        let victim = rows(&browser).await.swap_remove(1);
        assert!(Command::new("kill").args(["-KILL", &victim[1]]).status().unwrap().success());
        eventually(PATIENCE, async || {
            let rows = rows(&browser).await;
            (rows.len() == 2 && rows[1][1] != victim[1] && rows[1][2] == "serving").then_some(())
        })
        .await;
        eventually(PATIENCE, async || (browser.run(LIVES).await.as_u64() == Some(3)).then_some(()))
            .await;
        let failed = "return document.querySelectorAll('#lives rect.failed').length";
        assert_eq!(browser.run(failed).await, 1);
        let end = browser.text("#ends").await;
        assert!(end.contains("slot 1, last end") && end.contains(&victim[1]), "{end}");
        let events = browser.texts("#events li").await;
        assert!(
            events.iter().any(|event| event.contains("error: ") && event.contains(&victim[1])),
            "{events:?}"
        );
        browser.picture("status-light.png").await;
        browser.close().await;
    });
}

/// Lives that have a bar.
const LIVES: &str = "return new Set([...document.querySelectorAll('#lives title')]
    .map((it) => it.textContent.match(/pid ([0-9]+)/)[1])).size";

#[test]
fn reload_is_shown_when_it_has_ended() {
    block_on(async {
        let served = Served::start().await;
        let browser = served.open(Look::Light).await;
        let old = rows(&browser).await;
        let master = browser.run("return before.status.server.pid").await.to_string();
        assert!(Command::new("kill").args(["-HUP", &master]).status().unwrap().success());
        eventually(PATIENCE, async || {
            let told = browser.text("#last-reload").await;
            told.contains("reloaded: generation 2").then_some(())
        })
        .await;
        eventually(PATIENCE, async || {
            let rows = rows(&browser).await;
            let is_new =
                |row: &Vec<String>| row[3] == "2" && old.iter().all(|old| old[1] != row[1]);
            (rows.len() == 2 && rows.iter().all(is_new)).then_some(())
        })
        .await;
        browser.close().await;
    });
}

#[test]
fn keyboard_pauses_and_moves_to_the_table() {
    block_on(async {
        let served = Served::start().await;
        let browser = served.open(Look::Light).await;
        let mut visited = Vec::new();
        for _ in 0..2 {
            browser.press(Key::Tab).await;
            visited.push(browser.focus().await);
        }
        assert_eq!(visited, ["Skip to the workers", "pause"]);
        browser.press(Key::Enter).await;
        browser.told(|notice| notice == "Paused.").await;
        assert_eq!(browser.text("#pause").await, "Resume");
        browser.press(Key::Enter).await;
        browser.told(|notice| notice == "Live.").await;
        browser.run("document.querySelector('.skip').focus()").await;
        browser.press(Key::Enter).await;
        assert_eq!(browser.focus().await, "workers");
        browser.close().await;
    });
}

#[test]
fn page_tells_of_a_server_that_is_gone() {
    block_on(async {
        let mut served = Served::start().await;
        let browser = served.open(Look::Light).await;
        served.program.kill().await;
        browser.told(|notice| notice.starts_with("The server cannot be reached")).await;
        let least = browser.run(CONTRAST).await;
        assert!(least[0].as_f64().unwrap() >= 4.5, "errors are legible: {least}");
        assert_eq!(rows(&browser).await.len(), 2, "the last numbers stay");
        browser.close().await;
    });
}

#[test]
fn page_is_legible_in_light_and_dark_and_named() {
    block_on(async {
        let served = Served::start().await;
        let mut grounds = HashSet::new();
        for look in [Look::Light, Look::Dark] {
            let browser = served.open(look).await;
            ask(&served.program).await;
            let least = browser.run(CONTRAST).await;
            assert!(least[0].as_f64().unwrap() >= 4.5, "{look:?}: {least}");
            let ground = "return getComputedStyle(document.body).backgroundColor";
            grounds.insert(browser.run(ground).await.to_string());
            let loaded = "return performance.getEntriesByType('resource').map(it => it.name)";
            let origin = served.status.strip_suffix("/status").unwrap();
            for file in browser.run(loaded).await.as_array().unwrap() {
                assert!(file.as_str().unwrap().starts_with(origin), "{file}");
            }
            let nameless = "
                const named = (it) => it.getAttribute('aria-label')
                    || document.getElementById(it.getAttribute('aria-labelledby'))?.textContent
                    || it.labels?.[0]
                    || (it.matches('button, a') && it.textContent.trim());
                return [...document.querySelectorAll(
                    'button, a, table, section, svg, progress, [tabindex=\"0\"]')]
                    .filter((it) => !named(it)).map((it) => it.outerHTML)";
            assert_eq!(browser.run(nameless).await, json!([]));
            let told =
                "return [document.documentElement.lang, document.querySelectorAll('main').length,
                document.getElementById('notice').getAttribute('role'),
                [...document.querySelectorAll('h1, h2, h3')].map((it) => it.localName),
                [...document.querySelectorAll('img:not([alt])')].length,
                [...document.querySelectorAll('th:not([scope])')].length]";
            let headings = ["h1", "h2", "h2", "h3", "h3", "h3", "h2", "h2", "h2"];
            assert_eq!(browser.run(told).await, json!(["en", 1, "status", headings, 0, 0]));
            browser.picture("status-dark.png").await;
            browser.close().await;
        }
        assert_eq!(grounds.len(), 2, "they are not the same: {grounds:?}");
    });
}

#[test]
fn page_fits_a_small_telephone() {
    block_on(async {
        let served = Served::start().await;
        let browser = served.open(Look::Narrow(360)).await;
        let widths = "return [innerWidth, document.documentElement.scrollWidth]";
        assert_eq!(browser.run(widths).await, json!([360, 360]));
        let small = "return [...document.querySelectorAll('button')]
            .filter((it) => it.checkVisibility() && it.getBoundingClientRect().height < 44)
            .map((it) => it.textContent)";
        assert_eq!(browser.run(small).await, json!([]), "too small for a finger");
        browser.picture("status-narrow.png").await;
        browser.close().await;
    });
}

#[test]
fn page_sets_text_as_text() {
    block_on(async {
        let served = Served::start().await;
        let browser = served.open(Look::Light).await;
        let told = "
            drawOthers({ queues: [], events: [{ time: '2026-01-01T00:00:00Z', level: 'error', serial: 'x',
                message: '<b id=taken>x</b><img src=x onerror=alert(1)>' }] });
            return [document.getElementById('taken'), document.querySelectorAll('#events img').length,
                document.querySelector('#events span').textContent.startsWith('error: <b id=taken>')]";
        assert_eq!(browser.run(told).await, json!([Value::Null, 0, true]));
        browser.close().await;
    });
}
