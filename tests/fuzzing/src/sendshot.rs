//! Fuzzes the reader of sendshots and of the hashes beside them, and the diff.
//!
//! An input: a byte of options, then files. The option bits: 0 the rest is a file as stored on disk; 1 two
//! files, the first with the length that follows; 2 with hashes; 3 version 1 of the stream; 4 and 5 which
//! file is compared with which. Files are built from the given bytes with correct checksums, following
//! `docs/sendshot-file.md`.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use sendshot_engine::diff::{Error, Sink, Step, Version, diff};
use sendshot_engine::format::error;
use sendshot_engine::format::hashes::Hashes;
use sendshot_engine::stream::measure::measure;
use sendshot_engine::{Entry, Head, InodeItem, Name, Sendshot, Writer};
use uuid::Uuid;

use crate::bytes::Bytes;
use sendshot_harness::blake3;

/// Limit for the steps of a diff: a file of a few bytes can describe a petabyte.
const MAX_STEPS: u64 = 20_000;

/// Reads an input. A valid file must read the same twice, to its end or to an error, and be
/// comparable.
///
/// # Panics
/// If that does not hold.
pub fn run(input: &[u8]) {
    let mut input = Bytes(input);
    let how = input.byte();
    if how & 1 != 0 {
        if let Some(sendshot) = open(input.0) {
            read(&sendshot);
        }
        return;
    }
    let first = match how & 2 {
        0 => input.0.len(),
        _ => input.short().into(),
    };
    let made = [build(input.take(first)), build(input.0)];
    let with_hashes = |bytes: &[u8]| {
        let sendshot = open(bytes)?;
        let hashes = (how & 4 != 0).then(|| hashes(input.0, sendshot.head().uuid));
        Some(sendshot.with_hashes(hashes.flatten()))
    };
    let [Some(m), Some(n)] = made.map(|bytes| with_hashes(&bytes)) else {
        return;
    };
    for sendshot in [&m, &n] {
        read(sendshot);
    }
    let version = match how & 8 {
        0 => Version::V2,
        _ => Version::V1,
    };
    match how >> 4 & 3 {
        0 => compare(Some(&m), &n, version),
        1 => compare(None, &m, version),
        2 => compare(Some(&n), &m, version),
        _ => compare(Some(&n), &n, version),
    }
}

/// Files with few inodes, alone and in pairs.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0; 200]];
    for count in [1_u64, 2, 5] {
        let file = written(count);
        seeds.push([&[1][..], &file].concat());
        seeds.push([&[1][..], &written_as(count, 77)].concat());
        let built = decoded(&file);
        let pair = [&built[..], &decoded(&written(count + 1))].concat();
        let len = u16::try_from(built.len()).unwrap().to_le_bytes();
        for how in [2, 6, 0x0a, 0x12, 0x22, 0x36] {
            seeds.push([&[how][..], &len, &pair].concat());
        }
    }
    seeds
}

/// A sendshot as the project writes it.
fn written(count: u64) -> Vec<u8> {
    written_as(count, 7)
}

/// As [`written`], with layout version 3 if the wire ctransid is not 7.
fn written_as(count: u64, wire_ctransid: u64) -> Vec<u8> {
    let head = Head {
        wire_uuid: Uuid::from_u128(1),
        wire_ctransid,
        ctransid: 7,
        fsid: Uuid::from_u128(2),
        uuid: Uuid::from_u128(u128::from(count)),
        parent_uuid: Uuid::from_u128(3),
        otransid: 7 + count,
        generation: 8 + count,
        taken_at: 9,
    };
    let mut writer = Writer::new(Vec::new(), &head).unwrap();
    for ino in 256..=256 + count {
        let item = InodeItem {
            generation: ino - 250,
            transid: ino - 249 + count,
            size: 4096 * count,
            mode: if ino == 256 { 0o040_755 } else { 0o100_644 },
            flags: ino % 2,
            ..InodeItem::default()
        };
        writer.entry(&Entry::Inode(ino, item)).unwrap();
        if ino > 256 {
            let name = format!("file-{ino}").into_bytes();
            writer
                .entry(&Entry::Name(Name { parent: 256, name }))
                .unwrap();
        }
    }
    writer.finish().unwrap().0
}

