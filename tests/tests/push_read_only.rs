//! A file system that its owner mounted read-only stays exactly as it is.

use std::fs;

use sendshot_tests::command::tool;
use sendshot_tests::fill;
use sendshot_tests::mount::{Mount, devices};
use sendshot_tests::pairing::Paired;

/// Options of the file system under a mount point, which tell whether it is writable at all.
fn super_options(path: &std::path::Path) -> String {
    let arguments = ["-n".as_ref(), "-o".as_ref(), "FS-OPTIONS".as_ref(), path.as_os_str()];
    tool("findmnt", &arguments)
}

#[test]
fn a_file_system_mounted_read_only_is_not_made_writable() {
    let boxes = Paired::new();
    let sender = &boxes.sender;
    fill::tree(&sender.photos(), 1);
    let fs = sender.fs().to_owned();
    let device = devices(&fs).remove(0);
    tool("mount", &["-o".as_ref(), "remount,ro".as_ref(), fs.as_os_str()]);
    assert!(super_options(&fs).starts_with("ro"));

    sender.ctl(&["plan", "nas2:photos"]).success();
    assert!(super_options(&fs).starts_with("ro"), "by plan");
    sender
        .ctl(&["push", "nas2:photos"])
        .fails(1, &["read-only", "help:"]);
    assert!(super_options(&fs).starts_with("ro"), "by push");

    // Only the mount is read-only, not the file system: a push works.
    tool("mount", &["-o".as_ref(), "remount,rw".as_ref(), fs.as_os_str()]);
    let photos = Mount::private(&device, "ro,subvol=photos");
    assert!(fs::write(photos.path().join("x"), "").is_err());
    let target = format!("nas2:{}", photos.path().display());
    sender.ctl(&["push", &target]).success();
}
