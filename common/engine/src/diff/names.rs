//! Names: from the tree of the parent to the tree of the target, without two objects ever sharing a name.
//!
//! An object that moves keeps its place until its turn, unless it is in the way: then it waits under a
//! temporary name in the root. It is in the way if its directory is to be removed, or if its old name is the
//! new name of another object. The order:
//!
//! 0. Immutable and append-only objects that change lose these flags, and directories lose the attributes
//!    that new entries would inherit.
//! 1. Directories in the way get temporary names.
//! 2. Deleted names of files are unlinked; files in the way that keep no name get temporary ones.
//! 3. Deleted directories, empty now, are removed, the deepest first.
//! 4. New and moved directories get their places, parents first. No directory is ever moved below itself: its
//!    new parent already has its final place. New ones lose inherited flags.
//! 5. Moved files get their places, then their additional names.
//!
//! New files are made later, with their content: every name is free by then.

use std::collections::{BTreeMap, HashMap, HashSet};

use sendshot_stream::Command;

use super::clones::Clones;
use super::flags::kept;
use super::pair::Pair;
use super::side_by_side::SideBySide;
use super::step::{Error, Sink, Step, Version};
use crate::diff::paths::{DirEntry, DirId, Tree};
use crate::format::entry::Inode;
use crate::format::entry::{GUARDS, INHERITED, Name, ROOT, Xattr};
use crate::format::reader::Reader;
use crate::format::reader::skip_same;

/// Prefix of temporary names.
pub(super) const TEMPORARY: &str = ".sendshot-tmp-";

/// A file of both trees with changed names.
#[derive(Debug)]
struct Renamed {
    ino: u64,
    gone: Vec<Name>,
    added: Vec<Name>,
    kept: Option<Name>,
}

/// Attributes of a directory that the receiver's kernel copies to new entries.
const INHERITABLE: [&[u8]; 2] = [b"btrfs.compression", b"system.posix_acl_default"];

/// Whether new entries of a directory inherit this attribute.
pub(super) fn is_inheritable(xattr: &Xattr) -> bool {
    INHERITABLE.contains(&xattr.name.as_slice())
}

/// The changes among names.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Attributes to remove from directories in which objects that must not inherit them may be made. They
    /// are restored in the end.
    heirs: Vec<(DirId, Vec<u8>)>,
    /// Objects to change that have flags which forbid it: inode number, a name, and the other flags.
    guarded: Vec<(u64, Option<Name>, u64)>,
    dead_files: Vec<Name>,
    renamed: Vec<Renamed>,
    /// Files whose names differ as written: number, names in the parent, names in the target. Whether they
    /// really differ can be decided once all directories are known.
    differing: Vec<(u64, Vec<Name>, Vec<Name>)>,
}

/// Reads both files side by side and fills the trees of directories.
pub(super) fn gather(pair: &mut Pair<'_>, clones: &mut Clones) -> Result<Changes, Error> {
    let mut changes = Changes::default();
    let mut parent = pair.parent.map(|parent| parent.reader()).transpose()?;
    let mut target = pair.target.reader()?;
    let (mut old, mut new) = (None, None);
    loop {
        if let (None, None, Some(parent)) = (&old, &new, &mut parent)
            && pair.skips_same()
        {
            skip_same(parent, &mut target, |inode| inode.is_dir() || inode.swap)?;
        }
        if old.is_none() {
            old = next(&mut parent)?;
        }
        if new.is_none() {
            new = target.next_inode()?;
        }
        let (before, after) = match (&old, &new) {
            (None, None) => break,
            (Some(o), Some(w)) if o.ino == w.ino => (old.take(), new.take()),
            (Some(o), Some(w)) if o.ino < w.ino => (old.take(), None),
            (Some(_), None) => (old.take(), None),
            (_, Some(_)) => (None, new.take()),
        };
        compare(pair, &mut changes, before.as_ref(), after.as_ref());
        if let Some(dir) = after.as_ref().filter(|after| after.item.is_dir()) {
            pair.changes_dirs |= !before.as_ref().is_some_and(|b| pair.is_unchanged(b, dir));
        }
        if let Some(after) = after.as_ref().filter(|after| after.item.is_regular())
            && !before.as_ref().is_some_and(|b| pair.is_unchanged(b, after))
        {
            let since = pair.parent.map(|parent| parent.head().otransid);
            let is_old = before.as_ref().is_some_and(|b| pair.is_same(b, after));
            let parent = parent.as_mut().filter(|_| is_old);
            clones.want(since, parent, &mut target)?;
        }
    }
    pair.m_dirs.seal();
    pair.n_dirs.seal();
    if pair.m_dirs.has_replaced(&pair.n_dirs) {
        in_replaced_dirs(pair, &mut changes)?;
    }
    for (ino, before, after) in std::mem::take(&mut changes.differing) {
        changes.renamed.push(renamed(pair, ino, &before, &after));
    }
    changes.renamed.sort_by_key(|file| file.ino);
    Ok(changes)
}

