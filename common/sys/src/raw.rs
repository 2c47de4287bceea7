//! The ioctls themselves: the only module of the project with `unsafe`.
//!
//! Arguments are fixed-size byte blocks filled at the offsets of the uapi headers, so no generated bindings
//! and no libclang are needed. Every wrapper is safe to call: the block has exactly the size that the opcode
//! encodes (checked at compile time), and pointers passed to the kernel outlive the call.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::ioctl::{self, Opcode};

/// A zeroed, 8-byte aligned argument block of `N` bytes.
#[repr(C, align(8))]
pub(crate) struct Args<const N: usize>([u8; N]);

impl<const N: usize> Args<N> {
    pub(crate) fn new() -> Self {
        Self([0; N])
    }

    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put_u64(&mut self, offset: usize, value: u64) {
        self.put(offset, &value.to_ne_bytes());
    }

    pub(crate) fn put_u32(&mut self, offset: usize, value: u32) {
        self.put(offset, &value.to_ne_bytes());
    }

    pub(crate) fn bytes<const L: usize>(&self, offset: usize) -> [u8; L] {
        let mut out = [0; L];
        out.copy_from_slice(&self.0[offset..offset + L]);
        out
    }

    pub(crate) fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(offset))
    }

    pub(crate) fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(offset))
    }

    /// Returns the NUL-terminated string that starts at `offset` and ends before `end`.
    pub(crate) fn c_str(&self, offset: usize, end: usize) -> &[u8] {
        let field = &self.0[offset..end];
        let len = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        &field[..len]
    }
}

/// Returns the size in bytes that an ioctl number encodes (bits 16 to 29).
const fn encoded_size(opcode: Opcode) -> usize {
    ((opcode >> 16) & 0x3fff) as usize
}

/// Calls an ioctl with a block that contains only values, or pointers that the caller keeps alive.
fn call<const OP: Opcode, const N: usize>(fd: impl AsFd, args: &mut Args<N>) -> io::Result<()> {
    const { assert!(encoded_size(OP) == N) };
    // SAFETY: the block is writable, aligned and exactly as large as the opcode encodes.
    let updater = unsafe { ioctl::Updater::<OP, Args<N>>::new(args) };
    // SAFETY: the callers below pass opcodes with blocks that contain no pointers, or pointers that they keep
    // alive during this call.
    unsafe { ioctl::ioctl(fd, updater) }?;
    Ok(())
}

