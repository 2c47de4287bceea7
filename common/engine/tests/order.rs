//! Checks the order of steps against a model of a file system: from any tree to any other, no step may fail,
//! and names, links, owners, attributes, times and contents must be right.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sendshot_engine::diff::{self, Sink, Step, Version, diff};
use sendshot_engine::{
    Entry, Extent, ExtentKind, Head, InodeItem, Name, Sendshot, Time, Writer, Xattr,
};
use sendshot_stream::Command;
use uuid::Uuid;

/// Number of pairs of trees in every run.
const CASES: u64 = 20_000;
const ROOT: u64 = 256;
const BLOCK: u64 = 4096;
/// The transaction in which the parent was taken.
const SINCE: u64 = 100;
/// Attribute that new entries inherit from their directory.
const INHERITED: &[u8] = b"btrfs.compression";
/// Time of a node that was changed but not set by a command.
const NOW: i64 = i64::MAX;

/// The generator xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8) % end
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Disk addresses of the blocks of a file; 0 is a hole.
type Blocks = Vec<u64>;
/// A block that is reserved and reads as zeros.
const RESERVED: u64 = u64::MAX;

/// Returns the blocks as they are read.
fn as_read(blocks: &Blocks) -> Blocks {
    let zeros = |block: &u64| if *block == RESERVED { 0 } else { *block };
    blocks.iter().map(zeros).collect()
}

/// An inode of the generator.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    generation: u64,
    transid: u64,
    dir: bool,
    names: BTreeSet<(u64, Vec<u8>)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    mode: u32,
    mtime: i64,
    size: u64,
    blocks: Blocks,
    /// Number of blocks reserved beyond the end.
    beyond: usize,
}

/// A tree: inodes by number.
type Tree = BTreeMap<u64, Made>;

/// Generates trees.
struct Generator {
    random: Random,
    disk: u64,
    generation: u64,
    /// The highest inode number so far.
    last: u64,
}

impl Generator {
    fn name(&mut self) -> Vec<u8> {
        vec![b'a' + self.random.below(4) as u8]
    }

    fn inode(&mut self, dir: bool) -> Made {
        self.generation += 1;
        let blocks = if dir { 0 } else { self.random.below(8) };
        let mut made = Made {
            generation: self.generation,
            transid: self.generation,
            dir,
            names: BTreeSet::new(),
            xattrs: BTreeMap::new(),
            mode: self.random.below(4) as u32,
            mtime: self.random.below(1000) as i64,
            size: 0,
            blocks: (0..blocks).map(|_| 0).collect(),
            beyond: 0,
        };
        self.content(&mut made);
        self.attributes(&mut made);
        made
    }

    /// Makes blocks new, holes, reserved, or shared with any earlier write.
    fn content(&mut self, made: &mut Made) {
        for block in &mut made.blocks {
            if !self.random.once_in(4) {
                *block = match self.random.below(10) {
                    0 | 1 => 0,
                    2 => RESERVED,
                    3..=6 => self.disk - self.random.below(self.disk.min(8) + 1),
                    _ => {
                        self.disk += 1;
                        self.disk
                    }
                };
            }
        }
        let blocks = made.blocks.len() as u64;
        let less = if blocks > 0 {
            self.random.below(2) * 1000
        } else {
            0
        };
        made.size = blocks * BLOCK - less;
        made.beyond = self.random.below(3) as usize;
    }

    fn attributes(&mut self, made: &mut Made) {
        for name in [&b"user.a"[..], b"security.capability", INHERITED] {
            match self.random.below(3) {
                0 => drop(made.xattrs.remove(name)),
                1 => drop(
                    made.xattrs
                        .insert(name.to_vec(), vec![self.random.below(3) as u8]),
                ),
                _ => {}
            }
        }
    }

    fn tree(&mut self) -> Tree {
        let mut tree = Tree::new();
        tree.insert(ROOT, self.inode(true));
        for ino in 1..=self.random.below(10) {
            let dir = self.random.once_in(2);
            let made = self.inode(dir);
            self.add(&mut tree, ROOT + ino, made);
        }
        tree
    }

