//! Workers that have answered many let others run.
//!
//! # Why
//! A worker under load finds something to do each time it looks, so it would run until the clock's next
//! tick, 4 ms and more, and every sibling that is ready as long after it: a client of the last one
//! waits for all of them. At the end of a turn of the event loop no client waits for this worker any
//! more but those of which it does not know yet; there the processor is worth nothing to it, and much
//! to others. Where no other process is ready it costs one short system call (sched_yield(2)).
//!
//! A turn with few requests ends as any other: so a worker beside a busy stranger, which always is
//! ready, is not put behind that one again and again.

use std::cell::Cell;

/// Requests in one turn that are many.
const MANY: u32 = 4;

thread_local! {
    /// Requests that have begun since this thread's event loop began its turn.
    static BEGUN: Cell<u32> = const { Cell::new(0) };
}

/// A request has begun on this thread.
pub(super) fn note_request() {
    BEGUN.set(BEGUN.get().saturating_add(1));
}

/// This thread's event loop has nothing more to do, and is about to ask for more.
pub(super) fn end() {
    if BEGUN.take() >= MANY {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Pair;
    use std::sync::{Arc, Barrier, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::runtime;
    use super::*;
    use crate::sys::process;

    const TURNS: usize = 5000;

    /// Two event loops on one processor, each of which always has something to do: the order of their
    /// turns, and how often the one comes after the other.
    fn handovers(requests: u32) -> usize {
        let order = Arc::new(Mutex::new(Vec::new()));
        let both = Arc::new(Barrier::new(2));
        let threads = [0, 1].map(|name| {
            let order = Arc::clone(&order);
            let both = Arc::clone(&both);
            std::thread::Builder::new().spawn(move || {
                process::run_on_one_processor();
                let runtime = runtime(1, |_| ()).expect("a runtime");
                both.wait();
                runtime.block_on(turns(requests, || order.lock().unwrap().push(name)));
            })
        });
        for thread in threads {
            thread.expect("a thread").join().expect("it ends");
        }
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 2 * TURNS);
        order.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// A byte goes round. A reader that got fewer than it had room for has to ask whether there are
    /// more.
    async fn turns(requests: u32, told: impl Fn()) {
        let pair = Pair::pair().expect("two sockets");
        let [mut here, mut there] = [pair.0, pair.1].map(|socket| {
            socket.set_nonblocking(true).expect("socket is a socket");
            UnixStream::from_std(socket).expect("in this event loop")
        });
        for _ in 0..TURNS {
            there.write_all(b".").await.expect("it is read");
            (0..requests).for_each(|_| note_request());
            told();
            assert_eq!(here.read(&mut [0; 2]).await.ok(), Some(1));
        }
    }

    #[test]
    fn siblings_on_one_processor_take_turns_when_they_answer_many() {
        let many = handovers(MANY);
        let few = handovers(MANY - 1);
        assert!(many > TURNS / 2, "{many} handovers in {} turns", 2 * TURNS);
        assert!(few < many / 4, "{few} handovers of few requests, {many} of many");
    }
}
