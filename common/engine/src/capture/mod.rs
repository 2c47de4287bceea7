//! Capture: reads a snapshot's metadata by tree search, in one pass over its items.
//!
//! The items of an inode are adjacent in the tree and in the order of the file format, so memory holds only
//! one item at a time. For every extent, the extent tree is queried for the generation of the extent's own
//! item: [`mod@crate::diff::rule`] explains its use.

mod extent_items;
mod frozen;
pub mod recapture;
pub mod save;
pub mod snapshot;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sendshot_sys::filesystem;
use sendshot_sys::search::{self, Item, Key, Range, Search};
use sendshot_sys::subvolume::{self, Info};

use crate::capture::extent_items::ExtentItems;
pub use crate::capture::frozen::Frozen;
use crate::format::entry::{
    Entry, Extent, ExtentKind, Head, InodeItem, Name, ROOT, SYMLINK, Time, WireNumber, Xattr,
};
use crate::format::layout::Counts;
use crate::format::writer::Writer;

/// Last inode number of a file; higher numbers are the tree's own objects.
pub(crate) const LAST_INODE: u64 = u64::MAX - 256;

/// Type of a FILE_EXTENT item that contains its data (BTRFS_FILE_EXTENT_INLINE).
const INLINE: u8 = 0;

/// Signature at the end of the first page of a swap area.
const SWAP_SIGNATURE: &[u8; 10] = b"SWAPSPACE2";
/// Offset of the signature with 4 KiB pages; machines with larger pages have it later.
const SWAP_OFFSET: u64 = 4086;

/// Reason why a snapshot was not captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be read, or the sendshot cannot be written.
    #[error("cannot capture the snapshot's metadata")]
    Io(#[from] io::Error),
    /// The snapshot no longer exists.
    #[error("the snapshot was deleted while it was being sent")]
    Deleted,
    /// The items of a file do not cover its size, on a file system without `no-holes`, where they must.
    #[error(
        "{} has no data from byte {offset} on, and is {size} bytes long: not all of the file is in the \
         file system's tree",
        sendshot_stream::dump::escaped(path)
    )]
    Incomplete {
        /// Path of the file in the snapshot.
        path: Vec<u8>,
        /// Offset of the first byte without an item.
        offset: u64,
        /// Size of the file in bytes.
        size: u64,
    },
}

impl Error {
    /// Returns [`Error::Deleted`] if the snapshot is deleted, because any error then follows from that;
    /// otherwise the error itself.
    pub(crate) fn or_deleted(self, snapshot: impl AsFd) -> Self {
        match subvolume::is_deleted(snapshot) {
            Ok(true) => Self::Deleted,
            Ok(false) | Err(_) => self,
        }
    }
}

/// Describes a read-only snapshot as the head of its sendshot. The caller chooses the `number` on the wire.
///
/// # Errors
/// I/O errors from the kernel.
pub fn head(snapshot: impl AsFd, info: &Info, number: WireNumber) -> io::Result<Head> {
    Ok(Head {
        wire_uuid: match number {
            WireNumber::Local | WireNumber::Origin => info.wire_uuid(),
            WireNumber::Restored { uuid, .. } => uuid,
        },
        wire_ctransid: match number {
            WireNumber::Local => info.ctransid,
            WireNumber::Origin => info.wire_ctransid(),
            WireNumber::Restored { ctransid, .. } => ctransid,
        },
        fsid: filesystem::fsid(&snapshot)?,
        uuid: info.uuid,
        parent_uuid: info.parent_uuid,
        ctransid: info.ctransid,
        otransid: info.otransid,
        generation: info.generation,
        taken_at: info.otime,
    })
}

/// Writes the sendshot of a read-only snapshot to `out`.
///
/// Time and file size grow with the metadata, memory does not. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// See [`Error`]: I/O errors of the snapshot or the writer, and `InvalidData` for invalid items.
pub fn capture<W: Write>(
    snapshot: Frozen<'_>,
    number: WireNumber,
    out: W,
) -> Result<(W, Head, Counts), Error> {
    capture_existing(snapshot, number, out).map_err(|e| e.or_deleted(snapshot))
}