    /// Gives an inode a place, or leaves it out if none is free.
    fn add(&mut self, tree: &mut Tree, ino: u64, mut made: Made) {
        let links = if made.dir {
            1
        } else {
            1 + self.random.below(2)
        };
        for _ in 0..links {
            if let Some(place) = self.free_place(tree, ino, made.dir) {
                made.names.insert(place);
                tree.insert(ino, made.clone());
            }
        }
    }

    /// Returns a free name in a directory that is not below `ino`.
    fn free_place(&mut self, tree: &Tree, ino: u64, dir: bool) -> Option<(u64, Vec<u8>)> {
        let dirs: Vec<u64> = tree
            .iter()
            .filter(|(at, made)| made.dir && !(dir && is_below(tree, **at, ino)))
            .map(|(at, _)| *at)
            .collect();
        let parent = dirs[self.random.below(dirs.len() as u64) as usize];
        let place = (parent, self.name());
        let taken = tree.values().any(|made| made.names.contains(&place));
        (!taken).then_some(place)
    }

    /// Makes a later state of the same tree: objects moved, linked, deleted, new or changed.
    fn later(&mut self, before: &Tree) -> Tree {
        let mut tree = before.clone();
        self.last = self.last.max(*tree.keys().last().unwrap());
        for _ in 0..self.random.below(12) {
            let inos: Vec<u64> = tree.keys().copied().collect();
            let ino = inos[self.random.below(inos.len() as u64) as usize];
            match self.random.below(8) {
                0 => remove(&mut tree, ino),
                1 | 2 => self.move_(&mut tree, ino),
                3 => self.exchange(&mut tree, ino),
                4 => {
                    // After a mount the kernel continues after the highest number in use.
                    let mut next = *inos.last().unwrap() + 1;
                    if self.random.once_in(2) {
                        next = next.max(self.last + 1);
                    }
                    self.last = self.last.max(next);
                    let dir = self.random.once_in(2);
                    let made = self.inode(dir);
                    self.add(&mut tree, next, made);
                }
                5 => self.change(&mut tree, ino),
                6 => self.replace_dir(&mut tree, ino),
                _ => self.link(&mut tree, ino),
            }
        }
        self.stamp(before, &mut tree);
        tree
    }

    /// Replaces a directory by another one with its number, name and content.
    fn replace_dir(&mut self, tree: &mut Tree, ino: u64) {
        if ino == ROOT || !tree[&ino].dir {
            return;
        }
        let mut made = self.inode(true);
        made.names.clone_from(&tree[&ino].names);
        tree.insert(ino, made);
    }

    fn move_(&mut self, tree: &mut Tree, ino: u64) {
        let dir = tree[&ino].dir;
        if ino == ROOT {
            return;
        }
        if let Some(place) = self.free_place(tree, ino, dir) {
            let made = tree.get_mut(&ino).unwrap();
            let first = made.names.iter().next().cloned().unwrap();
            made.names.remove(&first);
            made.names.insert(place);
        }
    }

    fn exchange(&mut self, tree: &mut Tree, a: u64) {
        let inos: Vec<u64> = tree.keys().copied().collect();
        let b = inos[self.random.below(inos.len() as u64) as usize];
        if a == b || a == ROOT || b == ROOT || is_below(tree, a, b) || is_below(tree, b, a) {
            return;
        }
        let first = |tree: &Tree, ino: u64| tree[&ino].names.iter().next().cloned().unwrap();
        let (at, there) = (first(tree, a), first(tree, b));
        for (ino, gone, new) in [(a, &at, &there), (b, &there, &at)] {
            let made = tree.get_mut(&ino).unwrap();
            made.names.remove(gone);
            made.names.insert(new.clone());
        }
    }

    fn link(&mut self, tree: &mut Tree, ino: u64) {
        if tree[&ino].dir {
            return;
        }
        if let Some(place) = self.free_place(tree, ino, false) {
            tree.get_mut(&ino).unwrap().names.insert(place);
        }
    }

    fn change(&mut self, tree: &mut Tree, ino: u64) {
        let mut made = tree[&ino].clone();
        made.mode = self.random.below(4) as u32;
        if !made.dir {
            let blocks = self.random.below(8) as usize;
            made.blocks.resize(blocks, 0);
            self.content(&mut made);
        }
        self.attributes(&mut made);
        tree.insert(ino, made);
    }

