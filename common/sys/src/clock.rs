//! The clock: what the kernel says of it, and the time since the boot.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::raw;

/// File of the kernel with an id of the current boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Whether the kernel says that a program keeps its clock synchronised. Where nothing does, it never says so.
#[must_use]
pub fn is_synchronised() -> bool {
    raw::is_clock_synchronised()
}

/// Returns the time since the boot, with the time that the host slept.
#[must_use]
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Returns the id of the current boot; `None` if the kernel does not report it.
#[must_use]
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string(BOOT_ID).ok()?;
    Some(id.trim().to_owned())
}
