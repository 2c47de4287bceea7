//! Random changes to a small tree, of every kind that a file system knows.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};

use crate::trees::random::Random;

/// Few names, so that they are used, freed and used again; one is not UTF-8.
const NAMES: [&[u8]; 6] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"\xff\xfe",
    b"a longer name than the others",
];

/// Largest offset of a write.
const REACH: u64 = 600_000;

fn name(random: &mut Random) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let bytes: &[u8] = random.pick(&NAMES);
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn path(random: &mut Random, root: &Path) -> PathBuf {
    let depth = 1 + random.below(3);
    (0..depth).fold(root.to_owned(), |path, _| path.join(name(random)))
}

/// Number of kinds of changes.
const KINDS: u64 = 45;

/// Lists the directories of a tree without its root, sorted, so that equal trees give equal lists.
fn dirs(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Lists the regular files of a tree, sorted, so that equal trees give equal lists.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn range(random: &mut Random) -> (u64, u64) {
    let aligned = random.once_in(2);
    let (offset, len) = (random.below(REACH), 1 + random.below(100_000));
    if aligned {
        (offset & !4095, (len & !4095) + 4096)
    } else {
        (offset, len)
    }
}

/// Makes one change. An operation that the file system refuses (names that are in use or missing, a
/// directory into itself) changes nothing. Returns the kind of change, and whether it was made.
pub fn change(random: &mut Random, root: &Path) -> (u64, bool) {
    let kind = random.below(KINDS);
    let (mut path, mut other) = (path(random, root), path(random, root));
    let of_files = matches!(kind, 5..=7 | 16..=23 | 31..=34 | 37..=39);
    if matches!(kind, 40..) && random.once_in(2) {
        let dirs = dirs(root);
        if !dirs.is_empty() {
            path = dirs[random.below(dirs.len() as u64) as usize].clone();
        }
    }
    if of_files || (matches!(kind, 25..=29 | 35 | 36) && random.once_in(2)) {
        // On random names these operations would almost never find a file.
        let files = files(root);
        if !files.is_empty() {
            path = files[random.below(files.len() as u64) as usize].clone();
            other = files[random.below(files.len() as u64) as usize].clone();
        }
    }
    let result = match kind {
        0 | 1 => fs::create_dir(&path),
        2..=4 => create(random, &path),
        5..=7 => overwrite(random, &path),
        8..=10 => fs::rename(&path, &other),
        11 => exchange(&path, &other),
        12 => fs::hard_link(&path, &other),
        13 | 14 => fs::remove_file(&path),
        15 => remove_tree(random, &path),
        16 => truncate(random, &path),
        17 => allocate(
            random,
            &path,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        ),
        18 => allocate(random, &path, FallocateFlags::ZERO_RANGE),
        19 => allocate(random, &path, FallocateFlags::empty()),
        20 => allocate(random, &path, FallocateFlags::KEEP_SIZE),
        21 | 22 => reflink(random, &path, &other),
        23 => dedupe(random, &path, &other),
        24 => symlink(name(random), &path),
        25 => attribute(random, &path),
        26 => acl(random, &path),
        27 => capability(&path),
        28 => chown(
            &path,
            Some(random.below(3) as u32),
            Some(random.below(3) as u32),
        ),
        29 => fs::set_permissions(&path, fs::Permissions::from_mode(mode(random))),
        30 => node(random, &path),
        31 => times(random, &path),
        32 => direct(random, &path),
        33 => reflink_within(random, &path),
        34 => reflink_tail(random, &path, &other),
        35 => flag(random, &path),
        36 => compression(random, &path),
        37 => replace_open(random, &path),
        38 => grow(random, &path),
        39 => mapped(random, &path),
        40 => replace_tree(random, &path),
        41 => build_below_lost_flags(random, &path),
        42 => guard(random, &path),
        43 => unguard_all(root),
        _ => build_below_compression(random, &path),
    };
    (kind, result.is_ok())
}

fn mode(random: &mut Random) -> u32 {
    random.below(0o10000) as u32 | 0o600
}

fn create(random: &mut Random, path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    if random.once_in(5) {
        // Disables checksums, which is only possible while the file is empty.
        chattr("+C", path)?;
    }
    let len = random.pick(&[0, 10, 1500, 4096, 5000, 70_000, 300_000]);
    let jitter = random.below(3000);
    if len > 0 {
        file.write_all_at(&random.bytes((len + jitter) as usize), 0)?;
    }
    Ok(())
}

fn overwrite(random: &mut Random, path: &Path) -> io::Result<()> {
    let (offset, len) = range(random);
    let bytes = random.bytes(len as usize);
    writable(path)?.write_all_at(&bytes, offset)
}

/// Opens a regular file, and refuses anything that would block or answer.
fn writable(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    OpenOptions::new().read(true).write(true).open(path)
}

fn truncate(random: &mut Random, path: &Path) -> io::Result<()> {
    let size = range(random).0;
    writable(path)?.set_len(size)
}

fn allocate(random: &mut Random, path: &Path, how: FallocateFlags) -> io::Result<()> {
    let (offset, len) = range(random);
    Ok(rustix::fs::fallocate(writable(path)?, how, offset, len)?)
}

fn reflink(random: &mut Random, from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (writable(from)?, writable(to)?);
    if random.once_in(3) {
        target.set_len(0)?;
        return sendshot_sys::clone::clone_range(&target, &source, 0, 0, 0);
    }
    let size = source.metadata()?.len();
    let offset = random.below(size.max(1)) & !4095;
    let len = (1 + random.below(100_000)).next_multiple_of(4096);
    let to = random.below(REACH) & !4095;
    sendshot_sys::clone::clone_range(
        &target,
        &source,
        offset,
        len.min((size - offset) & !4095),
        to,
    )
}

/// Shares a range of a file with another offset in it.
fn reflink_within(random: &mut Random, path: &Path) -> io::Result<()> {
    let file = writable(path)?;
    let blocks = file.metadata()?.len() / 4096;
    let len = 4096 * (1 + random.below(blocks.min(16)));
    let from = 4096 * random.below(blocks);
    let to = from + len + 4096 * random.below(8);
    sendshot_sys::clone::clone_range(&file, &file, from, len, to)
}

/// Shares the tail of a file, which need not end at a block, as the tail of another.
fn reflink_tail(random: &mut Random, from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (writable(from)?, writable(to)?);
    let size = source.metadata()?.len();
    let start = random.below(size.max(1)) & !4095;
    let there = random.below(REACH) & !4095;
    target.set_len(there.min(target.metadata()?.len()))?;
    sendshot_sys::clone::clone_range(&target, &source, start, size - start, there)
}

/// Sets or clears a flag of a file or a directory; for those that forbid changes see [`guard`]. `C` and `m`
/// take effect only where btrfs allows them.
fn flag(random: &mut Random, path: &Path) -> io::Result<()> {
    let flag = random.pick(&["c", "m", "d", "A", "S", "C"]);
    let sign = random.pick(&["+", "-"]);
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_file() || kind.is_dir() {
        chattr(&format!("{sign}{flag}"), path)?;
    }
    Ok(())
}

fn compression(random: &mut Random, path: &Path) -> io::Result<()> {
    let algorithm = random.pick(&["zstd", "lzo", "zlib", "none", ""]);
    let kind = fs::symlink_metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Ok(());
    }
    quietly(
        Command::new("btrfs")
            .args(["property", "set"])
            .arg(path)
            .args(["compression", algorithm]),
    )
}

