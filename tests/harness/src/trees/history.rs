//! A subvolume with every kind of entry that a file system can hold, and changes of every kind to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::disks::loopfs::run;

/// Hard links of one file: more than fit into one item of a file system tree.
const LINKS: usize = 2000;

/// Fills an empty subvolume.
///
/// # Errors
/// If the file system or a tool fails.
pub fn first(root: &Path) -> Result<()> {
    shell(root, "setfacl -d -m u:1000:rwx . && setfacl -m g:100:rx .")?;
    contents(root)?;
    names(root)?;
    nodes(root)?;
    metadata(root)?;
    shell(root, "touch -d '2001-02-03 04:05:06.000000007 UTC' plain .")
}

/// Changes what [`first`] made, in every way that a send stream expresses differently.
///
/// # Errors
/// If the file system or a tool fails.
pub fn second(root: &Path) -> Result<()> {
    changed_contents(root)?;
    changed_names(root)?;
    shell(root, CHANGED_METADATA)
}

fn contents(root: &Path) -> Result<()> {
    let dir = root.join("plain");
    fs::create_dir(&dir)?;
    for size in [0, 1, 100, 2048, 4095, 4096, 4097, 131_072, 300_001] {
        fs::write(dir.join(format!("text{size}")), text(size, 1))?;
    }
    fs::write(dir.join("noise"), noise(3 * 1024 * 1024 + 17, 1))?;
    fs::write(
        dir.join("mixed"),
        [text(700_000, 2), noise(500_000, 2)].concat(),
    )?;
    let sparse = File::create(dir.join("sparse"))?;
    sparse.write_all_at(b"head", 0)?;
    sparse.write_all_at(&noise(9000, 3), (5 << 30) + 123)?;
    sparse.set_len(6 << 30)?;
    fs::write(dir.join("text.cut"), text(300_000, 4))?;
    fs::write(dir.join("noise.punched"), noise(1_000_000, 5))?;
    shell(
        root,
        "sync
         cp --reflink=always plain/noise plain/noise.shared
         cp --reflink=always plain/text300001 plain/text.shared
         touch nocow && chattr +C nocow",
    )?;
    fs::write(root.join("nocow"), text(50_000, 6))?;
    Ok(())
}

fn names(root: &Path) -> Result<()> {
    let odd = root.join(OsStr::from_bytes(b"odd \xff\xfe\n\x1b[31m"));
    fs::create_dir(&odd)?;
    fs::write(odd.join(OsStr::from_bytes(b"\xc3(")), "not UTF-8")?;
    fs::write(odd.join("*?[\\'\""), "shell")?;
    fs::write(odd.join("n".repeat(255)), "long")?;

    let links = root.join("links");
    fs::create_dir(&links)?;
    fs::write(links.join("0"), "many names")?;
    for n in 1..LINKS {
        fs::hard_link(
            links.join("0"),
            links.join(format!("a further name of it, number {n}")),
        )?;
    }
    deep(root, 14)?;
    for dir in [
        "move/a/b/c",
        "move/x",
        "move/y",
        "gone/one/two",
        "swap/left",
        "swap/right",
    ] {
        fs::create_dir_all(root.join(dir))?;
        fs::write(root.join(dir).join("file"), dir)?;
    }
    fs::hard_link(root.join("swap/left/file"), root.join("swap/right/other"))?;
    Ok(())
}

/// Makes `levels` nested directories with the longest possible names, and a file in the last.
///
/// # Errors
/// I/O errors.
pub fn deep(root: &Path, levels: usize) -> Result<()> {
    let dir = deep_dir(root, levels);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("bottom"), "deep")?;
    Ok(())
}

fn deep_dir(root: &Path, levels: usize) -> PathBuf {
    let name = "d".repeat(255);
    (0..levels).fold(root.join("deep"), |path, _| path.join(&name))
}

fn nodes(root: &Path) -> Result<()> {
    let dir = root.join("nodes");
    fs::create_dir(&dir)?;
    drop(UnixListener::bind(dir.join("socket"))?);
    shell(
        &dir,
        "mkfifo pipe
         mknod null c 1 3
         mknod loop b 7 259
         mknod large c 4095 1048575
         mknod whiteout c 0 0
         ln pipe pipe.link",
    )?;
    symlink("nowhere/at/all", dir.join("dangling"))?;
    symlink("/etc/passwd", dir.join("absolute"))?;
    symlink("..", dir.join("up"))?;
    symlink("t".repeat(3000), dir.join("long"))?;
    symlink(OsStr::from_bytes(b"\xff\x01"), dir.join("bytes"))?;
    fs::hard_link(dir.join("dangling"), dir.join("dangling.link"))?;
    Ok(())
}

fn metadata(root: &Path) -> Result<()> {
    fs::create_dir(root.join("meta"))?;
    shell(&root.join("meta"), FIRST_METADATA)?;
    let big = "v".repeat(3000);
    run(Command::new("setfattr")
        .args(["-n", "user.big", "-v", &big, "user"])
        .current_dir(root.join("meta")))
}

