//! The command line of the receiving daemon, from which its manual page is made too.

use std::path::PathBuf;

use clap::Parser;

/// Receives copies of btrfs subvolumes from paired senders. Started by systemd; controlled by
/// sendshotctl.
#[derive(Debug, Parser)]
#[command(name = "sendshot-receiver", version)]
pub struct ReceiverArguments {
    /// Configuration file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/sendshot/receiver.toml"
    )]
    pub config: PathBuf,
    /// Directory of the daemon's own state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sendshot-receiver")]
    pub state_dir: PathBuf,
    /// Control socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/sendshot-receiver/control.sock"
    )]
    pub socket: PathBuf,
    /// Check the configuration, say what it will do, and exit: 1 if the daemon could not start with it
    #[arg(long)]
    pub check: bool,
    /// With --check: also look whether the address can be listened on. Warnings are then failures
    #[arg(long, requires = "check")]
    pub online: bool,
}
