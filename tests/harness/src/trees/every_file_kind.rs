//! A tree with one of each kind of file, and a change of everything in it.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    CWD, FallocateFlags, FileType, Mode, XattrFlags, fallocate, lsetxattr, makedev, mknodat,
};

use crate::hosts::command::tool;
use crate::trees::fill;

/// Fills an empty volume.
///
/// # Panics
/// If a system call fails.
#[track_caller]
pub fn fill(root: &Path) {
    special_files(root);
    names(root);
    links(root);
    attributes(root);
    data(root);
    times(root);
}

fn special_files(root: &Path) {
    node(&root.join("fifo"), FileType::Fifo, 0);
    node(&root.join("null"), FileType::CharacterDevice, makedev(1, 3));
    // Minor numbers above 255 are stored in separate bits.
    node(
        &root.join("disk"),
        FileType::BlockDevice,
        makedev(259, 70_000),
    );
    // A socket's address holds at most 107 bytes, hence the short path.
    let beside = tempfile::tempdir().unwrap();
    symlink(root, beside.path().join("v")).unwrap();
    drop(UnixListener::bind(beside.path().join("v/socket")).unwrap());
    chown(root.join("disk"), Some(7), Some(8)).unwrap();
}

fn node(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

fn names(root: &Path) {
    for name in [
        &b"not \xff\xfe UTF-8"[..],
        b"\x80",
        b" ",
        b"new\nline",
        b"back\\slash",
        b"-rf",
        "sn\u{f6}w \u{2603}".as_bytes(),
        &[b'n'; 255],
    ] {
        let dir = root.join("names").join(OsStr::from_bytes(name));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
}

fn links(root: &Path) {
    let dir = root.join("links");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("one"), "one inode").unwrap();
    for name in ["two", "sub/three", "sub/\u{e4}"] {
        fs::hard_link(dir.join("one"), dir.join(name)).unwrap();
    }
    symlink("one", dir.join("symlink")).unwrap();
    symlink("nowhere/\n/at all", dir.join("dangling")).unwrap();
    let long = [b"../".repeat(1300), b"\xff".to_vec()].concat();
    symlink(OsStr::from_bytes(&long), dir.join("far")).unwrap();
    lchown(dir.join("symlink"), Some(1234), Some(4321)).unwrap();
    fs::hard_link(dir.join("symlink"), dir.join("symlink too")).unwrap();
    fs::hard_link(root.join("fifo"), dir.join("fifo too")).unwrap();
}

fn attributes(root: &Path) {
    let dir = root.join("attributes");
    fs::create_dir(&dir).unwrap();
    let file = |name: &str| {
        let path = dir.join(name);
        fs::write(&path, name).unwrap();
        path
    };
    for (name, mode) in [
        ("setuid", 0o4755),
        ("setgid", 0o2755),
        ("nobody", 0),
        ("all", 0o7777),
    ] {
        let path = file(name);
        chown(&path, Some(1000), Some(1000)).unwrap();
        chmod(&path, mode);
    }
    fs::create_dir(dir.join("sticky")).unwrap();
    chown(dir.join("sticky"), Some(65534), Some(u32::MAX - 1)).unwrap();
    chmod(&dir.join("sticky"), 0o3777);

    let path = file("xattrs");
    xattr(&path, "user.text", b"value");
    xattr(&path, "user.empty", b"");
    xattr(&path, "user.bytes", &[0, 255, 0, 10]);
    xattr(&path, "user.long", &fill::noise(1, 3000));
    xattr(&path, "trusted.admin", b"only root sees it");
    xattr(&path, "security.label", b"something_t\0");
    xattr(&path, "btrfs.compression", b"zstd");
    xattr(&dir, "user.of a directory", b"too");
    let path = dir.join("symlink");
    symlink("xattrs", &path).unwrap();
    xattr(&path, "trusted.of a symlink", b"too");

    let path = file("capable");
    chown(&path, Some(1000), Some(1000)).unwrap();
    tool(
        "setcap",
        &["cap_net_raw,cap_net_admin+ep".as_ref(), path.as_os_str()],
    );
    acl(&["-m", "u:1001:rw,g:1002:r,m::rwx"], &file("acl"));
    acl(&["-m", "u:1003:rwx"], root);
    acl(&["-d", "-m", "u:1004:rx,g:1005:rwx,o::-"], root);
    let sub = root.join("inherits");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("file"), "made below a default ACL").unwrap();
    fs::create_dir(sub.join("deeper")).unwrap();
}

