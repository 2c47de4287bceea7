//! Suspicious content that is legal in a subvolume: it must not harm the host that holds the copy.

use sendshot_stream::{Command, Timespec};

use crate::hostile::frame;
use crate::hostile::trick::{
    SECRET, Trick, World, chmod, clone, encode, fallocate, link, mkdir, mkfile, rename, symlink,
    truncate, utimes, write, xattr,
};

/// A file and commands on it.
fn file_and(w: &World, commands: &[Command<'_>]) -> Vec<u8> {
    w.whole(&[&[mkfile(b"f")], commands].concat())
}

/// The same command for each of several names.
fn each(w: &World, names: &[Vec<u8>], command: fn(&[u8]) -> Command<'_>) -> Vec<u8> {
    let made: Vec<u8> = names.iter().flat_map(|n| encode(&command(n))).collect();
    w.framed(&[encode(&mkfile(b"f")), made])
}

/// Nested paths: `d`, `d/d` and so on.
fn ladder(name: &[u8; 1], levels: usize) -> Vec<Vec<u8>> {
    let above = |n| [name[0], b'/'].repeat(n);
    (0..levels)
        .map(|n| [&above(n)[..], name].concat())
        .collect()
}

/// Names of equal length and equal hash.
fn collisions(count: usize) -> Vec<Vec<u8>> {
    let (start, goal) = (!1, 0x5eed_5eed);
    let ending = frame::before_four_zeros(goal);
    let usable = |byte: &u8| *byte != 0 && *byte != b'/';
    let name = |n: usize| {
        let mut name = format!("{n:0>200}").into_bytes();
        name.extend((ending ^ frame::crc32c(start, &name)).to_le_bytes());
        name
    };
    let found = (0..).map(name).filter(|name| name.iter().all(usable));
    found.take(count).collect()
}

fn flags(path: &[u8], flags: u64) -> Command<'_> {
    Command::Fileattr { path, flags }
}