/// Returns the fields of the head, the counts and the decoded block of a file with one block, in the order in
/// which [`build`] reads them.
fn decoded(file: &[u8]) -> Vec<u8> {
    let raw_len = u32::from_le_bytes(file[124..128].try_into().unwrap()) as usize;
    let packed_len = u32::from_le_bytes(file[128..132].try_into().unwrap()) as usize;
    let block = zstd::bulk::decompress(&file[148..148 + packed_len], raw_len).unwrap();
    let counts = &file[file.len() - 32..file.len() - 16];
    let len = u16::try_from(raw_len).unwrap().to_le_bytes();
    [&file[12..108], counts, &[0], &len, &block].concat()
}

/// Builds a file of version 2 from the fields of its head, its counts, and blocks, each preceded by a byte
/// for its storage (bit 0: uncompressed, with a wrong raw length) and its length.
fn build(input: &[u8]) -> Vec<u8> {
    let mut input = Bytes(input);
    let mut file = b"sendshot\x02\0\0\0".to_vec();
    file.extend(input.array::<96>());
    file.extend(check(&file));
    let counts = input.array::<16>();
    let mut whole = file.clone();
    while !input.is_empty() {
        let how = input.byte();
        let len = input.short();
        let bytes = input.take(len.into());
        let (raw_len, stored) = match how & 1 {
            0 => (bytes.len() as u32, zstd::bulk::compress(bytes, 1).unwrap()),
            _ => (u32::from(how) << 12, bytes.to_vec()),
        };
        let stored_len = stored.len() as u32;
        let head = [&raw_len.to_le_bytes()[..], &stored_len.to_le_bytes()].concat();
        let head = [&head[..], &check(&stored)].concat();
        whole.extend(&head);
        file.extend(head);
        file.extend(stored);
    }
    for part in [&[0xff; 4][..], &counts] {
        whole.extend(part);
        file.extend(part);
    }
    file.extend(check(&whole));
    file
}

fn check(bytes: &[u8]) -> [u8; 16] {
    let mut check = [0; 16];
    check.copy_from_slice(&blake3(bytes)[..16]);
    check
}

fn open(bytes: &[u8]) -> Option<Sendshot> {
    match Sendshot::from_file(in_memory(bytes), Path::new("fuzzed")) {
        Ok(sendshot) => Some(sendshot),
        Err(error) => {
            assert!(error.to_string().contains("fuzzed"));
            None
        }
    }
}

fn in_memory(bytes: &[u8]) -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let memory: OwnedFd = rustix::fs::memfd_create("fuzzed", flags).unwrap();
    let mut file = File::from(memory);
    file.write_all(bytes).unwrap();
    file
}

/// A hash file with these bytes as its list.
fn hashes(list: &[u8], snapshot: Uuid) -> Option<Hashes> {
    let head = [b"sendhash\x01\0\0\0", &snapshot.as_bytes()[..]].concat();
    let body = [&head[..], list].concat();
    let file = [&body[..], &check(&body)].concat();
    Hashes::from_file(in_memory(&file), Path::new("fuzzed.hashes"), snapshot).ok()
}

fn read(sendshot: &Sendshot) {
    let again = || -> Result<(usize, usize), error::Error> {
        let mut reader = sendshot.reader()?;
        let mut count = (0, 0);
        while reader.next_inode()?.is_some() {
            count.0 += 1;
            while reader.next_extent()?.is_some() {
                count.1 += 1;
            }
        }
        Ok(count)
    };
    let told = |outcome: Result<(usize, usize), error::Error>| outcome.map_err(|e| e.to_string());
    assert_eq!(told(again()), told(again()));
    let Ok(mut reader) = sendshot.reader() else {
        return;
    };
    while let Ok(Some(_)) = reader.next_entry() {}
}

fn compare(m: Option<&Sendshot>, n: &Sendshot, version: Version) {
    let mut steps = Steps::default();
    let ended = diff(m, n, b"fuzzed", version, &mut steps);
    if ended.is_ok() && steps.data < 1 << 30 {
        // A stream that was described can also be measured.
        let _ = measure(m, n, b"fuzzed", version);
    }
}

/// Counts steps, up to [`MAX_STEPS`].
#[derive(Debug, Default)]
struct Steps {
    count: u64,
    data: u64,
}

/// The diff failed, or reached the limit.
#[derive(Debug)]
struct Enough;

impl From<Error> for Enough {
    fn from(error: Error) -> Self {
        assert!(!error.to_string().is_empty());
        Self
    }
}

impl Sink for Steps {
    type Error = Enough;

    fn step(&mut self, step: Step<'_>) -> Result<(), Enough> {
        self.count += 1;
        if let Step::Data { len, .. } = step {
            self.data = self.data.saturating_add(len);
        }
        if self.count > MAX_STEPS {
            return Err(Enough);
        }
        Ok(())
    }
}