/// Finds files with equal names in both trees that mean different directories: a directory was deleted, a new
/// one got its number, and the file was moved into the new one.
fn in_replaced_dirs(pair: &Pair<'_>, changes: &mut Changes) -> Result<(), Error> {
    let mut both = SideBySide::new(pair)?;
    while let Some(after) = both.next(|_| false)? {
        let before = both.before(&after).filter(|old| pair.is_same(old, &after));
        let Some(before) = before.filter(|_| !after.item.is_dir()) else {
            continue;
        };
        let is_moved = |name: &Name| !pair.is_same_name(name, name);
        if before.names == after.names && after.names.iter().any(is_moved) {
            let moved = (after.ino, before.names, after.names);
            changes.differing.push(moved);
        }
    }
    Ok(())
}

fn next<R: std::io::Read + std::io::Seek>(
    reader: &mut Option<Reader<R>>,
) -> Result<Option<Inode>, Error> {
    match reader {
        Some(reader) => Ok(reader.next_inode()?),
        None => Ok(None),
    }
}

fn compare(
    pair: &mut Pair<'_>,
    changes: &mut Changes,
    before: Option<&Inode>,
    after: Option<&Inode>,
) {
    for dir in before.into_iter().chain(after).filter(|i| i.item.is_dir()) {
        if dir.item.flags & INHERITED != 0 {
            pair.inherited.insert(dir_id(dir));
        }
    }
    add_dir(&mut pair.m_dirs, before);
    add_dir(&mut pair.n_dirs, after);
    let (Some(before), after) = (before, after) else {
        return;
    };
    let flags = kept(before);
    let stays = after.is_some_and(|after| pair.is_unchanged(before, after));
    if flags & GUARDS != 0 && before.ino != ROOT && !stays {
        let name = before.names.first().cloned();
        changes.guarded.push((before.ino, name, flags & !GUARDS));
    }
    if before.item.is_dir() {
        let changed = after.is_some_and(|after| dir_id(before) == dir_id(after)) && !stays;
        if changed && pair.rule.is_some() {
            let xattrs = before.xattrs.iter().filter(|xattr| is_inheritable(xattr));
            let heirs = xattrs.map(|xattr| (dir_id(before), xattr.name.clone()));
            changes.heirs.extend(heirs);
        }
        return;
    }
    match after.filter(|after| pair.is_same(before, after)) {
        None => changes.dead_files.extend(before.names.iter().cloned()),
        Some(after) if before.names != after.names => {
            let (old, new) = (before.names.clone(), after.names.clone());
            changes.differing.push((before.ino, old, new));
        }
        Some(_) => {}
    }
}

fn add_dir(tree: &mut Tree, inode: Option<&Inode>) {
    if let Some(inode) = inode.filter(|inode| inode.item.is_dir()) {
        tree.add(dir_id(inode), inode.names.first().cloned());
    }
}

pub(super) fn dir_id(inode: &Inode) -> DirId {
    // The root stays the root, whatever subvolume it was made in.
    let generation = if inode.ino == ROOT {
        0
    } else {
        inode.item.generation
    };
    DirId {
        ino: inode.ino,
        generation,
    }
}

fn renamed(pair: &Pair<'_>, ino: u64, before: &[Name], after: &[Name]) -> Renamed {
    // Names are sorted as written; the same name in the same directory is the same in both.
    let is_kept = |name: &&Name| {
        let in_both = before.binary_search(name).is_ok() && after.binary_search(name).is_ok();
        in_both && pair.is_same_name(name, name)
    };
    let only = |of: &[Name]| of.iter().filter(|name| !is_kept(name)).cloned().collect();
    Renamed {
        ino,
        gone: only(before),
        added: only(after),
        kept: before.iter().find(is_kept).cloned(),
    }
}

/// The current names while steps are emitted.
struct Names<'p, 'a, S> {
    pair: &'p mut Pair<'a>,
    sink: &'p mut S,
    /// Current places of directories.
    now: Tree,
    /// Names of the target that the parent does not have, in directories of both.
    wanted: HashSet<DirEntry>,
    temporaries: u64,
}

/// Emits the steps that lead from the parent's names to the target's, except new files.
pub(super) fn emit<S: Sink>(
    pair: &mut Pair<'_>,
    changes: Changes,
    sink: &mut S,
) -> Result<(), S::Error> {
    let moved = moved_dirs(pair);
    let wanted = wanted(pair, &changes, &moved);
    let now = pair.m_dirs.clone();
    let mut names = Names {
        pair,
        sink,
        now,
        wanted,
        temporaries: 0,
    };
    names.unguard(&changes.guarded)?;
    names.disinherit(&changes.heirs)?;
    names.clear_dirs(&moved)?;
    let waiting = names.clear_files(&changes.dead_files, &changes.renamed)?;
    names.remove_dirs()?;
    names.place_dirs()?;
    names.place_files(&changes.renamed, waiting)
}

