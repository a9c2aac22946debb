//! The page in a real browser, on the real program.

use std::collections::HashSet;

use fantoccini::key::Key;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::browser::{Browser, Look, PATIENCE, Program};
use crate::world::{block_on, eventually};

const DATA: &str = "#body td:nth-child(2)";

/// The rows of the table, once more.
async fn rows(browser: &Browser) -> Vec<String> {
    browser.texts(DATA).await
}

/// Presses "Add a row", waits until it says so, and gives the row's data.
async fn add(browser: &Browser, before: &str) -> String {
    browser.click("#populate").await;
    let told = |notice: &str| notice.starts_with("Added ") && notice != before;
    let notice = browser.told(told).await;
    let (data, worker) = notice["Added ".len()..].split_once(". Worker ").unwrap();
    assert!(data.len() == 10 && data.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{notice}");
    let slot: u16 = worker.strip_suffix(" answered.").unwrap().parse().unwrap();
    assert!(slot < 4, "{notice}");
    data.to_owned()
}

#[test]
fn rows_are_added_paged_and_deleted() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        assert_eq!(browser.text("#total").await, "0");
        assert!(browser.text("#empty").await.starts_with("There are no rows."));

        let mut added = Vec::new();
        for count in 1..=12 {
            let before = browser.text("#notice").await;
            added.insert(0, add(&browser, &before).await);
            assert_eq!(browser.text("#total").await, count.to_string());
            assert_eq!(rows(&browser).await, added[..added.len().min(10)]);
        }
        assert_eq!(added.iter().collect::<HashSet<_>>().len(), 12);
        let workers = browser.texts("#workers li").await;
        assert_eq!(workers.len(), 4, "each worker that serves: {workers:?}");

        browser.click("#older").await;
        browser.told(|notice| notice.starts_with("Page 2. Worker ")).await;
        assert_eq!(rows(&browser).await, added[10..]);
        assert_eq!(browser.text("#position").await, "page 2");
        browser.click("#newer").await;
        browser.told(|notice| notice.starts_with("Page 1. Worker ")).await;
        assert_eq!(rows(&browser).await, added[..10]);

        browser.click("#delete").await;
        browser.click("dialog button[value=cancel]").await;
        assert_eq!(browser.text("#total").await, "12", "it was not meant");
        browser.click("#delete").await;
        browser.click("dialog button[value=delete]").await;
        browser.told(|notice| notice.starts_with("12 rows deleted. Worker ")).await;
        assert_eq!(browser.text("#total").await, "0");
        assert_eq!(rows(&browser).await, [""; 0]);
        browser.close().await;
    });
}

/// The protocol of the page and of each of its requests.
const PROTOCOLS: &str = "\
    const types = ['navigation', 'resource'];
    const entries = types.flatMap((type) => performance.getEntriesByType(type));
    return entries.map((entry) => `${entry.nextHopProtocol} ${new URL(entry.name).pathname}`)";

#[test]
fn page_works_over_https_and_http2() {
    block_on(async {
        let program = Program::over_tls().await;
        let browser = Browser::open(&program, Look::Light).await;
        for count in 1..=3 {
            let before = browser.text("#notice").await;
            add(&browser, &before).await;
            assert_eq!(browser.text("#total").await, count.to_string());
        }
        browser.click("#delete").await;
        browser.click("dialog button[value=delete]").await;
        browser.told(|notice| notice.starts_with("3 rows deleted. Worker ")).await;
        assert_eq!(browser.text("#total").await, "0");
        let protocols = browser.run(PROTOCOLS).await;
        let protocols: Vec<&str> =
            protocols.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
        for path in ["/", "/assets/app.js", "/populate", "/delete"] {
            assert!(protocols.contains(&&*format!("h2 {path}")), "{path}: {protocols:?}");
        }
        assert!(protocols.iter().all(|entry| entry.starts_with("h2 ")), "{protocols:?}");
        assert_eq!(browser.errors().await, Vec::<serde_json::Value>::new());
        // The console is looked at indeed.
        browser.run("console.error('an error')").await;
        assert_eq!(browser.errors().await.len(), 1);
        browser.close().await;
    });
}

#[test]
fn the_keyboard_is_enough() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let mut visited = Vec::new();
        for _ in 0..4 {
            browser.press(Key::Tab).await;
            visited.push(browser.focus().await);
        }
        assert_eq!(visited, ["Skip to the rows", "populate", "refresh", "delete"]);
        browser.press(Key::Enter).await;
        assert_eq!(browser.run(IS_ASKED).await, false, "there is nothing to delete");
        browser.run("document.querySelector('.skip').focus()").await;
        browser.press(Key::Enter).await;
        assert_eq!(browser.focus().await, "rows", "it is there without a row, too");

        browser.run("document.getElementById('populate').focus()").await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice.starts_with("Added ")).await;
        assert_eq!(browser.focus().await, "populate", "the next one needs no search");

        browser.run("document.getElementById('delete').focus()").await;
        browser.press(Key::Enter).await;
        assert_eq!(browser.focus().await, "Keep them", "Enter twice deletes nothing");
        browser.press(Key::Escape).await;
        assert_eq!(browser.focus().await, "delete");
        assert_eq!(browser.text("#total").await, "1");
        browser.press(Key::Enter).await;
        browser.press(Key::Tab).await;
        assert_eq!(browser.focus().await, "Delete all");
        browser.press(Key::Enter).await;
        browser.told(|notice| notice.starts_with("1 rows deleted.")).await;
        browser.close().await;
    });
}