fn capture_existing<W: Write>(
    snapshot: Frozen<'_>,
    number: WireNumber,
    out: W,
) -> Result<(W, Head, Counts), Error> {
    let info = subvolume::info(snapshot)?;
    let head = head(snapshot, &info, number)?;
    let mut scan = Scan::new(snapshot.as_fd(), Writer::new(out, &head)?)?;
    scan.inodes(&mut Search::new(), ROOT, LAST_INODE)?;
    let (out, counts) = scan.finish()?;
    Ok((out, head, counts))
}

/// How far the items of the current file cover it, on a file system without `no-holes`: there the kernel and
/// `btrfs check` require an item for every block up to the end of the file.
#[derive(Debug, Default)]
struct Coverage {
    ino: u64,
    size: u64,
    /// End of the range from the file's beginning in which every byte has an item.
    to: u64,
}

/// Reads items of a snapshot and writes them as entries.
pub(crate) struct Scan<'a, W: Write> {
    snapshot: BorrowedFd<'a>,
    pub(crate) writer: Writer<W>,
    /// The inode whose items are being read; `None` if it is left out.
    inode: Option<(u64, InodeItem)>,
    /// Its names and attributes. They are sorted before they are written, as the tree orders them by hashes.
    names: Vec<Name>,
    xattrs: Vec<Xattr>,
    extents: ExtentItems,
    /// Block size in bytes if the items of a file must cover its size.
    must_cover: Option<u64>,
    coverage: Coverage,
    /// The first file whose items do not cover its size.
    incomplete: Option<Coverage>,
}

impl<'a, W: Write> Scan<'a, W> {
    pub(crate) fn new(snapshot: BorrowedFd<'a>, writer: Writer<W>) -> io::Result<Self> {
        let must_cover = match filesystem::has_no_holes(snapshot)? {
            true => None,
            false => Some(u64::from(filesystem::sector_size(snapshot)?)),
        };
        Ok(Self {
            snapshot,
            writer,
            inode: None,
            names: Vec::new(),
            xattrs: Vec::new(),
            extents: ExtentItems::new(),
            must_cover,
            coverage: Coverage::default(),
            incomplete: None,
        })
    }

    /// Completes the sendshot.
    pub(crate) fn finish(self) -> Result<(W, Counts), Error> {
        if let Some(Coverage { ino, size, to }) = self.incomplete {
            let path = subvolume::path_of_inode(self.snapshot, ino)?;
            return Err(Error::Incomplete {
                path: path.unwrap_or_default().into_os_string().into_vec(),
                offset: to,
                size,
            });
        }
        Ok(self.writer.finish()?)
    }

    /// Reads the existing inodes from `first` to `last`, with the same `search` as all others.
    pub(crate) fn inodes(&mut self, search: &mut Search, first: u64, last: u64) -> io::Result<()> {
        let range = Range {
            tree: 0,
            min: Key {
                objectid: first,
                kind: 0,
                offset: 0,
            },
            max: Key {
                objectid: last,
                kind: u8::MAX,
                offset: u64::MAX,
            },
            min_transid: 0,
        };
        search.items(self.snapshot, range, |item| self.item(&item))?;
        self.end_coverage();
        self.write_names()
    }

    fn begin_coverage(&mut self, ino: u64, inode: &InodeItem) {
        let size = match inode.is_regular() {
            true => inode.size,
            false => 0,
        };
        self.coverage = Coverage { ino, size, to: 0 };
    }

    fn cover(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (Some(block), true) = (self.must_cover, offset <= self.coverage.to) else {
            return Ok(());
        };
        let end = offset.saturating_add(item_len(bytes)?);
        let end = end.checked_next_multiple_of(block).unwrap_or(u64::MAX);
        self.coverage.to = self.coverage.to.max(end);
        Ok(())
    }

    fn end_coverage(&mut self) {
        let covered = std::mem::take(&mut self.coverage);
        if self.must_cover.is_some() && covered.to < covered.size {
            self.incomplete.get_or_insert(covered);
        }
    }

    /// Writes the collected names and attributes of the inode; its link target and extents follow.
    fn write_names(&mut self) -> io::Result<()> {
        self.names.sort();
        self.xattrs.sort();
        for name in self.names.drain(..) {
            self.writer.entry(&Entry::Name(name))?;
        }
        for xattr in self.xattrs.drain(..) {
            self.writer.entry(&Entry::Xattr(xattr))?;
        }
        Ok(())
    }

