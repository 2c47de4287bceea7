//! Blocks of files without checksums: what is unchanged because its hash is.
//!
//! The rule cannot vouch for such data once its leaf was written anew. If M has hashes of what it
//! sent and N has hashes of what it holds, equal ones decide. This module looks them up, says
//! which are missing ([`Step::Check`]), and which the next push will want ([`Step::Hash`]).

use super::out::Out;
use super::pair::Pair;
use super::step::{Error, Sink, Step};
use crate::format::entry::Inode;
use crate::format::hashes::{BLOCK, Cursor, Hash};

/// Hashes of both sides, read in the order of inodes.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    m: Option<Cursor>,
    n: Option<Cursor>,
    /// M's once more, for what is carried over: that happens later than the comparison.
    carried: Option<Cursor>,
    /// The block that was asked for last.
    asked: Option<(u64, u64)>,
    block: Option<Block>,
    /// Size in M of the file at hand, 0 if it is new.
    old_size: u64,
}

/// A block of the file at hand, as far as it has come.
#[derive(Debug, Clone, Copy)]
struct Block {
    number: u64,
    /// Bytes of it that are M's.
    kept: u64,
    was_sent: bool,
}

fn blocks(from: u64, to: u64) -> std::ops::Range<u64> {
    from / BLOCK..to.div_ceil(BLOCK)
}

/// Bytes of a block in a file of this size.
fn len(block: u64, size: u64) -> u64 {
    size.saturating_sub(block * BLOCK).min(BLOCK)
}

impl Blocks {
    pub(super) fn new(pair: &Pair<'_>) -> Result<Self, Error> {
        let m = pair.m.and_then(|m| m.hashes());
        let n = pair.n.hashes();
        Ok(Self {
            m: m.map(|hashes| hashes.cursor()).transpose()?,
            n: n.map(|hashes| hashes.cursor()).transpose()?,
            carried: m.map(|hashes| hashes.cursor()).transpose()?,
            ..Self::default()
        })
    }

    /// Begins a file; `before` is the same file in M.
    pub(super) fn begin(&mut self, before: Option<&Inode>) {
        self.block = None;
        self.old_size = before.map_or(0, |before| before.item.size);
    }

    /// Adds those parts of a range to `same` whose hashes are equal, and asks for those of N that
    /// are missing.
    pub(super) fn same<S: Sink>(
        &mut self,
        inode: &Inode,
        (from, to): (u64, u64),
        same: &mut Vec<(u64, u64)>,
        out: &mut Out<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let Some(m) = &mut self.m else {
            return Ok(());
        };
        for block in blocks(from, to) {
            let Some(old) = m.find(inode.ino, block).map_err(Error::from)? else {
                continue;
            };
            let new = match &mut self.n {
                Some(n) => n.find(inode.ino, block).map_err(Error::from)?,
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

    /// A range that is in M as well.
    pub(super) fn kept<S: Sink>(
        &mut self,
        inode: &Inode,
        (from, to): (u64, u64),
        out: &mut Out<'_, '_, S>,
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

    /// A range that is sent.
    pub(super) fn sent<S: Sink>(
        &mut self,
        inode: &Inode,
        (from, to): (u64, u64),
        out: &mut Out<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if !inode.item.is_nodatasum() || inode.item.swap {
            return Ok(());
        }
        for number in blocks(from, to) {
            self.at(inode, number, out)?.was_sent = true;
        }
        Ok(())
    }

    /// The block with this number; the one before is done with.
    fn at<S: Sink>(
        &mut self,
        inode: &Inode,
        number: u64,
        out: &mut Out<'_, '_, S>,
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

    /// Says what is known of the block at hand.
    pub(super) fn end<S: Sink>(
        &mut self,
        inode: &Inode,
        out: &mut Out<'_, '_, S>,
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

    /// A file that is the same in both.
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
