//! A clock for a daemon that can be set while it runs, by a library that stands between it and the
//! system's (Debian's package `faketime`).

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::hosts::daemon::Daemon;

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The clock. Time that is measured, not told, goes on as it does.
#[derive(Debug)]
pub struct Clock(TempDir);

impl Clock {
    /// One that is right.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set("+0");
        clock
    }

    /// Has it go wrong by so much from now on: `+20d`, `-2y`.
    ///
    /// # Panics
    /// If that cannot be written.
    pub fn set(&self, offset: &str) {
        fs::write(self.0.path().join("offset"), offset).unwrap();
    }

    /// Gives it to a daemon, which is restarted for that.
    ///
    /// # Panics
    /// If the library is missing, or the daemon does not start.
    #[track_caller]
    pub fn of(&self, daemon: &mut Daemon) {
        assert!(Path::new(LIBRARY).exists(), "this test needs libfaketime");
        let file = self.0.path().join("offset");
        for (key, value) in [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            daemon.env(key, value);
        }
        daemon.stop();
        daemon.start();
    }
}

/// Removes what the library shares with the children of a process that was killed.
pub(crate) fn forget(process: u32) {
    for name in [
        format!("faketime_shm_{process}"),
        format!("sem.faketime_sem_{process}"),
    ] {
        // There is none if the process had no clock of its own.
        let _ = fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
