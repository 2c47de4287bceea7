//! The receiving box: a file system with a root for copies, the receiver's daemon, its command.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::address;
use crate::command::{self, Output};
use crate::daemon::Daemon;
use crate::loopfs::LoopFs;
use crate::sender_box::{ctl_command, private_dir};

/// A receiving box. Everything of it is gone when this is dropped.
#[derive(Debug)]
pub struct ReceiverBox {
    /// Its daemon.
    pub daemon: Daemon,
    fs: LoopFs,
    dir: TempDir,
    address: SocketAddr,
}

impl ReceiverBox {
    /// A box of 1 GiB whose root is the directory `backup`, with its daemon running.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        Self::with_size(1 << 30)
    }

    /// A box of another size.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn with_size(size: u64) -> Self {
        let mut receiver = Self::make(size, "");
        receiver.daemon.start();
        receiver
    }

    /// A box whose daemon is not started.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn make(size: u64, mount_options: &str) -> Self {
        let fs = LoopFs::new(size, &[], mount_options).unwrap();
        let dir = private_dir();
        let file = dir.path().join("receiver.toml");
        let receiver = Self {
            daemon: Daemon::new("sendshot-receiver", dir.path(), &file),
            fs,
            dir,
            address: address::own(),
        };
        fs::create_dir(receiver.root()).unwrap();
        receiver.configure(&receiver.root());
        receiver
    }

    /// Writes a configuration with this root.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn configure(&self, root: &Path) {
        let config = format!("listen = \"{}\"\nroot = {root:?}\n", self.address);
        fs::write(self.config(), config).unwrap();
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("receiver.toml")
    }

    /// Where the file system is mounted.
    pub fn fs(&self) -> &Path {
        self.fs.path()
    }

    /// The directory that holds the copies.
    pub fn root(&self) -> PathBuf {
        self.fs().join("backup")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The copy that a push reported.
    #[track_caller]
    pub fn copy(&self, pushed: &Value) -> PathBuf {
        self.root().join(pushed["copy"].as_str().unwrap())
    }

    /// Runs sendshotctl to its end.
    #[track_caller]
    pub fn ctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        command::run(&mut ctl_command(&self.daemon, arguments))
    }

    /// A token for a sender.
    #[track_caller]
    pub fn invite(&self, arguments: &[&str]) -> String {
        let arguments = [&["peer", "invite"], arguments].concat();
        let token = self.ctl(&arguments).success().stdout;
        token.trim().to_owned()
    }
}

impl Default for ReceiverBox {
    fn default() -> Self {
        Self::new()
    }
}
