//! File systems of several devices, missing devices, and hundreds of nested subvolumes.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::disks::mount;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::{self, tool};
use sendshot_harness::hosts::pairing::{Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;

/// A loop device on a new image; detached on drop.
struct Loop(
    std::path::PathBuf,
    #[allow(dead_code, reason = "holds the image while the device exists")] tempfile::TempDir,
);

impl Loop {
    fn new(size: u64) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        let shown = command::run(
            Command::new("losetup")
                .args(["--find", "--show"])
                .arg(&image),
        );
        Self(shown.success().stdout.trim().into(), dir)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = command::run(Command::new("losetup").arg("-d").arg(&self.0));
    }
}

/// A removed device node, which is restored on drop.
struct Gone(std::path::PathBuf, [String; 2]);

impl Drop for Gone {
    fn drop(&mut self) {
        let mut make = Command::new("mknod");
        make.args(["-m", "660"]).arg(&self.0).arg("b").args(&self.1);
        let _ = command::run(&mut make);
    }
}

#[test]
fn a_sprouted_file_system_is_pushed() {
    let mut sender = SenderHost::setup().volume("photos", "photos").make();
    let fs_path = sender.fs().to_owned();
    fill::tree(&sender.photos(), 1);
    let seed = mount::devices(&fs_path)[0].clone();
    let image = mount::image(&fs_path);
    tool("umount", &[&fs_path]);
    command::run(Command::new("btrfstune").args(["-S", "1"]).arg(&image)).success();
    let sprout = Loop::new(512 << 20);
    mount::mount(&image, &fs_path, "loop");
    let seed = mount::devices(&fs_path).first().cloned().unwrap_or(seed);
    command::run(
        Command::new("btrfs")
            .args(["device", "add", "-f"])
            .arg(&sprout.0)
            .arg(&fs_path),
    )
    .success();
    tool(
        "mount",
        &[Path::new("-o"), Path::new("remount,rw"), &fs_path],
    );
    sender.daemon.start();
    let receiver = ReceiverHost::new();
    pair(&sender, &receiver, "nas2");
    fill::file(sender.photos().join("on the sprout"), 2, 70_000);
    let first = sender.push("nas2:photos");
    assert_exact(&sender, &receiver, &first);
    fill::file(sender.photos().join("more"), 3, 70_000);
    let second = sender.push("nas2:photos");
    assert_eq!(second["parent"], first["uuid"], "{seed:?}");
    assert_exact(&sender, &receiver, &second);
    assert_no_leftovers(&sender, &receiver);
    sender.daemon.stop();
    tool("umount", &[&fs_path]);
    mount::mount(&image, &fs_path, "loop");
}

#[test]
fn a_missing_device_node_is_named() {
    // The same happens in a container that has the mount but not the device.
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let device = mount::devices(hosts.sender.fs())[0].clone();
    let meta = fs::metadata(&device).unwrap();
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    let (major, minor) = (major.to_string(), minor.to_string());
    let gone = Gone(device.clone(), [major.clone(), minor.clone()]);
    fs::remove_file(&device).unwrap();
    let refused = hosts.sender.ctl(&["push", "nas2:photos"]);
    drop(gone);
    let numbers = format!("{major}:{minor}");
    let bind = format!("Bind={}", device.display());
    let allow = format!("DeviceAllow={}", device.display());
    refused.fails(1, &["no device node", &numbers, &bind, &allow]);
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

#[test]
fn three_hundred_nested_subvolumes_fill_no_screen() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    for n in 0..300 {
        streams::create(&photos.join(format!("nested{n:03}"))).unwrap();
    }
    let sender = &hosts.sender;
    let text = |arguments: &[&str]| sender.ctl(arguments).success().stdout;
    let plan = text(&["plan", "nas2:photos"]);
    let status = text(&["status"]);
    let push = text(&["push", "nas2:photos"]);
    for told in [&plan, &status, &push] {
        assert!(told.contains("nested004 and 295 more"), "{told}");
        assert!(!told.contains("nested005"), "{told}");
        assert!(told.len() < 4000, "{} bytes", told.len());
    }
    // Scripts get all of them.
    let pushed = sender.push("nas2:photos");
    assert_eq!(pushed["skipped"].as_array().unwrap().len(), 300);
    // The message to a user lists only new ones.
    assert!(!text(&["push", "nas2:photos"]).contains("skipped"));
    streams::create(&photos.join("younger")).unwrap();
    let push = text(&["push", "nas2:photos"]);
    assert!(push.contains("skipped  younger:"), "{push}");
}