/// Deletes a file, writes to it through an open descriptor, and creates another with its name.
fn replace_open(random: &mut Random, path: &Path) -> io::Result<()> {
    let file = writable(path)?;
    fs::remove_file(path)?;
    file.write_all_at(&random.bytes(5000), 0)?;
    create(random, path)
}

/// Allocates space beyond the end of a file, with or without growing the file.
fn grow(random: &mut Random, path: &Path) -> io::Result<()> {
    let file = writable(path)?;
    let end = file.metadata()?.len();
    let how = random.pick(&[FallocateFlags::KEEP_SIZE, FallocateFlags::empty()]);
    let len = 1 + random.below(100_000);
    Ok(rustix::fs::fallocate(&file, how, end, len)?)
}

/// Deletes a whole tree, and creates few or many entries of other kinds.
fn replace_tree(random: &mut Random, path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)?;
    let count = random.pick(&[1, 2, 12]);
    make_others(random, path.parent().unwrap_or(path), count);
    Ok(())
}

/// The tree made last in a round, which has the highest inode numbers.
const LATEST: &str = "latest";
/// A file in the latest tree that is older than the tree.
const OLDER: &str = "older";

/// Makes a tree with the highest inode numbers, and moves an older file into it. Skips what cannot be made.
pub fn make_latest(random: &mut Random, root: &Path) {
    let older = root.join(OLDER);
    let _ = fs::write(&older, random.bytes(500));
    let latest = root.join(LATEST);
    let _ = fs::create_dir(&latest).and_then(|()| fs::rename(older, latest.join(OLDER)));
    for n in 0..random.below(6) {
        let dir = latest.join((n % 3).to_string()).join(n.to_string());
        let _ = fs::create_dir_all(&dir);
        let _ = create(random, &dir.join("file"));
    }
}

