use std::io::Write;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::format::entry::{Entry, Extent, ExtentKind, InodeItem, Name, Time, Xattr};
use crate::format::layout::{CHECK_LEN, HEAD_LEN, MAX_HEAD_LEN};
use crate::format::writer::Writer;

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
        taken_at: -3,
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let time = (any::<i64>(), any::<u32>()).prop_map(|(sec, nsec)| Time { sec, nsec });
    let numbers = any::<(u64, u64, u64, u32, u32, u32, u64, u64)>();
    let inode = (any::<u64>(), numbers, time.clone(), time, any::<bool>()).prop_map(
        |(ino, (generation, transid, size, uid, gid, mode, rdev, flags), atime, mtime, swap)| {
            let item = InodeItem {
                generation,
                transid,
                size: size / 2,
                uid,
                gid,
                mode,
                rdev,
                flags,
                atime,
                mtime,
                swap,
            };
            Entry::Inode(ino, item)
        },
    );
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let name =
        (any::<u64>(), bytes()).prop_map(|(parent, name)| Entry::Name(Name { parent, name }));
    let xattr = (bytes(), bytes()).prop_map(|(name, value)| Entry::Xattr(Xattr { name, value }));
    let kind = prop::sample::select(vec![
        ExtentKind::Inline,
        ExtentKind::Regular,
        ExtentKind::Prealloc,
    ]);
    let extent = (any::<[u64; 9]>(), kind, 0u8..4).prop_map(|(n, kind, compression)| {
        Entry::Extent(Extent {
            offset: n[0] / 4,
            len: n[1] / 4,
            kind,
            compression,
            ram_bytes: n[2],
            disk_bytenr: n[3],
            disk_len: n[4],
            disk_offset: n[5] / 4,
            generation: n[6],
            extent_generation: n[7],
            leaf_generation: n[8],
            is_shared: n[8] % 2 == 1,
        })
    });
    prop_oneof![inode, name, xattr, bytes().prop_map(Entry::Target), extent]
}

/// The head of a snapshot that is announced by its origin's number.
fn origins_head() -> Head {
    Head {
        wire_ctransid: 900,
        ..head()
    }
}

fn written(entries: &[Entry]) -> Vec<u8> {
    written_with(&head(), entries)
}

fn written_with(head: &Head, entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), head).unwrap();
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    writer.finish().unwrap().0
}

fn opened(bytes: &[u8]) -> Result<Sendshot, Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Sendshot::undamaged(file, Path::new("a.sendshot"))
}