    /// Imitates the file system: changed or moved inodes, and directories that gained or lost a name, get a
    /// new transaction and time. A directory can have the number of a deleted one.
    fn stamp(&mut self, before: &Tree, tree: &mut Tree) {
        let entries = |tree: &Tree, dir: u64| -> BTreeSet<(Vec<u8>, u64, u64)> {
            let named = tree
                .iter()
                .flat_map(|(ino, made)| made.names.iter().map(move |n| (n, ino, made.generation)));
            named
                .filter(|(n, _, _)| n.0 == dir)
                .map(|(n, ino, generation)| (n.1.clone(), *ino, generation))
                .collect()
        };
        let changed: Vec<u64> = tree
            .iter()
            .filter(|(ino, made)| {
                let in_another = made.names.iter().any(|(dir, _)| {
                    let then = before.get(dir).map(|dir| dir.generation);
                    then != tree.get(dir).map(|dir| dir.generation)
                });
                before.get(ino) != Some(made)
                    || in_another
                    || (made.dir && entries(before, **ino) != entries(tree, **ino))
            })
            .map(|(ino, _)| *ino)
            .collect();
        for ino in changed {
            let made = tree.get_mut(&ino).unwrap();
            made.transid = SINCE + 50;
            made.mtime = 2000 + self.random.below(1000) as i64;
        }
    }
}

/// Whether `at` is `ino` or is below it.
fn is_below(tree: &Tree, mut at: u64, ino: u64) -> bool {
    loop {
        if at == ino {
            return true;
        }
        match tree.get(&at).and_then(|made| made.names.iter().next()) {
            Some((parent, _)) if at != ROOT => at = *parent,
            _ => return false,
        }
    }
}

/// Removes an inode and everything below it.
fn remove(tree: &mut Tree, ino: u64) {
    if ino == ROOT {
        return;
    }
    let gone: BTreeSet<u64> = tree
        .keys()
        .copied()
        .filter(|at| tree[at].dir && is_below(tree, *at, ino))
        .chain([ino])
        .collect();
    tree.retain(|at, made| {
        made.names.retain(|(parent, _)| !gone.contains(parent));
        *at == ROOT || (!gone.contains(at) && !made.names.is_empty())
    });
}

fn head(number: u128, of: u128, otransid: u64) -> Head {
    Head {
        wire_uuid: Uuid::from_u128(number),
        wire_ctransid: otransid,
        ctransid: otransid,
        fsid: Uuid::from_u128(1),
        uuid: Uuid::from_u128(number),
        parent_uuid: Uuid::from_u128(of),
        otransid,
        generation: otransid,
        taken_at: 0,
    }
}

/// Writes a sendshot. Extents up to `old_disk` get a generation older than the parent.
fn sendshot(tree: &Tree, head: &Head, old_disk: u64) -> Sendshot {
    let mut writer = Writer::new(tempfile::tempfile().unwrap(), head).unwrap();
    for (ino, made) in tree {
        for entry in entries(*ino, made, old_disk) {
            writer.entry(&entry).unwrap();
        }
    }
    let (file, _) = writer.finish().unwrap();
    Sendshot::from_file(file, Path::new("model")).unwrap()
}

fn entries(ino: u64, made: &Made, old_disk: u64) -> Vec<Entry> {
    let kind = if made.dir { 0o040_000 } else { 0o100_000 };
    let time = Time {
        sec: made.mtime,
        nsec: 0,
    };
    let mut entries = vec![Entry::Inode(
        ino,
        InodeItem {
            generation: made.generation,
            transid: made.transid,
            size: made.size,
            uid: ino as u32,
            gid: made.generation as u32,
            mode: kind | made.mode,
            atime: time,
            mtime: time,
            ..InodeItem::default()
        },
    )];
    let names = made.names.iter().cloned();
    entries.extend(names.map(|(parent, name)| Entry::Name(Name { parent, name })));
    let xattrs = made.xattrs.clone().into_iter();
    entries.extend(xattrs.map(|(name, value)| Entry::Xattr(Xattr { name, value })));
    let beyond = vec![RESERVED; made.beyond];
    for (at, disk) in made
        .blocks
        .iter()
        .chain(&beyond)
        .enumerate()
        .filter(|(_, disk)| **disk != 0)
    {
        let generation = if *disk <= old_disk { 50 } else { SINCE + 50 };
        let (kind, disk) = match *disk {
            RESERVED => (ExtentKind::Prealloc, 1 << 40),
            disk => (ExtentKind::Regular, disk),
        };
        entries.push(Entry::Extent(Extent {
            offset: at as u64 * BLOCK,
            len: BLOCK,
            kind,
            compression: 0,
            ram_bytes: BLOCK,
            disk_bytenr: disk * BLOCK,
            disk_len: BLOCK,
            disk_offset: 0,
            generation,
            extent_generation: generation,
            leaf_generation: 0,
            is_shared: true,
        }));
    }
    entries
}

