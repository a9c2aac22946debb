//! The binary on disk, which `USR2` executes: a link called `release` in the server's folder, that is
//! turned to something else in one step, as a deployment does it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::harness::Builder;

/// Has the server started by its `release`.
pub(crate) fn started_by_link(builder: Builder) -> Builder {
    put_link(builder.folder(), builder.binary());
    builder.wrapped(&["sh", "-c", "exec ./release \"$@\""])
}

/// Turns the link to this program.
pub(crate) fn put_link(folder: &Path, program: &Path) {
    let new = folder.join("release.new");
    symlink(program, &new).expect("the folder is ours");
    std::fs::rename(new, folder.join("release")).expect("the folder is ours");
}

/// Puts a shell script in its place.
pub(crate) fn put_script(folder: &Path, script: &str) {
    put_file(folder, &format!("#!/bin/sh\n{script}\n"), 0o755);
}

/// Puts a file in its place.
///
/// # Why another process writes it
/// A server that another thread of the tests forks in this moment has this process's descriptors until
/// it executes its program. One that is open for writing makes the file "busy" (execve(2), `ETXTBSY`).
pub(crate) fn put_file(folder: &Path, text: &str, mode: u32) {
    let new = folder.join("release.new");
    let mut writer = Command::new("sh");
    writer.args(["-c", "printf %s \"$1\" >\"$2\"", "sh", text]).arg(&new);
    assert!(writer.status().expect("there is a shell").success(), "the folder is ours");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(mode)).expect("so is the file");
    std::fs::rename(new, folder.join("release")).expect("the folder is ours");
}