const FIRST_METADATA: &str = r"
    for f in user trusted acl cap suid caplost; do echo $f > $f; chmod 755 $f; done
    setfattr -n user.empty user
    setfattr -n user.text -v 'some text' user
    setfattr -n user.bytes -v 0x00ff00 user
    setfattr -n trusted.hidden -v secret trusted
    ln -s target link
    setfattr -h -n trusted.onlink -v yes link
    setfacl -m u:1001:r,g:1002:rwx,m::rx acl
    setcap cap_net_raw+ep cap
    setcap cap_sys_admin+eip caplost
    mkdir acls && setfacl -d -m u:1003:rwx,o::- acls && setfacl -m u:1004:rwx acls
    mkdir acls/sub && echo x > acls/sub/file && mkfifo acls/sub/pipe
    mkdir plain-in-default && setfacl -b -k plain-in-default && echo x > plain-in-default/f
    setfacl -b plain-in-default/f
    mkdir zip && btrfs property set zip compression zstd
    echo compressed > zip/file && mkdir zip/sub && echo y > zip/sub/file
    btrfs property set zip/sub/file compression ''
    chown 12345:54321 suid user && chmod 6751 suid
    chown -h 1:2 link
    mkdir sticky && chmod 1777 sticky
    mkdir setgid && chgrp 77 setgid && chmod 2775 setgid
    mkdir setgid/child && echo g > setgid/file
    echo no > forbidden && chmod 000 forbidden
    touch -d '1903-01-02 03:04:05.123456789 UTC' old
    touch -d '2400-12-31 23:59:59.999999999 UTC' future
    touch -a -d '1960-06-06 UTC' old
    touch -h -d '1999-09-09 09:09:09.09 UTC' link
    chmod 4000 trusted
";

fn changed_contents(root: &Path) -> Result<()> {
    let dir = root.join("plain");
    let patch = |name: &str, at: u64, data: &[u8]| -> Result<()> {
        let file = File::options().write(true).open(dir.join(name))?;
        Ok(file.write_all_at(data, at)?)
    };
    patch("noise", 1_000_003, &noise(70_000, 7))?;
    patch("text131072", 65_536, &noise(4096, 8))?;
    patch("text300001", 300_001, &text(50_000, 9))?;
    patch("text100", 50, b"changed inline")?;
    patch("sparse", (4 << 30) + 4096, &text(20_000, 10))?;
    patch("text4097", 20_000, b"beyond a hole")?;
    let cut = File::options().write(true).open(dir.join("text.cut"))?;
    cut.set_len(12_345)?;
    File::options()
        .append(true)
        .open(dir.join("text0"))?
        .write_all(b"not empty any more")?;
    fs::write(dir.join("new"), text(200_000, 11))?;
    fs::write(root.join("nocow"), text(60_000, 12))?;
    shell(
        root,
        "fallocate --punch-hole --offset 200000 --length 400000 plain/noise.punched
         fallocate --offset 400000 --length 1000000 plain/mixed
         cp --reflink=always plain/noise.shared plain/noise.again
         sync
         cp --reflink=always plain/new plain/new.shared
         truncate -s 5000000000 plain/sparse",
    )
}

fn changed_names(root: &Path) -> Result<()> {
    for n in (1..LINKS).step_by(2) {
        fs::remove_file(root.join(format!("links/a further name of it, number {n}")))?;
    }
    for n in 0..300 {
        fs::hard_link(root.join("links/0"), root.join(format!("meta/linked {n}")))?;
    }
    fs::rename(root.join("links"), root.join("renamed links"))?;
    shell(
        root,
        "mv swap/left tmp && mv swap/right swap/left && mv tmp swap/right
         mv move/a/b/c move/c && mv move/a/b move/b && mv move/a move/b/a && mv move/b move/c/b
         mv move/x/file tmp && mv move/y/file move/x/file && mv tmp move/y/file
         rm -r gone
         mkdir gone && echo back > gone/one
         rm plain/text1 && mkdir plain/text1 && echo inside > plain/text1/file
         rm nodes/up && mkfifo nodes/up
         rm -r move/y && ln -s x move/y
         mv nodes/null nodes/zero && rm nodes/pipe
         mv plain/text2048 swap/right/",
    )?;
    let bottom = deep_dir(root, 14);
    fs::rename(bottom.join("bottom"), root.join("risen"))?;
    fs::set_permissions(root.join("risen"), fs::Permissions::from_mode(0o640))?;
    Ok(())
}

const CHANGED_METADATA: &str = r"
    cd meta
    setfattr -x user.empty user && setfattr -n user.text -v 'other text' user
    setfattr -n user.more -v more user
    setfacl -b acl && setfacl -m u:7:w acl
    setfacl -k acls && setfacl -d -m u:9:r acls/sub
    mkdir acls/sub/new && echo new > acls/sub/new/file
    setfacl -k .. && mkdir ../without && echo w > ../without/w
    echo appended >> caplost
    chown 5:6 cap && setcap cap_kill+p cap
    chmod 755 suid
    chown 1:1 setgid/file
    btrfs property set zip compression ''
    echo plain > zip/new
    btrfs property set zip/sub compression lzo && echo lzo > zip/sub/lzo
    touch -d '2020-01-01 UTC' sticky
    touch -a -d '2021-01-01 UTC' forbidden
    echo y > future
";

fn shell(dir: &Path, script: &str) -> Result<()> {
    run(Command::new("sh")
        .args(["-e", "-c", script])
        .current_dir(dir))
}

/// Returns bytes that every algorithm compresses.
fn text(len: usize, seed: u64) -> Vec<u8> {
    let line = format!("line {seed} of a text that is much like the next one\n");
    let mut bytes: Vec<u8> = line.bytes().cycle().take(len).collect();
    for (n, byte) in noise(len / 64, seed).into_iter().enumerate() {
        bytes[n * 64] = byte;
    }
    bytes
}

/// Returns bytes that no algorithm compresses (xorshift64*).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    (0..len).map(|_| (next() >> 56) as u8).collect()
}