/// Directories of both trees with different places, in a fixed order.
fn moved_dirs(pair: &Pair<'_>) -> Vec<DirId> {
    let mut moved: Vec<DirId> = pair
        .m_dirs
        .places()
        .filter(|(dir, place)| {
            pair.lives(*dir) && pair.n_dirs.place(*dir).is_some_and(|new| new != *place)
        })
        .map(|(dir, _)| dir)
        .collect();
    moved.sort();
    moved
}

fn wanted(pair: &Pair<'_>, changes: &Changes, moved: &[DirId]) -> HashSet<DirEntry> {
    let mut wanted = HashSet::new();
    wanted.extend(
        moved
            .iter()
            .filter_map(|dir| pair.n_dirs.place(*dir).cloned()),
    );
    let new_dirs = pair
        .n_dirs
        .places()
        .filter(|(dir, _)| !pair.is_old_dir(*dir));
    wanted.extend(new_dirs.map(|(_, place)| place.clone()));
    for renamed in &changes.renamed {
        wanted.extend(
            renamed
                .added
                .iter()
                .filter_map(|name| pair.n_dirs.place_of(name)),
        );
    }
    wanted
}

impl<S: Sink> Names<'_, '_, S> {
    /// Whether an object at `place` must move before others take their places. New files do not count: they
    /// are made after all moves.
    fn is_in_the_way(&self, place: &DirEntry) -> bool {
        !self.pair.lives(place.parent) || self.wanted.contains(place)
    }

    fn unguard(&mut self, guarded: &[(u64, Option<Name>, u64)]) -> Result<(), S::Error> {
        for (ino, name, flags) in guarded {
            let Some(name) = name.as_ref().filter(|_| self.pair.version == Version::V2) else {
                continue;
            };
            let place = self.old_place(name, *ino)?;
            let path = self.path(&place)?;
            let flags = *flags;
            self.command(Command::Fileattr { path: &path, flags })?;
        }
        Ok(())
    }

    fn disinherit(&mut self, heirs: &[(DirId, Vec<u8>)]) -> Result<(), S::Error> {
        for (dir, name) in heirs {
            let path = self.now.dir_path(*dir);
            let path = path.ok_or_else(|| self.pair.orphan(dir.ino))?;
            self.command(Command::RemoveXattr { path: &path, name })?;
        }
        Ok(())
    }

    fn clear_dirs(&mut self, moved: &[DirId]) -> Result<(), S::Error> {
        for dir in moved {
            let Some(place) = self.now.place(*dir).cloned() else {
                continue;
            };
            if self.is_in_the_way(&place) {
                let free = self.temporary();
                self.rename(&place, &free)?;
                self.now.move_to(*dir, free);
            }
        }
        Ok(())
    }

    /// Returns where the files wait that had to leave their old name.
    fn clear_files(
        &mut self,
        dead: &[Name],
        renamed: &[Renamed],
    ) -> Result<HashMap<u64, DirEntry>, S::Error> {
        for name in dead {
            self.unlink(name)?;
        }
        let mut waiting = HashMap::new();
        for file in renamed {
            let mut gone = file.gone.as_slice();
            if file.kept.is_none()
                && let Some((first, rest)) = gone.split_first()
            {
                gone = rest;
                let place = self.old_place(first, file.ino)?;
                if self.is_in_the_way(&place) {
                    let free = self.temporary();
                    self.rename(&place, &free)?;
                    waiting.insert(file.ino, free);
                } else {
                    waiting.insert(file.ino, place);
                }
            }
            for name in gone {
                self.unlink(name)?;
            }
        }
        Ok(waiting)
    }

    fn remove_dirs(&mut self) -> Result<(), S::Error> {
        let mut dead: BTreeMap<(std::cmp::Reverse<usize>, DirId), DirEntry> = BTreeMap::new();
        for (dir, place) in self.pair.m_dirs.places() {
            if !self.pair.lives(dir) {
                let depth = self.pair.m_dirs.depth(dir).unwrap_or(0);
                dead.insert((std::cmp::Reverse(depth), dir), place.clone());
            }
        }
        for place in dead.into_values() {
            let path = self.path(&place)?;
            self.command(Command::Rmdir { path: &path })?;
            self.touch(place.parent);
        }
        Ok(())
    }