/// Returns the number of the inode for which a file is rejected.
fn orphan_of(entries: &[Entry]) -> Option<u64> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&written(entries)).unwrap();
    match Sendshot::from_file(file, Path::new("a.sendshot")) {
        Ok(_) => None,
        Err(Error::Orphan { ino, .. }) => Some(ino),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_name_in_no_directory_is_found_wherever_it_is() {
    let inode = |ino, mode| {
        Entry::Inode(
            ino,
            InodeItem {
                mode,
                ..InodeItem::default()
            },
        )
    };
    let (dir, file) = (|ino| inode(ino, 0o040_755), |ino| inode(ino, 0o100_644));
    let name = |parent, name: String| {
        let name = name.into_bytes();
        Entry::Name(Name { parent, name })
    };
    let tree = |between: Entry, parent| {
        vec![
            dir(256),
            file(257),
            name(256, "in the root".into()),
            file(258),
            name(259, "before its directory".into()),
            between,
            name(256, "the directory".into()),
            file(300),
            name(parent, "the last".into()),
        ]
    };
    assert_eq!(orphan_of(&tree(dir(259), 259)), None);
    assert_eq!(orphan_of(&tree(dir(259), 256)), None);
    for parent in [257, 260, 1000] {
        assert_eq!(orphan_of(&tree(dir(259), parent)), Some(300), "{parent}");
    }
    assert_eq!(
        orphan_of(&tree(file(259), 256)),
        Some(258),
        "not a directory"
    );
    // More names than one record holds, the last of them in no directory.
    let mut many = vec![dir(256), file(257)];
    many.extend((0..5000).map(|n| name(256, format!("a long name, number {n}"))));
    assert_eq!(orphan_of(&many), None);
    many.push(name(999, "nowhere".into()));
    assert_eq!(orphan_of(&many), Some(257));
}

#[test]
fn the_directories_of_a_file_are_counted_once_and_known_of_its_copy() {
    let mut entries = many(300);
    for entry in entries.iter_mut().step_by(100) {
        if let Entry::Inode(_, item) = entry {
            item.mode = 0o040_755;
        }
    }
    let dirs = entries
        .iter()
        .filter(|entry| matches!(entry, Entry::Inode(_, item) if item.mode == 0o040_755))
        .count() as u64;
    assert!(dirs > 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sendshot");
    std::fs::write(&path, written(&entries)).unwrap();
    // The second time it is not read, but remembered.
    for _ in 0..2 {
        assert_eq!(Sendshot::open(&path).unwrap().directories(), dirs);
    }
    let copy = dir.path().join("copy.sendshot");
    std::fs::copy(&path, &copy).unwrap();
    let sendshot = Sendshot::open(&path).unwrap();
    let copied = sendshot.same_content(File::open(&copy).unwrap(), &copy);
    assert_eq!(copied.unwrap().directories(), dirs);
    assert_eq!(Sendshot::open(&copy).unwrap().directories(), dirs);
}

#[test]
fn the_end_of_what_is_written_is_kept_however_it_is_cut() {
    let bytes: Vec<u8> = (0..100).collect();
    for size in [1, 7, 36, 37, 100] {
        let mut end = End::new();
        for part in bytes.chunks(size) {
            end.write_all(part).unwrap();
        }
        let tail = &bytes[100 - TAIL_LEN..];
        assert_eq!((&end.bytes[..], end.len), (tail, 100), "{size}");
    }
}

/// A push measures its stream while it makes it.
#[test]
fn several_readers_of_one_file_each_read_all_of_it() {
    let inode = |ino| {
        let mode = 0o100_644;
        let item = InodeItem {
            mode,
            size: ino * 7919,
            ..InodeItem::default()
        };
        Entry::Inode(ino, item)
    };
    let entries: Vec<Entry> = (256..50_000).map(inode).collect();
    let sendshot = opened(&written(&entries)).unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| sendshot.stored().unwrap()).collect();
    for entry in &entries {
        for reader in &mut readers {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        }
    }
    let read_all = || {
        let mut reader = sendshot.reader().unwrap();
        let read = std::iter::from_fn(|| reader.next_entry().unwrap());
        assert!(read.eq(entries.iter().cloned()));
    };
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(read_all);
        }
    });
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in prop::collection::vec(entry(), 0..200)) {
        let sendshot = opened(&written(&entries)).unwrap();
        prop_assert_eq!(sendshot.head(), &head());
        let mut reader = sendshot.reader().unwrap();
        let mut read = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            read.push(entry);
        }
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn the_origins_number_is_read_beside_the_local_one(entries in prop::collection::vec(entry(), 0..20)) {
        let sendshot = opened(&written_with(&origins_head(), &entries)).unwrap();
        prop_assert_eq!(sendshot.head(), &origins_head());
        prop_assert!(sendshot.head().is_pristine());
        let mut reader = sendshot.reader().unwrap();
        let mut read = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            read.push(entry);
        }
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn a_changed_byte_of_a_long_head_is_found(at in 0..MAX_HEAD_LEN, by in 1u8..) {
        let mut bytes = written_with(&origins_head(), &[]);
        bytes[at] ^= by;
        prop_assert!(opened(&bytes).is_err(), "byte {}", at);
    }

    #[test]
    fn a_changed_byte_is_found(entries in prop::collection::vec(entry(), 1..50), at: prop::sample::Index, by in 1u8..) {
        let mut bytes = written(&entries);
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert!(opened(&bytes).is_err(), "byte {} of {}", at, bytes.len());
    }

    #[test]
    fn a_cut_file_is_found(entries in prop::collection::vec(entry(), 1..50), at: prop::sample::Index) {
        let bytes = written(&entries);
        prop_assert!(opened(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn anything_else_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(opened(&bytes).is_err());
    }
}

#[test]
fn offsets_beyond_any_file_are_refused() {
    let extent = Extent {
        offset: u64::MAX - 4095,
        len: 8192,
        kind: ExtentKind::Regular,
        compression: 0,
        ram_bytes: 8192,
        disk_bytenr: 4096,
        disk_len: 8192,
        disk_offset: 0,
        generation: 1,
        extent_generation: 1,
        leaf_generation: 0,
        is_shared: true,
    };
    let sendshot = opened(&written(&[Entry::Extent(extent)])).unwrap();
    assert!(sendshot.reader().unwrap().next_entry().is_err());
    let endless = InodeItem {
        size: u64::MAX,
        ..InodeItem::default()
    };
    let sendshot = opened(&written(&[Entry::Inode(257, endless)])).unwrap();
    assert!(sendshot.reader().unwrap().next_inode().is_err());
}

#[test]
fn refusals_name_the_file_and_the_remedy() {
    let foreign = opened(b"something else, long enough or not").unwrap_err();
    assert_eq!(foreign.to_string(), "a.sendshot: is not a sendshot");
    let mut bytes = written(&[]);
    bytes[8] = 99;
    let too_new = opened(&bytes).unwrap_err();
    assert_eq!(
        too_new.to_string(),
        "a.sendshot: has layout version 99, this program reads up to 3; upgrade Sendshot"
    );
    bytes[8] = 1;
    let too_old = opened(&bytes).unwrap_err();
    assert!(
        too_old.to_string().contains("of an earlier program"),
        "{too_old}"
    );
    let mut longer = written(&[]);
    longer.push(0);
    assert!(opened(&longer).is_err());
    let mut bytes = written(&[]);
    bytes.truncate(bytes.len() - 1);
    let damaged = opened(&bytes).unwrap_err();
    assert!(
        damaged
            .to_string()
            .starts_with("a.sendshot: is damaged at byte "),
        "{damaged}"
    );
}

#[test]
fn a_file_with_one_number_is_as_earlier_programs_write_it() {
    let bytes = written(&[]);
    assert_eq!(bytes[8..12], 2u32.to_le_bytes());
    assert_eq!(bytes.len(), HEAD_LEN + 4 + 16 + CHECK_LEN);
    // The four numbers; the first is the one on the wire.
    assert_eq!(bytes[76..84], 5u64.to_le_bytes());
    let longer = written_with(&origins_head(), &[]);
    assert_eq!(longer[8..12], 3u32.to_le_bytes());
    assert_eq!(longer.len(), bytes.len() + 8);
    assert_eq!(longer[76..84], 900u64.to_le_bytes());
    assert_eq!(longer[108..116], 5u64.to_le_bytes());
}

/// Inodes of a size that fills several blocks, with names that do not compress well.
fn many(inodes: u64) -> Vec<Entry> {
    let mut noise = 1_u64;
    (256..256 + inodes)
        .flat_map(|ino| {
            let item = InodeItem {
                generation: 7,
                mode: 0o100_644,
                ..InodeItem::default()
            };
            let name: Vec<u8> = (0..60)
                .map(|_| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005) + 1;
                    (noise >> 56) as u8
                })
                .collect();
            let name = Name { parent: 256, name };
            [Entry::Inode(ino, item), Entry::Name(name)]
        })
        .collect()
}

