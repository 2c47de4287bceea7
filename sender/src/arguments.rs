//! The command lines of the programs of the sending host, from which their manual pages are made too.

use std::path::PathBuf;

use clap::Parser;

/// Replicates live btrfs subvolumes to paired receivers. Started by systemd; controlled by sendshotctl.
#[derive(Debug, Parser)]
#[command(name = "sendshot-sender", version)]
pub struct SenderArguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/sendshot/sender.toml")]
    pub config: PathBuf,
    /// Directory of the daemon's own state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sendshot-sender")]
    pub state_dir: PathBuf,
    /// Control socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/sendshot-sender/control.sock"
    )]
    pub socket: PathBuf,
    /// Directory of the files that pairing writes
    #[arg(long, value_name = "DIR", default_value = "/etc/sendshot/receivers.d")]
    pub receivers_dir: PathBuf,
    /// Check the configuration, say what it will do, and exit: 1 if the daemon could not start with it
    #[arg(long)]
    pub check: bool,
    /// With --check: only the files that a start depends on, so that a disk that does not answer cannot prevent it; for
    /// service units
    #[arg(long, requires = "check", conflicts_with = "online")]
    pub config_only: bool,
    /// With --check: also connect to each receiver. Warnings are then failures: 3 if a receiver cannot be reached, 4 if one
    /// refuses, else 1
    #[arg(long, requires = "check")]
    pub online: bool,
}

/// Brings copies back from a receiver. Started by `sendshotctl restore`, which writes the request to its standard
/// input and reads events from its standard output.
#[derive(Debug, Parser)]
#[command(name = "sendshot-restore", version)]
pub struct RestoreArguments {
    /// Configuration file of the sender; it need not exist
    #[arg(long, value_name = "FILE", default_value = "/etc/sendshot/sender.toml")]
    pub config: PathBuf,
    /// State directory of the sending daemon
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sendshot-sender")]
    pub state_dir: PathBuf,
    /// Directory of the files that pairing writes
    #[arg(long, value_name = "DIR", default_value = "/etc/sendshot/receivers.d")]
    pub receivers_dir: PathBuf,
    /// Control socket of the sending daemon
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/sendshot-sender/control.sock"
    )]
    pub socket: PathBuf,
    /// Directory of temporary keys
    #[arg(long, value_name = "DIR", default_value = "/run/sendshot-restore")]
    pub runtime_dir: PathBuf,
    /// Least bytes between two points from which an interrupted restore continues
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub checkpoint_bytes: u64,
    /// Least milliseconds between two such points
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000)]
    pub checkpoint_interval: u64,
}
