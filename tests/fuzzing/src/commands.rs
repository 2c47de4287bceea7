//! Fuzzes the applier, against a scratch directory on btrfs. Needs root.
//!
//! An input: a byte of options, then either a stream whose checksums are corrected (bit 0), or commands:
//! a byte for the kind and a few for each operand. Paths are those of existing files, or of files that
//! must not be reached. The other option bits: 1 always copy instead of cloning, 2 always decode,
//! 3 begin from a parent, 4 resume in the middle.

use std::error::Error as StdError;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sendshot_apply::staging::{Area, Staged, StagingError};
use sendshot_apply::{Announced, CloneSources, Host, Policies, Session, SessionError, Subvolumes};
use sendshot_stream::{Command, Encoder, Timespec, Version};
use sendshot_sys::durable;
use sendshot_sys::top_level::TopLevel;
use uuid::Uuid;

use crate::bytes::Bytes;
use crate::corpus;
use crate::stream::mended;
use sendshot_adversary::hostile::trick::ZEROS_BY_ZSTD;
use sendshot_harness::compare::orders;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;

/// Size of the scratch file system in bytes.
const SIZE: u64 = 1 << 30;

/// UUID of the parent in streams.
const PARENT: Uuid = Uuid::from_u128(2);
/// UUID of the subvolume that is made.
const MADE: Uuid = Uuid::from_u128(1);

/// Data of writes and extended attributes.
static FILLING: [u8; 128 * 1024] = [0xa5; 128 * 1024];

/// A file system without a mount point: it disappears with the process, however that ends.
struct Scratch {
    top: TopLevel,
    parent: OwnedFd,
    /// Directory that must not be reached.
    outside: PathBuf,
    before: Vec<Seen>,
    /// Paths that lead there.
    ways: Vec<Vec<u8>>,
}

/// Everything about a file outside that a command could change.
type Seen = (PathBuf, u32, u64, u64, (i64, i64), (i64, i64), Vec<u8>);

static SCRATCH: Mutex<Option<Scratch>> = Mutex::new(None);

/// Applies an input. Nothing outside staging may change, and staging must be empty afterwards.
///
/// # Panics
/// If either does not hold, or the file system cannot be made.
pub fn run(input: &[u8]) {
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    scratch.get_or_insert_with(Scratch::new).play(input);
}

/// The hostile corpus as streams, and commands of each kind on a parent.
pub fn seeds() -> Vec<Vec<u8>> {
    let streams = corpus::hostile_streams().filter(|stream| stream.len() < 16 * 1024);
    let streams = streams.map(|stream| [&[1][..], &stream].concat());
    let commands = (0..=KINDS).map(|kind| {
        let mut input = vec![1 << 3];
        for n in 0..24_u8 {
            input.extend([kind, n, n.wrapping_mul(7) % 24, 6, 6, n % 3]);
        }
        input
    });
    streams.chain(commands).collect()
}

impl Scratch {
    fn new() -> Self {
        let fs = LoopFs::new(SIZE, &[], "").unwrap();
        let at = |name: &str| fs.path().join(name);
        streams::create(&at("made")).unwrap();
        fs::create_dir(at("made/d")).unwrap();
        fs::write(at("made/f"), [7; 100_000]).unwrap();
        fs::write(at("made/d/g"), "inline").unwrap();
        fs::hard_link(at("made/f"), at("made/d/h")).unwrap();
        symlink("../../../outside", at("made/l")).unwrap();
        symlink("f", at("made/m")).unwrap();
        streams::snapshot(&at("made"), &at("parent")).unwrap();
        fs::create_dir_all(at("outside/dir")).unwrap();
        fs::write(at("outside/victim"), [5; 8192]).unwrap();
        fs::create_dir(at("volume")).unwrap();
        let top = TopLevel::of(File::open(fs.path()).unwrap()).unwrap();
        drop(fs);
        let parent = durable::open_dir(&top, "parent".as_ref()).unwrap();
        let outside = PathBuf::from(format!("/proc/self/fd/{}/outside", top.as_fd().as_raw_fd()));
        // Makes the path by the working directory lead there, too.
        std::env::set_current_dir(&outside).unwrap();
        let ways = [
            outside.to_str().unwrap(),
            "/proc/self/cwd",
            "../../../outside",
            "l",
            "a",
            "d/../l",
        ];
        let ways = ways.iter().flat_map(|way| {
            let below = ["", "/victim", "/dir", "/new"];
            below.map(|below| format!("{way}{below}").into_bytes())
        });
        Self {
            parent,
            before: look(&outside),
            ways: ways.collect(),
            outside,
            top,
        }
    }