/// Copies all inodes but those of which `other` makes other entries.
fn copied(from: &Sendshot, other: impl Fn(u64) -> Option<Vec<Entry>>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), from.head()).unwrap();
    let mut reader = from.reader().unwrap();
    while let Some(glance) = reader.glance().unwrap() {
        match other(glance.ino) {
            None => reader.copy(&mut writer).unwrap().unwrap(),
            Some(entries) => {
                reader.skip_inode().unwrap();
                for entry in &entries {
                    writer.entry(entry).unwrap();
                }
            }
        }
    }
    writer.finish().unwrap().0
}

fn entries_of(sendshot: &Sendshot) -> Vec<Entry> {
    let mut reader = sendshot.reader().unwrap();
    std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
}

#[test]
fn inodes_are_copied_as_they_are_stored() {
    // Few enough to be kept in memory, and too many.
    for inodes in [20_000, 250_000] {
        let entries = many(inodes);
        let bytes = written(&entries);
        let sendshot = opened(&bytes).unwrap();
        assert_eq!(sendshot.decoded > KEPT, inodes > 100_000);
        assert!(copied(&sendshot, |_| None) == bytes);
        let mut stored = Writer::new(Vec::new(), sendshot.head()).unwrap();
        let mut reader = sendshot.stored().unwrap();
        reader.copy_blocks(&mut stored).unwrap().unwrap();
        stored.set_counts(sendshot.counts());
        assert!(stored.finish().unwrap().0 == bytes);
    }
}