/// A node of the model.
#[derive(Debug, Clone, Default)]
struct Node {
    dir: bool,
    entries: BTreeMap<Vec<u8>, usize>,
    owner: (u64, u64),
    mode: u64,
    mtime: i64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    size: u64,
    blocks: Blocks,
}

/// A file system that rejects what a real one rejects.
struct Model<'a> {
    nodes: Vec<Node>,
    new: &'a Tree,
    /// The read-only copy from which clones may be made.
    parent: Option<Box<Model<'a>>>,
    clones: u64,
}

impl<'a> Model<'a> {
    fn of(tree: &Tree, new: &'a Tree) -> Self {
        let at: BTreeMap<u64, usize> = tree.keys().copied().zip(0..).collect();
        let mut nodes: Vec<Node> = tree
            .iter()
            .map(|(ino, made)| Node {
                dir: made.dir,
                entries: BTreeMap::new(),
                owner: (*ino, made.generation),
                mode: u64::from(made.mode),
                mtime: made.mtime,
                xattrs: made.xattrs.clone(),
                size: made.size,
                blocks: as_read(&made.blocks),
            })
            .collect();
        for (ino, made) in tree {
            for (parent, name) in &made.names {
                nodes[at[parent]].entries.insert(name.clone(), at[ino]);
            }
        }
        let parent = Model {
            nodes,
            new,
            parent: None,
            clones: 0,
        };
        Self {
            nodes: parent.nodes.clone(),
            new,
            parent: Some(Box::new(parent)),
            clones: 0,
        }
    }

    fn empty(new: &'a Tree) -> Self {
        let root = Node {
            dir: true,
            mtime: NOW,
            ..Node::default()
        };
        Self {
            nodes: vec![root],
            new,
            parent: None,
            clones: 0,
        }
    }

    fn find(&self, path: &[u8]) -> usize {
        path.split(|b| *b == b'/')
            .filter(|part| !part.is_empty())
            .fold(0, |at, part| {
                *self.nodes[at]
                    .entries
                    .get(part)
                    .unwrap_or_else(|| panic!("no {}", path.escape_ascii()))
            })
    }

