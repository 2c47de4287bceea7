//! Random commands that make, rename and change entries, in every way to execute them, read in parts that end anywhere: the
//! copy equals that of stock receive, and what fails there fails here.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use sendshot_apply::Policies;
use sendshot_apply::Scope;
use sendshot_apply::parent::Trust;
use sendshot_apply::receive::{Options, ReceiveError};
use sendshot_harness::compare::{orders, tree};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::trees::random::Random;
use sendshot_stream::{Command, Encoder, Timespec, Version};
use uuid::Uuid;

/// Streams of one run.
const STREAMS: u64 = 300;
/// Steps of a stream; a step has up to three commands.
const STEPS: usize = 120;

/// Times that streams set are before this.
const LATEST: i64 = 1 << 30;

/// A file that stays where it is.
const SINK: &str = "sink";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Other,
}

/// A stream, and what is there after it if nothing fails.
struct Writer {
    random: Random,
    bytes: Vec<u8>,
    encoder: Encoder,
    entries: BTreeMap<String, Kind>,
    times: BTreeMap<String, Times>,
}

/// Times of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    /// The stream has set them last.
    Set,
    /// They are those of the making, or of a change.
    Now,
    /// It has other names, of which this does not keep track.
    Unknown,
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Writer {
    fn new(seed: u64) -> Self {
        let mut writer = Self {
            random: Random::new(seed),
            bytes: Vec::new(),
            encoder: Encoder::new(Version::V2),
            entries: BTreeMap::new(),
            times: BTreeMap::new(),
        };
        writer.encoder.header(&mut writer.bytes);
        writer.add(&Command::Subvol {
            path: b"s",
            uuid: Uuid::from_u128(u128::from(seed) + 1),
            ctransid: 5,
        });
        let path = SINK.as_bytes();
        writer.add(&Command::Mkfile { path });
        writer
    }

    fn add(&mut self, command: &Command<'_>) {
        self.encoder.command(command, &mut self.bytes).unwrap();
    }

    /// A path in a directory that is there, or rarely in one that is not; few names, so that they meet again.
    fn path(&mut self) -> String {
        let dirs = self
            .entries
            .iter()
            .filter(|(_, kind)| **kind == Kind::Directory);
        let mut dirs: Vec<String> = dirs.map(|(path, _)| path.clone()).collect();
        dirs.push(String::new());
        if self.random.once_in(300) {
            // It may be made soon.
            dirs = vec![self.random.pick(&["a", "b", "c"]).to_owned()];
        }
        let dir = dirs[self.random.below(dirs.len() as u64) as usize].clone();
        let name = self
            .random
            .pick(&["a", "b", "c", "d", "e", "f", "g", "o1", "o2"]);
        match dir.is_empty() {
            true => name.to_owned(),
            false => format!("{dir}/{name}"),
        }
    }

    /// A path at which nothing is, or rarely something.
    fn free(&mut self) -> String {
        loop {
            let path = self.path();
            if !self.entries.contains_key(&path) || self.random.once_in(300) {
                return path;
            }
        }
    }

    fn existing(&mut self, is: impl Fn(Kind) -> bool) -> Option<String> {
        let all: Vec<&String> = self
            .entries
            .iter()
            .filter(|(_, kind)| is(**kind))
            .map(|(path, _)| path)
            .collect();
        let at = self.random.below(all.len() as u64) as usize;
        all.get(at).map(|path| (*path).clone())
    }

    fn changed(&mut self, path: &str) {
        self.times.insert(path.to_owned(), Times::Now);
    }

    fn note(&mut self, path: &str, kind: Kind) {
        self.entries.insert(path.to_owned(), kind);
        self.changed(path);
        self.changed(directory(path));
    }

    fn forget(&mut self, path: &str) {
        let beneath = format!("{path}/");
        self.entries
            .retain(|other, _| other != path && !other.starts_with(&beneath));
        self.changed(directory(path));
    }

    fn make(&mut self) {
        let kinds = [Kind::File, Kind::File, Kind::Directory, Kind::Other];
        let kind = self.random.pick(&kinds);
        let temporary = match self.random.once_in(3) {
            true => None,
            false => Some(match self.random.once_in(20) {
                true => self.free(),
                false => format!("o{}", self.random.below(1000)),
            }),
        };
        let mut to = self.free();
        if kind == Kind::File
            && temporary.is_some()
            && self.random.once_in(8)
            && let Some(replaced) = self.existing(|kind| kind == Kind::File)
        {
            to = replaced;
        }
        let made = temporary.clone().unwrap_or_else(|| to.clone());
        if kind == Kind::File && self.entries.contains_key(&made) {
            // Stock receive makes the file that is there empty; here it is an error.
            return;
        }
        let path = made.as_bytes();
        match kind {
            Kind::File => self.add(&Command::Mkfile { path }),
            Kind::Directory => self.add(&Command::Mkdir { path }),
            Kind::Other => match self.random.once_in(2) {
                true => self.add(&Command::Mkfifo { path }),
                false => self.add(&Command::Symlink { path, target: b"x" }),
            },
        }
        self.note(&made, kind);
        if let Some(temporary) = temporary {
            match self.random.below(8) {
                0 => self.attribute(),
                // As the kernel's stream does if the directory has the larger inode number.
                1 if !self.entries.contains_key(&to) => {
                    self.add(&Command::Mkdir {
                        path: to.as_bytes(),
                    });
                    self.note(&to, Kind::Directory);
                    let within = format!("{to}/a");
                    self.rename(&temporary, &within);
                    return self.utimes(&to);
                }
                _ => {}
            }
            self.rename(&temporary, &to);
        }
        if !self.random.once_in(3) {
            let mode = 0o600 + self.random.below(0o200);
            let path = to.as_bytes();
            match kind {
                Kind::Other => self.add(&Command::Chown {
                    path,
                    uid: 7,
                    gid: 8,
                }),
                _ => self.add(&Command::Chmod { path, mode }),
            }
        }
        if self.random.once_in(2) {
            self.utimes(&to);
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (path, target) = (from.as_bytes(), to.as_bytes());
        self.add(&Command::Rename { path, to: target });
        let beneath = format!("{from}/");
        let moved: Vec<(String, Kind)> = self
            .entries
            .iter()
            .filter(|(path, _)| *path == from || path.starts_with(&beneath))
            .map(|(path, kind)| (path.clone(), *kind))
            .collect();
        self.forget(from);
        for (path, kind) in moved {
            let times = self.times[&path];
            let path = format!("{to}{}", &path[from.len()..]);
            self.entries.insert(path.clone(), kind);
            self.times.insert(path, times);
        }
        self.changed(directory(to));
    }

    fn utimes(&mut self, path: &str) {
        let mut time = || Timespec {
            sec: self.random.below(LATEST as u64) as i64,
            nsec: 0,
        };
        let (atime, mtime) = (time(), time());
        self.add(&Command::Utimes {
            path: path.as_bytes(),
            atime,
            mtime,
            ctime: mtime,
            otime: None,
        });
        self.times.insert(path.to_owned(), Times::Set);
    }

    fn attribute(&mut self) {
        let Some(path) = self.existing(|kind| kind != Kind::Other) else {
            return;
        };
        let name = path.as_bytes();
        match self.random.below(4) {
            0 => {
                let mode = 0o600 + self.random.below(0o200);
                self.add(&Command::Chmod { path: name, mode });
            }
            1 => self.add(&Command::Chown {
                path: name,
                uid: 3,
                gid: 4,
            }),
            2 => self.add(&Command::SetXattr {
                path: name,
                name: b"user.x",
                data: b"1",
            }),
            _ => self.utimes(&path),
        }
    }

    fn write(&mut self) {
        let Some(path) = self.existing(|kind| kind == Kind::File) else {
            return;
        };
        // Stock receive keeps the file open that it wrote last, under a path that may mean another one by now.
        self.add(&Command::Write {
            path: SINK.as_bytes(),
            offset: 0,
            data: b"1",
        });
        self.changed(SINK);
        let (offset, len) = (
            self.random.below(9000),
            1 + self.random.below(9000) as usize,
        );
        let data = self.random.bytes(len);
        self.add(&Command::Write {
            path: path.as_bytes(),
            offset,
            data: &data,
        });
        self.changed(&path);
    }

    /// Makes a directory and changes it before and after it is filled.
    fn fill(&mut self) {
        let dir = self.free();
        self.add(&Command::Mkdir {
            path: dir.as_bytes(),
        });
        self.note(&dir, Kind::Directory);
        self.utimes(&dir);
        for number in 0..self.random.below(4) {
            let file = format!("{dir}/{number}");
            let path = file.as_bytes();
            self.add(&Command::Mkfile { path });
            self.note(&file, Kind::File);
            if self.random.once_in(2) {
                self.utimes(&dir);
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.fill(),
            1..10 => self.make(),
            10..13 => self.write(),
            13..16 => self.attribute(),
            16 => {
                let Some(from) = self.existing(|_| true) else {
                    return;
                };
                let to = self.free();
                if !to.starts_with(&format!("{from}/")) {
                    self.rename(&from, &to);
                }
            }
            17 => {
                if let Some(path) = self.existing(|kind| kind != Kind::Directory) {
                    self.add(&Command::Unlink {
                        path: path.as_bytes(),
                    });
                    self.forget(&path);
                }
            }
            18 => {
                let Some(existing) = self.existing(|kind| kind == Kind::File) else {
                    return;
                };
                let path = self.free();
                self.add(&Command::Link {
                    path: path.as_bytes(),
                    existing: existing.as_bytes(),
                });
                self.note(&path, Kind::File);
                for path in [path, existing] {
                    self.times.insert(path.clone(), Times::Unknown);
                    self.entries.insert(path, Kind::Other);
                }
            }
            _ => {
                let Some(path) = self.existing(|kind| kind == Kind::Directory) else {
                    return;
                };
                let beneath = format!("{path}/");
                let empty = !self.entries.keys().any(|other| other.starts_with(&beneath));
                if empty || self.random.once_in(100) {
                    self.add(&Command::Rmdir {
                        path: path.as_bytes(),
                    });
                    self.forget(&path);
                }
            }
        }
    }
}

/// Returns a stream, and the times of the entries that it makes.
fn stream(seed: u64) -> (Vec<u8>, BTreeMap<String, Times>) {
    let mut writer = Writer::new(seed);
    for _ in 0..STEPS {
        writer.step();
    }
    writer.add(&Command::End);
    (writer.bytes, writer.times)
}

/// Reads a stream in parts of random lengths.
struct InParts<'a> {
    bytes: &'a [u8],
    random: Random,
    /// Longest part.
    most: u64,
}

impl Read for InParts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = 1 + self.random.below(self.most) as usize;
        let len = len.min(self.bytes.len()).min(buffer.len());
        let (part, rest) = self.bytes.split_at(len);
        buffer[..len].copy_from_slice(part);
        self.bytes = rest;
        Ok(len)
    }
}

