//! A user without rights, who may talk to the daemons.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::hosts::binaries;
use crate::hosts::command::{Output, run, tool};
use crate::hosts::daemon::Daemon;

/// Runs sendshotctl as that user.
///
/// # Panics
/// If it cannot be run.
#[track_caller]
pub fn as_unprivileged(daemon: &Daemon, arguments: &[&str]) -> Output {
    let socket = daemon.socket();
    let dir = socket.parent().unwrap();
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    // Where the programs were built, others may not look.
    let program = dir.join("sendshotctl");
    if !program.exists() {
        // By another process: a descriptor for writing, inherited by what a test beside this one
        // starts, would make it "busy".
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
