//! Workers that are killed in the moment in which they send an answer: held there by strace(1), before the kernel
//! has it or behind. The count is that of the client, who has the answer or has it not.

use crate::client::{Address, Connection};
use crate::harness::{Builder, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::http2;
use crate::metrics::{scrape, stats_address};
use crate::system_calls::Trace;

/// Waits until the process is held in the system call by which a receipt is got.
fn wait_held(worker: i32) {
    let number = nix::libc::SYS_sendmmsg.to_string();
    eventually("it is held in its write", PATIENCE, || {
        let text = std::fs::read_to_string(format!("/proc/{worker}/syscall")).ok()?;
        (text.split(' ').next() == Some(&number)).then_some(())
    });
}

/// Has the worker killed in its write of the answer that `ask` gets, and returns what was counted.
#[expect(clippy::print_stdout, reason = "what was not tested must be said")]
fn counted_of_killed(
    builder: Builder,
    tables: &str,
    held: &str,
    ask: fn(&Address) -> bool,
) -> Option<String> {
    let tables = format!("workers = 1\n[stats]\nbind = \"127.0.0.1:0\"\n{tables}");
    let server = builder.config(&tables).start();
    let worker = server.worker(0);
    // Ten minutes, in microseconds.
    let inject = format!("inject=sendmmsg:{held}=600000000");
    let arguments = ["-e", "trace=sendmmsg", "-e", &inject];
    let Some(trace) = Trace::begin_with(&arguments, worker, server.folder()) else {
        println!("not tested: strace(1) is absent, or may not trace");
        return None;
    };
    let address = server.address();
    let client = std::thread::spawn(move || ask(&address));
    wait_held(worker);
    let is_sent = held == "delay_exit";
    let mut client = Some(client);
    let mut join = || client.take().expect("it is asked once").join().expect("no client panics");
    if is_sent {
        assert!(join(), "the client has its answer while the worker is held");
    }
    send(worker, Signal::SIGKILL);
    if !is_sent {
        assert!(!join(), "nothing was sent");
    }
    trace.end();
    let counted = eventually("the request is counted", PATIENCE, || {
        let samples = scrape(stats_address(&server));
        let mut counts = samples
            .iter()
            .filter(|(name, count)| name.starts_with("ferricorn_requests_total{") && **count > 0.0);
        counts.next().map(|(name, count)| format!("{count} {name}"))
    });
    server.stop();
    Some(counted)
}

fn ask(address: &Address) -> bool {
    let mut connection = Connection::open(address).expect("it listens");
    connection.get("/").is_ok_and(|answer| answer.status == 200)
}

fn counts_are_the_clients(builder: fn() -> (Builder, &'static str), ask: fn(&Address) -> bool) {
    for (held, code) in [("delay_exit", "200"), ("delay_enter", "aborted")] {
        let (builder, tables) = builder();
        let Some(counted) = counted_of_killed(builder, tables, held, ask) else { return };
        assert_eq!(counted, format!("1 ferricorn_requests_total{{code=\"{code}\"}}"), "{held}");
    }
}

#[test]
fn answer_of_a_killed_worker_is_counted_if_it_was_sent() {
    counts_are_the_clients(|| (Ferricorn::hello(), ""), ask);
}

#[test]
fn answer_over_tls_of_a_killed_worker_is_counted_if_it_was_sent() {
    let builder = || {
        let builder = Ferricorn::unruly();
        crate::tls::localhost().write(builder.folder(), "a");
        (builder, "[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n")
    };
    counts_are_the_clients(builder, ask);
}

#[test]
fn stream_of_a_killed_worker_is_counted_if_its_answer_was_sent() {
    counts_are_the_clients(|| (Ferricorn::unruly(), ""), http2::is_answered);
}
