//! An adjustable clock for a running daemon, by a library that intercepts calls to the system's
//! clock (Debian's package `faketime`).

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::hosts::daemon::Daemon;

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// An adjustable wall clock. The monotonic clock is unaffected.
#[derive(Debug)]
pub struct Clock(TempDir);

impl Clock {
    /// Makes a clock that is right.
    ///
    /// # Panics
    /// If its file cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set("+0");
        clock
    }

    /// Sets the error of the clock from now on: `+20d`, `-2y`.
    ///
    /// # Panics
    /// If its file cannot be written.
    pub fn set(&self, offset: &str) {
        fs::write(self.0.path().join("offset"), offset).unwrap();
    }

    /// Gives the clock to a daemon, and restarts the daemon for that.
    ///
    /// # Panics
    /// If the library is missing, or the daemon does not start.
    #[track_caller]
    pub fn of(&self, daemon: &mut Daemon) {
        self.give(daemon);
        daemon.stop();
        daemon.start();
    }

    /// Gives the clock to a daemon from its next start on.
    ///
    /// # Panics
    /// If the library is missing.
    #[track_caller]
    pub fn give(&self, daemon: &mut Daemon) {
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
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
