//! The data of one file. Its extents in the target and in the parent are two sorted lists, walked side by side.
//!
//! | target has | parent has there | sent as |
//! |---|---|---|
//! | data | the same | nothing |
//! | data | anything else | a clone of the receiver's location, an encoded write, or a write |
//! | a reservation | data | a punched hole, then a reservation |
//! | a reservation | nothing | a reservation |
//! | nothing | data or a reservation | a punched hole |
//!
//! Version 1 of the stream has no reservations and no holes: zeros are written where the parent has data.

use sendshot_stream::Command;

use super::blocks::Blocks;
use super::clones::{CloneRange, Clones, Heads, Target};
use super::out::{StepWriter, Touched};
use super::pair::{FileReader, Pair};
use super::step::{Error, Reads, Sink, Step, Version};
use crate::format::entry::Inode;
use crate::format::entry::{Extent, ExtentKind};

/// FALLOC_FL_KEEP_SIZE reserves space without changing the size.
const RESERVE: u32 = 1;
/// FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE punch a hole.
const PUNCH: u32 = 3;

/// Page size: holes consist of whole pages.
const PAGE: u64 = 4096;

/// State shared by all files of the stream.
pub(super) struct Stream<'r, 'a> {
    pub(super) pair: &'r Pair<'a>,
    pub(super) clones: &'r mut Clones,
    pub(super) blocks: &'r mut Blocks,
}

/// Sends the data of `inode`, whose extents `target` yields next. `before` is the same file in the parent and the
/// reader that yields its extents next.
pub(super) fn emit<S: Sink>(
    stream: Stream<'_, '_>,
    before: Option<(&Inode, &mut FileReader<'_>)>,
    inode: &Inode,
    target: &mut FileReader<'_>,
    out: &mut StepWriter<'_, '_, S>,
) -> Result<Touched, S::Error> {
    let (before, parent) = before.unzip();
    let mut data = Data {
        stream,
        before,
        inode,
        written: 0,
        reserved_to: 0,
        touched: Touched::No,
        run: None,
        unchanged: Vec::new(),
    };
    let mut extents = Parent {
        reader: parent,
        held: None,
    };
    data.stream.blocks.begin(before);
    data.emit(&mut extents, target, out)?;
    Ok(data.touched)
}

/// The parent's extents; the current one is held.
struct Parent<'o, 'f> {
    reader: Option<&'o mut FileReader<'f>>,
    held: Option<Extent>,
}

impl Parent<'_, '_> {
    fn advance(&mut self) -> Result<(), Error> {
        self.held = match &mut self.reader {
            Some(reader) => reader.next_extent()?,
            None => None,
        };
        Ok(())
    }
}

/// Content of the target where it has no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    Hole,
    Reserved,
}

struct Data<'r, 'a> {
    stream: Stream<'r, 'a>,
    before: Option<&'r Inode>,
    inode: &'r Inode,
    /// Offset after the last byte written.
    written: u64,
    /// Offset after the last byte reserved in the target.
    reserved_to: u64,
    touched: Touched,
    run: Option<(u64, u64)>,
    /// Ranges of the current extent that the parent has as well. Kept to reuse its memory.
    unchanged: Vec<(u64, u64)>,
}

impl Data<'_, '_> {
    fn size(&self) -> u64 {
        self.inode.item.size
    }

    /// Size of the file in the parent; 0 for a new file.
    fn old_size(&self) -> u64 {
        self.before.map_or(0, |before| before.item.size)
    }

    fn version(&self) -> Version {
        self.stream.pair.version
    }