macro_rules! plain_ioctls {
    ($($(#[$doc:meta])* $name:ident = $op:literal, $size:literal;)*) => {
        $($(#[$doc])* pub(crate) fn $name(fd: impl AsFd, args: &mut Args<$size>) -> io::Result<()> {
            call::<$op, $size>(fd, args)
        })*
    };
}

plain_ioctls! {
    /// BTRFS_IOC_SUBVOL_CREATE_V2
    subvol_create = 0x5000_9418, 4096;
    /// BTRFS_IOC_SNAP_DESTROY_V2
    snap_destroy = 0x5000_943f, 4096;
    /// BTRFS_IOC_GET_SUBVOL_INFO
    get_subvol_info = 0x81f8_943c, 504;
    /// BTRFS_IOC_SET_RECEIVED_SUBVOL
    set_received = 0xc0c8_9425, 200;
    /// BTRFS_IOC_INO_LOOKUP
    ino_lookup = 0xd000_9412, 4096;
    /// BTRFS_IOC_FS_INFO
    fs_info = 0x8400_941f, 1024;
    /// BTRFS_IOC_GET_FEATURES
    get_features = 0x8018_9439, 24;
    /// BTRFS_IOC_DEV_INFO
    dev_info = 0xd000_941e, 4096;
    /// BTRFS_IOC_START_SYNC
    start_sync = 0x8008_9418, 8;
    /// BTRFS_IOC_WAIT_SYNC
    wait_sync = 0x4008_9416, 8;
    /// BTRFS_IOC_SUBVOL_SETFLAGS
    set_flags = 0x4008_941a, 8;
    /// FS_IOC_GETFLAGS (declared as long, but the kernel reads and writes an int)
    get_inode_flags = 0x8008_6601, 8;
    /// FS_IOC_SETFLAGS (declared as long, but the kernel reads an int)
    set_inode_flags = 0x4008_6602, 8;
    /// FS_IOC_FSGETXATTR
    get_attributes = 0x801c_581f, 28;
    /// FS_IOC_FSSETXATTR
    set_attributes = 0x401c_5820, 28;
}

/// BTRFS_IOC_SYNC: commits the running transaction and wakes the cleaner.
pub(crate) fn sync(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: this opcode takes no argument.
    unsafe { ioctl::ioctl(fd, ioctl::NoArg::<0x9408>::new()) }?;
    Ok(())
}

/// BTRFS_IOC_SNAP_CREATE_V2: snapshot of `source` as described by `args`; the fd field is filled in here.
pub(crate) fn snap_create(
    dir: impl AsFd,
    source: BorrowedFd<'_>,
    args: &mut Args<4096>,
) -> io::Result<()> {
    args.put(0, &i64::from(source.as_raw_fd()).to_ne_bytes());
    call::<0x5000_9417, 4096>(dir, args)
}

/// BTRFS_IOC_CLONE_RANGE from `source` into `dest`.
pub(crate) fn clone_range(
    dest: impl AsFd,
    source: BorrowedFd<'_>,
    source_offset: u64,
    length: u64,
    dest_offset: u64,
) -> io::Result<()> {
    let mut args = Args::<32>::new();
    args.put(0, &i64::from(source.as_raw_fd()).to_ne_bytes());
    args.put_u64(8, source_offset);
    args.put_u64(16, length);
    args.put_u64(24, dest_offset);
    call::<0x4020_940d, 32>(dest, &mut args)
}

/// BTRFS_IOC_SEND into `out`.
pub(crate) fn send(
    subvolume: impl AsFd,
    out: BorrowedFd<'_>,
    clone_sources: &[u64],
    args: &mut Args<72>,
) -> io::Result<()> {
    args.put(0, &i64::from(out.as_raw_fd()).to_ne_bytes());
    args.put_u64(8, clone_sources.len() as u64);
    if !clone_sources.is_empty() {
        args.put_u64(16, clone_sources.as_ptr() as u64);
    }
    call::<0x4048_9426, 72>(subvolume, args)
}

#[repr(C)]
struct Iovec {
    base: *mut u8,
    len: usize,
}

/// BTRFS_IOC_ENCODED_WRITE of `data`; the iovec fields are filled in here.
pub(crate) fn encoded_write(fd: impl AsFd, data: &[u8], args: &mut Args<128>) -> io::Result<()> {
    let iovec = Iovec {
        base: data.as_ptr().cast_mut(),
        len: data.len(),
    };
    args.put_u64(0, std::ptr::from_ref(&iovec) as u64);
    args.put_u64(8, 1);
    // `iovec` and `data` live until the call returns; the kernel only reads them.
    call::<0x4080_9440, 128>(fd, args)
}

/// Length in bytes of `struct btrfs_ioctl_search_args_v2` before its buffer.
pub(crate) const SEARCH_HEAD: usize = 112;

/// BTRFS_IOC_TREE_SEARCH_V2: `block` is the head followed by the result buffer, whose size is filled in here.
pub(crate) fn tree_search(fd: impl AsFd, block: &mut [u8]) -> io::Result<()> {
    let Some(room) = block.len().checked_sub(SEARCH_HEAD) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    block[SEARCH_HEAD - 8..SEARCH_HEAD].copy_from_slice(&(room as u64).to_ne_bytes());
    let head = block.as_mut_ptr().cast::<[u8; SEARCH_HEAD]>();
    // SAFETY: `head` points to the whole of `block`; the kernel writes the head and at most `buf_size` bytes
    // after it, and that field was just set to the size of the rest of `block`.
    let updater = unsafe { ioctl::Updater::<0xc070_9411, [u8; SEARCH_HEAD]>::new(&mut *head) };
    // SAFETY: as above; `block` stays borrowed until the call returns.
    unsafe { ioctl::ioctl(fd, updater) }?;
    Ok(())
}

/// An ioctl whose return value is a count.
struct Counting<'a, const OP: Opcode, const N: usize>(&'a mut Args<N>);

// SAFETY: the block is writable and exactly as large as the opcode encodes (checked in `count`).
unsafe impl<const OP: Opcode, const N: usize> ioctl::Ioctl for Counting<'_, OP, N> {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        OP
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(
        out: ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<usize> {
        usize::try_from(out).map_err(|_| rustix::io::Errno::INVAL)
    }
}

/// BTRFS_IOC_ENCODED_READ into `buffer`; the iovec fields are filled in here.
pub(crate) fn encoded_read(
    fd: impl AsFd,
    buffer: &mut [u8],
    args: &mut Args<128>,
) -> io::Result<usize> {
    const OP: Opcode = 0x8080_9440;
    const { assert!(encoded_size(OP) == 128) };
    let iovec = Iovec {
        base: buffer.as_mut_ptr(),
        len: buffer.len(),
    };
    args.put_u64(0, std::ptr::from_ref(&iovec) as u64);
    args.put_u64(8, 1);
    // SAFETY: `iovec` and `buffer` live until the call returns, and the kernel writes at most as many bytes
    // into the buffer as the iovec declares.
    let len = unsafe { ioctl::ioctl(fd, Counting::<OP, 128>(args)) }?;
    Ok(len.min(buffer.len()))
}

/// Whether the kernel says that a program keeps its clock synchronised (`STA_UNSYNC` is not set).
pub(crate) fn is_clock_synchronised() -> bool {
    // SAFETY: an all-zero `timex` is valid, and with `modes` 0 the call only fills it.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

/// Starts to write a range of a file to disk (`sync_file_range`), and does not wait for it.
pub(crate) fn start_write_back(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(offset).map_err(invalid)?;
    let len = i64::try_from(len).map_err(invalid)?;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the call takes numbers only, and `fd` is open until it returns.
    let done = unsafe { libc::sync_file_range(fd, offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
