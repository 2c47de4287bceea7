//! sendshot-sender: the daemon on the host whose volumes are replicated.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sendshot_sender::daemon::{self, Daemon, Options};
use sendshot_sender::shared::sender::Paths;

/// Replicates live btrfs subvolumes to paired receivers. Started by systemd; controlled by sendshotctl.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/sendshot/sender.toml")]
    config: PathBuf,
    /// Directory of the daemon's own state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sendshot-sender")]
    state_dir: PathBuf,
    /// Control socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/sendshot-sender/control.sock"
    )]
    socket: PathBuf,
    /// Directory of the files that pairing writes
    #[arg(long, value_name = "DIR", default_value = "/etc/sendshot/receivers.d")]
    receivers_dir: PathBuf,
    /// Check the configuration and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let paths = Paths {
        config: arguments.config,
        state_dir: arguments.state_dir,
        receivers_dir: arguments.receivers_dir,
    };
    sendshot_sys::crash::arm();
    if arguments.check {
        return sendshot_service::exit_code(daemon::check(&paths));
    }
    let options = Options {
        paths,
        socket: arguments.socket,
    };
    sendshot_service::run(|life| async move { Daemon::bind(options).await?.join(life).await })
}