    fn split<'p>(&self, path: &'p [u8]) -> (usize, &'p [u8]) {
        match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (self.find(&path[..slash]), &path[slash + 1..]),
            None => (0, path),
        }
    }

    fn enter(&mut self, path: &[u8], node: usize) {
        let (parent, name) = self.split(path);
        assert!(
            self.nodes[parent].dir,
            "{} is no directory",
            path.escape_ascii()
        );
        self.nodes[parent].mtime = NOW;
        let before = self.nodes[parent].entries.insert(name.to_vec(), node);
        assert!(before.is_none(), "{} exists", path.escape_ascii());
    }

    fn leave(&mut self, path: &[u8]) -> usize {
        let (parent, name) = self.split(path);
        self.nodes[parent].mtime = NOW;
        self.nodes[parent]
            .entries
            .remove(name)
            .expect("what is removed exists")
    }

    fn make(&mut self, path: &[u8], dir: bool) {
        let mut node = Node {
            dir,
            mtime: NOW,
            ..Node::default()
        };
        let parent = &self.nodes[self.split(path).0];
        if let Some(value) = parent.xattrs.get(INHERITED) {
            node.xattrs.insert(INHERITED.to_vec(), value.clone());
        }
        self.nodes.push(node);
        self.enter(path, self.nodes.len() - 1);
    }

    /// Copies a range from the file that has this path in the target.
    fn write(&mut self, path: &[u8], offset: u64, len: u64) {
        let (source, size) = self.source(path);
        assert!(
            offset + len <= size,
            "data beyond the end of the snapshot's file"
        );
        let at = self.find(path);
        let node = &mut self.nodes[at];
        node.size = node.size.max(offset + len);
        node.blocks.resize(node.size.div_ceil(BLOCK) as usize, 0);
        for block in offset / BLOCK..(offset + len).div_ceil(BLOCK) {
            node.blocks[block as usize] = source[block as usize];
        }
        node.xattrs.remove(&b"security.capability"[..]);
        node.mtime = NOW;
    }

    /// Returns contents and size of the file that has this path in the target.
    fn source(&self, path: &[u8]) -> (Blocks, u64) {
        let found = path.split(|b| *b == b'/').fold(ROOT, |at, part| {
            let place = (at, part.to_vec());
            let child = self
                .new
                .iter()
                .find(|(_, made)| made.names.contains(&place));
            *child.expect("data is written under final names").0
        });
        let made = &self.new[&found];
        (as_read(&made.blocks), made.size)
    }

    /// Clones like the kernel: whole blocks within the source, unless it is the end of both.
    fn clone_range(&mut self, command: Command<'_>) {
        let Command::Clone {
            path,
            offset,
            len,
            clone_uuid,
            clone_path,
            clone_offset,
            ..
        } = command
        else {
            return;
        };
        self.clones += 1;
        let source = match &self.parent {
            Some(parent) if clone_uuid == Uuid::from_u128(2) => parent,
            _ => &*self,
        };
        let from = &source.nodes[source.find(clone_path)];
        let end = clone_offset + len;
        assert!(end <= from.size, "a clone of what is beyond the end");
        assert!(offset.is_multiple_of(BLOCK) && clone_offset.is_multiple_of(BLOCK));
        let at = self.find(path);
        let to_both_ends = end == from.size && offset + len >= self.nodes[at].size;
        assert!(
            len.is_multiple_of(BLOCK) || to_both_ends,
            "an unaligned clone"
        );
        let first = (clone_offset / BLOCK) as usize;
        let shared = from.blocks[first..end.div_ceil(BLOCK) as usize].to_vec();
        let node = &mut self.nodes[at];
        node.size = node.size.max(offset + len);
        node.blocks.resize(node.size.div_ceil(BLOCK) as usize, 0);
        let first = (offset / BLOCK) as usize;
        node.blocks[first..first + shared.len()].copy_from_slice(&shared);
        node.xattrs.remove(&b"security.capability"[..]);
        node.mtime = NOW;
    }

    fn punch(&mut self, path: &[u8], offset: u64, len: u64) {
        let at = self.find(path);
        let node = &mut self.nodes[at];
        for block in offset / BLOCK..(offset + len) / BLOCK {
            if let Some(block) = node.blocks.get_mut(block as usize) {
                *block = 0;
            }
        }
    }

    fn command(&mut self, command: Command<'_>) {
        match command {
            Command::Subvol { .. } | Command::Snapshot { .. } | Command::End => {}
            Command::Mkdir { path } => self.make(path, true),
            Command::Mkfile { path } => self.make(path, false),
            Command::Rename { path, to } => {
                let node = self.leave(path);
                self.enter(to, node);
            }
            Command::Link { path, existing } => {
                let node = self.find(existing);
                assert!(!self.nodes[node].dir, "a link to a directory");
                self.enter(path, node);
            }
            Command::Unlink { path } => {
                let node = self.leave(path);
                assert!(!self.nodes[node].dir, "unlink of a directory");
            }
            Command::Rmdir { path } => {
                let node = self.leave(path);
                assert!(self.nodes[node].dir && self.nodes[node].entries.is_empty());
            }
            Command::SetXattr { path, name, data } => {
                let node = self.find(path);
                self.nodes[node].xattrs.insert(name.to_vec(), data.to_vec());
            }
            Command::RemoveXattr { path, name } => {
                let node = self.find(path);
                let before = self.nodes[node].xattrs.remove(name);
                assert!(
                    before.is_some(),
                    "`btrfs receive` fails when there is nothing to remove"
                );
            }
            Command::Truncate { path, size } => {
                let node = self.find(path);
                self.nodes[node].size = size;
                self.nodes[node]
                    .blocks
                    .resize(size.div_ceil(BLOCK) as usize, 0);
                self.nodes[node].xattrs.remove(&b"security.capability"[..]);
            }
            Command::Chown { path, uid, gid } => {
                let node = self.find(path);
                self.nodes[node].owner = (uid, gid);
                self.nodes[node].xattrs.remove(&b"security.capability"[..]);
            }
            Command::Chmod { path, mode } => {
                let node = self.find(path);
                self.nodes[node].mode = mode;
            }
            Command::Utimes { path, mtime, .. } => {
                let node = self.find(path);
                self.nodes[node].mtime = mtime.sec;
            }
            Command::Fallocate {
                path,
                mode: 3,
                offset,
                len,
            } => self.punch(path, offset, len),
            Command::Fallocate { path, mode: 1, .. } => drop(self.find(path)),
            Command::Clone { .. } => self.clone_range(command),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Compares with the target from the root down.
    fn check(&self) {
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        self.check_node(ROOT, 0, &mut seen);
        assert_eq!(seen.len(), self.new.len(), "an inode is missing");
    }

    fn check_node(&self, ino: u64, at: usize, seen: &mut BTreeMap<u64, usize>) {
        let (node, made) = (&self.nodes[at], &self.new[&ino]);
        if let Some(before) = seen.insert(ino, at) {
            assert_eq!(before, at, "inode {ino}: the links are not one file");
            return;
        }
        assert_eq!(node.dir, made.dir, "inode {ino}");
        assert_eq!(
            node.owner,
            (ino, made.generation),
            "inode {ino}: another thing"
        );
        assert_eq!(node.mode, u64::from(made.mode), "inode {ino}: mode");
        assert_eq!(node.mtime, made.mtime, "inode {ino}: time");
        assert_eq!(node.xattrs, made.xattrs, "inode {ino}: attributes");
        assert_eq!(
            (node.size, &node.blocks),
            (made.size, &as_read(&made.blocks)),
            "inode {ino}: content"
        );
        let wanted: BTreeMap<&Vec<u8>, u64> = self
            .new
            .iter()
            .flat_map(|(child, made)| made.names.iter().map(move |name| (name, *child)))
            .filter(|((parent, _), _)| *parent == ino)
            .map(|((_, name), child)| (name, child))
            .collect();
        let found: Vec<&Vec<u8>> = node.entries.keys().collect();
        assert_eq!(
            found,
            wanted.keys().copied().collect::<Vec<_>>(),
            "inode {ino}: names"
        );
        for (name, child) in wanted {
            self.check_node(child, node.entries[name], seen);
        }
    }
}

impl Sink for Model<'_> {
    type Error = diff::Error;

    fn step(&mut self, step: Step<'_>) -> Result<(), diff::Error> {
        match step {
            Step::Command(command) => self.command(command),
            Step::Data {
                path, offset, len, ..
            } => self.write(path, offset, len),
            Step::Encoded { .. } => panic!("nothing here is compressed"),
            Step::Check { .. } | Step::Hash { .. } => {}
        }
        Ok(())
    }
}

