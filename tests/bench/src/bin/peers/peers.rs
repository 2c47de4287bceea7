//! The programs that whole pushes are compared with, from Debian's packages.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sendshot_harness::disks::loopfs::{LoopFs, run};
use sendshot_harness::disks::streams;
use tempfile::TempDir;

/// Two file systems for a peer, with the volume that is replicated.
pub struct Disks {
    pub from: LoopFs,
    pub to: LoopFs,
    /// The round for which the volume was changed last.
    pub changed: Cell<Option<u64>>,
}

impl Disks {
    /// The volume.
    pub fn volume(&self) -> PathBuf {
        self.from.path().join("volume")
    }

    /// Deletes the copies and snapshots of a round, and waits until their data is freed.
    pub fn clean(&self, names: &[&str]) -> Result<()> {
        for dir in [self.from.path(), self.to.path()] {
            for name in names {
                if dir.join(name).exists() {
                    streams::delete(&dir.join(name))?;
                }
            }
        }
        free(self.from.path())?;
        free(self.to.path())
    }
}

/// Waits until deleted subvolumes are gone, so that the cleaner works in no other round, and gives their memory back: images that
/// only grow take the page cache from the volumes.
pub fn free(fs: &Path) -> Result<()> {
    run(Command::new("btrfs").args(["subvolume", "sync"]).arg(fs))?;
    run(Command::new("btrfs").args(["filesystem", "sync"]).arg(fs))?;
    run(Command::new("fstrim").arg(fs))
}

/// Whether what was received is written to the disk before the time ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    Yes,
    No,
}

/// Runs a shell command that pipes one program into another.
pub fn pipe(command: &str) -> Result<()> {
    let status = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {command}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "failed: {command}");
    Ok(())
}

/// `btrfs send | btrfs receive` of a new snapshot `name`, from `parent` if there is one; `over` is put before the receiving
/// command.
pub fn btrfs(
    disks: &Disks,
    (name, parent): (&str, Option<&str>),
    options: &str,
    over: &str,
    sync: Sync,
) -> Result<()> {
    let (from, to) = (disks.from.path(), disks.to.path());
    let snapshot = from.join(name);
    streams::snapshot(&disks.volume(), &snapshot)?;
    let parent = parent.map_or(String::new(), |parent| {
        format!("-p {}", from.join(parent).display())
    });
    pipe(&format!(
        "btrfs send -q --proto 2 {options} {parent} {} | {over} btrfs receive -q {}",
        snapshot.display(),
        to.display()
    ))?;
    if sync == Sync::Yes {
        run(Command::new("btrfs").args(["filesystem", "sync"]).arg(to))?;
    }
    Ok(())
}

/// `tar | tar`, and a sync: the least that a copy of files costs.
pub fn tar(disks: &Disks, name: &str) -> Result<()> {
    let target = disks.to.path().join(name);
    streams::create(&target)?;
    pipe(&format!(
        "tar -C {} --sparse -cf - . | tar -C {} -xpf -",
        disks.volume().display(),
        target.display()
    ))?;
    run(Command::new("btrfs")
        .args(["filesystem", "sync"])
        .arg(disks.to.path()))
}

/// `btrbk run` with a configuration of one volume; returns the names that it gave.
pub fn btrbk(disks: &Disks) -> Result<()> {
    let (from, to) = (disks.from.path(), disks.to.path());
    let config = from.join("btrbk.conf");
    let text = format!(
        "timestamp_format long\nsnapshot_preserve_min all\ntarget_preserve_min all\nlockfile {}\n\
         volume {}\n  subvolume volume\n    target {}\n",
        from.join("btrbk.lock").display(),
        from.display(),
        to.display()
    );
    fs::write(&config, text)?;
    pipe(&format!("btrbk -q -c {} run", config.display()))
}

/// Removes what btrbk made.
pub fn clean_btrbk(disks: &Disks) -> Result<()> {
    for dir in [disks.from.path(), disks.to.path()] {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("volume.") {
                streams::delete(&path)?;
            }
        }
        free(dir)?;
    }
    Ok(())
}

/// An ssh daemon on the loopback interface, which trusts one new key.
pub struct Ssh {
    daemon: Child,
    dir: TempDir,
    port: u16,
}

impl Ssh {
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        for key in ["host", "user"] {
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(path(key)))?;
        }
        fs::copy(path("user.pub"), path("authorized"))?;
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0")?;
            free.local_addr()?.port()
        };
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PermitRootLogin prohibit-password\nUsePAM no\n",
            path("host"),
            path("authorized")
        );
        fs::write(path("config"), config)?;
        fs::create_dir_all("/run/sshd")?;
        let daemon = Command::new("/usr/sbin/sshd")
            .args(["-D", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start sshd")?;
        let ssh = Self { daemon, dir, port };
        for _ in 0..100 {
            if pipe(&format!("{} true", ssh.command())).is_ok() {
                return Ok(ssh);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("sshd does not answer")
    }

    /// The beginning of a command that runs on the other side.
    pub fn command(&self) -> String {
        format!(
            "ssh -q -p {} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1",
            self.port,
            self.dir.path().join("user").display()
        )
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
