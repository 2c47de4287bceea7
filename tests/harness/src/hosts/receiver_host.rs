//! The receiving host: a file system with a root for copies, the receiver's daemon, its command.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::faults::power::Disk;
use crate::hosts::address;
use crate::hosts::command::{self, Output};
use crate::hosts::daemon::Daemon;
use crate::hosts::sender_host::{ctl_command, private_dir};

/// A receiving host. Everything of it is gone when this is dropped.
#[derive(Debug)]
pub struct ReceiverHost {
    /// Its daemon.
    pub daemon: Daemon,
    fs: Disk,
    home: PathBuf,
    _dir: TempDir,
    keys: String,
    address: SocketAddr,
}

/// What a receiving host is made of.
#[derive(Debug, Clone)]
pub struct ReceiverSetup {
    size: u64,
    mount: String,
    power: bool,
    keys: String,
}

impl ReceiverSetup {
    /// A file system of another size.
    #[must_use]
    pub fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// Options that the file system is mounted with.
    #[must_use]
    pub fn mount(mut self, options: &str) -> Self {
        options.clone_into(&mut self.mount);
        self
    }

    /// A host whose power can be cut: what it keeps lies on the disk that is cut off.
    #[must_use]
    pub fn power(mut self) -> Self {
        self.power = true;
        self
    }

    /// Lines for the top of its configuration.
    #[must_use]
    pub fn keys(mut self, keys: &str) -> Self {
        keys.clone_into(&mut self.keys);
        self
    }

    /// Makes the host and starts its daemon.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn start(self) -> ReceiverHost {
        let mut receiver = self.make();
        receiver.daemon.start();
        receiver
    }

    /// Makes the host; its daemon is not started.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn make(self) -> ReceiverHost {
        let fs = Disk::new(self.size, &self.mount, self.power).unwrap();
        let dir = private_dir();
        let home = fs.home(dir.path());
        fs::create_dir_all(&home).unwrap();
        let file = home.join("receiver.toml");
        let receiver = ReceiverHost {
            daemon: Daemon::new("sendshot-receiver", dir.path(), &home, &file),
            fs,
            home,
            _dir: dir,
            keys: self.keys,
            address: address::own(),
        };
        fs::create_dir(receiver.root()).unwrap();
        receiver.configure(&receiver.root());
        receiver
    }
}

impl ReceiverHost {
    /// A host of 1 GiB whose root is the directory `backup`, with its daemon running.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        Self::with_size(1 << 30)
    }

    /// A host of another size.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn with_size(size: u64) -> Self {
        Self::setup().size(size).start()
    }

    /// A host whose daemon is not started.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn make(size: u64, mount_options: &str) -> Self {
        Self::setup().size(size).mount(mount_options).make()
    }

    /// A host to be described: 1 GiB.
    pub fn setup() -> ReceiverSetup {
        ReceiverSetup {
            size: 1 << 30,
            mount: String::new(),
            power: false,
            keys: String::new(),
        }
    }

    /// Writes a configuration with this root.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn configure(&self, root: &Path) {
        let (address, keys) = (self.address, &self.keys);
        let config = format!("listen = \"{address}\"\nroot = {root:?}\n{keys}\n");
        fs::write(self.config(), config).unwrap();
        self.fs.sync();
    }

    /// Cuts its power and switches it on again; its daemon is to be started then. What it had
    /// said before must not be known to others that go on: cut the link first.
    ///
    /// # Panics
    /// If it was not made for that, or something else than its daemon uses its disk.
    #[track_caller]
    pub fn power_cut(&mut self) {
        let daemon = &mut self.daemon;
        self.fs.cut(|| daemon.kill_if_alive());
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.home.join("receiver.toml")
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

impl Default for ReceiverHost {
    fn default() -> Self {
        Self::new()
    }
}
