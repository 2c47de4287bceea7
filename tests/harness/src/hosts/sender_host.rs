//! The sending host: a file system with volumes, the sender's daemon, its command.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

use crate::disks::streams;
use crate::faults::power::Disk;
use crate::hosts::binaries;
use crate::hosts::command::{self, Output, Running};
use crate::hosts::daemon::Daemon;
use crate::hosts::until;

/// Name of the sending host on the receiving one.
pub const NAME: &str = "nas1";

/// A sending host, deleted on drop.
#[derive(Debug)]
pub struct SenderHost {
    /// The sender's daemon.
    pub daemon: Daemon,
    fs: Disk,
    home: PathBuf,
    _dir: TempDir,
    keys: String,
    pin_parent: bool,
    /// Names and paths of the configured volumes.
    volumes: Mutex<BTreeMap<String, PathBuf>>,
}

/// Description of a sending host.
#[derive(Debug, Clone)]
pub struct SenderSetup {
    size: u64,
    mount: String,
    power: bool,
    keys: String,
    pin_parent: bool,
    volumes: Vec<Volume>,
}

#[derive(Debug, Clone)]
struct Volume {
    name: String,
    path: PathBuf,
    create: bool,
}

impl SenderSetup {
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

    /// Makes all volumes keep their last snapshot as parent, which makes the kernel engine the default.
    #[must_use]
    pub fn pin_parent(mut self) -> Self {
        self.pin_parent = true;
        self
    }

    /// Adds a volume and creates its subvolume, at a path from the top level of the file system.
    #[must_use]
    pub fn volume(mut self, name: &str, path: &str) -> Self {
        self.volumes.push(Volume {
            name: name.to_owned(),
            path: path.into(),
            create: true,
        });
        self
    }

    /// Adds a volume to the configuration only, with a path from the mount point or an absolute one.
    #[must_use]
    pub fn configured(mut self, name: &str, path: impl AsRef<Path>) -> Self {
        self.volumes.push(Volume {
            name: name.to_owned(),
            path: path.as_ref().to_owned(),
            create: false,
        });
        self
    }

    /// Makes the host and starts its daemon.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn start(self) -> SenderHost {
        let mut sender = self.make();
        sender.daemon.start();
        sender
    }

    /// Makes the host without starting its daemon.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn make(self) -> SenderHost {
        let fs = Disk::new(self.size, &self.mount, self.power).unwrap();
        let dir = private_dir();
        let home = fs.home(dir.path());
        fs::create_dir_all(&home).unwrap();
        for volume in self.volumes.iter().filter(|v| v.create) {
            let path = fs.path().join(&volume.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            streams::create(&path).unwrap();
        }
        let file = home.join("sender.toml");
        let mut daemon = Daemon::new("sendshot-sender", dir.path(), &home, &file);
        daemon.option("--receivers-dir", &home.join("receivers.d"));
        let sender = SenderHost {
            daemon,
            fs,
            home,
            _dir: dir,
            keys: self.keys,
            pin_parent: self.pin_parent,
            volumes: Mutex::default(),
        };
        let volumes = self.volumes.iter().map(|v| (&*v.name, &*v.path));
        sender.configure(volumes);
        sender
    }
}

