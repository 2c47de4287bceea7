//! Paths that lead out of the subvolume.

use sendshot_stream::Command;

use crate::hostile::frame;
use crate::hostile::trick::{
    Trick, World, chmod, clone, device, encode, encoded, fallocate, link, mkdir, mkfile, rename,
    symlink, truncate, utimes, write, xattr,
};

/// A stream with a subvolume of another name.
fn named(w: &World, path: &[u8]) -> Vec<u8> {
    let (uuid, ctransid) = (w.uuid, w.ctransid);
    let subvol = Command::Subvol {
        path,
        uuid,
        ctransid,
    };
    let commands = [
        encode(&subvol),
        encode(&mkfile(b"f")),
        encode(&Command::End),
    ];
    [frame::header(2), commands.concat()].concat()
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::refused("mkfile through ..", |w| w.whole(&[mkfile(&w.up("new"))])),
    Trick::refused("mkfile through .. on the same file system", |w| {
        w.whole(&[mkfile(&w.up_inside("new"))])
    }),
    Trick::refused("mkfile at an absolute path", |w| {
        w.whole(&[mkfile(&w.outside("new"))])
    }),
    Trick::refused("mkfile one level up", |w| w.whole(&[mkfile(b"../new")])),
    Trick::refused("mkfile that climbs in the middle", |w| {
        w.whole(&[mkdir(b"d"), mkfile(b"d/../../new")])
    }),
    Trick::refused("mkfile that climbs and comes back", |w| {
        w.whole(&[mkdir(b"d"), mkfile(b"d/../new")])
    }),
    Trick::refused("mkfile beginning with ./", |w| w.whole(&[mkfile(b"./new")])),
    Trick::refused("mkfile named ..", |w| w.whole(&[mkfile(b"..")])),
    Trick::refused("mkfile named .", |w| w.whole(&[mkfile(b".")])),
    Trick::refused("mkfile with an empty path", |w| w.whole(&[mkfile(b"")])),
    Trick::refused("mkfile with an empty component", |w| {
        w.whole(&[mkdir(b"d"), mkfile(b"d//new")])
    }),
    Trick::refused("mkfile with a slash at the end", |w| {
        w.whole(&[mkfile(b"new/")])
    }),
    Trick::refused("mkfile named /", |w| w.whole(&[mkfile(b"/")])),
    Trick::refused("mkfile with a NUL inside", |w| {
        w.whole(&[mkfile(b"new\0.txt")])
    }),
    Trick::refused("mkfile with a NUL before a climb", |w| {
        w.whole(&[mkfile(b"d\0/../../new")])
    }),
    Trick::refused("a refusal that would forge a line of the log", |w| {
        let path = b"x\n2026-11-26T00:00:00Z ERROR forged \x1b[2J\x07/../y";
        w.whole(&[mkfile(path)])
    }),
    Trick::refused(
        "a refusal that would forge a line by a symlink's name",
        |w| {
            let path = b"x\r\n2026-11-26T00:00:00Z  WARN forged\x1b]0;x\x07";
            w.whole(&[symlink(path, b"/"), write(path)])
        },
    ),
    Trick::refused("mkdir outside", |w| w.whole(&[mkdir(&w.up("new"))])),
    Trick::refused("mknod outside", |w| w.whole(&[device(&w.up("new"))])),
    Trick::refused("mkfifo outside", |w| {
        let path = w.up("new");
        w.whole(&[Command::Mkfifo { path: &path }])
    }),
    Trick::refused("mksock outside", |w| {
        let path = w.outside("new");
        w.whole(&[Command::Mksock { path: &path }])
    }),
    Trick::refused("symlink outside", |w| {
        w.whole(&[symlink(&w.up("new"), b"x")])
    }),
    Trick::refused("write outside", |w| w.whole(&[write(&w.up("victim"))])),
    Trick::refused("write at an absolute path on the same file system", |w| {
        w.whole(&[write(&w.inside("victim"))])
    }),
    Trick::refused("encoded write outside", |w| {
        w.whole(&[encoded(&w.up_inside("victim"))])
    }),
    Trick::refused("truncate outside", |w| {
        w.whole(&[truncate(&w.up("victim"), 0)])
    }),
    Trick::refused("hole punched outside", |w| {
        w.whole(&[fallocate(&w.up("victim"), 3, 0, 4096)])
    }),
    Trick::refused("unlink outside", |w| {
        let path = w.up("victim");
        w.whole(&[Command::Unlink { path: &path }])
    }),
    Trick::refused("rmdir outside", |w| {
        let path = w.up_inside("dir");
        w.whole(&[Command::Rmdir { path: &path }])
    }),
    Trick::refused("rename of something outside into the copy", |w| {
        w.whole(&[rename(&w.up_inside("victim"), b"stolen")])
    }),
    Trick::refused("rename of something inside out of it", |w| {
        w.whole(&[mkfile(b"f"), rename(b"f", &w.up_inside("victim"))])
    }),
    Trick::refused("rename over the staging directory's neighbour", |w| {
        w.whole(&[mkdir(b"d"), rename(b"d", b"../neighbour")])
    }),
    Trick::refused("rename of the root", |w| {
        w.whole(&[mkdir(b"d"), rename(b"", b"d/root")])
    }),
    Trick::refused("rename onto the root", |w| {
        w.whole(&[mkdir(b"d"), rename(b"d", b"")])
    }),
    Trick::refused("rmdir of the root", |w| {
        w.whole(&[Command::Rmdir { path: b"" }])
    }),
    Trick::refused("unlink of the root", |w| {
        w.whole(&[Command::Unlink { path: b"" }])
    }),
    Trick::refused("hard link to a file outside", |w| {
        w.whole(&[link(b"stolen", &w.up_inside("victim"))])
    }),
    Trick::refused("hard link to /etc/shadow", |w| {
        w.whole(&[link(b"stolen", b"/etc/shadow")])
    }),
    Trick::refused("hard link put outside", |w| {
        w.whole(&[mkfile(b"f"), link(&w.up_inside("new"), b"f")])
    }),
    Trick::refused("chmod outside", |w| {
        w.whole(&[chmod(&w.up("victim"), 0o4777)])
    }),
    Trick::refused("chmod of the parent directory", |w| {
        w.whole(&[chmod(b"..", 0o777)])
    }),
    Trick::refused("chown outside", |w| {
        let path = w.up("victim");
        w.whole(&[Command::Chown {
            path: &path,
            uid: 1000,
            gid: 1000,
        }])
    }),
    Trick::refused("utimes outside", |w| w.whole(&[utimes(&w.up("victim"), 1)])),
    Trick::refused("xattr outside", |w| {
        w.whole(&[xattr(&w.up_inside("victim"), b"user.x", b"x")])
    }),
    Trick::refused("xattr removed outside", |w| {
        let path = w.up_inside("victim");
        let name = b"user.canary";
        w.whole(&[Command::RemoveXattr { path: &path, name }])
    }),
    Trick::refused("inode flags set outside", |w| {
        let path = w.up_inside("victim");
        let flags = 0x40;
        w.whole(&[Command::Fileattr { path: &path, flags }])
    }),
    Trick::refused("clone of the subvolume's own file ..", |w| {
        let path = w.up_inside("victim");
        w.whole(&[mkfile(b"mine"), clone(w.uuid, w.ctransid, &path)])
    }),
    Trick::refused("clone to a file outside", |w| {
        let path = w.up_inside("victim");
        let mut hostile = clone(w.uuid, w.ctransid, b"mine");
        if let Command::Clone { path: to, .. } = &mut hostile {
            *to = &path;
        }
        w.whole(&[mkfile(b"mine"), truncate(b"mine", 4096), hostile])
    }),
    Trick::refused("subvolume named ../x", |w| named(w, b"../escaped")),
    Trick::refused("subvolume named by an absolute path", |w| {
        named(w, &w.inside("escaped"))
    }),
    Trick::refused("subvolume named ..", |w| named(w, b"..")),
    Trick::refused("subvolume named .", |w| named(w, b".")),
    Trick::refused("subvolume without a name", |w| named(w, b"")),
    Trick::refused("subvolume with a NUL in its name", |w| named(w, b"a\0b")),
    Trick::refused("subvolume below a directory", |w| named(w, b"canary/x")),
    Trick::refused("subvolume with a name of 4000 bytes", |w| {
        named(w, &[b'x'; 4000])
    }),
];