#[test]
fn the_keyboard_turns_the_pages() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        for _ in 0..12 {
            let before = browser.text("#notice").await;
            add(&browser, &before).await;
        }
        browser.run("document.getElementById('newer').focus()").await;
        browser.press(Key::Tab).await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice.starts_with("Page 2. ")).await;
        assert_eq!(browser.focus().await, "older", "it rests, and keeps the focus");
        browser.press(Key::Enter).await;
        assert!(browser.text("#notice").await.starts_with("Page 2. "), "there is no page 3");
        browser.run("document.getElementById('newer').focus()").await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice.starts_with("Page 1. ")).await;
        assert_eq!(browser.focus().await, "newer");

        execute(&program, "DELETE FROM records WHERE id > 2").await;
        browser.press(Key::Tab).await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice.starts_with("Page 2. ")).await;
        execute(&program, "DELETE FROM records").await;
        browser.run("document.getElementById('newer').focus()").await;
        browser.press(Key::Enter).await;
        browser.told(|notice| notice.starts_with("Page 1. ")).await;
        assert_eq!(browser.focus().await, "rows", "there are no pages to turn any more");
        browser.close().await;
    });
}

/// The script that looks for the question that comes before a delete.
const IS_ASKED: &str = "return document.getElementById('confirm').open";

/// A change in the database by another client.
async fn execute(program: &Program, sql: &'static str) {
    let file = SqliteConnectOptions::new().filename(&program.database);
    let mut stranger = file.connect().await.unwrap();
    sqlx::query(sql).execute(&mut stranger).await.unwrap();
    stranger.close().await.unwrap();
}

#[test]
fn a_page_whose_rows_others_deleted_gives_way_to_the_first() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let mut added = Vec::new();
        for _ in 0..12 {
            let before = browser.text("#notice").await;
            added.insert(0, add(&browser, &before).await);
        }
        browser.click("#older").await;
        browser.told(|notice| notice.starts_with("Page 2. ")).await;
        execute(&program, "DELETE FROM records WHERE id <= 9").await;
        browser.click("#refresh").await;
        browser.told(|notice| notice.starts_with("Up to date. ")).await;
        assert_eq!(browser.text("#position").await, "newest first");
        assert_eq!(rows(&browser).await, added[..3]);
        assert_eq!(browser.text(".figure").await, "3 rows stored");
        assert_eq!(browser.text("#empty").await, "");
        browser.close().await;
    });
}

#[test]
fn what_was_done_is_told_also_when_it_cannot_be_shown() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let cut = "
            const real = window.fetch;
            window.fetch = (path, options) => path.startsWith('/data')
                ? Promise.reject(new TypeError()) : real(path, options)";
        add(&browser, "").await;
        browser.run(cut).await;
        let late = "But the rows below are not up to date. The server cannot be reached. Check that \
                    it runs, then try again.";
        browser.click("#populate").await;
        let told = browser.told(|notice| notice.ends_with(late)).await;
        assert!(told.starts_with("Added ") && told.contains(". Worker "), "{told}");
        browser.click("#delete").await;
        browser.click("dialog button[value=delete]").await;
        browser
            .told(|browser| {
                browser.starts_with("2 rows deleted. Worker ") && browser.ends_with(late)
            })
            .await;
        browser.close().await;
    });
}

#[test]
fn faults_are_told_in_words() {
    block_on(async {
        let mut program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let file = SqliteConnectOptions::new().filename(&program.database);
        let mut stranger = file.connect().await.unwrap();
        let transaction = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();
        browser.click("#populate").await;
        let away = "The database is not available. Try again in a moment.";
        browser.told(|notice| notice == away).await;
        let least = browser.run(CONTRAST).await;
        assert!(least[0].as_f64().unwrap() >= 4.5, "errors are legible: {least}");
        transaction.rollback().await.unwrap();
        add(&browser, away).await;

        program.kill().await;
        let gone = "The server cannot be reached. Check that it runs, then try again.";
        // Without a master its worker serves the connections that there are for a moment more.
        eventually(PATIENCE, async || {
            if browser.text("#notice").await == gone {
                return Some(());
            }
            browser.click("#refresh").await;
            None
        })
        .await;
        browser.close().await;
    });
}