    fn emit<S: Sink>(
        &mut self,
        parent: &mut Parent<'_, '_>,
        target: &mut FileReader<'_>,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if self.size() < self.old_size() {
            self.truncate(out)?;
        }
        parent.advance()?;
        let mut at = 0;
        while let Some(extent) = target.next_extent().map_err(Error::from)? {
            let end = match extent.kind {
                ExtentKind::Prealloc => extent.end(),
                ExtentKind::Inline | ExtentKind::Regular => extent.end().min(self.size()),
            };
            if extent.offset >= end {
                continue;
            }
            self.gap(Gap::Hole, at, extent.offset, parent, out)?;
            match extent.kind {
                ExtentKind::Prealloc => {
                    self.gap(Gap::Reserved, extent.offset, end, parent, out)?;
                    self.reserved_to = end;
                }
                ExtentKind::Inline => self.write(extent.offset, end, out)?,
                ExtentKind::Regular => self.regular(&extent, end, parent, out)?,
            }
            // The rest of a file's last page belongs to no extent; that of a page with inline data at its
            // beginning reads as zeros.
            let page_end = extent.end().checked_next_multiple_of(PAGE);
            at = match end < self.size() {
                true => end,
                false => page_end.unwrap_or(u64::MAX),
            };
        }
        self.gap(Gap::Hole, at, self.size(), parent, out)?;
        self.flush(out)?;
        let grows = self.written < self.size() && self.size() > self.old_size();
        if grows || (self.reserved_to <= self.size() && self.is_reserved_beyond(parent)?) {
            self.truncate(out)?;
        }
        self.stream.blocks.end(self.inode, out)
    }

    fn truncate<S: Sink>(&mut self, out: &mut StepWriter<'_, '_, S>) -> Result<(), S::Error> {
        self.touched = Touched::Yes;
        let (path, size) = (out.path, self.size());
        out.command(Command::Truncate { path, size })
    }

    /// End of the parent's valid bytes: not beyond its size, whatever its last block holds there.
    fn old_end(&self, extent: &Extent) -> u64 {
        extent.end().min(self.old_size())
    }

    fn regular<S: Sink>(
        &mut self,
        extent: &Extent,
        end: u64,
        parent: &mut Parent<'_, '_>,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        self.compare(extent, end, parent, out)?;
        let unchanged = std::mem::take(&mut self.unchanged);
        let mut at = extent.offset;
        for (from, to) in &unchanged {
            self.send(extent, at, *from, out)?;
            self.flush(out)?;
            self.stream.blocks.kept(self.inode, (*from, *to), out)?;
            at = *to;
        }
        self.send(extent, at, end, out)?;
        self.unchanged = unchanged;
        self.stream.clones.sent(self.inode, extent);
        Ok(())
    }

    /// Finds the unchanged ranges of an extent.
    fn compare<S: Sink>(
        &mut self,
        extent: &Extent,
        end: u64,
        parent: &mut Parent<'_, '_>,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        self.unchanged.clear();
        let mut at = extent.offset;
        while let Some(old) = parent.held {
            let (from, to) = (old.offset.max(at), self.old_end(&old).min(end));
            if from < to
                && let Some(rule) = self.stream.pair.rule
            {
                if rule.is_same_data(&self.inode.item, &old, extent) {
                    self.unchanged.push((from, to));
                } else if rule.is_same_if_hashed(&self.inode.item, &old, extent) {
                    let blocks = &mut self.stream.blocks;
                    blocks.same(self.inode, (from, to), &mut self.unchanged, out)?;
                }
                at = to;
            }
            if old.end() > end {
                break; // it extends into the next extent
            }
            parent.advance()?;
        }
        Ok(())
    }

    /// Sends a range of an extent, cloning what can be cloned.
    fn send<S: Sink>(
        &mut self,
        extent: &Extent,
        from: u64,
        to: u64,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if from >= to {
            return Ok(());
        }
        let Some(found) = self.find(extent, from, to) else {
            return self.plain(extent, from, to, out);
        };
        self.plain(extent, from, found.from, out)?;
        self.flush(out)?;
        self.wrote(found.to);
        let command = found.command(out.path, &Heads::of(self.stream.pair));
        out.command(command)?;
        let range = (found.from, found.to);
        self.stream.blocks.sent(self.inode, range, out)?;
        self.send(extent, found.to, to, out)
    }

    fn find(&self, extent: &Extent, from: u64, to: u64) -> Option<CloneRange> {
        let pair = self.stream.pair;
        if self.stream.clones.is_idle() {
            return None;
        }
        let target = Target {
            ino: self.inode.ino,
            inode: &self.inode.item,
            rule: pair.rule,
            m_dirs: &pair.m_dirs,
            n_dirs: &pair.n_dirs,
        };
        self.stream.clones.find(&target, extent, from, to)
    }

    /// Sends a range as it is stored if it is the whole extent and shorter that way, otherwise its bytes.
    fn plain<S: Sink>(
        &mut self,
        extent: &Extent,
        from: u64,
        to: u64,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let whole = from == extent.offset && to == extent.end().min(self.size());
        let encoded = self.version() == Version::V2
            && extent.compression != 0
            && extent.disk_len <= to - from;
        if !(whole && encoded) {
            return self.write(from, to, out);
        }
        self.flush(out)?;
        self.wrote(to);
        out.sink.step(Step::Encoded {
            path: out.path,
            extent: *extent,
            len: to - from,
        })
    }

    /// Adds a range to a run of plain data; a range that does not follow the run ends it.
    fn write<S: Sink>(
        &mut self,
        offset: u64,
        end: u64,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if offset >= end {
            return Ok(());
        }
        self.wrote(end);
        match &mut self.run {
            Some((_, last)) if *last == offset => *last = end,
            _ => {
                self.flush(out)?;
                self.run = Some((offset, end));
            }
        }
        Ok(())
    }

    fn flush<S: Sink>(&mut self, out: &mut StepWriter<'_, '_, S>) -> Result<(), S::Error> {
        match self.run.take() {
            Some((offset, end)) => {
                out.data(offset, end - offset, Blocks::reads(self.inode))?;
                self.stream.blocks.sent(self.inode, (offset, end), out)
            }
            None => Ok(()),
        }
    }

    fn wrote(&mut self, end: u64) {
        self.touched = Touched::Yes;
        self.written = self.written.max(end);
    }

    /// Clears what the parent has in a range that reads as zeros.
    fn gap<S: Sink>(
        &mut self,
        gap: Gap,
        offset: u64,
        end: u64,
        parent: &mut Parent<'_, '_>,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if offset >= end {
            return Ok(());
        }
        let (holes, reserved) = self.parents_in(gap, offset, end, parent)?;
        for (from, to) in holes {
            self.flush(out)?;
            self.touched = Touched::Yes;
            self.clear(from, to, out)?;
        }
        if gap == Gap::Reserved && reserved < end - offset && self.version() == Version::V2 {
            self.flush(out)?;
            self.touched = Touched::Yes;
            let path = out.path;
            return out.command(Command::Fallocate {
                path,
                mode: RESERVE,
                offset,
                len: end - offset,
            });
        }
        Ok(())
    }

    /// Returns which parts of a range must be cleared, and how many bytes of it the parent has reserved.
    fn parents_in(
        &self,
        gap: Gap,
        offset: u64,
        end: u64,
        parent: &mut Parent<'_, '_>,
    ) -> Result<(Vec<(u64, u64)>, u64), Error> {
        let mut holes: Vec<(u64, u64)> = Vec::new();
        let (mut at, mut reserved) = (offset, 0);
        while let Some(old) = parent.held.filter(|old| old.offset < end) {
            let is_reserved = old.kind == ExtentKind::Prealloc;
            let old_end = match is_reserved {
                true => self.reserved_end(&old),
                false => self.old_end(&old).min(self.size()),
            };
            let (from, to) = (old.offset.max(at), old_end.min(end));
            if from < to {
                let kept = is_reserved && (gap == Gap::Reserved || self.version() == Version::V1);
                reserved += if is_reserved { to - from } else { 0 };
                match holes.last_mut() {
                    _ if kept => {}
                    Some((_, last)) if *last == from => *last = to,
                    _ => holes.push((from, to)),
                }
                at = to;
            }
            if old.end() > end {
                break;
            }
            parent.advance()?;
        }
        Ok((holes, reserved))
    }

    /// End of a reservation: shrinking a file removes what lies beyond its new end.
    fn reserved_end(&self, old: &Extent) -> u64 {
        if self.size() < self.old_size() {
            old.end().min(self.size())
        } else {
            old.end()
        }
    }

    /// Whether the parent has a reservation beyond the end that the target does not have.
    fn is_reserved_beyond(&self, parent: &mut Parent<'_, '_>) -> Result<bool, Error> {
        while let Some(old) = parent.held {
            let beyond = old.kind == ExtentKind::Prealloc && self.reserved_end(&old) > self.size();
            if beyond && self.version() == Version::V2 {
                return Ok(true);
            }
            parent.advance()?;
        }
        Ok(false)
    }

    /// Punches whole pages if the stream version can express it; otherwise sends the snapshot's zeros.
    fn clear<S: Sink>(
        &mut self,
        from: u64,
        to: u64,
        out: &mut StepWriter<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let page_end = to.checked_next_multiple_of(PAGE).unwrap_or(to);
        if self.version() == Version::V2 && from.is_multiple_of(PAGE) {
            let path = out.path;
            return out.command(Command::Fallocate {
                path,
                mode: PUNCH,
                offset: from,
                len: page_end - from,
            });
        }
        self.written = self.written.max(to);
        out.data(from, to - from, Reads::Once)
    }
}
