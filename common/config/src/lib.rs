//! The configuration files of both daemons.
//!
//! - [`SenderConfig`]: `/etc/sendshot/sender.toml`, written by the administrator.
//! - [`ReceiverConfig`]: `/etc/sendshot/receiver.toml`, written by the administrator.
//! - [`ReceiverEntry`]: `/etc/sendshot/receivers.d/NAME.toml`, written only by pairing.
//!
//! Content that is not accepted is rejected with its line and the accepted alternatives, so that a typing
//! error never becomes a silent default.

mod address;
mod document;
mod error;
mod receiver;
mod receivers_d;
mod schedule;
mod sender;
mod show;

pub use address::{Address, AddressError, DEFAULT_PORT};
pub use error::{ConfigError, Fault, SourceLocation};
pub use receiver::{
    ClockRule, KeepPolicy, MinFree, ReceiverConfig, RestoreRule, SenderPolicy, Times,
};
pub use receivers_d::{ReceiverEntry, load_dir, load_one, remove, store};
pub use schedule::{Calendar, Schedule, ScheduleError, When, Window};
pub use sender::{SenderConfig, VolumeConfig};
