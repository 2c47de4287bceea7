//! Directories as a tree whose names change while a stream is generated.

use std::collections::HashMap;

use crate::format::entry::{Name, ROOT};

/// A directory: number and generation, because a number can be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DirId {
    pub(crate) ino: u64,
    pub(crate) generation: u64,
}

/// DirEntry of a directory entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DirEntry {
    pub(crate) parent: DirId,
    pub(crate) name: Vec<u8>,
}

/// The directories of one sendshot, or an intermediate state of two.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    generations: HashMap<u64, u64>,
    places: HashMap<DirId, DirEntry>,
    raw: Vec<(DirId, Name)>,
}

impl Tree {
    /// Adds a directory as its sendshot names it; its parent may be added later.
    pub(crate) fn add(&mut self, dir: DirId, name: Option<Name>) {
        self.generations.insert(dir.ino, dir.generation);
        if let Some(name) = name {
            self.raw.push((dir, name));
        }
    }

    /// Resolves parents after all directories were added.
    pub(crate) fn seal(&mut self) {
        for (dir, name) in std::mem::take(&mut self.raw) {
            if let Some(place) = self.place_of(&name) {
                self.places.insert(dir, place);
            }
        }
    }

    /// Returns the directory with this number.
    pub(crate) fn dir(&self, ino: u64) -> Option<DirId> {
        let generation = *self.generations.get(&ino)?;
        Some(DirId { ino, generation })
    }

    /// Whether any number belongs to different directories in the two trees.
    pub(crate) fn has_replaced(&self, there: &Tree) -> bool {
        let mut both = self.generations.iter();
        both.any(|(ino, generation)| {
            let other = there.generations.get(ino);
            other.is_some_and(|other| other != generation)
        })
    }

    pub(crate) fn contains(&self, dir: DirId) -> bool {
        self.generations.get(&dir.ino) == Some(&dir.generation)
    }

    /// Resolves the directory of a name.
    pub(crate) fn place_of(&self, name: &Name) -> Option<DirEntry> {
        Some(DirEntry {
            parent: self.dir(name.parent)?,
            name: name.name.clone(),
        })
    }

    pub(crate) fn place(&self, dir: DirId) -> Option<&DirEntry> {
        self.places.get(&dir)
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = (DirId, &DirEntry)> {
        self.places.iter().map(|(dir, place)| (*dir, place))
    }

    pub(crate) fn move_to(&mut self, dir: DirId, place: DirEntry) {
        self.places.insert(dir, place);
    }

    /// Number of steps from the root to a directory; `None` if it is not connected to the root.
    pub(crate) fn depth(&self, dir: DirId) -> Option<usize> {
        let mut depth = 0;
        let mut dir = dir;
        while dir.ino != ROOT {
            dir = self.places.get(&dir)?.parent;
            depth += 1;
            if depth > self.places.len() {
                return None;
            }
        }
        Some(depth)
    }

    /// Returns the path of a directory entry.
    pub(crate) fn path(&self, place: &DirEntry) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = vec![&place.name];
        let mut dir = place.parent;
        while dir.ino != ROOT {
            let at = self.places.get(&dir)?;
            parts.push(&at.name);
            dir = at.parent;
            if parts.len() > self.places.len() + 2 {
                return None;
            }
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }

    /// Returns the path of a directory; empty for the root.
    pub(crate) fn dir_path(&self, dir: DirId) -> Option<Vec<u8>> {
        if dir.ino == ROOT {
            return Some(Vec::new());
        }
        self.path(self.places.get(&dir)?)
    }
}
