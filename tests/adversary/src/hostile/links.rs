//! Symbolic links in paths, also links that replace a directory or file during the transfer, and data for
//! inodes that are not regular files.

use sendshot_stream::Command;

use crate::hostile::trick::{
    Trick, World, chmod, clone, device, encoded, fallocate, link, mkdir, mkfile, rename, symlink,
    truncate, utimes, write, xattr,
};

/// A link to the directory on the same file system, and a command that goes through it.
fn through(w: &World, command: Command<'_>) -> Vec<u8> {
    w.whole(&[mkfile(b"mine"), symlink(b"way", &w.inside("")), command])
}

/// A link to the file on another file system, and a command on the link.
fn at(w: &World, command: Command<'_>) -> Vec<u8> {
    w.whole(&[
        mkfile(b"mine"),
        symlink(b"link", &w.outside("victim")),
        command,
    ])
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::refused("mkfile through a symlink", |w| {
        through(w, mkfile(b"way/new"))
    }),
    Trick::refused("mkdir through a symlink", |w| through(w, mkdir(b"way/new"))),
    Trick::refused("write through a symlink", |w| {
        through(w, write(b"way/victim"))
    }),
    Trick::refused("unlink through a symlink", |w| {
        through(
            w,
            Command::Unlink {
                path: b"way/victim",
            },
        )
    }),
    Trick::refused("rmdir through a symlink", |w| {
        through(w, Command::Rmdir { path: b"way/dir" })
    }),
    Trick::refused("rmdir of a symlink to a directory", |w| {
        through(w, Command::Rmdir { path: b"way" })
    }),
    Trick::refused("chmod through a symlink", |w| {
        through(w, chmod(b"way/victim", 0o4777))
    }),
    Trick::refused("utimes through a symlink", |w| {
        through(w, utimes(b"way/victim", 1))
    }),
    Trick::refused("xattr through a symlink", |w| {
        through(w, xattr(b"way/victim", b"user.x", b"x"))
    }),
    Trick::refused("rename out through a symlink", |w| {
        through(w, rename(b"mine", b"way/victim"))
    }),
    Trick::refused("rename in through a symlink", |w| {
        through(w, rename(b"way/victim", b"stolen"))
    }),
    Trick::refused("hard link in through a symlink", |w| {
        through(w, link(b"stolen", b"way/victim"))
    }),
    Trick::refused("hard link out through a symlink", |w| {
        through(w, link(b"way/new", b"mine"))
    }),
    Trick::refused("clone from behind a symlink", |w| {
        through(w, clone(w.uuid, w.ctransid, b"way/victim"))
    }),
    Trick::refused("write through a symlink up", |w| {
        w.whole(&[symlink(b"up", b"../.."), mkfile(b"up/new")])
    }),
    Trick::refused("write through a symlink to .", |w| {
        w.whole(&[mkfile(b"f"), symlink(b"here", b"."), write(b"here/f")])
    }),
    Trick::refused("write through /proc/self/root", |w| {
        let path = [b"proc", &w.outside("victim")[..]].concat();
        w.whole(&[symlink(b"proc", b"/proc/self/root"), write(&path)])
    }),
    Trick::refused("write through /proc/self/cwd", |w| {
        w.whole(&[symlink(b"cwd", b"/proc/self/cwd"), mkfile(b"cwd/new")])
    }),
    Trick::refused("write through a chain of symlinks", |w| {
        let way = w.inside("");
        w.whole(&[
            symlink(b"a", b"b"),
            symlink(b"b", b"c"),
            symlink(b"c", &way),
            write(b"a/victim"),
        ])
    }),
    Trick::refused("write through a loop of symlinks", |w| {
        w.whole(&[symlink(b"a", b"b"), symlink(b"b", b"a"), write(b"a/x")])
    }),
    Trick::refused("write to a symlink", |w| at(w, write(b"link"))),
    Trick::refused("encoded write to a symlink", |w| at(w, encoded(b"link"))),
    Trick::refused("truncate of a symlink", |w| at(w, truncate(b"link", 0))),
    Trick::refused("hole punched in a symlink", |w| {
        at(w, fallocate(b"link", 3, 0, 4096))
    }),
    Trick::refused("chmod of a symlink", |w| at(w, chmod(b"link", 0o777))),
    Trick::refused("clone from a symlink", |w| {
        at(w, clone(w.uuid, w.ctransid, b"link"))
    }),
    Trick::refused("user xattr of a symlink", |w| {
        at(w, xattr(b"link", b"user.x", b"x"))
    }),
    Trick::refused("mkfile over a symlink", |w| at(w, mkfile(b"link"))),
    Trick::refused("directory swapped for a symlink between two writes", |w| {
        w.whole(&[
            mkdir(b"d"),
            mkfile(b"d/victim"),
            write(b"d/victim"),
            rename(b"d", b"e"),
            symlink(b"d", &w.inside("")),
            write(b"d/victim"),
        ])
    }),
    Trick::refused("directory swapped by renames onto its place", |w| {
        w.whole(&[
            mkdir(b"d"),
            mkfile(b"d/victim"),
            symlink(b"l", &w.inside("")),
            write(b"d/victim"),
            rename(b"d", b"o"),
            rename(b"l", b"d"),
            Command::Unlink { path: b"d/victim" },
        ])
    }),
    Trick::refused("directory above swapped for a symlink", |w| {
        w.whole(&[
            mkdir(b"a"),
            mkdir(b"a/dir"),
            mkfile(b"a/dir/f"),
            rename(b"a", b"z"),
            symlink(b"a", &w.inside("")),
            mkfile(b"a/dir/new"),
        ])
    }),
    Trick::refused("file that is open swapped for a symlink", |w| {
        w.whole(&[
            mkfile(b"f"),
            write(b"f"),
            Command::Unlink { path: b"f" },
            symlink(b"f", &w.outside("victim")),
            write(b"f"),
        ])
    }),
    Trick::refused("file swapped for a symlink by a rename over it", |w| {
        w.whole(&[
            mkfile(b"f"),
            symlink(b"l", &w.outside("victim")),
            write(b"f"),
            rename(b"l", b"f"),
            truncate(b"f", 0),
        ])
    }),
    Trick::refused("directory swapped while clones come from it", |w| {
        w.whole(&[
            mkfile(b"mine"),
            mkdir(b"d"),
            mkfile(b"d/victim"),
            truncate(b"d/victim", 4096),
            clone(w.uuid, w.ctransid, b"d/victim"),
            rename(b"d", b"e"),
            symlink(b"d", &w.inside("")),
            clone(w.uuid, w.ctransid, b"d/victim"),
        ])
    }),
    Trick::refused("hard link to a symlink, written to", |w| {
        w.whole(&[
            symlink(b"l", &w.outside("victim")),
            link(b"m", b"l"),
            write(b"m"),
        ])
    }),
    Trick::refused("symlink to nothing", |w| w.whole(&[symlink(b"l", b"")])),
    Trick::refused("symlink of 5000 bytes", |w| {
        w.whole(&[symlink(b"l", &[b'x'; 5000])])
    }),
    Trick::refused("symlink with a NUL", |w| {
        w.whole(&[symlink(b"l", b"/etc\0/x")])
    }),
    Trick::refused("write to a device", |w| {
        w.whole(&[device(b"node"), write(b"node")])
    }),
    Trick::refused("write to a block device", |w| {
        let node = Command::Mknod {
            path: b"node",
            mode: 0o60666,
            rdev: 0x07f7,
        };
        w.whole(&[node, write(b"node")])
    }),
    Trick::refused("file that is open swapped for a device", |w| {
        w.whole(&[
            mkfile(b"f"),
            write(b"f"),
            device(b"node"),
            rename(b"node", b"f"),
            write(b"f"),
        ])
    }),
    Trick::refused("encoded write to a device", |w| {
        w.whole(&[device(b"node"), encoded(b"node")])
    }),
    Trick::refused("truncate of a device", |w| {
        w.whole(&[device(b"node"), truncate(b"node", 0)])
    }),
    Trick::refused("fallocate of a device", |w| {
        w.whole(&[device(b"node"), fallocate(b"node", 0, 0, 4096)])
    }),
    Trick::refused("clone from a device", |w| {
        w.whole(&[
            mkfile(b"mine"),
            device(b"node"),
            clone(w.uuid, w.ctransid, b"node"),
        ])
    }),
    Trick::refused("write to a fifo without a reader", |w| {
        w.whole(&[Command::Mkfifo { path: b"node" }, write(b"node")])
    }),
    Trick::refused("clone from a fifo without a writer", |w| {
        w.whole(&[
            mkfile(b"mine"),
            Command::Mkfifo { path: b"node" },
            clone(w.uuid, w.ctransid, b"node"),
        ])
    }),
    Trick::refused("write to a socket", |w| {
        w.whole(&[Command::Mksock { path: b"node" }, write(b"node")])
    }),
    Trick::refused("write to a directory", |w| {
        w.whole(&[mkdir(b"d"), write(b"d")])
    }),
    Trick::refused("write to the root", |w| w.whole(&[write(b"")])),
    Trick::refused("truncate of a directory", |w| {
        w.whole(&[mkdir(b"d"), truncate(b"d", 0)])
    }),
    Trick::refused("fallocate of the root", |w| {
        w.whole(&[fallocate(b"", 0, 0, 4096)])
    }),
];
