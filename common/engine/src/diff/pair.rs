//! The two sendshots that are compared, and the state that all passes share.

use std::collections::HashSet;
use std::fs::File;

use super::paths::{DirId, Tree};
use super::rule::Rule;
use super::step::{Error, Version};
use crate::format::entry::{Inode, Name, ROOT};
use crate::format::file::Sendshot;
use crate::format::read_from::ReadFrom;
use crate::format::reader::Reader;

/// A reader of one of them.
pub(super) type FileReader<'a> = Reader<ReadFrom<&'a File>>;

/// State that all passes share.
pub(super) struct Pair<'a> {
    pub(super) parent: Option<&'a Sendshot>,
    pub(super) target: &'a Sendshot,
    pub(super) rule: Option<Rule>,
    pub(super) version: Version,
    pub(super) m_dirs: Tree,
    pub(super) n_dirs: Tree,
    /// Directories whose times must be set again.
    pub(super) touched: HashSet<DirId>,
    /// Whether any directory is new or changed.
    pub(super) changes_dirs: bool,
    /// Directories of either side with inheritable flags.
    pub(super) inherited: HashSet<DirId>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(
        parent: Option<&'a Sendshot>,
        target: &'a Sendshot,
        version: Version,
    ) -> Self {
        Self {
            parent,
            target,
            rule: parent.map(|parent| Rule::new(parent.head(), target.head())),
            version,
            m_dirs: Tree::default(),
            n_dirs: Tree::default(),
            touched: HashSet::new(),
            changes_dirs: false,
            inherited: HashSet::new(),
        }
    }
}

impl Pair<'_> {
    /// Reports an inode of the parent with a name in no directory.
    pub(super) fn orphan_before(&self, ino: u64) -> Error {
        Error::Orphan {
            path: self.parent.unwrap_or(self.target).path().to_owned(),
            ino,
        }
    }

    pub(super) fn orphan(&self, ino: u64) -> Error {
        Error::Orphan {
            path: self.target.path().to_owned(),
            ino,
        }
    }

    /// Whether two inodes with the same number are the same object.
    pub(super) fn is_same(&self, before: &Inode, after: &Inode) -> bool {
        let targets = (before.target.as_ref(), after.target.as_ref());
        self.rule
            .is_some_and(|rule| rule.is_same_object(&before.item, &after.item, targets))
    }

    /// Whether two inodes with the same number are the same unchanged object.
    pub(super) fn is_unchanged(&self, before: &Inode, after: &Inode) -> bool {
        let rule = self.rule.filter(|_| self.is_same(before, after));
        rule.is_some_and(|rule| rule.is_unchanged(&before.item, &after.item))
    }

    /// Whether a name of the parent and one of the target are the same name in the same directory.
    pub(super) fn is_same_name(&self, old: &Name, new: &Name) -> bool {
        let dirs = (self.m_dirs.dir(old.parent), self.n_dirs.dir(new.parent));
        old.name == new.name && dirs.0.is_some() && dirs.0 == dirs.1
    }

    /// Whether nothing can be different, and no file has to be read for its hashes.
    pub(super) fn is_unchanged_whole(&self) -> bool {
        let is_copy = |parent: &Sendshot| self.target.has_content_of(parent);
        self.skips_same() && self.parent.is_some_and(is_copy) && !self.target.has_unsummed()
    }

    /// Whether inodes with byte-identical records in both are unchanged.
    pub(super) fn skips_same(&self) -> bool {
        self.rule.is_some_and(|rule| rule.has_lineage())
    }

    /// Whether a new object of this name inherits flags of its directory.
    pub(super) fn inherits(&self, name: &Name) -> bool {
        let dir = self.n_dirs.dir(name.parent);
        dir.is_some_and(|dir| self.inherited.contains(&dir))
    }

    /// Whether a directory of the parent still exists in the target. The root always does.
    pub(super) fn lives(&self, dir: DirId) -> bool {
        dir.ino == ROOT || (self.rule.is_some() && self.n_dirs.contains(dir))
    }

    pub(super) fn is_old_dir(&self, dir: DirId) -> bool {
        self.rule.is_some() && self.m_dirs.contains(dir)
    }
}