    fn item(&mut self, item: &Item<'_>) -> io::Result<()> {
        if item.key.kind == search::INODE_ITEM {
            return self.begin(item);
        }
        let Some((ino, inode)) = &self.inode else {
            return Ok(());
        };
        if *ino != item.key.objectid {
            return Ok(());
        }
        match item.key.kind {
            search::INODE_REF => self.names(item),
            search::INODE_EXTREF => self.far_names(item),
            search::XATTR_ITEM => self.xattrs(item.data),
            search::EXTENT_DATA if inode.kind() == SYMLINK => self.target(item.data),
            search::EXTENT_DATA => self.extent(item),
            _ => Ok(()),
        }
    }

    /// Begins an inode. One without a name (deleted while open, or made by O_TMPFILE) is left out.
    fn begin(&mut self, item: &Item<'_>) -> io::Result<()> {
        self.write_names()?;
        self.end_coverage();
        self.inode = None;
        let data = Fields(item.data);
        if data.u32(40)? == 0 {
            return Ok(());
        }
        let ino = item.key.objectid;
        let mut inode = inode_item(&data)?;
        inode.swap = inode.is_nodatasum() && inode.is_regular() && self.is_swap(ino, &inode);
        self.begin_coverage(ino, &inode);
        self.writer.entry(&Entry::Inode(ino, inode.clone()))?;
        self.inode = Some((ino, inode));
        Ok(())
    }

    /// Whether a file looks like a swap file. A file that cannot be examined counts as one: it is then sent,
    /// and if it cannot be read either, the error names it.
    fn is_swap(&self, ino: u64, inode: &InodeItem) -> bool {
        let page = rustix::param::page_size() as u64;
        let offsets = [SWAP_OFFSET, page - SWAP_SIGNATURE.len() as u64];
        offsets.into_iter().any(|offset| {
            let is_long_enough = inode.size >= offset + SWAP_SIGNATURE.len() as u64;
            is_long_enough && self.has_signature(ino, offset).unwrap_or(true)
        })
    }