/// Deletes the latest tree, sometimes without its older file.
pub fn delete_latest(random: &mut Random, root: &Path) {
    let latest = root.join(LATEST);
    // An entry of it may be immutable by now.
    let _ = unguard_all(root);
    if random.once_in(2) {
        let _ = fs::rename(latest.join(OLDER), root.join(OLDER));
    }
    let _ = fs::remove_dir_all(latest);
}

/// Creates few or many entries of any kind: after a mount they get the inode numbers of deleted ones.
pub fn use_numbers_again(random: &mut Random, root: &Path) {
    let first = root.join("first of the used numbers");
    let _ = match random.below(3) {
        0 => create(random, &first),
        _ => fs::create_dir(&first),
    };
    let _ = fs::rename(root.join(OLDER), first.join(OLDER));
    let count = random.pick(&[0, 1, 2, 12]);
    make_others(random, root, count);
}

/// Creates entries of several kinds.
fn make_others(random: &mut Random, dir: &Path, count: u64) {
    for n in 0..count {
        let path = dir.join(format!("after {n}"));
        // A name that is in use is skipped.
        let _ = match random.below(4) {
            0 => fs::create_dir(&path),
            1 => symlink("somewhere", &path),
            2 => node(random, &path),
            _ => create(random, &path),
        };
    }
}

/// Clears or sets inheritable flags of a directory, and builds two levels below it.
fn build_below_lost_flags(random: &mut Random, path: &Path) -> io::Result<()> {
    let flag = random.pick(&["-C", "-m", "-C", "-m", "+C", "+m"]);
    if !is_dir(path) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    chattr(flag, path)?;
    build_below(random, path)
}

/// As [`build_below_lost_flags`], with compression: by the flag (the mount's algorithm) or the property.
fn build_below_compression(random: &mut Random, path: &Path) -> io::Result<()> {
    if !is_dir(path) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if random.once_in(2) {
        chattr(random.pick(&["+c", "-c"]), path)?;
    } else {
        compression(random, path)?;
    }
    build_below(random, path)
}

fn build_below(random: &mut Random, path: &Path) -> io::Result<()> {
    let dir = path.join(name(random)).join(name(random));
    fs::create_dir_all(&dir)?;
    for _ in 0..random.below(4) {
        let path = dir.join(name(random));
        create(random, &path)?;
    }
    Ok(())
}

/// Makes a file or directory immutable or append-only, with or without a compression property.
fn guard(random: &mut Random, path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if random.once_in(2) {
        // Fails on a file system without checksums.
        let _ = compression(random, path);
    }
    chattr(random.pick(&["+i", "+a"]), path)
}

/// Clears all flags that forbid changes.
fn unguard_all(root: &Path) -> io::Result<()> {
    for path in dirs(root).into_iter().chain(files(root)) {
        chattr("-ia", &path)?;
    }
    Ok(())
}

/// Deduplicates two ranges after making them equal.
fn dedupe(random: &mut Random, from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (writable(from)?, writable(to)?);
    let len = 4096 * (1 + random.below(8));
    let (at, there) = (random.below(REACH) & !4095, random.below(REACH) & !4095);
    let mut bytes = vec![0; len as usize];
    source.read_exact_at(&mut bytes, at)?;
    target.write_all_at(&bytes, there)?;
    target.sync_all()?;
    let command = format!("dedupe {} {at} {there} {len}", from.display());
    quietly(Command::new("xfs_io").arg("-c").arg(command).arg(to))
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        CWD,
        a,
        CWD,
        b,
        RenameFlags::EXCHANGE,
    )?)
}

fn remove_tree(random: &mut Random, path: &Path) -> io::Result<()> {
    if random.once_in(2) {
        fs::remove_dir(path)
    } else {
        fs::remove_dir_all(path)
    }
}

fn attribute(random: &mut Random, path: &Path) -> io::Result<()> {
    let name = format!("user.{}", random.below(4));
    if random.once_in(3) {
        return Ok(rustix::fs::lremovexattr(path, name)?);
    }
    let len = random.pick(&[0, 5, 200, 3000]);
    let value = random.bytes(len);
    Ok(rustix::fs::lsetxattr(
        path,
        name,
        &value,
        XattrFlags::empty(),
    )?)
}

