use std::path::Path;

use super::*;
use crate::format::entry::{Extent, ExtentKind, InodeItem, Name, Xattr};

fn head() -> Head {
    Head {
        wire_uuid: Uuid::from_u128(1),
        wire_ctransid: 5,
        ctransid: 5,
        fsid: Uuid::from_u128(2),
        uuid: Uuid::from_u128(3),
        parent_uuid: Uuid::from_u128(4),
        otransid: 5,
        generation: 7,
        taken_at: 0,
    }
}

fn inode(ino: u64, mode: u32) -> Entry {
    let item = InodeItem {
        generation: 3,
        transid: 4,
        mode,
        ..InodeItem::default()
    };
    Entry::Inode(ino, item)
}

fn dir(ino: u64) -> Entry {
    inode(ino, 0o040_755)
}

fn file(ino: u64) -> Entry {
    inode(ino, 0o100_644)
}

fn name(parent: u64, name: &str) -> Entry {
    let name = name.as_bytes().to_vec();
    Entry::Name(Name { parent, name })
}

fn xattr(value: &str) -> Entry {
    Entry::Xattr(Xattr {
        name: b"user.text".to_vec(),
        value: value.into(),
    })
}

fn extent(offset: u64) -> Entry {
    Entry::Extent(Extent {
        offset,
        len: 4096,
        kind: ExtentKind::Regular,
        compression: 0,
        ram_bytes: 4096,
        disk_bytenr: 1 << 20,
        disk_len: 4096,
        disk_offset: 0,
        generation: 3,
        extent_generation: 3,
        leaf_generation: 0,
        is_shared: true,
    })
}

fn sendshot(entries: &[Entry]) -> Sendshot {
    let mut writer = Writer::new(tempfile::tempfile().unwrap(), &head()).unwrap();
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    Sendshot::from_file(writer.finish().unwrap().0, Path::new("whole")).unwrap()
}

fn entries(sendshot: &Sendshot) -> Vec<Entry> {
    let mut reader = sendshot.reader().unwrap();
    std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
}

fn part(source: &Sendshot, paths: &[&str]) -> Result<Sendshot, Error> {
    let place = tempfile::tempdir().unwrap();
    let fd = File::open(place.path()).unwrap();
    let paths: Vec<_> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
    let part = subtree(source, &paths, fd, OsStr::new("part"));
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, usize::from(part.is_ok()), "files in the directory");
    part
}

/// The tree `a/b/c`, `a/b/f`, `a/g`, `d/h`, with a link of `f` and `g` in `d`, and a link `s`.
fn tree() -> Vec<Entry> {
    vec![
        dir(256),
        xattr("root"),
        dir(257),
        name(256, "a"),
        xattr("a"),
        file(258),
        name(257, "g"),
        name(265, "g too"),
        xattr("g"),
        extent(0),
        extent(8192),
        dir(259),
        name(257, "b"),
        dir(260),
        name(259, "c"),
        file(261),
        name(259, "f"),
        name(260, "f in c"),
        name(265, "f in d"),
        extent(4096),
        inode(262, 0o120_777),
        name(259, "s"),
        Entry::Target(b"../g".to_vec()),
        dir(265),
        name(256, "d"),
        file(266),
        name(265, "h"),
    ]
}

#[test]
fn only_the_paths_and_the_way_to_them_stay() {
    let whole = sendshot(&tree());
    let expected = vec![
        dir(256),
        xattr("root"),
        dir(257),
        name(256, "a"),
        xattr("a"),
        dir(259),
        name(257, "b"),
        dir(260),
        name(259, "c"),
        file(261),
        name(259, "f"),
        name(260, "f in c"),
        extent(4096),
        inode(262, 0o120_777),
        name(259, "s"),
        Entry::Target(b"../g".to_vec()),
    ];
    let found = part(&whole, &["a/b"]).unwrap();
    assert_eq!(entries(&found), expected);
    assert_eq!(found.counts().inodes, 6);
    assert_eq!(found.counts().extents, 1);
    // Overlapping paths are one.
    for paths in [["a/b/c", "a/b"], ["a/b", "a/b/f"], ["a/b", "a/b"]] {
        assert_eq!(entries(&part(&whole, &paths).unwrap()), expected);
    }
    let file = vec![
        dir(256),
        xattr("root"),
        dir(257),
        name(256, "a"),
        xattr("a"),
        file(258),
        name(257, "g"),
        xattr("g"),
        extent(0),
        extent(8192),
    ];
    assert_eq!(entries(&part(&whole, &["a/g"]).unwrap()), file);
    let all = part(&whole, &["a", "d"]).unwrap();
    assert_eq!(entries(&all), tree());
}

#[test]
fn a_link_stands_for_itself() {
    let whole = sendshot(&tree());
    let found = entries(&part(&whole, &["a/b/s"]).unwrap());
    assert_eq!(found.len(), 10);
    assert_eq!(found.last(), Some(&Entry::Target(b"../g".to_vec())));
    let through = part(&whole, &["a/b/s/x"]).unwrap_err();
    assert_eq!(
        through.to_string(),
        "a/b/s is not a directory, so a/b/s/x does not exist in the snapshot"
    );
}

