//! The binary on disk, which `USR2` executes: a link called `release` in the server's folder, that is
//! turned to something else in one step, as a deployment does it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

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
pub(crate) fn put_file(folder: &Path, text: &str, mode: u32) {
    let new = folder.join("release.new");
    std::fs::write(&new, text).expect("the folder is ours");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(mode)).expect("so is the file");
    std::fs::rename(new, folder.join("release")).expect("the folder is ours");
}