/// Sets or removes an access control list with one named user.
fn acl(random: &mut Random, path: &Path) -> io::Result<()> {
    let name = match is_dir(path) && random.once_in(2) {
        true => "system.posix_acl_default",
        false => "system.posix_acl_access",
    };
    if random.once_in(3) {
        return Ok(rustix::fs::lremovexattr(path, name)?);
    }
    let mut value = 2u32.to_le_bytes().to_vec();
    let any_user = u32::MAX;
    let user = 1000 + random.below(5) as u32;
    for (tag, id) in [
        (1u16, any_user),
        (2, user),
        (4, any_user),
        (0x10, any_user),
        (0x20, any_user),
    ] {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&(random.below(8) as u16).to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(rustix::fs::lsetxattr(
        path,
        name,
        &value,
        XattrFlags::empty(),
    )?)
}

/// Whether a path is a directory.
fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Sets CAP_NET_RAW, permitted and effective.
fn capability(path: &Path) -> io::Result<()> {
    writable(path)?;
    let mut value = 0x0200_0001u32.to_le_bytes().to_vec();
    value.extend_from_slice(&(1u32 << 13).to_le_bytes());
    value.extend_from_slice(&[0; 12]);
    Ok(rustix::fs::lsetxattr(
        path,
        "security.capability",
        &value,
        XattrFlags::empty(),
    )?)
}

fn node(random: &mut Random, path: &Path) -> io::Result<()> {
    let kinds = [
        FileType::Fifo,
        FileType::Socket,
        FileType::CharacterDevice,
        FileType::BlockDevice,
    ];
    let kind = random.pick(&kinds);
    let device = rustix::fs::makedev(random.below(500) as u32, random.below(100_000) as u32);
    Ok(rustix::fs::mknodat(
        CWD,
        path,
        kind,
        Mode::from_raw_mode(0o640),
        device,
    )?)
}

fn times(random: &mut Random, path: &Path) -> io::Result<()> {
    let offset = Duration::new(
        random.below(4_000_000_000),
        random.below(1_000_000_000) as u32,
    );
    let time = if random.once_in(4) {
        UNIX_EPOCH - offset
    } else {
        UNIX_EPOCH + offset
    };
    writable(path)?.set_times(
        fs::FileTimes::new()
            .set_accessed(SystemTime::now())
            .set_modified(time),
    )
}

fn direct(random: &mut Random, path: &Path) -> io::Result<()> {
    let offset = random.below(REACH) & !4095;
    let seed = random.below(256);
    let command = format!("pwrite -S {seed} {offset} 8192");
    writable(path)?;
    quietly(
        Command::new("xfs_io")
            .arg("-d")
            .arg("-c")
            .arg(command)
            .arg(path),
    )
}

fn mapped(random: &mut Random, path: &Path) -> io::Result<()> {
    let size = writable(path)?.metadata()?.len();
    let offset = random.below(size.max(1)) & !4095;
    let len = (size - offset).min(20_000);
    let seed = random.below(256);
    let map = format!("mmap -w {offset} {len}");
    let write = format!("mwrite -S {seed} {offset} {len}");
    quietly(
        Command::new("xfs_io")
            .arg("-c")
            .arg(map)
            .arg("-c")
            .arg(write)
            .arg(path),
    )
}

fn chattr(flag: &str, path: &Path) -> io::Result<()> {
    quietly(Command::new("chattr").arg(flag).arg(path))
}

/// Whether btrfs still refuses to insert and to collapse ranges, which is why no change here does so.
///
/// # Errors
/// If the file cannot be opened.
pub fn shifting_ranges_is_refused(path: &Path) -> io::Result<bool> {
    let file = writable(path)?;
    let refused = |how| {
        let result = rustix::fs::fallocate(&file, how, 0, 4096);
        result == Err(rustix::io::Errno::OPNOTSUPP)
    };
    Ok(refused(FallocateFlags::INSERT_RANGE) && refused(FallocateFlags::COLLAPSE_RANGE))
}

fn quietly(command: &mut Command) -> io::Result<()> {
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{command:?}: {status}"))),
    }
}

/// Opens a file without a name, to stay open while a snapshot is taken.
pub fn unnamed(root: &Path) -> io::Result<File> {
    /// O_TMPFILE
    const TMPFILE: i32 = 0o20_200_000;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(TMPFILE)
        .open(root)?;
    file.write_all_at(b"data that is never found again", 0)?;
    Ok(file)
}