#[test]
fn wrong_paths_are_named() {
    let whole = sendshot(&tree());
    let error = |paths: &[&str]| part(&whole, paths).unwrap_err().to_string();
    let missing = |path| format!("{path} does not exist in the snapshot");
    for path in ["x", "a/x", "a/b/c/x", "a/b/x/y", "d/a", "b"] {
        assert_eq!(error(&[path]), missing(path));
        // Also beneath a path that exists.
        assert_eq!(error(&["a", path, "d"]), missing(path));
    }
    let through = "a/g is not a directory, so a/g/x does not exist in the snapshot";
    assert_eq!(error(&["a/g/x"]), through);
    assert_eq!(error(&["a/g/x", "a/g"]), through);
    assert_eq!(error(&["a/g", "a/g/x"]), through);
    for (path, fault) in [
        ("", PathFault::Empty),
        ("/", PathFault::Absolute),
        ("/a", PathFault::Absolute),
        ("a/", PathFault::EmptyComponent),
        ("a//b", PathFault::EmptyComponent),
        (".", PathFault::Dots),
        ("a/../d", PathFault::Dots),
        ("a/.", PathFault::Dots),
    ] {
        assert_eq!(error(&[path]), format!("{path}: {fault}"));
        assert_eq!(check_path(path.as_bytes()), Err(fault));
    }
    assert_eq!(error(&[]), "no path is given");
}

/// A receiver must not take a part for the whole, or one part for another.
#[test]
fn a_part_has_an_identity_of_its_own() {
    let whole = sendshot(&tree());
    let wire = |paths: &[&str]| part(&whole, paths).unwrap().head().wire_uuid;
    let of_a = wire(&["a"]);
    assert_ne!(of_a, whole.head().wire_uuid);
    assert_ne!(of_a, wire(&["d"]));
    assert_eq!(of_a, wire(&["a", "a"]));
    assert_eq!(wire(&["a", "d"]), wire(&["d", "a"]));
    let found = part(&whole, &["a"]).unwrap();
    let expected = Head {
        wire_uuid: of_a,
        ..head()
    };
    assert_eq!(found.head(), &expected);
}

#[test]
fn names_of_many_records_are_all_looked_at() {
    let names = |parent, count| {
        (0..count).map(move |n| name(parent, &format!("a long name, number {n} of an inode")))
    };
    let mut all = vec![dir(256), dir(257), name(256, "d"), file(258)];
    all.extend(names(256, 3000));
    all.push(name(257, "the only one"));
    all.push(xattr("x"));
    all.extend([extent(0), extent(4096)]);
    let whole = sendshot(&all);
    let found = entries(&part(&whole, &["d"]).unwrap());
    assert_eq!(found[3..5], [file(258), name(257, "the only one")]);
    assert_eq!(found[5..], [xattr("x"), extent(0), extent(4096)]);
    let path = "a long name, number 2999 of an inode";
    let found = entries(&part(&whole, &[path]).unwrap());
    assert_eq!(found[1..3], [file(258), name(256, path)]);
    let mut all = vec![dir(256), dir(257), name(256, "d"), file(258)];
    all.extend(names(257, 3000));
    all.push(name(256, "the only one"));
    assert_eq!(
        part(&sendshot(&all), &["the only one"])
            .unwrap()
            .counts()
            .inodes,
        2
    );
    assert_eq!(entries(&part(&sendshot(&all), &["d"]).unwrap()).len(), 3004);
}

/// Quadratic work would take hours here.
#[test]
fn a_deep_chain_of_directories_takes_no_longer_than_a_wide_one() {
    const DEPTH: u64 = 200_000;
    let mut dirs = vec![
        dir(256),
        dir(257),
        name(256, "top"),
        file(258),
        name(257, "f"),
    ];
    let mut files = Vec::new();
    for ino in 300..300 + DEPTH {
        let parent = if ino == 300 { 257 } else { ino - 1 };
        dirs.extend([dir(ino), name(parent, "d")]);
        files.extend([file(ino + DEPTH), name(ino, "f")]);
    }
    let whole = sendshot(&[dirs, files].concat());
    let found = part(&whole, &["top"]).unwrap();
    assert_eq!(found.counts().inodes, 3 + 2 * DEPTH);
    let found = part(&whole, &["top/f"]).unwrap();
    assert_eq!(found.counts().inodes, 3);
}

#[test]
fn directories_in_a_loop_are_beneath_no_path() {
    let whole = sendshot(&[
        dir(256),
        dir(257),
        name(256, "d"),
        dir(258),
        name(259, "x"),
        dir(259),
        name(258, "y"),
        file(260),
        name(259, "d"),
    ]);
    assert_eq!(part(&whole, &["d"]).unwrap().counts().inodes, 2);
}
