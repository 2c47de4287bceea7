//! What the sendshot engine's streams keep, whether or not the kernel's do: shared data, reservations,
//! inode flags, compressed extents; and what they do not send although its file changed.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;
use sendshot_engine::ExtentKind;
use sendshot_engine::diff::Version;
use sendshot_harness::compare::chain::Chain;
use sendshot_harness::compare::extents::{reserved, share};
use sendshot_harness::hosts::command::tool;
use sendshot_harness::trees::fill;

const MIB: usize = 1 << 20;
const KIB: u64 = 1024;

fn chain() -> Chain {
    Chain::new(Version::V2).unwrap()
}

fn writable(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

fn clone(from: &Path, to: &Path) {
    let arguments = [
        "--reflink=always".as_ref(),
        from.as_os_str(),
        to.as_os_str(),
    ];
    tool("cp", &arguments);
}

fn allocate(path: &Path, how: FallocateFlags, offset: u64, len: u64) {
    rustix::fs::fallocate(writable(path), how, offset, len).unwrap();
}

fn chattr(flags: &str, path: &Path) {
    tool("chattr", &[flags.as_ref(), path.as_os_str()]);
}

/// Returns the flags that `lsattr` shows.
fn flags(path: &Path) -> String {
    let shown = tool("lsattr", &["-d".as_ref(), path.as_os_str()]);
    shown.split_whitespace().next().unwrap().replace('-', "")
}

#[test]
fn files_that_share_data_share_it_in_the_copy() {
    let chain = chain();
    let volume = chain.volume();
    fill::file(volume.join("a"), 1, 2 * MIB + 1234);
    clone(&volume.join("a"), &volume.join("b"));
    let sent = chain
        .send_and(|sent| {
            for copy in [&sent.stock, &sent.ours] {
                assert!(share(&copy.join("a"), &copy.join("b"), 0));
                assert!(share(&copy.join("a"), &copy.join("b"), 2 * MIB as u64));
            }
            Ok(())
        })
        .unwrap();
    assert!(sent.stream.len() < 3 * MIB, "{}", sent.stream.len());
}

#[test]
fn data_cloned_from_the_parent_is_not_resent() {
    let chain = chain();
    let volume = chain.volume();
    fill::file(volume.join("old"), 1, 4 * MIB);
    fill::file(volume.join("changed"), 2, MIB);
    chain.send().unwrap();
    chain.clean().unwrap();
    clone(&volume.join("old"), &volume.join("new"));
    fs::remove_file(volume.join("old")).unwrap();
    // A part of it, at another offset of an existing file.
    let range =
        "reflink ".to_owned() + volume.join("new").to_str().unwrap() + " 1048576 131072 524288";
    let changed = volume.join("changed");
    tool(
        "xfs_io",
        &["-c".as_ref(), range.as_ref(), changed.as_os_str()],
    );
    let sent = chain.send().unwrap();
    assert_eq!(
        sent.commands().get("clone"),
        Some(&2),
        "{:?}",
        sent.commands()
    );
    assert!(sent.stream.len() < 10_000, "{}", sent.stream.len());
}

#[test]
fn reservations_are_made_and_released_in_the_copy() {
    let chain = chain();
    let file = chain.volume().join("file");
    let beyond = chain.volume().join("beyond");
    fill::file(&file, 1, 64 * 1024);
    allocate(&file, FallocateFlags::empty(), 128 * KIB, 256 * KIB);
    fill::file(&beyond, 2, 10_000);
    allocate(&beyond, FallocateFlags::KEEP_SIZE, 0, 512 * KIB);
    let same = |names: &'static [&'static str]| {
        move |sent: &sendshot_harness::compare::chain::Sent| {
            for name in names {
                let expected = reserved(&sent.snapshot.join(name));
                for copy in [&sent.stock, &sent.ours] {
                    assert_eq!(reserved(&copy.join(name)), expected, "{name}");
                }
            }
            Ok(())
        }
    };
    chain.send_and(same(&["file", "beyond"])).unwrap();
    assert!(!reserved(&file).is_empty() && !reserved(&beyond).is_empty());
    // Partly written to, partly released, and newly reserved where there was data.
    writable(&file).write_all_at(&[7; 8192], 160 * KIB).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    allocate(&file, hole, 256 * KIB, 64 * KIB);
    allocate(&file, FallocateFlags::ZERO_RANGE, 0, 32 * KIB);
    writable(&beyond).set_len(5000).unwrap();
    chain.send_and(same(&["file", "beyond"])).unwrap();
    allocate(&beyond, FallocateFlags::KEEP_SIZE, 64 * KIB, 64 * KIB);
    chain.send_and(same(&["file", "beyond"])).unwrap();
    writable(&beyond).set_len(6000).unwrap();
    writable(&beyond).set_len(5000).unwrap();
    chain.send_and(same(&["file", "beyond"])).unwrap();
    assert!(reserved(&beyond).is_empty());
}

