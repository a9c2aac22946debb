//! The state of a connection, and which kicks count.

use super::*;
use crate::request::draining::Draining;

// ORDERING: one thread writes and reads: Relaxed.

#[test]
fn a_deadline_that_outlives_its_request_gives_nothing_to_the_next() {
    let conn = Conn::new(0, 0, Arc::new(Budget::new(0)), Draining::default());
    let second = Duration::from_secs(1);
    conn.note_request();
    let first = conn.request();
    conn.extend(first, second);
    conn.extend(first, second);
    assert_eq!(conn.extra.load(Ordering::Relaxed), 2000);
    conn.note_request();
    conn.extend(first, second);
    assert_eq!(conn.extra.load(Ordering::Relaxed), 0);
    conn.extend(conn.request(), second);
    assert_eq!(conn.extra.load(Ordering::Relaxed), 1000);
}

#[test]
fn a_kick_that_comes_too_late_is_forgotten() {
    let conn = Conn::new(0, 0, Arc::new(Budget::new(0)), Draining::default());
    conn.give(Kick::Head);
    assert_eq!(conn.kick(), Kick::Head);
    conn.note_request();
    assert_eq!(conn.kick(), Kick::None, "the head has come after all");
    conn.give(Kick::Head);
    conn.give(Kick::Answer);
    assert_eq!(conn.kick(), Kick::Answer, "one for something that is over gives way");
}
