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

/// A receiving host, deleted on drop.
#[derive(Debug)]
pub struct ReceiverHost {
    /// The receiver's daemon.
    pub daemon: Daemon,
    fs: Disk,
    home: PathBuf,
    _dir: TempDir,
    keys: String,
    address: SocketAddr,
}

/// Description of a receiving host.
#[derive(Debug, Clone)]
pub struct ReceiverSetup {
    size: u64,
    mount: String,
    power: bool,
    keys: String,
}

impl ReceiverSetup {
    /// Sets the size of the file system, in bytes.
    #[must_use]
    pub fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// Sets the mount options of the file system.
    #[must_use]
    pub fn mount(mut self, options: &str) -> Self {
        options.clone_into(&mut self.mount);
        self
    }

    /// Makes a host whose power can be cut: its state lies on the disk that loses power.
    #[must_use]
    pub fn power(mut self) -> Self {
        self.power = true;
        self
    }

    /// Sets the first lines of its configuration.
    #[must_use]
    pub fn keys(mut self, keys: &str) -> Self {
        keys.clone_into(&mut self.keys);
        self
    }

    /// Makes the host and starts its daemon.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn start(self) -> ReceiverHost {
        let mut receiver = self.make();
        receiver.daemon.start();
        receiver
    }

    /// Makes the host without starting its daemon.
    ///
    /// # Panics
    /// If a step fails.
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
    /// Makes a host of 1 GiB whose root is the directory `backup`, with its daemon running.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        Self::with_size(1 << 30)
    }

    /// As [`new`](Self::new), with another size in bytes.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn with_size(size: u64) -> Self {
        Self::setup().size(size).start()
    }

    /// Makes a host without starting its daemon.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn make(size: u64, mount_options: &str) -> Self {
        Self::setup().size(size).mount(mount_options).make()
    }

    /// Starts the description of a host of 1 GiB.
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
        // Disks of tests are small, and filled to the last byte.
        let min_free = match keys.contains("min_free") {
            true => "",
            false => "min_free = \"0 B\"",
        };
        let config = format!("listen = \"{address}\"\nroot = {root:?}\n{min_free}\n{keys}\n");
        fs::write(self.config(), config).unwrap();
        self.fs.sync();
    }

    /// Cuts its power and switches it on again; the caller then starts its daemon. Peers that keep running
    /// must not have received what it sent after the cut: cut the link first.
    ///
    /// # Panics
    /// If the host was not made for that, or another process than its daemon uses its disk.
    #[track_caller]
    pub fn power_cut(&mut self) {
        let daemon = &mut self.daemon;
        self.fs.cut(|| daemon.kill_if_alive());
    }

    /// Permits a sender to restore for a day.
    ///
    /// # Panics
    /// If no sender has this name.
    #[track_caller]
    pub fn grant(&self, sender: &str) {
        let grant = ["peer", "grant", sender, "--for", "24h"];
        self.ctl(&grant).success();
    }

    /// Path of its configuration file.
    pub fn config(&self) -> PathBuf {
        self.home.join("receiver.toml")
    }

    /// Mount point of the file system.
    pub fn fs(&self) -> &Path {
        self.fs.path()
    }

    /// Directory of the copies.
    pub fn root(&self) -> PathBuf {
        self.fs().join("backup")
    }

    /// Address that the daemon listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Path of the copy that a push reported.
    #[track_caller]
    pub fn copy(&self, pushed: &Value) -> PathBuf {
        self.root().join(pushed["copy"].as_str().unwrap())
    }

    /// Runs sendshotctl and waits for it.
    #[track_caller]
    pub fn ctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        command::run(&mut ctl_command(&self.daemon, arguments))
    }

    /// Makes an invitation token for a sender.
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