#[test]
fn inode_flags_come_along_and_do_not_hinder_later_changes() {
    let chain = chain();
    let volume = chain.volume();
    let at = |name: &str| volume.join(name);
    for dir in ["plain", "nocow", "locked"] {
        fs::create_dir(at(dir)).unwrap();
    }
    chattr("+C", &at("nocow"));
    for file in [
        "nocow/a",
        "plain/compressed",
        "plain/not",
        "plain/log",
        "locked/a",
        "locked/b",
    ] {
        fill::file(at(file), 3, 200_000);
    }
    chattr("+c", &at("plain/compressed"));
    chattr("+m", &at("plain/not"));
    chattr("+adA", &at("plain/log"));
    chattr("+i", &at("locked/a"));
    chattr("+i", &at("locked"));
    let same = |sent: &sendshot_harness::compare::chain::Sent| {
        let mut checked = 0;
        for dir in ["", "plain", "nocow", "locked"] {
            for entry in fs::read_dir(sent.snapshot.join(dir)).unwrap() {
                let path = Path::new(dir).join(entry.unwrap().file_name());
                let expected = flags(&sent.snapshot.join(&path));
                assert_eq!(flags(&sent.ours.join(&path)), expected, "{path:?}");
                checked += usize::from(!expected.is_empty());
            }
        }
        assert!(checked >= 5);
        Ok(())
    };
    chain.send_and(same).unwrap();
    assert_eq!(flags(&at("locked/a")), "i");
    // While the flags are off, everything that they forbid is done.
    chattr("-i", &at("locked"));
    chattr("-i", &at("locked/a"));
    fs::remove_file(at("locked/b")).unwrap();
    fs::rename(at("locked/a"), at("plain/moved")).unwrap();
    fill::file(at("plain/moved"), 4, 100_000);
    fill::file(at("locked/b"), 5, 1000);
    chattr("+i", &at("plain/moved"));
    chattr("+i", &at("locked"));
    writable(&at("plain/not")).write_all_at(b"x", 100).unwrap();
    chattr("-m", &at("plain/not"));
    clone(&at("plain/moved"), &at("plain/of-moved"));
    fs::rename(at("plain/not"), at("nocow/not")).unwrap();
    fs::write(at("plain/new"), "made in a plain directory").unwrap();
    fs::rename(at("plain/new"), at("nocow/new")).unwrap();
    let sent = chain.send_and(same).unwrap();
    assert!(
        sent.commands()["clone"] > 0,
        "of a file that is immutable by then"
    );
    for name in ["plain/moved", "locked", "plain/log"] {
        chattr("-ia", &at(name));
    }
}

#[test]
fn compressed_data_is_sent_as_it_is() {
    let chain = Chain::with(Version::V2, &[], "compress-force=zstd", "").unwrap();
    let file = chain.volume().join("zeros-and-ones");
    fs::write(&file, "0".repeat(MIB) + &"1".repeat(MIB)).unwrap();
    let sent = chain.send().unwrap();
    assert!(sent.stream.len() < 100_000, "{}", sent.stream.len());
    // Of an extent that is mostly overwritten, only the remaining part is needed.
    writable(&file).write_all_at(&vec![b'2'; MIB], 0).unwrap();
    let sent = chain.send().unwrap();
    assert!(
        sent.commands().contains_key("encoded_write"),
        "{:?}",
        sent.commands()
    );
}

/// The kernel's rule for files without checksums is right only while it pins their data; the sendshot
/// engine compares hashes.
#[test]
fn of_a_file_without_checksums_only_what_changed_is_sent() {
    let chain = chain();
    let image = chain.volume().join("image");
    File::create(&image).unwrap();
    chattr("+C", &image);
    // Enough extents to fill several leaves.
    let file = writable(&image);
    for block in 0..400_u64 {
        let bytes = vec![block as u8; 16 * 1024];
        file.write_all_at(&bytes, (block * 37 % 400) * 16 * KIB)
            .unwrap();
        file.sync_all().unwrap();
    }
    let first = chain.send().unwrap();
    assert!(first.stream.len() > 6 * MIB);
    chain.clean().unwrap();
    for block in [3_u64, 100, 399] {
        file.write_all_at(b"changed", block * 16 * KIB).unwrap();
    }
    let second = chain.send().unwrap();
    assert!(second.stream.len() < 400_000, "{}", second.stream.len());
    chain.clean().unwrap();
    // The hashes of blocks that the second stream did not contain are still known.
    file.write_all_at(b"changed", 50 * 16 * KIB).unwrap();
    let third = chain.send().unwrap();
    assert!(third.stream.len() < 200_000, "{}", third.stream.len());
}

/// The rest of a page with inline data reads as zeros, whatever the parent has there.
#[test]
fn the_page_after_inline_data_is_cleared() {
    for version in [Version::V1, Version::V2] {
        let chain = Chain::with(version, &[], "compress=lzo", "").unwrap();
        let path = chain.volume().join("file");
        let other = chain.volume().join("other");
        fill::file(&path, 1, 4000);
        fill::file(&other, 2, 8192);
        chain.send().unwrap();
        let file = writable(&path);
        file.set_len(0).unwrap();
        file.write_all_at(&[b'a'; 221], 0).unwrap();
        file.sync_all().unwrap();
        // A clone beyond the end leaves the former last page unchanged.
        let range = format!("reflink {} 0 8192 8192", other.display());
        tool("xfs_io", &["-c".as_ref(), range.as_ref(), path.as_os_str()]);
        let sent = chain.send().unwrap();
        assert!(
            begins_inline(&chain.sendshot(sent.round)),
            "this proves nothing"
        );
    }
}

/// Whether the first file with extents begins with an inline extent and is longer than that.
fn begins_inline(sendshot: &Path) -> bool {
    let sendshot = sendshot_engine::open(sendshot).unwrap();
    let mut reader = sendshot.reader().unwrap();
    while let Some(inode) = reader.next_inode().unwrap() {
        if let Some(extent) = reader.next_extent().unwrap() {
            return extent.kind == ExtentKind::Inline && inode.item.size > extent.len;
        }
    }
    false
}
