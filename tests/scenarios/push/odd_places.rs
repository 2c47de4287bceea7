//! Volumes in unusual places: on a file system mounted read-only, and at a path that is not
//! valid text.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use sendshot_harness::disks::mount::{Mount, devices};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::trees::fill;

/// Returns the options of the file system under a mount point, which show whether it is writable at all.
fn super_options(path: &std::path::Path) -> String {
    let arguments = [
        "-n".as_ref(),
        "-o".as_ref(),
        "FS-OPTIONS".as_ref(),
        path.as_os_str(),
    ];
    tool("findmnt", &arguments)
}

#[test]
fn a_file_system_mounted_read_only_is_not_made_writable() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    fill::tree(&sender.photos(), 1);
    let fs = sender.fs().to_owned();
    let device = devices(&fs).remove(0);
    tool(
        "mount",
        &["-o".as_ref(), "remount,ro".as_ref(), fs.as_os_str()],
    );
    assert!(super_options(&fs).starts_with("ro"));

    // Without a snapshot the volume is read as it is; the kernel engine cannot do that.
    let plan = sender.ctl(&["plan", "nas2:photos"]).success().stdout;
    assert!(plan.contains("read-only"), "{plan}");
    assert!(super_options(&fs).starts_with("ro"), "by plan");
    sender
        .ctl(&["plan", "--engine", "kernel", "nas2:photos"])
        .fails(2, &["read-only", "help:"]);
    assert!(super_options(&fs).starts_with("ro"), "by a kernel's plan");
    sender.ctl(&["push", "nas2:photos"]).success();
    assert!(super_options(&fs).starts_with("ro"), "by push");

    // Only the mount is read-only, not the file system: a push works.
    tool(
        "mount",
        &["-o".as_ref(), "remount,rw".as_ref(), fs.as_os_str()],
    );
    let photos = Mount::private(&device, "ro,subvol=photos");
    assert!(fs::write(photos.path().join("x"), "").is_err());
    let target = format!("nas2:{}", photos.path().display());
    sender.ctl(&["push", &target]).success();
}

#[test]
fn a_volume_at_a_path_that_is_no_text_is_pushed() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    let path = sender.fs().join(OsStr::from_bytes(b"b\xffd name"));
    streams::create(&path).unwrap();
    fs::write(path.join("x"), "x").unwrap();
    let mut target = OsString::from("nas2:").into_vec();
    target.extend(path.as_os_str().as_bytes());
    let push = || {
        let arguments = [
            "push".into(),
            "--json".into(),
            OsString::from_vec(target.clone()),
        ];
        sender.ctl(&arguments).success().json()
    };
    let first = push();
    assert_eq!(
        fs::read(hosts.receiver.copy(&first).join("x")).unwrap(),
        b"x"
    );
    assert_eq!(push()["parent"], first["uuid"]);
}