#[test]
fn nothing_but_its_own_files_is_run() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let loaded = "return performance.getEntriesByType('resource').map(it => it.name)";
        for name in browser.run(loaded).await.as_array().unwrap() {
            assert!(name.as_str().unwrap().starts_with(&program.origin), "{name}");
        }
        let injected = "
            const script = document.createElement('script');
            try { script.textContent = 'window.taken = 1' } catch (refused) {}
            document.body.append(script);
            try { document.body.insertAdjacentHTML('beforeend', '<b id=taken>x</b>') }
            catch (refused) {}
            return [typeof window.taken, document.getElementById('taken')]";
        assert_eq!(browser.run(injected).await, serde_json::json!(["undefined", null]));
        browser.close().await;
    });
}

/// For each visible text: how far its colour is from its ground's, as WCAG 2 reckons; the least.
pub(crate) const CONTRAST: &str = "
    const channels = (css) => css.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => c / 255)
            .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const color = channels(getComputedStyle(element).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
    };
    let least = [99, ''];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
        if (!own || !element.checkVisibility()) continue;
        if (element.closest('[aria-disabled=true]')) continue;
        const [a, b] = [light(channels(getComputedStyle(element).color)), light(ground(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < least[0]) least = [ratio, element.textContent.trim().slice(0, 40)];
    }
    return least";

#[test]
fn it_is_legible_in_light_and_dark() {
    block_on(async {
        let program = Program::without_keepalive().await;
        let mut grounds = HashSet::new();
        for (look, name) in [(Look::Light, "page-light.png"), (Look::Dark, "page-dark.png")] {
            let browser = Browser::open(&program, look).await;
            for _ in 0..12 {
                let before = browser.text("#notice").await;
                add(&browser, &before).await;
            }
            let least = browser.run(CONTRAST).await;
            assert!(least[0].as_f64().unwrap() >= 4.5, "{look:?}: {least}");
            assert!(browser.texts("#workers li").await.len() > 1, "one worker has answered all");
            let ground = "return getComputedStyle(document.body).backgroundColor";
            grounds.insert(browser.run(ground).await.to_string());
            browser.picture(name).await;
            browser.click("#delete").await;
            let least = browser.run(CONTRAST).await;
            assert!(least[0].as_f64().unwrap() >= 4.5, "{look:?}, asked: {least}");
            browser.picture(&format!("confirm-{name}")).await;
            browser.close().await;
        }
        assert_eq!(grounds.len(), 2, "they are not the same: {grounds:?}");
    });
}

/// The words for a screen reader: a language, a title, one main part, a name for whatever can be used, a
/// place where news are said aloud, and headings that leave no level out.
#[test]
fn who_does_not_see_it_is_told() {
    block_on(async {
        let program = Program::start().await;
        let browser = Browser::open(&program, Look::Light).await;
        let nameless = "
            const usable = [...document.querySelectorAll('button, a, table, dialog, section, nav')];
            const named = (it) => it.getAttribute('aria-label')
                || document.getElementById(it.getAttribute('aria-labelledby'))?.textContent
                || (it.matches('button, a') && it.textContent.trim());
            return usable.filter((it) => !named(it)).map((it) => it.outerHTML)";
        assert_eq!(browser.run(nameless).await, serde_json::json!([]));
        let told = "
            const notice = document.getElementById('notice');
            return [document.documentElement.lang, document.title,
                document.querySelectorAll('main').length, notice.getAttribute('role'),
                [...document.querySelectorAll('h1, h2, h3')].map((it) => it.localName),
                [...document.querySelectorAll('img:not([alt])')].length,
                [...document.querySelectorAll('th:not([scope])')].length]";
        assert_eq!(
            browser.run(told).await,
            serde_json::json!([
                "en",
                "ferricorn",
                1,
                "status",
                ["h1", "h2", "h2", "h2", "h2"],
                0,
                0
            ])
        );
        browser.close().await;
    });
}

#[test]
fn it_fits_a_small_telephone() {
    block_on(async {
        let program = Program::without_keepalive().await;
        let browser = Browser::open(&program, Look::Narrow(360)).await;
        for _ in 0..12 {
            let before = browser.text("#notice").await;
            add(&browser, &before).await;
        }
        let sizes = "return ['populate', 'delete'].map((id) => {
            const { width, height } = document.getElementById(id).getBoundingClientRect();
            return width * height })";
        let sizes = browser.run(sizes).await;
        assert!(sizes[0].as_f64() > sizes[1].as_f64(), "a delete is not what is mostly wanted");
        let widths = "return [innerWidth, document.documentElement.scrollWidth]";
        assert_eq!(browser.run(widths).await, serde_json::json!([360, 360]));
        let small = "return [...document.querySelectorAll('button')]
            .filter((it) => it.checkVisibility() && it.getBoundingClientRect().height < 44)
            .map((it) => it.textContent)";
        assert_eq!(browser.run(small).await, serde_json::json!([]), "too small for a finger");
        browser.picture("page-narrow.png").await;
        browser.close().await;
    });
}
