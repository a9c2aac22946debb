//! The rows, one request at a time.

use jiff::Timestamp;

use crate::world::{World, texts};

pub(super) async fn populate_answers_as_documented(world: World) {
    let worker = world.prepared().await;
    let answer = worker.populate().await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let data = answer.json()["data"].as_str().unwrap().to_owned();
    assert!(data.len() == 10 && data.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{data}");
    assert_eq!(answer.body, format!(r#"{{"data":"{data}","message":"Data added successfully"}}"#));
    let page = worker.page("").await;
    assert_eq!(texts(&page), [data]);
    assert_eq!(page["total"], 1);
    assert_eq!(page["next"], serde_json::Value::Null);
    assert_eq!(page["worker"], 0);
}

pub(super) async fn delete_says_how_many(world: World) {
    let worker = world.prepared().await;
    for count in [3, 1] {
        for _ in 0..count {
            worker.populated().await;
        }
        let answer = worker.delete().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.body, format!(r#"{{"message":"{count} rows deleted"}}"#));
    }
    assert_eq!(worker.delete().await.body, r#"{"message":"0 rows deleted"}"#);
    assert_eq!(worker.total().await, 0);
}

pub(super) async fn pages_show_every_row_once_newest_first(world: World) {
    let worker = world.prepared().await;
    let mut stored = Vec::new();
    for _ in 0..45 {
        stored.push(worker.populated().await);
    }
    stored.reverse();

    let mut shown = Vec::new();
    let mut sizes = Vec::new();
    let mut query = String::new();
    loop {
        let page = worker.page(&query).await;
        assert_eq!(page["total"], 45);
        sizes.push(texts(&page).len());
        shown.extend(texts(&page));
        // A row that comes in between moves nobody.
        if page["next"].is_null() {
            break;
        }
        query = format!("before={}", page["next"]);
    }
    assert_eq!(sizes, [20, 20, 5]);
    assert_eq!(shown, stored);

    assert_eq!(texts(&worker.page("limit=45").await), stored, "a full last page is the last");
    assert!(worker.page("limit=45").await["next"].is_null());
    assert_eq!(texts(&worker.page("limit=3").await), stored[..3]);
    assert_eq!(texts(&worker.page("before=1&limit=3").await), [""; 0]);
}

pub(super) async fn a_wrong_query_is_refused(world: World) {
    let worker = world.prepared().await;
    for query in ["limit=0", "limit=101", "limit=", "limit=ten", "limit=-1", "limit=1&limit=0"] {
        let answer = worker.get(&format!("/data?{query}")).await;
        let expected = (400, "limit is not a number from 1 to 100".into());
        assert_eq!(answer.error(), expected, "{query}");
    }
    for query in ["before=0", "before=-5", "before=x", "before=9223372036854775808"] {
        let answer = worker.get(&format!("/data?{query}")).await;
        assert_eq!(answer.error(), (400, "before is not the id of a row".into()), "{query}");
    }
    for query in ["", "limit=100", "other=1", "&&", "before=9223372036854775807"] {
        assert_eq!(worker.get(&format!("/data?{query}")).await.status, 200, "{query}");
    }
}

pub(super) async fn a_row_has_its_time(world: World) {
    let worker = world.prepared().await;
    let before = Timestamp::now();
    worker.populated().await;
    let after = Timestamp::now();
    let page = worker.page("").await;
    let text = page["rows"][0]["created_at"].as_str().unwrap();
    assert_eq!(text.len(), "2024-03-21T10:26:38.123Z".len(), "{text}");
    let stored: Timestamp = text.parse().unwrap();
    // Databases round to milliseconds, up or down.
    let first = before.as_millisecond() - 1;
    let last = after.as_millisecond() + 1;
    assert!((first..=last).contains(&stored.as_millisecond()), "{before} {stored} {after}");
}

pub(super) async fn readiness(world: World) {
    let early = world.worker(0);
    assert_eq!(
        early.get("/readyz").await.error(),
        (503, "the database is not available".into()),
        "there is no table yet"
    );
    world.prepare().await;
    assert_eq!(early.get("/readyz").await.status, 200);
}

pub(super) async fn a_second_start_keeps_the_rows(world: World) {
    let worker = world.prepared().await;
    let data = worker.populated().await;
    world.prepare().await;
    assert_eq!(texts(&worker.page("").await), [data]);
}

pub(super) async fn several_starts_at_once_make_one_table(world: World) {
    let (a, b, c, d) = tokio::join!(world.start(), world.start(), world.start(), world.start());
    for started in [a, b, c, d] {
        started.unwrap();
    }
    assert_eq!(world.worker(0).total().await, 0);
}
