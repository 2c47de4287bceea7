//! Both sendshots of a diff, read side by side.

use super::pair::FileReader;
use super::pair::Pair;
use super::step::Error;
use crate::format::codec::Glance;
use crate::format::entry::Inode;
use crate::format::reader::skip_same;

/// Both files read side by side, by the inodes of the target.
pub(super) struct SideBySide<'a> {
    pub(super) parent: Option<FileReader<'a>>,
    pub(super) target: FileReader<'a>,
    /// The parent's inode that is ahead of the target's.
    old: Option<Inode>,
    skips_same: bool,
}

impl<'a> SideBySide<'a> {
    pub(super) fn new(pair: &Pair<'a>) -> Result<Self, Error> {
        Ok(Self {
            old: None,
            target: pair.target.reader()?,
            parent: pair.parent.map(|parent| parent.reader()).transpose()?,
            skips_same: pair.skips_same(),
        })
    }

    /// Returns the next inode of the target; `old` is then the parent's inode of the same number, if any.
    /// Records that are easily seen to be unchanged and of no interest are skipped.
    pub(super) fn next(
        &mut self,
        is_of_interest: impl Fn(&Glance) -> bool,
    ) -> Result<Option<Inode>, Error> {
        if let (None, Some(parent), true) = (&self.old, &mut self.parent, self.skips_same) {
            skip_same(parent, &mut self.target, is_of_interest)?;
        }
        let Some(inode) = self.target.next_inode()? else {
            return Ok(None);
        };
        while self.old.as_ref().is_none_or(|old| old.ino < inode.ino) {
            self.old = next(&mut self.parent)?;
            if self.old.is_none() {
                break;
            }
        }
        Ok(Some(inode))
    }

    /// Takes the parent's inode of the same number.
    pub(super) fn before(&mut self, inode: &Inode) -> Option<Inode> {
        self.old.take_if(|old| old.ino == inode.ino)
    }
}

fn next(parent: &mut Option<FileReader<'_>>) -> Result<Option<Inode>, Error> {
    match parent {
        Some(reader) => Ok(reader.next_inode()?),
        None => Ok(None),
    }
}