impl SenderHost {
    /// Makes a host with one empty volume, `photos`.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        Self::setup().volume("photos", "photos").start()
    }

    /// Starts the description of a host of 1 GiB without volumes, which reports a broken connection at once.
    pub fn setup() -> SenderSetup {
        SenderSetup {
            size: 1 << 30,
            mount: String::new(),
            power: false,
            keys: "retry_for = \"0s\"".to_owned(),
            pin_parent: false,
            volumes: Vec::new(),
        }
    }

    /// Mount point of the file system.
    pub fn fs(&self) -> &Path {
        self.fs.path()
    }

    /// Path of the volume `photos`, which most tests use.
    pub fn photos(&self) -> PathBuf {
        self.fs().join("photos")
    }

    /// Path of its configuration file.
    pub fn config(&self) -> PathBuf {
        self.home.join("sender.toml")
    }

    /// Writes a configuration with these volumes: names, and paths from the mount point or absolute
    /// ones. The daemon reads it at its next start.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn configure<'a>(&self, volumes: impl IntoIterator<Item = (&'a str, &'a Path)>) {
        let volumes = volumes.into_iter();
        let volumes = volumes.map(|(name, path)| (name.to_owned(), self.fs().join(path)));
        *self.volumes.lock().unwrap() = volumes.collect();
        self.write_config();
    }

    fn write_config(&self) {
        let mut config = format!("{}\n", self.keys);
        for (name, path) in &*self.volumes.lock().unwrap() {
            writeln!(config, "[volumes.{name:?}]\npath = {path:?}\nkeep = 3").unwrap();
            if self.pin_parent {
                config += "pin_parent = true\n";
            }
        }
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
        self.power_cut_with(|| ());
    }

    /// Makes a file in `photos`, fsyncs it, and cuts the power before btrfs commits: the file comes back by the replay of the
    /// log at the next mount, and the number of the volume's last change is that of before.
    ///
    /// # Panics
    /// If that is not what happened.
    #[track_caller]
    pub fn lose_power_after_a_fsync(&mut self, name: &str) {
        let ctransid = |photos: &Path| {
            let volume = fs::File::open(photos).unwrap();
            sendshot_sys::subvolume::info(volume).unwrap().ctransid
        };
        let photos = self.photos();
        rustix::fs::syncfs(fs::File::open(&photos).unwrap()).unwrap();
        let before = ctransid(&photos);
        let file = fs::File::create(photos.join(name)).unwrap();
        std::io::Write::write_all(&mut &file, b"committed").unwrap();
        file.sync_all().unwrap();
        drop(file);
        self.power_cut();
        assert_eq!(ctransid(&photos), before, "btrfs had committed");
        // To read it would change the time of the last access, and the volume.
        let len = fs::metadata(photos.join(name)).map(|of| of.len());
        assert_eq!(len.ok(), Some(9), "the power cut kept no log");
    }

    /// As [`power_cut`](Self::power_cut), while programs run that `kill` kills.
    ///
    /// # Panics
    /// If another process uses its disk.
    #[track_caller]
    pub fn power_cut_with(&mut self, kill: impl FnOnce()) {
        let daemon = &mut self.daemon;
        self.fs.cut(|| {
            kill();
            daemon.kill_if_alive();
        });
    }

    /// Unmounts the file system and mounts it again, as when a disk is unplugged and plugged in.
    ///
    /// # Panics
    /// If the file system stays busy.
    #[track_caller]
    pub fn replug(&self) {
        self.fs.replug();
    }

    /// Sets for all volumes whether they keep their last snapshot as parent, and restarts the daemon.
    ///
    /// # Panics
    /// If the restart fails.
    #[track_caller]
    pub fn set_pin_parent(&mut self, pin_parent: bool) {
        self.pin_parent = pin_parent;
        self.write_config();
        self.daemon.stop();
        self.daemon.start();
    }

    /// Path of the volume that a push reported.
    ///
    /// # Panics
    /// If it is not configured.
    #[track_caller]
    pub fn volume(&self, pushed: &Value) -> PathBuf {
        let name = pushed["volume"].as_str().unwrap();
        let volumes = self.volumes.lock().unwrap();
        let path = volumes.get(name);
        path.unwrap_or_else(|| panic!("`{name}` is not configured"))
            .clone()
    }

    /// Configures other volumes and restarts the daemon.
    ///
    /// # Panics
    /// If the restart fails.
    #[track_caller]
    pub fn reconfigure(&mut self, volumes: &[(&str, &str)]) {
        self.configure(volumes.iter().map(|(name, path)| (*name, Path::new(*path))));
        self.daemon.stop();
        self.daemon.start();
    }

    /// Path of the file that pairing writes for a receiver.
    pub fn receiver_file(&self, name: &str) -> PathBuf {
        let file = format!("receivers.d/{name}.toml");
        self.home.join(file)
    }

    /// Returns a command of sendshotctl for this host.
    pub fn ctl_command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        ctl_command(&self.daemon, arguments)
    }

    /// Runs sendshotctl and waits for it.
    #[track_caller]
    pub fn ctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        command::run(&mut self.ctl_command(arguments))
    }

    /// Returns the command `sendshotctl restore` for this host, with its paths.
    pub fn restore_command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = self.ctl_command(&["restore"]);
        command.arg("--config").arg(self.config());
        command.arg("--state-dir").arg(self.daemon.state_dir());
        command
            .arg("--receivers-dir")
            .arg(self.home.join("receivers.d"));
        command.arg("--runtime-dir").arg(self.runtime_dir());
        command.args(arguments);
        command
    }

    /// Directory of its temporary keys.
    pub fn runtime_dir(&self) -> PathBuf {
        self.home.join("run")
    }

    /// Runs `sendshotctl restore` and waits for it.
    #[track_caller]
    pub fn restore<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        command::run(&mut self.restore_command(arguments))
    }

    /// Starts sendshotctl.
    #[track_caller]
    pub fn ctl_start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Running {
        Running::start(&mut self.ctl_command(arguments))
    }

    /// Waits until no reported push holds the file system any more: after the report the daemon deletes the
    /// snapshot and closes the file system, which `status` shows as the stage `release`.
    ///
    /// # Panics
    /// If a push stays in that stage.
    #[track_caller]
    pub fn wait_until_released(&self) {
        until::holds("no push holds the disk that is over", || {
            let status = self.ctl(&["status", "--json"]).success().json();
            let running = status["running"].as_array().unwrap();
            running.iter().all(|push| push["stage"] != "release")
        });
    }

    /// Runs a push that must succeed; returns its report once the daemon has closed the file system.
    #[track_caller]
    pub fn push(&self, target: &str) -> Value {
        self.push_with(target, &[])
    }

    /// As [`push`](Self::push), with further options.
    #[track_caller]
    pub fn push_with(&self, target: &str, options: &[&str]) -> Value {
        let arguments = [&["push", "--json", target], options].concat();
        let pushed = self.ctl(&arguments).success().json();
        self.wait_until_released();
        pushed
    }
}

impl Default for SenderHost {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn ctl_command<A: AsRef<OsStr>>(daemon: &Daemon, arguments: &[A]) -> Command {
    // Under nohup or in the background, tests inherit ignored signals; this resets them.
    let mut command = Command::new("env");
    command.arg("--default-signal");
    command.arg(binaries::path("sendshotctl"));
    command.arg("--socket").arg(daemon.socket()).args(arguments);
    command
}

/// Directory of a daemon's state, log and configuration; in memory like the file systems.
pub(crate) fn private_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("sendshot-test-")
        .tempdir_in("/dev/shm")
        .unwrap()
}