/// Whether a difference is about times that the stream has not set.
fn is_of_making(difference: &str, times: &BTreeMap<String, Times>) -> bool {
    let Some((path, what)) = difference.split_once(": ") else {
        return false;
    };
    let path = if path == "." { "" } else { path };
    let is_time = what.starts_with("mtime") || what.starts_with("atime");
    is_time && times.get(path) != Some(&Times::Set)
}

#[test]
fn they_give_what_stock_receive_gives() {
    let target = LoopFs::new(1 << 30, &[], "").unwrap();
    let mut whole = 0;
    for seed in 0..STREAMS {
        let (stream, times) = stream(seed);
        let dirs = ["stock", "ours"].map(|name| target.path().join(format!("{name}{seed}")));
        let [stock, ours] = &dirs;
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        let stock_done = streams::stock_receive(&stream, stock);
        let options = Options {
            scope: Scope::default(),
            trust: Trust::Strict,
            policies: Policies {
                runs: orders::by(seed),
                ..Policies::default()
            },
        };
        let mut random = Random::new(seed);
        let parts = InParts {
            bytes: &stream,
            most: random.pick(&[50, 500, 10_000, 1_000_000]),
            random,
        };
        let done: Result<(), ReceiveError> =
            sendshot_apply::receive(parts, File::open(ours).unwrap(), options, |_| {});
        match (stock_done, done) {
            (Ok(()), Ok(())) => {
                let (stock, ours) = (stock.join("s"), ours.join("s"));
                let mut differences = tree::compare(&stock, &ours).unwrap();
                differences.retain(|difference| !is_of_making(difference, &times));
                assert_eq!(differences, [""; 0], "seed {seed}");
                for (path, times) in &times {
                    let found = fs::symlink_metadata(ours.join(path));
                    if *times == Times::Now
                        && let Ok(found) = found
                    {
                        assert!(
                            found.mtime() > LATEST,
                            "seed {seed}: {path} was made before"
                        );
                    }
                }
                streams::delete(&stock).unwrap();
                streams::delete(&ours).unwrap();
                whole += 1;
            }
            (Err(_), Err(_)) => {}
            (stock, ours) => panic!("seed {seed}: stock receive {stock:?}, ours {ours:?}"),
        }
    }
    let few = STREAMS / 4;
    assert!(
        (few..=STREAMS - few / 4).contains(&whole),
        "{whole} were whole"
    );
}