#[test]
fn inodes_around_a_changed_one_are_copied() {
    let entries = many(20_000);
    let sendshot = opened(&written(&entries)).unwrap();
    let other = |ino| match ino {
        300 | 9_000 => Some(Vec::new()),
        256 | 10_000..10_010 | 20_255 => Some(vec![Entry::Inode(ino, InodeItem::default())]),
        _ => None,
    };
    let copy = opened(&copied(&sendshot, other)).unwrap();
    let pairs = entries.chunks(2);
    let expected: Vec<Entry> = (256..)
        .zip(pairs)
        .flat_map(|(ino, entries)| other(ino).unwrap_or_else(|| entries.to_vec()))
        .collect();
    assert!(entries_of(&copy) == expected);
    assert_eq!(copy.counts().inodes, 19_998);
    // All but the blocks around the changes are stored as before.
    let blocks = |sendshot: &Sendshot| {
        let mut reader = sendshot.stored().unwrap();
        let mut blocks = Vec::new();
        while let Some((frame, _)) = reader.frame().unwrap() {
            blocks.push(frame);
        }
        blocks
    };
    let (before, after) = (blocks(&sendshot), blocks(&copy));
    let same = before.iter().filter(|block| after.contains(block)).count();
    assert!(
        before.len() >= 6 && same + 5 >= before.len(),
        "{same} of {}",
        before.len()
    );
}

/// Records of one length: each block holds as many as any other.
#[test]
fn a_block_of_which_the_end_is_left_out_is_not_stored_for_another_one() {
    let entries = many(30_000);
    let sendshot = opened(&written(&entries)).unwrap();
    let mut blocks = Vec::new();
    let mut reader = sendshot.reader().unwrap();
    while let Some(glance) = reader.glance().unwrap() {
        if reader.begins_block() {
            blocks.push(glance.ino);
        }
        reader.skip_inode().unwrap();
    }
    assert!(blocks.len() > 8);
    for (kept, dropped) in [(1, 1), (2, 2), (1000, 1000), (1, 2), (1000, 1)] {
        for next in 2..blocks.len() {
            // The end of one block, and the beginning of the next.
            let left_out = (blocks[next - 1] + kept)..(blocks[next] + dropped);
            let other = |ino| left_out.contains(&ino).then(Vec::new);
            let copy = opened(&copied(&sendshot, other)).unwrap();
            let numbered = (256..).zip(entries.chunks(2));
            let expected = numbered.filter(|(ino, _)| !left_out.contains(ino));
            let expected: Vec<Entry> = expected.flat_map(|(_, entries)| entries.to_vec()).collect();
            assert!(entries_of(&copy) == expected, "{kept}, {dropped}, {next}");
        }
    }
}

#[test]
fn a_checked_file_that_was_changed_is_checked_again() {
    let (mut root, mut bytes) = (many(1), Vec::new());
    if let Entry::Inode(_, item) = &mut root[0] {
        item.mode = 0o040_755;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sendshot");
    // Some kernels tell times only by ticks.
    let tick = || std::thread::sleep(std::time::Duration::from_millis(20));
    for round in 0..10 {
        bytes.clone_from(&written(&root));
        std::fs::write(&path, &bytes).unwrap();
        assert!(Sendshot::open(&path).is_ok(), "{round}");
        assert!(Sendshot::open(&path).is_ok(), "{round}");
        tick();
        let at = HEAD_LEN + 40;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let damaged = Sendshot::open(&path);
        assert!(
            matches!(damaged, Err(Error::Damaged { .. })),
            "{round}: {damaged:?}"
        );
    }
}

#[test]
fn a_fault_behind_the_back_of_the_times_is_found_and_remembered() {
    let mut entries = many(1000);
    if let Entry::Inode(_, item) = &mut entries[0] {
        item.mode = 0o040_755;
    }
    let (dir, mut bytes) = (tempfile::tempdir().unwrap(), written(&entries));
    let path = dir.path().join("a.sendshot");
    bytes[HEAD_LEN + 40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    // As if the disk had changed the byte since.
    let verified = Verified {
        counts: Counts::default(),
        decoded: KEPT + 1,
        directories: 1,
        unsummed: false,
    };
    for reads_all in [false, true] {
        FileState::of(&File::open(&path).unwrap())
            .unwrap()
            .remember(verified);
        let sendshot = Sendshot::open(&path).unwrap();
        let fault = match reads_all {
            true => sendshot.reader().unwrap().next_entry().map(drop),
            false => {
                let mut writer = Writer::new(Vec::new(), sendshot.head()).unwrap();
                let copied = sendshot.stored().unwrap().copy_blocks(&mut writer);
                copied.map(drop)
            }
        };
        assert!(matches!(fault, Err(Error::Damaged { .. })), "{fault:?}");
        let again = Sendshot::open(&path);
        assert!(matches!(again, Err(Error::Damaged { .. })), "{again:?}");
    }
}
