//! Finds what a running server has published: among the descriptors of its master, since in a container
//! there may be no file that both could agree on.

use std::fs;
use std::path::PathBuf;

use crate::config::PUBLISHED;
use crate::config::sources::Sources;

/// The sources that the server of the same file follows; those given where none is found, or where
/// this user may not look into it (proc(5), `/proc/pid/fd`).
pub(super) fn follow(sources: Sources) -> Sources {
    find(&sources).map_or(sources, |found| found.sources)
}

/// A running server.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pid: u32,
    /// The sources that it follows.
    pub(super) sources: Sources,
}

/// The server of the same file, if this user may look into it.
pub(super) fn find(sources: &Sources) -> Option<Found> {
    let link = PathBuf::from(format!("/memfd:{PUBLISHED} (deleted)"));
    let mut pids: Vec<u32> = numbers("/proc").collect();
    // A master is older than its workers, which may have many descriptors, and PID 1 in a container.
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let folder = format!("/proc/{pid}/fd");
        numbers(&folder).find_map(|number| {
            let file = format!("{folder}/{number}");
            let is_it = fs::read_link(&file).is_ok_and(|target| target == link);
            let text = is_it.then(|| fs::read_to_string(&file).ok())??;
            sources.as_published(&text).map(|sources| Found { pid, sources })
        })
    })
}

/// The entries of a folder that are numbers; none when it is not to be read.
fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