pub(super) const TRICKS: &[Trick] = &[
    Trick::harmless("a setuid program of root", |w| {
        let (path, uid, gid) = (b"f", 0, 0);
        file_and(
            w,
            &[
                write(b"f"),
                Command::Chown { path, uid, gid },
                chmod(b"f", 0o6777),
            ],
        )
    }),
    Trick::harmless("a program with all capabilities", |w| {
        let mut all = vec![1, 0, 0, 2];
        all.extend([0xff; 16]);
        file_and(w, &[xattr(b"f", b"security.capability", &all)])
    }),
    Trick::harmless("a disk's device, open to all", |w| {
        let (path, mode, rdev) = (b"disk", 0o60666, 0x0800);
        w.whole(&[Command::Mknod { path, mode, rdev }])
    }),
    Trick::harmless("memory's device, open to all", |w| {
        let (path, mode, rdev) = (b"mem", 0o20666, 0x0101);
        w.whole(&[Command::Mknod { path, mode, rdev }])
    }),
    Trick::harmless("a fifo and a socket", |w| {
        w.whole(&[
            Command::Mkfifo { path: b"fifo" },
            Command::Mksock { path: b"socket" },
        ])
    }),
    Trick::harmless("a symlink to /etc/shadow", |w| {
        w.whole(&[symlink(b"shadow", b"/etc/shadow")])
    }),
    Trick::harmless("owner and times of a symlink to somewhere outside", |w| {
        let (path, uid, gid) = (b"l", 1000, 1000);
        w.whole(&[
            symlink(b"l", &w.outside("victim")),
            Command::Chown { path, uid, gid },
            utimes(b"l", 1),
            xattr(b"l", b"trusted.x", b"x"),
        ])
    }),
    Trick::harmless("renames and hard links of symlinks to outside", |w| {
        w.whole(&[
            symlink(b"l", &w.inside("")),
            rename(b"l", b"m"),
            link(b"n", b"m"),
            Command::Unlink { path: b"m" },
        ])
    }),
    Trick::harmless("a rename over a symlink to outside", |w| {
        file_and(
            w,
            &[
                symlink(b"l", &w.outside("victim")),
                rename(b"f", b"l"),
                write(b"l"),
            ],
        )
    }),
    Trick::harmless("names that terminals obey", |w| {
        let names: [&[u8]; 6] = [
            b"\x1b[2J\x1b]0;title\x07",
            b"new\nline",
            b"\xff\xfe\x80",
            b" ",
            b"-rf *",
            b"\xe2\x80\xae gpj",
        ];
        each(w, &names.map(<[u8]>::to_vec), mkfile)
    }),
    Trick::harmless("names that are nearly special", |w| {
        let names: [&[u8]; 6] = [b"...", b"..x", b".sendshot", b"~", b"C:\\x", b"..\\x"];
        each(w, &names.map(<[u8]>::to_vec), mkdir)
    }),
    Trick::harmless("a directory that is named like staging", |w| {
        w.whole(&[
            mkdir(b".sendshot-staging"),
            mkfile(b".sendshot-staging/owner"),
        ])
    }),
    Trick::harmless("3000 names of 255 bytes", |w| {
        let names: Vec<_> = (0..3000)
            .map(|n| format!("{n:0>255}").into_bytes())
            .collect();
        each(w, &names, mkfile)
    }),
    Trick::harmless("50 names of one hash", |w| each(w, &collisions(50), mkfile)),
    Trick::harmless("400 names of one hash, more than an item holds", |w| {
        each(w, &collisions(400), mkfile)
    }),
    Trick::harmless("2000 names of one file", |w| {
        let names: Vec<_> = (0..2000)
            .map(|n| format!("{n:0>200}").into_bytes())
            .collect();
        each(w, &names, |name| link(name, b"f"))
    }),
    Trick::harmless("a tree 1500 deep", |w| each(w, &ladder(b"d", 1500), mkdir)),
    Trick::harmless("a tree deeper than paths are long", |w| {
        let mut made: Vec<u8> = Vec::new();
        for (above, below) in [(b"b", b"a"), (b"c", b"b"), (b"d", b"c")] {
            let rungs = ladder(above, 1900).into_iter().chain(ladder(below, 1900));
            let fresh = |path: &Vec<u8>| below == b"a" || path[0] == above[0];
            let rungs: Vec<_> = rungs.filter(fresh).collect();
            made.extend(rungs.iter().flat_map(|path| encode(&mkdir(path))));
            let deepest = [&[above[0], b'/'].repeat(1900)[..], below].concat();
            made.extend(encode(&rename(below, &deepest)));
        }
        w.framed(&[made])
    }),
    Trick::harmless("200 xattrs of 3 KiB", |w| {
        let data = [7; 3 << 10];
        let names: Vec<_> = (0..200).map(|n| format!("user.{n}")).collect();
        let all: Vec<_> = names
            .iter()
            .map(|n| xattr(b"f", n.as_bytes(), &data))
            .collect();
        file_and(w, &all)
    }),
    Trick::harmless("an xattr of 15 KiB", |w| {
        file_and(w, &[xattr(b"f", b"user.x", &[7; 15 << 10])])
    }),
    Trick::harmless("xattrs of the root, of all namespaces", |w| {
        w.whole(&[
            xattr(b"", b"user.x", b"x"),
            xattr(b"", b"trusted.x", b"x"),
            xattr(b"", b"security.x", b"x"),
            xattr(b"", b"btrfs.compression", b"zstd"),
        ])
    }),
    Trick::harmless("a root without permissions", |w| {
        let (path, uid, gid) = (b"", 1000, 1000);
        w.whole(&[
            chmod(b"", 0),
            Command::Chown { path, uid, gid },
            mkfile(b"f"),
        ])
    }),
    Trick::harmless("an immutable root", |w| {
        w.whole(&[flags(b"", 0x40), mkfile(b"f")])
    }),
    Trick::harmless("an append-only root", |w| {
        w.whole(&[flags(b"", 0x80), mkfile(b"f")])
    }),
    Trick::harmless("immutable and append-only files and directories", |w| {
        file_and(
            w,
            &[
                mkdir(b"d"),
                mkfile(b"d/f"),
                flags(b"f", 0x40),
                flags(b"d/f", 0x80),
                flags(b"d", 0x40),
            ],
        )
    }),
    Trick::harmless("a write to a file that is immutable", |w| {
        file_and(w, &[flags(b"f", 0x40), write(b"f")])
    }),
    Trick::harmless("all inode flags there are and are not", |w| {
        file_and(w, &[flags(b"f", u64::MAX)])
    }),
    Trick::harmless("a file of 8 EiB with nothing in it", |w| {
        file_and(w, &[truncate(b"f", (1 << 63) - 1)])
    }),
    Trick::harmless("a hole of an exbibyte", |w| {
        file_and(
            w,
            &[truncate(b"f", 1 << 61), fallocate(b"f", 3, 0, 1 << 60)],
        )
    }),
    Trick::harmless("a write of no bytes", |w| {
        let (path, offset, data) = (b"f", 1 << 40, b"");
        file_and(w, &[Command::Write { path, offset, data }])
    }),
    Trick::harmless("times before and after all calendars", |w| {
        file_and(w, &[utimes(b"f", i64::MIN), utimes(b"", i64::MAX)])
    }),
    Trick::harmless("a creation time that was never", |w| {
        let time = Timespec {
            sec: -1,
            nsec: 999_999_999,
        };
        let hostile = Command::Utimes {
            path: b"f",
            atime: time,
            mtime: time,
            ctime: time,
            otime: Some(time),
        };
        file_and(w, &[hostile])
    }),
    Trick::harmless("an extent that does not decode", |w| {
        let noise: Vec<u8> = (0..2000u32).map(|n| ((n * 7919) >> 3) as u8).collect();
        let extent = Command::EncodedWrite {
            path: b"f",
            offset: 0,
            unencoded_file_len: 128 << 10,
            unencoded_len: 128 << 10,
            unencoded_offset: 0,
            compression: 2,
            encryption: 0,
            data: &noise,
        };
        file_and(w, &[extent])
    }),
    Trick::harmless("an extent cloned a thousand times", |w| {
        let mut commands = vec![mkfile(b"mine")];
        for n in 0..1000 {
            let mut copied = clone(w.own.uuid, w.own.ctransid, SECRET);
            if let Command::Clone { offset, .. } = &mut copied {
                *offset = n * 4096;
            }
            commands.push(copied);
        }
        w.whole(&commands)
    }),
    Trick::harmless("20000 changes of one mode", |w| {
        let modes: Vec<_> = (0..20_000).map(|n| chmod(b"f", n & 0o7777)).collect();
        file_and(w, &modes)
    }),
    Trick::harmless("2000 files opened one after the other", |w| {
        let names: Vec<_> = (0..2000).map(|n| format!("f{n}").into_bytes()).collect();
        let commands = names.iter().flat_map(|n| [mkfile(n), write(n)]);
        w.whole(&commands.collect::<Vec<_>>())
    }),
    Trick::harmless("data that ends in attributes", |w| {
        let data = [&b"data"[..], &frame::path(&w.outside("victim"))].concat();
        let (path, offset) = (b"f", 0);
        file_and(
            w,
            &[Command::Write {
                path,
                offset,
                data: &data,
            }],
        )
    }),
    Trick::harmless("a clone of 4 EiB of nothing", |w| huge(w, 1 << 62, 0)),
];

/// Streams of a few hundred bytes that must not fill the receiver's disk: they clone only holes.
pub(super) const FILLING: &[Trick] = &[
    Trick::harmless(
        "a clone of 4 EiB of nothing, to a file of another kind",
        |w| huge(w, 1 << 62, 2),
    ),
    Trick::harmless(
        "a clone of 4 EiB of nothing that ends within a block",
        |w| huge(w, (1 << 62) - 1, 0),
    ),
];

/// Clones a hole between two files, one of them with inode flags.
fn huge(w: &World, len: u64, inode_flags: u64) -> Vec<u8> {
    let cloned = Command::Clone {
        path: b"mine",
        offset: 0,
        len,
        clone_uuid: w.uuid,
        clone_ctransid: w.ctransid,
        clone_path: b"f",
        clone_offset: 0,
    };
    let prepared = [mkfile(b"mine"), flags(b"mine", inode_flags)];
    let sized = [truncate(b"f", 1 << 62), truncate(b"mine", 1 << 62), cloned];
    file_and(w, &[&prepared[..], &sized].concat())
}