    fn play(&self, input: &[u8]) {
        let mut input = Bytes(input);
        let how = input.byte();
        let has = |bit: u8| how & 1 << bit != 0;
        let stream = match has(0) {
            true => mended(input.0),
            false => self.stream(input, has(3)),
        };
        let policies = Policies {
            clone: if has(1) {
                sendshot_apply::ClonePolicy::Copy
            } else {
                sendshot_apply::ClonePolicy::Share
            },
            encoded: if has(2) {
                sendshot_apply::EncodedPolicy::Decode
            } else {
                sendshot_apply::EncodedPolicy::Store
            },
            runs: orders::by((how >> 5).into()),
            ..Policies::default()
        };
        let volume = durable::open_dir(&self.top, "volume".as_ref()).unwrap();
        let host = Bench {
            area: Area::new(&volume).unwrap(),
            parent: &self.parent,
            staged: None,
        };
        let applied = match has(4) {
            true => halfway(host, &stream, policies),
            false => whole(host, &stream, policies),
        };
        if let Err(error) = applied {
            assert!(!error.to_string().is_empty());
        }
        let left = durable::names(Area::new(&volume).unwrap().dir().unwrap()).unwrap();
        assert!(left.is_empty(), "staging is left: {left:?}");
        assert_eq!(
            look(&self.outside),
            self.before,
            "something outside was touched"
        );
    }

    /// Encodes as many commands as the input holds.
    fn stream<'a>(&'a self, mut input: Bytes<'a>, from_parent: bool) -> Vec<u8> {
        let encoder = Encoder::new(Version::V2);
        let mut stream = Vec::new();
        encoder.header(&mut stream);
        let (path, uuid, ctransid) = (&b"fuzzed"[..], MADE, 7);
        let begin = match from_parent {
            false => Command::Subvol {
                path,
                uuid,
                ctransid,
            },
            true => Command::Snapshot {
                path,
                uuid,
                ctransid,
                clone_uuid: PARENT,
                clone_ctransid: 7,
            },
        };
        encoder.command(&begin, &mut stream).unwrap();
        while !input.is_empty() {
            let kind = input.byte();
            let command = self.command(kind, &mut input);
            // A command that the format cannot encode is skipped.
            let _ = encoder.command(&command, &mut stream);
        }
        encoder.command(&Command::End, &mut stream).unwrap();
        stream
    }

    /// Picks a path that exists, may exist, must not be reached, or is arbitrary bytes.
    fn path<'a>(&'a self, input: &mut Bytes<'a>) -> &'a [u8] {
        const PATHS: [&[u8]; 24] = [
            b"",
            b"a",
            b"b",
            b"c",
            b"a/a",
            b"a/b",
            b"a/b/c",
            b"f",
            b"d",
            b"d/g",
            b"d/h",
            b"d/new",
            b"l",
            b"m",
            b"m/a",
            b".",
            b"..",
            b"a/../b",
            b"a//b",
            b"a/",
            b"/",
            b"a\0b",
            &[b'n'; 255],
            &[b'n'; 256],
        ];
        let which = usize::from(input.byte());
        if let Some(path) = PATHS.get(which) {
            return path;
        }
        match self.ways.get(which - PATHS.len()) {
            Some(way) => way,
            None => input.counted(),
        }
    }

    fn command<'a>(&'a self, kind: u8, input: &mut Bytes<'a>) -> Command<'a> {
        let path = self.path(input);
        match kind % KINDS {
            0 => Command::Mkfile { path },
            1 => Command::Mkdir { path },
            2 => Command::Mknod {
                path,
                mode: input.number(),
                rdev: input.number(),
            },
            3 => Command::Mkfifo { path },
            4 => Command::Mksock { path },
            5 => Command::Symlink {
                path,
                target: self.path(input),
            },
            6 => Command::Rename {
                path,
                to: self.path(input),
            },
            7 => Command::Link {
                path,
                existing: self.path(input),
            },
            8 => Command::Unlink { path },
            9 => Command::Rmdir { path },
            10 => Command::SetXattr {
                path,
                name: xattr(input),
                data: value(input),
            },
            11 => Command::RemoveXattr {
                path,
                name: xattr(input),
            },
            12 => Command::Write {
                path,
                offset: input.number(),
                data: value(input),
            },
            13 => Command::Clone {
                path,
                offset: input.number(),
                len: input.number(),
                clone_uuid: Uuid::from_u128(u128::from(input.byte() % 4)),
                clone_ctransid: 7,
                clone_path: self.path(input),
                clone_offset: input.number(),
            },
            14 => Command::Truncate {
                path,
                size: input.number(),
            },
            15 => Command::Chmod {
                path,
                mode: input.number(),
            },
            16 => Command::Chown {
                path,
                uid: input.number(),
                gid: input.number(),
            },
            17 => Command::Utimes {
                path,
                atime: time(input),
                mtime: time(input),
                ctime: time(input),
                otime: None,
            },
            18 => Command::Fallocate {
                path,
                mode: input.byte().into(),
                offset: input.number(),
                len: input.number(),
            },
            19 => Command::Fileattr {
                path,
                flags: input.number(),
            },
            20 => Command::EncodedWrite {
                path,
                offset: input.number(),
                unencoded_file_len: input.number(),
                unencoded_len: input.number(),
                unencoded_offset: input.number(),
                compression: u32::from(input.byte() % 9),
                encryption: u32::from(input.byte() / 200),
                data: match input.byte() % 2 {
                    0 => &ZEROS_BY_ZSTD,
                    _ => value(input),
                },
            },
            21 => Command::UpdateExtent {
                path,
                offset: input.number(),
                len: input.number(),
            },
            _ => Command::End,
        }
    }
}

