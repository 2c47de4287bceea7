//! The configuration file that a set-up writes, and the start of the daemon with it.

use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sendshot_proto::problem::{Kind, Problem};
use tempfile::NamedTempFile;

use crate::output::Output;

/// Longest wait for the daemon to answer after its start.
const START: Duration = Duration::from_secs(30);

/// A configuration is no secret.
const MODE: u32 = 0o644;

/// A daemon, by its names.
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    /// Its unit and program.
    pub unit: &'static str,
    /// Its usual socket.
    pub socket: &'static str,
}

/// Refuses to set up a host that has a configuration, or whose daemon runs: it would not read the new one.
///
/// # Errors
/// If the file exists, or cannot be looked for, or the daemon runs.
pub fn check_absent(file: &Path, daemon: Daemon, socket: Option<&PathBuf>) -> Result<(), Problem> {
    let socket = socket.map_or(Path::new(daemon.socket), PathBuf::as_path);
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        let message = format!("{} runs on this host already", daemon.unit);
        return Err(Problem::new(Kind::Refused, message).remedy(format!(
            "change its configuration, which `sendshotctl config show` names, with an editor, then `systemctl reload {}`",
            daemon.unit
        )));
    }
    match file.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Problem::local_io(
            &format!("look for {}", file.display()),
            &e,
        )),
        Ok(_) => Err(exists(file, daemon)),
    }
}

fn exists(file: &Path, daemon: Daemon) -> Problem {
    Problem::new(
        Kind::Refused,
        format!("{} exists, and a set-up changes no file", file.display()),
    )
    .remedy(format!(
        "change it with an editor, then `systemctl reload {unit}`; `sendshotctl config show` shows what is in effect",
        unit = daemon.unit
    ))
}

/// Writes a new file, whole or not at all.
///
/// # Errors
/// If it exists, or cannot be written.
pub fn write_new(file: &Path, text: &str, daemon: Daemon) -> Result<(), Problem> {
    let failed = |e: io::Error| Problem::local_io(&format!("write {}", file.display()), &e);
    let dir = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut new = NamedTempFile::new_in(dir).map_err(failed)?;
    new.write_all(text.as_bytes()).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(MODE);
    new.as_file().set_permissions(mode).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    match new.persist_noclobber(file) {
        Ok(_) => {}
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => return Err(exists(file, daemon)),
        Err(e) => return Err(failed(e.error)),
    }
    let opened = std::fs::File::open(dir).map_err(failed)?;
    opened.sync_all().map_err(failed)
}

/// Enables and starts the daemon, where systemd runs and the socket is the usual one; then waits until it answers.
///
/// # Errors
/// If it does not start.
pub fn start(daemon: Daemon, socket: Option<&PathBuf>, output: &Output) -> Result<(), Problem> {
    let Daemon {
        unit,
        socket: usual,
    } = daemon;
    let has_systemd = Path::new("/run/systemd/system").exists();
    if socket.is_none() && has_systemd {
        output.note(&format!("systemctl enable --now {unit}"));
        let started = Command::new("systemctl")
            .args(["enable", "--quiet", "--now", unit])
            .stdin(Stdio::null())
            .status();
        match started {
            Ok(status) if status.success() => {}
            _ => {
                return Err(Problem::new(Kind::Failed, format!("{unit} did not start"))
                    .remedy(format!("`journalctl -u {unit}` says why")));
            }
        }
    } else {
        output.note(&format!("start {unit} now"));
    }
    let path = socket.map_or(Path::new(usual), PathBuf::as_path);
    let end = Instant::now() + START;
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        if Instant::now() > end {
            let message = format!("{unit} does not answer on {}", path.display());
            return Err(Problem::new(Kind::Failed, message)
                .remedy(format!("start it: `systemctl start {unit}`")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