fn data(root: &Path) {
    let dir = root.join("data");
    fs::create_dir(&dir).unwrap();
    for len in [
        0, 1, 2047, 2048, 4095, 4096, 4097, 131_072, 131_073, 3_000_001,
    ] {
        fill::file(dir.join(format!("noise {len}")), len as u64, len);
        fs::write(dir.join(format!("text {len}")), b"text ".repeat(len / 5)).unwrap();
    }
    let sparse = File::create(dir.join("sparse")).unwrap();
    for at in [1 << 20, 3 << 20, 40 << 20] {
        sparse.write_all_at(&fill::noise(at, 8192), at).unwrap();
    }
    sparse.set_len((64 << 20) + 13).unwrap();
    File::create(dir.join("all hole"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    fs::write(dir.join("written zeros"), vec![0; 100_000]).unwrap();
    fill::file(dir.join("original"), 5, 1 << 20);
    tool(
        "cp",
        &[
            "--reflink=always".as_ref(),
            dir.join("original").as_os_str(),
            dir.join("clone").as_os_str(),
        ],
    );
    fill::file(dir.join("punched"), 6, 1 << 20);
    punch(&dir.join("punched"), 4096 * 10, 4096 * 20);
}

fn times(root: &Path) {
    let dir = root.join("times");
    fs::create_dir(&dir).unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    for (name, time) in [
        ("epoch", epoch),
        ("a nanosecond", epoch + Duration::from_nanos(1)),
        ("before", epoch - Duration::from_millis(1_234_567_891)),
        ("far", epoch + Duration::new(1 << 34, 999_999_999)),
    ] {
        fs::write(dir.join(name), name).unwrap();
        set_times(&dir.join(name), time, time + Duration::from_nanos(7));
    }
    set_times(
        &dir,
        epoch + Duration::from_secs(1),
        epoch + Duration::from_secs(2),
    );
}

fn set_times(path: &Path, accessed: SystemTime, modified: SystemTime) {
    let times = FileTimes::new()
        .set_accessed(accessed)
        .set_modified(modified);
    File::open(path).unwrap().set_times(times).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn acl(arguments: &[&str], path: &Path) {
    let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    all.push(path.as_os_str());
    tool("setfacl", &all);
}

fn punch(path: &Path, at: u64, len: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, mode, at, len).unwrap();
}

/// Changes everything in a filled volume.
///
/// # Panics
/// If a system call fails.
#[track_caller]
pub fn change(root: &Path) {
    // Names that change their file type.
    fs::remove_file(root.join("null")).unwrap();
    node(&root.join("null"), FileType::CharacterDevice, makedev(1, 5));
    fs::remove_file(root.join("fifo")).unwrap();
    fs::create_dir(root.join("fifo")).unwrap();
    fs::write(root.join("fifo/file"), "in what was a fifo").unwrap();
    chmod(&root.join("disk"), 0o600);
    fs::rename(root.join("socket"), root.join("names/socket")).unwrap();
    fs::remove_dir_all(root.join("names/-rf")).unwrap();
    symlink("names", root.join("names/-rf")).unwrap();
    let bytes = |name: &[u8]| root.join("names").join(OsStr::from_bytes(name));
    fs::rename(bytes(b"not \xff\xfe UTF-8"), bytes(b"\xfe")).unwrap();

    // Links.
    let dir = root.join("links");
    fs::remove_file(dir.join("two")).unwrap();
    fs::write(dir.join("two"), "an inode of its own").unwrap();
    fs::rename(dir.join("one"), dir.join("sub/first")).unwrap();
    fs::hard_link(dir.join("sub/first"), dir.join("one")).unwrap();
    fs::remove_file(dir.join("symlink")).unwrap();
    symlink("two", dir.join("symlink")).unwrap();

    // Attributes.
    let dir = root.join("attributes");
    chmod(&dir.join("setuid"), 0o755);
    chown(dir.join("setgid"), Some(1), Some(1)).unwrap();
    // A write by root keeps the mode bits and removes the capability.
    fs::write(dir.join("all"), "changed").unwrap();
    chmod(&dir.join("all"), 0o6711);
    fs::write(dir.join("capable"), "changed").unwrap();
    tool(
        "setcap",
        &["cap_chown+ep".as_ref(), dir.join("nobody").as_os_str()],
    );
    rustix::fs::lremovexattr(dir.join("xattrs"), "user.text").unwrap();
    xattr(&dir.join("xattrs"), "user.empty", b"not any more");
    xattr(&dir.join("xattrs"), "user.long", b"");
    xattr(&dir.join("symlink"), "trusted.of a symlink", b"changed");
    acl(&["-x", "u:1001"], &dir.join("acl"));
    acl(&["-k"], root);
    acl(&["-d", "-m", "u:1006:rwx"], &root.join("inherits"));
    fs::write(root.join("inherits/deeper/new"), "by another default").unwrap();

    // Data.
    let dir = root.join("data");
    let file = |name: &str| File::options().write(true).open(dir.join(name)).unwrap();
    file("noise 3000001")
        .write_all_at(b"in the middle", 1_000_003)
        .unwrap();
    file("noise 131073").set_len(70_001).unwrap();
    file("noise 4097").set_len(1 << 20).unwrap();
    file("noise 2047")
        .write_all_at(&fill::noise(9, 5000), 2047)
        .unwrap();
    file("text 4096").set_len(0).unwrap();
    file("all hole").write_all_at(b"x", (1 << 30) - 1).unwrap();
    file("clone")
        .write_all_at(&fill::noise(10, 4096), 65_536)
        .unwrap();
    punch(&dir.join("sparse"), 3 << 20, 8192);
    punch(&dir.join("original"), 0, 4096);
    fs::remove_file(dir.join("punched")).unwrap();
    set_times(
        &root.join("times/epoch"),
        SystemTime::now(),
        SystemTime::UNIX_EPOCH,
    );
}