    fn has_signature(&self, ino: u64, offset: u64) -> io::Result<bool> {
        let Some(path) = subvolume::path_of_inode(self.snapshot, ino)? else {
            return Ok(true);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(self.snapshot, path, flags, Mode::empty(), beneath)?;
        let mut found = [0; SWAP_SIGNATURE.len()];
        let len = std::os::unix::fs::FileExt::read_at(&File::from(file), &mut found, offset)?;
        Ok(len < found.len() || found == *SWAP_SIGNATURE)
    }

    fn names(&mut self, item: &Item<'_>) -> io::Result<()> {
        let data = Fields(item.data);
        let mut at = 0;
        while at < item.data.len() {
            let len = usize::from(data.u16(at + 8)?);
            self.name(item.key.offset, data.bytes(at + 10, len)?)?;
            at += 10 + len;
        }
        Ok(())
    }

    fn far_names(&mut self, item: &Item<'_>) -> io::Result<()> {
        let data = Fields(item.data);
        let mut at = 0;
        while at < item.data.len() {
            let len = usize::from(data.u16(at + 16)?);
            self.name(data.u64(at)?, data.bytes(at + 18, len)?)?;
            at += 18 + len;
        }
        Ok(())
    }

    /// Collects a name. The root directory's reference to itself is not one.
    fn name(&mut self, parent: u64, name: &[u8]) -> io::Result<()> {
        if self.inode.as_ref().is_some_and(|(ino, _)| *ino == ROOT) {
            return Ok(());
        }
        let name = name.to_vec();
        self.names.push(Name { parent, name });
        Ok(())
    }

    /// Collects the attributes of an item, which has several if their names collide.
    fn xattrs(&mut self, bytes: &[u8]) -> io::Result<()> {
        let data = Fields(bytes);
        let mut at = 0;
        while at < bytes.len() {
            let value_len = usize::from(data.u16(at + 25)?);
            let name_len = usize::from(data.u16(at + 27)?);
            let name = data.bytes(at + 30, name_len)?.to_vec();
            let value = data.bytes(at + 30 + name_len, value_len)?.to_vec();
            self.xattrs.push(Xattr { name, value });
            at += 30 + name_len + value_len;
        }
        Ok(())
    }

    fn target(&mut self, bytes: &[u8]) -> io::Result<()> {
        let target = bytes.get(21..).ok_or_else(broken)?.to_vec();
        self.write_names()?;
        self.writer.entry(&Entry::Target(target))
    }

    fn extent(&mut self, item: &Item<'_>) -> io::Result<()> {
        self.cover(item.key.offset, item.data)?;
        let Some(mut extent) = extent(item.key.offset, item.data)? else {
            return Ok(());
        };
        self.write_names()?;
        if extent.kind == ExtentKind::Regular {
            let (bytenr, len) = (extent.disk_bytenr, extent.disk_len);
            let found = self.extents.find(self.snapshot, item.batch, bytenr, len)?;
            extent.extent_generation = found.generation;
            extent.is_shared = found.is_shared;
            let nodatasum = self
                .inode
                .as_ref()
                .is_some_and(|(_, inode)| inode.is_nodatasum());
            extent.leaf_generation = if nodatasum { item.transid } else { 0 };
        }
        self.writer.entry(&Entry::Extent(extent))
    }
}

fn inode_item(data: &Fields<'_>) -> io::Result<InodeItem> {
    Ok(InodeItem {
        generation: data.u64(0)?,
        transid: data.u64(8)?,
        size: data.u64(16)?,
        uid: data.u32(44)?,
        gid: data.u32(48)?,
        mode: data.u32(52)?,
        rdev: stream_device(data.u64(56)?),
        flags: data.u64(64)?,
        atime: data.time(112)?,
        mtime: data.time(136)?,
        swap: false,
    })
}

/// Converts the kernel's device number (12 bits major, 20 bits minor) to that of the stream.
fn stream_device(rdev: u64) -> u64 {
    let (major, minor) = ((rdev >> 20) & 0xfff, rdev & 0xf_ffff);
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Length in the file of a FILE_EXTENT item, in bytes: data, a reservation or a hole.
fn item_len(bytes: &[u8]) -> io::Result<u64> {
    let data = Fields(bytes);
    match data.u8(20)? {
        INLINE => data.u64(8),
        _ => data.u64(45),
    }
}

/// Parses a FILE_EXTENT item; `None` for an explicit hole.
fn extent(offset: u64, bytes: &[u8]) -> io::Result<Option<Extent>> {
    let data = Fields(bytes);
    let kind = match data.u8(20)? {
        INLINE => ExtentKind::Inline,
        1 => ExtentKind::Regular,
        2 => ExtentKind::Prealloc,
        _ => return Err(broken()),
    };
    let mut extent = Extent {
        offset,
        len: data.u64(8)?,
        kind,
        compression: data.u8(16)?,
        ram_bytes: data.u64(8)?,
        disk_bytenr: 0,
        disk_len: 0,
        disk_offset: 0,
        generation: data.u64(0)?,
        extent_generation: 0,
        leaf_generation: 0,
        is_shared: false,
    };
    if kind == ExtentKind::Inline {
        extent.disk_len = (bytes.len() - 21) as u64;
        return Ok(Some(extent));
    }
    extent.disk_bytenr = data.u64(21)?;
    extent.disk_len = data.u64(29)?;
    extent.disk_offset = data.u64(37)?;
    extent.len = data.u64(45)?;
    Ok((extent.disk_bytenr != 0).then_some(extent))
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "an item of the file system is invalid",
    )
}

/// Fields of an item, little endian.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&self, at: usize, len: usize) -> io::Result<&'a [u8]> {
        self.0.get(at..at + len).ok_or_else(broken)
    }

    fn array<const N: usize>(&self, at: usize) -> io::Result<[u8; N]> {
        self.bytes(at, N)?.try_into().map_err(|_| broken())
    }

    fn u8(&self, at: usize) -> io::Result<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    fn u16(&self, at: usize) -> io::Result<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> io::Result<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> io::Result<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn time(&self, at: usize) -> io::Result<Time> {
        Ok(Time {
            sec: self.u64(at)? as i64,
            nsec: self.u32(at + 8)?,
        })
    }
}
