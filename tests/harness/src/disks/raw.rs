//! Direct kernel calls on subvolumes and files, without the additional steps that tools take.

use std::path::Path;

use crate::hosts::command::tool;

/// Flags of a read-only subvolume.
pub const READ_ONLY: u64 = 2;
/// Flags of a writable subvolume.
pub const WRITABLE: u64 = 0;

/// Sets the flags of a subvolume without the additional steps of `btrfs property set`.
///
/// # Panics
/// If the kernel refuses.
#[track_caller]
pub fn set_flags(path: &Path, flags: u64) {
    // BTRFS_IOC_SUBVOL_SETFLAGS
    let program = "import fcntl, os, struct, sys\n\
        fd = os.open(sys.argv[1], os.O_RDONLY)\n\
        fcntl.ioctl(fd, 0x4008941a, struct.pack('<Q', int(sys.argv[2])))";
    let flags = flags.to_string();
    tool("python3", &["-c", program, path.to_str().unwrap(), &flags]);
}

/// Makes a file, also one in a read-only subvolume, share its data with another, as duperemove does.
///
/// # Panics
/// If the contents differ, or the kernel refuses.
#[track_caller]
pub fn dedupe(from: &Path, to: &Path) {
    // FIDEDUPERANGE: one destination, all of the file.
    let program = "import fcntl, os, struct, sys\n\
        a, b = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDONLY)\n\
        size = os.fstat(a).st_size // 4096 * 4096\n\
        head = struct.pack('<QQHHI', 0, size, 1, 0, 0)\n\
        arg = bytearray(head + struct.pack('<qQQiI', b, 0, 0, 0, 0))\n\
        fcntl.ioctl(a, 0xc0189436, arg)\n\
        done = struct.unpack('<Q', arg[40:48])[0]\n\
        assert done > 0, arg.hex()";
    tool(
        "python3",
        &[
            "-c".as_ref(),
            program.as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ],
    );
}