    fn place_dirs(&mut self) -> Result<(), S::Error> {
        let mut dirs: Vec<(usize, DirId)> = self
            .pair
            .n_dirs
            .places()
            .map(|(dir, _)| (self.pair.n_dirs.depth(dir).unwrap_or(0), dir))
            .collect();
        dirs.sort();
        for (_, dir) in dirs {
            let Some(place) = self.pair.n_dirs.place(dir).cloned() else {
                continue;
            };
            if !self.pair.is_old_dir(dir) {
                let path = self.final_path(&place, dir.ino)?;
                self.command(Command::Mkdir { path: &path })?;
                if self.pair.version == Version::V2 && self.pair.inherited.contains(&place.parent) {
                    // New entries in it would inherit in turn. It gets its own flags in the end.
                    let flags = 0;
                    self.command(Command::Fileattr { path: &path, flags })?;
                }
                self.touch(place.parent);
            } else if self.now.place(dir) != Some(&place) {
                let from = self
                    .now
                    .place(dir)
                    .cloned()
                    .ok_or_else(|| self.pair.orphan(dir.ino))?;
                self.rename_to(&from, &place, dir.ino)?;
            }
            self.now.add(dir, None);
            self.now.move_to(dir, place);
        }
        Ok(())
    }

    fn place_files(
        &mut self,
        renamed: &[Renamed],
        mut waiting: HashMap<u64, DirEntry>,
    ) -> Result<(), S::Error> {
        for file in renamed {
            let mut added = file.added.as_slice();
            let first = match (waiting.remove(&file.ino), &file.kept, added.split_first()) {
                (Some(from), _, Some((first, rest))) => {
                    added = rest;
                    let to = self.new_place(first, file.ino)?;
                    self.rename_to(&from, &to, file.ino)?;
                    to
                }
                (None, Some(kept), _) => self.new_place(kept, file.ino)?,
                _ => continue,
            };
            let existing = self.final_path(&first, file.ino)?;
            for name in added {
                let place = self.new_place(name, file.ino)?;
                let path = self.final_path(&place, file.ino)?;
                self.command(Command::Link {
                    path: &path,
                    existing: &existing,
                })?;
                self.touch(place.parent);
            }
        }
        Ok(())
    }

    fn unlink(&mut self, name: &Name) -> Result<(), S::Error> {
        let place = self.old_place(name, 0)?;
        let path = self.path(&place)?;
        self.command(Command::Unlink { path: &path })?;
        self.touch(place.parent);
        Ok(())
    }

    /// Renames to a temporary name in the root.
    fn rename(&mut self, from: &DirEntry, to: &DirEntry) -> Result<(), S::Error> {
        let target = self.path(to)?;
        self.emit_rename(from, to, &target)
    }

    /// Renames to a final place.
    fn rename_to(&mut self, from: &DirEntry, to: &DirEntry, ino: u64) -> Result<(), S::Error> {
        let target = self.final_path(to, ino)?;
        self.emit_rename(from, to, &target)
    }

    fn emit_rename(
        &mut self,
        from: &DirEntry,
        to: &DirEntry,
        target: &[u8],
    ) -> Result<(), S::Error> {
        let path = self.path(from)?;
        self.command(Command::Rename {
            path: &path,
            to: target,
        })?;
        self.touch(from.parent);
        self.touch(to.parent);
        Ok(())
    }

    fn old_place(&self, name: &Name, ino: u64) -> Result<DirEntry, Error> {
        let place = self.pair.m_dirs.place_of(name);
        place.ok_or_else(|| self.pair.orphan_before(ino))
    }

    fn new_place(&self, name: &Name, ino: u64) -> Result<DirEntry, Error> {
        let place = self.pair.n_dirs.place_of(name);
        place.ok_or_else(|| self.pair.orphan(ino))
    }

    /// Returns the current path of a place.
    fn path(&self, place: &DirEntry) -> Result<Vec<u8>, Error> {
        let path = self.now.path(place);
        path.ok_or_else(|| self.pair.orphan(place.parent.ino))
    }

    /// Returns the final path of a place; its directories are already there.
    fn final_path(&self, place: &DirEntry, ino: u64) -> Result<Vec<u8>, Error> {
        let path = self.pair.n_dirs.path(place);
        path.ok_or_else(|| self.pair.orphan(ino))
    }

    /// Makes a temporary name. It is unused: the UUID did not exist before the snapshot was taken.
    fn temporary(&mut self) -> DirEntry {
        let uuid = self.pair.target.head().uuid.simple();
        let number = self.temporaries;
        self.temporaries += 1;
        DirEntry {
            parent: DirId {
                ino: ROOT,
                generation: 0,
            },
            name: format!("{TEMPORARY}{uuid}-{number}").into_bytes(),
        }
    }

    fn touch(&mut self, dir: DirId) {
        self.pair.touched.insert(dir);
    }

    fn command(&mut self, command: Command<'_>) -> Result<(), S::Error> {
        self.sink.step(Step::Command(command))
    }
}
