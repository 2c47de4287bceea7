//! An unprivileged user who may talk to the daemons.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::hosts::binaries;
use crate::hosts::command::{Output, run, tool};
use crate::hosts::daemon::Daemon;

/// Runs sendshotctl as an unprivileged user.
///
/// # Panics
/// If it cannot be run.
#[track_caller]
pub fn as_unprivileged(daemon: &Daemon, arguments: &[&str]) -> Output {
    let socket = daemon.socket();
    let dir = socket.parent().unwrap();
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    // The build directory is not readable for other users.
    let program = dir.join("sendshotctl");
    if !program.exists() {
        // Copied by another process: a descriptor open for writing, inherited by a process that a
        // concurrent test starts, would make the program "busy".
        let built = binaries::path("sendshotctl");
        tool("cp", &[built.as_os_str(), program.as_os_str()]);
    }
    run(Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .arg("--socket")
        .arg(&socket)
        .args(arguments))
}
