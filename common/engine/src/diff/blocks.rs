//! Blocks of files without checksums, which are unchanged if their hashes are equal.
//!
//! The rule cannot prove such data unchanged once its leaf was rewritten. Equal hashes prove it, of what the
//! parent sent and of what the target holds. This module looks them up and reports which are missing
//! ([`Step::Check`]) and which the next push will need ([`Step::Hash`]).

use super::out::StepWriter;
use super::pair::Pair;
use super::step::{Error, Reads, Sink, Step};
use crate::format::entry::Inode;
use crate::format::hashes::{BLOCK, Cursor, Hash};

/// Hashes of both sides, read in the order of inodes.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    parent: Option<Cursor>,
    target: Option<Cursor>,
    /// The parent's hashes again, for carrying over, which happens later than the comparison.
    carried: Option<Cursor>,
    /// The block of the last [`Step::Check`].
    asked: Option<(u64, u64)>,
    block: Option<Block>,
    /// Size of the current file in the parent, 0 if the file is new.
    old_size: u64,
}

/// Progress of a block of the current file.
#[derive(Debug, Clone, Copy)]
struct Block {
    number: u64,
    /// Number of its bytes that are the parent's.
    kept: u64,
    was_sent: bool,
}

fn blocks(from: u64, to: u64) -> std::ops::Range<u64> {
    from / BLOCK..to.div_ceil(BLOCK)
}

/// Length in bytes of a block in a file of this size.
fn len(block: u64, size: u64) -> u64 {
    size.saturating_sub(block * BLOCK).min(BLOCK)
}

impl Blocks {
    pub(super) fn new(pair: &Pair<'_>) -> Result<Self, Error> {
        let parent = pair.parent.and_then(|parent| parent.hashes());
        let target = pair.target.hashes();
        Ok(Self {
            parent: parent.map(|hashes| hashes.cursor()).transpose()?,
            target: target.map(|hashes| hashes.cursor()).transpose()?,
            carried: parent.map(|hashes| hashes.cursor()).transpose()?,
            ..Self::default()
        })
    }

    /// How often data of a file is read that is sent.
    pub(super) fn reads(inode: &Inode) -> Reads {
        match inode.item.is_nodatasum() && !inode.item.swap {
            true => Reads::Twice,
            false => Reads::Once,
        }
    }

    /// Begins a file; `before` is the same file in the parent.
    pub(super) fn begin(&mut self, before: Option<&Inode>) {
        self.block = None;
        self.old_size = before.map_or(0, |before| before.item.size);
    }

    /// Adds the parts of a range with equal hashes to `same`, and requests the missing hashes of the target.
    pub(super) fn same<S: Sink>(
        &mut self,
        inode: &Inode,
        (from, to): (u64, u64),
        same: &mut Vec<(u64, u64)>,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let Some(parent) = &mut self.parent else {
            return Ok(());
        };
        for block in blocks(from, to) {
            let Some(old) = parent.find(inode.ino, block).map_err(Error::from)? else {
                continue;
            };
            let new = match &mut self.target {
                Some(target) => target.find(inode.ino, block).map_err(Error::from)?,
                None => None,
            };
            if new == Some(old) {
                let start = from.max(block * BLOCK);
                let end = to.min((block + 1) * BLOCK);
                match same.last_mut() {
                    Some((_, last)) if *last == start => *last = end,
                    _ => same.push((start, end)),
                }
            } else if new.is_none() && self.asked != Some((inode.ino, block)) {
                self.asked = Some((inode.ino, block));
                out.sink.step(Step::Check {
                    ino: inode.ino,
                    path: out.path,
                    block,
                    len: len(block, inode.item.size),
                })?;
            }
        }
        Ok(())
    }

    /// Notes a range that the parent holds as well.
    pub(super) fn kept<S: Sink>(
        &mut self,
        inode: &Inode,
        (from, to): (u64, u64),
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if self.carried.is_none() || !inode.item.is_nodatasum() {
            return Ok(());
        }
        for number in blocks(from, to) {
            let part = to.min((number + 1) * BLOCK) - from.max(number * BLOCK);
            self.at(inode, number, out)?.kept += part;
        }
        Ok(())
    }

    /// Notes a range that is sent.
    pub(super) fn sent<S: Sink>(
        &mut self,
        inode: &Inode,
        (from, to): (u64, u64),
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if Self::reads(inode) == Reads::Once {
            return Ok(());
        }
        for number in blocks(from, to) {
            self.at(inode, number, out)?.was_sent = true;
        }
        Ok(())
    }

    /// Returns the block with this number, after ending the previous one.
    fn at<S: Sink>(
        &mut self,
        inode: &Inode,
        number: u64,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<&mut Block, S::Error> {
        if self.block.is_none_or(|block| block.number != number) {
            self.end(inode, out)?;
        }
        Ok(self.block.get_or_insert(Block {
            number,
            kept: 0,
            was_sent: false,
        }))
    }

    /// Reports what is known of the current block.
    pub(super) fn end<S: Sink>(
        &mut self,
        inode: &Inode,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        let size = inode.item.size;
        let len = len(block.number, size);
        let known = match block.was_sent {
            true => None,
            false if block.kept == len && len == self::len(block.number, self.old_size) => {
                match self.carry(inode.ino, block.number)? {
                    Some(hash) => Some(hash),
                    None => return Ok(()),
                }
            }
            false => return Ok(()),
        };
        out.sink.step(Step::Hash {
            ino: inode.ino,
            path: out.path,
            block: block.number,
            len,
            known,
        })
    }

    fn carry(&mut self, ino: u64, block: u64) -> Result<Option<Hash>, Error> {
        match &mut self.carried {
            Some(cursor) => Ok(cursor.find(ino, block)?),
            None => Ok(None),
        }
    }

    /// Carries over the hashes of a file that is the same in both.
    pub(super) fn unchanged<S: Sink>(
        &mut self,
        inode: &Inode,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let Some(cursor) = &mut self.carried else {
            return Ok(());
        };
        if !inode.item.is_nodatasum() {
            return Ok(());
        }
        let blocks = inode.item.size.div_ceil(BLOCK);
        while let Some((block, hash)) = cursor.next_of(inode.ino).map_err(Error::from)? {
            if block < blocks {
                sink.step(Step::Hash {
                    ino: inode.ino,
                    path: b"",
                    block,
                    len: len(block, inode.item.size),
                    known: Some(hash),
                })?;
            }
        }
        Ok(())
    }
}
