//! sendshot-restore: brings copies back from a receiver. `sendshotctl restore` starts it.

use std::io::{BufRead, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sendshot_model::restore::{RestoreEvent, RestoreRequest};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::resume::CheckpointPolicy;
use sendshot_sender::arguments::RestoreArguments;
use sendshot_sender::restore::{self, Settings};
use sendshot_service::privileges::{self, Capabilities};
use tokio_util::sync::CancellationToken;

/// The capabilities that a restore needs: it makes subvolumes and mounts the top level (SYS_ADMIN), sets owners, modes,
/// set-id bits, file capabilities and inode flags, makes device nodes, works in directories of any owner, and looks for
/// the users of a volume in /proc (SYS_PTRACE).
const NEEDED: Capabilities = Capabilities::SYS_ADMIN
    .union(Capabilities::CHOWN)
    .union(Capabilities::DAC_OVERRIDE)
    .union(Capabilities::DAC_READ_SEARCH)
    .union(Capabilities::FOWNER)
    .union(Capabilities::FSETID)
    .union(Capabilities::SETFCAP)
    .union(Capabilities::MKNOD)
    .union(Capabilities::LINUX_IMMUTABLE)
    .union(Capabilities::SYS_PTRACE);

/// Longest request in bytes.
const MAX_REQUEST: u64 = 16 * 1024 * 1024;

fn main() -> ExitCode {
    let arguments = RestoreArguments::parse();
    if let Err(e) = privileges::keep_only(NEEDED) {
        eprintln!("sendshot-restore: cannot give up privileges: {e}");
        return ExitCode::FAILURE;
    }
    sendshot_sys::crash::arm();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tell(RestoreEvent::Failed {
                kind: kind(problem.kind).to_owned(),
                message: problem.message,
                remedy: problem.remedy,
            });
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: RestoreArguments) -> Result<(), Problem> {
    let request = request()?;
    let settings = Settings {
        config: arguments.config,
        state_dir: arguments.state_dir,
        receivers_dir: arguments.receivers_dir,
        socket: arguments.socket,
        runtime_dir: arguments.runtime_dir,
        checkpoints: CheckpointPolicy {
            bytes: arguments.checkpoint_bytes,
            milliseconds: arguments.checkpoint_interval,
        },
    };
    let failed = |e: std::io::Error| Problem::from_error(Kind::Failed, &e);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(failed)?;
    let cancel = CancellationToken::new();
    cancel_with_input(cancel.clone()).map_err(failed)?;
    let restored = runtime.block_on(async {
        let signals = cancel.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                signals.cancel();
            }
        });
        restore::run(&settings, request, tell, cancel).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    restored.map_err(Problem::from)
}

fn request() -> Result<RestoreRequest, Problem> {
    let broken = |e: &dyn std::error::Error| {
        Problem::new(Kind::Usage, format!("the request cannot be read: {e}"))
            .remedy("use `sendshotctl restore`, which starts this program")
    };
    let mut line = String::new();
    // Unbuffered: the rest of the input only tells when sendshotctl ends.
    let mut input = std::io::stdin().lock().take(MAX_REQUEST);
    input.read_line(&mut line).map_err(|e| broken(&e))?;
    serde_json::from_str(&line).map_err(|e| broken(&e))
}

/// Cancels the restore when standard input is closed: `sendshotctl` has ended.
fn cancel_with_input(cancel: CancellationToken) -> std::io::Result<()> {
    let watch = move || {
        let mut rest = [0; 64];
        while matches!(std::io::stdin().read(&mut rest), Ok(1..)) {}
        cancel.cancel();
    };
    let thread = std::thread::Builder::new().name("input".into());
    thread.spawn(watch).map(drop)
}

/// Writes an event. If sendshotctl has ended, the end of standard input cancels the restore.
fn tell(event: RestoreEvent) {
    if let Ok(text) = serde_json::to_string(&event) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Cancelled => "cancelled",
        Kind::Usage => "usage",
        Kind::Unreachable => "unreachable",
        Kind::Refused => "refused",
    }
}
