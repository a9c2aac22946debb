//! Programs of other languages in the slots: each test starts real ones.
//!
//! Their sources stand beside these tests. What answers here is what a Debian package brings: Python's
//! own library, node, uvicorn, gunicorn, nginx and socat.

mod compared;
mod ends;
mod life;
mod losses;
mod output;
mod ready;

use crate::harness::{Builder, Ferricorn, PATIENCE, eventually};
use crate::proc;

/// A server in Python that knows no framework; its arguments choose how it behaves.
const PLAIN: &str = include_str!("plain.py");

/// A server with these settings whose slots run `plain.py` with these arguments.
fn plain(config: &str, arguments: &[&str]) -> Builder {
    let program = ["python3", "plain.py"];
    running(config, &[&program, arguments].concat()).file("plain.py", PLAIN)
}

/// A server with these settings whose slots run this command.
fn running(config: &str, command: &[&str]) -> Builder {
    let builder = Ferricorn::bundled().config(config).flag("run").flag("--");
    command.iter().fold(builder, |builder, word| builder.flag(*word))
}

/// The pid of the program in a slot: of its keeper's children the one that leads a group.
fn program(server: &Ferricorn, slot: u16) -> i32 {
    eventually("a program in the slot", PATIENCE, || {
        let (_, keeper) = server.workers().into_iter().find(|(number, _)| *number == slot)?;
        program_of(keeper)
    })
}

/// The pid of a keeper's program.
fn program_of(keeper: i32) -> Option<i32> {
    let children = proc::children(keeper);
    children
        .iter()
        .find(|child| child.group == child.pid && child.state != 'Z')
        .map(|child| child.pid)
}

/// Waits until each of so many slots has a program that is none of these, and returns them.
fn wait_programs(server: &Ferricorn, count: u16, before: &[i32]) -> Vec<i32> {
    // One after the other, and some programs take seconds to boot on a busy machine.
    eventually("other programs in every slot", 4 * PATIENCE, || {
        let workers = server.workers();
        let programs: Vec<i32> =
            workers.iter().filter_map(|(_, keeper)| program_of(*keeper)).collect();
        let are_fresh = programs.iter().all(|pid| !before.contains(pid));
        let are_all = workers.iter().map(|(slot, _)| *slot).eq(0..count);
        (are_all && are_fresh && programs.len() == usize::from(count)).then_some(programs)
    })
}