/// Runs one pair of trees: of one lineage, of one file system after a rollback, or in full. Returns the
/// number of clones.
fn case(seed: u64) -> u64 {
    let mut generator = Generator {
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        disk: 0,
        generation: 0,
        last: 0,
    };
    let old = generator.tree();
    let old_disk = generator.disk;
    let new = generator.later(&old);
    let of = if seed.is_multiple_of(3) { 8 } else { 7 };
    let n = sendshot(&new, &head(3, of, SINCE + 100), old_disk);
    let version = if seed.is_multiple_of(2) {
        Version::V1
    } else {
        Version::V2
    };
    if seed.is_multiple_of(5) {
        let mut model = Model::empty(&new);
        diff(None, &n, b"full", version, &mut model).unwrap();
        model.check();
        model.clones
    } else {
        let m = sendshot(&old, &head(2, 7, SINCE), old_disk);
        let mut model = Model::of(&old, &new);
        diff(Some(&m), &n, b"changes", version, &mut model).unwrap();
        model.check();
        model.clones
    }
}

#[test]
fn any_tree_becomes_any_other() {
    let mut clones = 0;
    for seed in 0..CASES {
        let result = std::panic::catch_unwind(|| case(seed));
        assert!(result.is_ok(), "seed {seed}");
        clones += result.unwrap_or_default();
    }
    assert!(clones > CASES / 10, "only {clones} clones were seen");
}
