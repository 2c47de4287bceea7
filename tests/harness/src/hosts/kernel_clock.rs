//! What the kernel says of its clock, as a daemon sees it: a shared object between the two answers `adjtimex`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::hosts::daemon::Daemon;

/// Its source: the clock is synchronised if the file that it is told has a `1` in it.
const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
int adjtimex(struct timex *timex) {
    char said = '0';
    FILE *file = fopen(getenv("KERNEL_CLOCK_FILE"), "r");
    if (file) { said = (char)fgetc(file); fclose(file); }
    memset(timex, 0, sizeof *timex);
    if (said != '1') { timex->status = STA_UNSYNC; return TIME_ERROR; }
    return TIME_OK;
}
"#;

/// The kernel's word on its clock.
#[derive(Debug)]
pub struct KernelClock(TempDir);

impl KernelClock {
    /// Compiles the shared object.
    ///
    /// # Panics
    /// If it cannot be compiled.
    #[must_use]
    pub fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        let source = clock.0.path().join("clock.c");
        fs::write(&source, SOURCE).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-o"]);
        let made = gcc
            .arg(clock.shared_object())
            .arg(&source)
            .status()
            .unwrap();
        assert!(made.success(), "the shared object cannot be compiled");
        clock.say(false);
        clock
    }

    fn shared_object(&self) -> PathBuf {
        self.0.path().join("clock.so")
    }

    /// Sets whether the clock is synchronised, from now on.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn say(&self, is_synchronised: bool) {
        let text = if is_synchronised { "1" } else { "0" };
        fs::write(self.0.path().join("said"), text).unwrap();
    }

    /// Gives the kernel's word to a daemon from its next start on, instead of the time of a [`Clock`](crate::hosts::clock::Clock).
    pub fn of(&self, daemon: &mut Daemon) {
        daemon.env("LD_PRELOAD", self.shared_object().to_str().unwrap());
        let file = self.0.path().join("said");
        daemon.env("KERNEL_CLOCK_FILE", file.to_str().unwrap());
    }
}

impl Default for KernelClock {
    fn default() -> Self {
        Self::new()
    }
}
