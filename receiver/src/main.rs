//! sendshot-receiver: the daemon on the host that holds the copies.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sendshot_receiver::daemon::{self, Daemon, Options};

/// Receives copies of btrfs subvolumes from paired senders. Started by systemd; controlled by
/// sendshotctl.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/sendshot/receiver.toml"
    )]
    config: PathBuf,
    /// Directory of the daemon's own state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sendshot-receiver")]
    state_dir: PathBuf,
    /// Control socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/sendshot-receiver/control.sock"
    )]
    socket: PathBuf,
    /// Check the configuration and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sendshot_sys::crash::arm();
    if arguments.check {
        return sendshot_service::exit_code(daemon::check(&arguments.config, &arguments.state_dir));
    }
    let options = Options {
        config: arguments.config,
        state_dir: arguments.state_dir,
        socket: arguments.socket,
    };
    sendshot_service::run(|life| async move { Daemon::bind(options).await?.join(life).await })
}