/// Number of kinds of commands.
const KINDS: u8 = 23;

fn xattr<'a>(input: &mut Bytes<'a>) -> &'a [u8] {
    const NAMES: [&[u8]; 9] = [
        b"user.a",
        b"security.capability",
        b"security.selinux",
        b"trusted.b",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
        b"btrfs.compression",
        b"",
        b"nonsense",
    ];
    match NAMES.get(usize::from(input.byte())) {
        Some(name) => name,
        None => input.counted(),
    }
}

fn value<'a>(input: &mut Bytes<'a>) -> &'a [u8] {
    const LENS: [usize; 6] = [0, 1, 4000, 4096, 65_535, 128 * 1024];
    match LENS.get(usize::from(input.byte())) {
        Some(len) => &FILLING[..*len],
        None => input.counted(),
    }
}

fn time(input: &mut Bytes<'_>) -> Timespec {
    Timespec {
        sec: input.number().cast_signed(),
        nsec: input.number() as u32,
    }
}

type Ended = Result<(), SessionError<StagingError>>;

fn whole(host: Bench<'_>, stream: &[u8], policies: Policies) -> Ended {
    let mut session = Session::new(host, Subvolumes::One, policies);
    session.feed(stream)?;
    session.finish().map(drop)
}

/// Checkpoints and resumes the session at a command in the middle, as after a restart.
fn halfway(host: Bench<'_>, stream: &[u8], policies: Policies) -> Ended {
    let mut session = Session::new(host, Subvolumes::One, policies);
    let mut rest = stream;
    for slice in stream.chunks(stream.len().div_ceil(2).max(1)) {
        session.feed(slice)?;
        rest = &rest[slice.len()..];
        let at = session.checkpoint().map_err(SessionError::Staging)?;
        if let Some(position) = at {
            let from = usize::try_from(position.offset).unwrap();
            let host = session.into_host();
            let staged = host.staged.as_ref().expect("it was begun");
            let root = staged.root_for_applier().map_err(StagingError::Area);
            let root = root.map_err(SessionError::Host)?;
            session = Session::resume(host, position, root, Subvolumes::One, policies)
                .map_err(SessionError::Staging)?;
            session.feed(&stream[from..stream.len() - rest.len()])?;
        }
    }
    session.finish().map(drop)
}

/// Stages from the parent, whatever UUID the stream gives it.
#[derive(Debug)]
struct Bench<'a> {
    area: Area,
    parent: &'a OwnedFd,
    staged: Option<Staged>,
}

impl CloneSources for Bench<'_> {
    fn open(&mut self, uuid: Uuid, _: u64) -> Result<OwnedFd, Box<dyn StdError + Send + Sync>> {
        match uuid == PARENT {
            true => Ok(self.parent.try_clone()?),
            false => Err("it is another's".into()),
        }
    }
}

impl Host for Bench<'_> {
    type Error = StagingError;

    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, StagingError> {
        let source = subvolume.parent.map(|_| self.parent.as_fd());
        let staged = self.area.stage("fuzzed".as_ref(), source)?;
        let root = staged.root_for_applier().map_err(StagingError::Area)?;
        self.staged = Some(staged);
        Ok(root)
    }

    fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> Result<(), StagingError> {
        Ok(())
    }
}

fn look(outside: &std::path::Path) -> Vec<Seen> {
    let mut found = vec![outside.to_owned()];
    let entries = fs::read_dir(outside).unwrap();
    found.extend(entries.map(|entry| entry.unwrap().path()));
    found.sort();
    let seen = found.into_iter().map(|path| {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        (
            path,
            stat.mode(),
            stat.size(),
            stat.nlink(),
            (stat.mtime(), stat.mtime_nsec()),
            (stat.ctime(), stat.ctime_nsec()),
            content,
        )
    });
    seen.collect()
}
