//! Checks that encoded commands are decoded regardless of slicing, and that no input causes a panic.
#![allow(clippy::unwrap_used)] // helpers of tests

use proptest::collection::vec;
use proptest::prelude::*;
use sendshot_stream::{Command, DecodeError, Encoder, Item, Parser, Timespec, Version, dump};
use uuid::Uuid;

/// The operands of a command before they are borrowed.
#[derive(Debug, Clone)]
struct Operands {
    kind: usize,
    path: Vec<u8>,
    other: Vec<u8>,
    data: Vec<u8>,
    numbers: [u64; 4],
    small: [u32; 2],
    uuids: [u128; 2],
    otime: bool,
}

const KINDS: usize = 25;

fn operands() -> impl Strategy<Value = Operands> {
    (
        0..KINDS,
        vec(any::<u8>(), 0..60),
        vec(any::<u8>(), 0..60),
        vec(any::<u8>(), 0..600),
        any::<[u64; 4]>(),
        any::<[u32; 2]>(),
        any::<[u128; 2]>(),
        any::<bool>(),
    )
        .prop_map(
            |(kind, path, other, data, numbers, small, uuids, otime)| Operands {
                kind,
                path,
                other,
                data,
                numbers,
                small,
                uuids,
                otime,
            },
        )
}

impl Operands {
    fn command(&self) -> Command<'_> {
        let (path, other, data) = (&self.path[..], &self.other[..], &self.data[..]);
        let [a, b, c, d] = self.numbers;
        let [uuid, clone_uuid] = self.uuids.map(Uuid::from_u128);
        let time = |n: u64| Timespec {
            sec: n as i64,
            nsec: self.small[0],
        };
        match self.kind {
            0 => Command::Subvol {
                path,
                uuid,
                ctransid: a,
            },
            1 => Command::Snapshot {
                path,
                uuid,
                ctransid: a,
                clone_uuid,
                clone_ctransid: b,
            },
            2 => Command::Mkfile { path },
            3 => Command::Mkdir { path },
            4 => Command::Mknod {
                path,
                mode: a,
                rdev: b,
            },
            5 => Command::Mkfifo { path },
            6 => Command::Mksock { path },
            7 => Command::Symlink {
                path,
                target: other,
            },
            8 => Command::Rename { path, to: other },
            9 => Command::Link {
                path,
                existing: other,
            },
            10 => Command::Unlink { path },
            11 => Command::Rmdir { path },
            12 => Command::SetXattr {
                path,
                name: other,
                data,
            },
            13 => Command::RemoveXattr { path, name: other },
            14 => Command::Write {
                path,
                offset: a,
                data,
            },
            15 => Command::Clone {
                path,
                offset: a,
                len: b,
                clone_uuid,
                clone_ctransid: c,
                clone_path: other,
                clone_offset: d,
            },
            16 => Command::Truncate { path, size: a },
            17 => Command::Chmod { path, mode: a },
            18 => Command::Chown {
                path,
                uid: a,
                gid: b,
            },
            19 => Command::Utimes {
                path,
                atime: time(a),
                mtime: time(b),
                ctime: time(c),
                otime: self.otime.then(|| time(d)),
            },
            20 => Command::End,
            21 => Command::UpdateExtent {
                path,
                offset: a,
                len: b,
            },
            22 => Command::Fallocate {
                path,
                mode: self.small[0],
                offset: a,
                len: b,
            },
            23 => Command::Fileattr { path, flags: a },
            _ => Command::EncodedWrite {
                path,
                offset: a,
                unencoded_file_len: b,
                unencoded_len: c,
                unencoded_offset: d,
                compression: self.small[0],
                encryption: self.small[1],
                data,
            },
        }
    }
}

/// Encodes the commands that `version` has, without an end, and returns them with their offsets.
fn encode(version: Version, all: &[Operands]) -> (Vec<u8>, Vec<(u64, Command<'_>)>) {
    let encoder = Encoder::new(version);
    let mut bytes = Vec::new();
    encoder.header(&mut bytes);
    let mut expected = Vec::new();
    for operands in all {
        let (start, command) = (bytes.len() as u64, operands.command());
        if command == Command::End {
            continue;
        }
        if encoder.command(&command, &mut bytes).is_ok() {
            expected.push((start, command));
        }
    }
    (bytes, expected)
}

/// Feeds `bytes` in slices of the given lengths (repeatedly), to the end or an error.
fn parse(
    bytes: &[u8],
    cuts: &[usize],
    mut each: impl FnMut(u64, u64, Item<'_>),
) -> Result<(), DecodeError> {
    let mut parser = Parser::new();
    let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = cuts
            .next()
            .copied()
            .unwrap_or(rest.len())
            .clamp(1, rest.len());
        let (mut input, later) = rest.split_at(cut);
        while let Some(located) = parser.next(&mut input)? {
            each(located.start, located.end, located.item);
        }
        assert!(input.is_empty(), "the parser must take all it is given");
        rest = later;
    }
    parser.finish()
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut(
        version in version(),
        all in vec(operands(), 0..20),
        cuts in vec(1..3000_usize, 0..8),
    ) {
        let (mut bytes, expected) = encode(version, &all);
        Encoder::new(version).command(&Command::End, &mut bytes).unwrap();
        let mut expected = expected.into_iter();
        let mut at = 0;
        parse(&bytes, &cuts, |start, end, item| {
            assert_eq!(start, at, "items follow each other without a gap");
            at = end;
            match item {
                Item::Header(found) => assert_eq!(found, version),
                Item::Command(Command::End) => assert_eq!(expected.next(), None),
                Item::Command(command) => assert_eq!(expected.next(), Some((start, command))),
            }
        })
        .unwrap();
        prop_assert_eq!(at, bytes.len() as u64);
        prop_assert_eq!(expected.next(), None);
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..400),
        cuts in vec(1..50_usize, 0..4),
        with_header in any::<bool>(),
    ) {
        let mut stream = Vec::new();
        if with_header {
            Encoder::new(Version::V2).header(&mut stream);
        }
        stream.extend_from_slice(&bytes);
        let _ = parse(&stream, &cuts, |_, _, _| {});
    }

    /// The checksum is corrected, so that the attributes are parsed.
    #[test]
    fn mutated_commands_never_panic(
        version in version(),
        all in vec(operands(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in 1..100_usize,
    ) {
        let (mut bytes, expected) = encode(version, &all);
        prop_assume!(!expected.is_empty());
        let (start, _) = expected[0];
        let frame = usize::try_from(start).unwrap();
        let len = u32::from_le_bytes(bytes[frame..frame + 4].try_into().unwrap()) as usize;
        prop_assume!(len > 0);
        bytes[frame + 10 + at.index(len)] = byte;
        reseal(&mut bytes[frame..frame + 10 + len]);
        let _ = parse(&bytes, &[cut], |_, _, item| {
            if let Item::Command(command) = item {
                assert!(!dump::line(&command).to_string().contains('\n'));
            }
        });
    }

    #[test]
    fn a_flipped_bit_is_found_or_harmless(
        all in vec(operands(), 1..6),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (mut bytes, _) = encode(Version::V2, &all);
        Encoder::new(Version::V2).command(&Command::End, &mut bytes).unwrap();
        let flipped = 17 + at.index(bytes.len() - 17);
        bytes[flipped] ^= 1 << bit;
        let result = parse(&bytes, &[], |_, _, _| {});
        prop_assert!(result.is_err());
    }
}

/// Sets the checksum of a command, computed bit by bit and not by the crate's code.
fn reseal(frame: &mut [u8]) {
    frame[6..10].fill(0);
    let mut crc = 0_u32;
    for byte in frame.iter() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (0_u32.wrapping_sub(crc & 1)));
        }
    }
    frame[6..10].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn the_encoder_s_checksum_is_the_bitwise_one() {
    let mut bytes = Vec::new();
    let command = Command::Mkdir { path: b"photos" };
    Encoder::new(Version::V1)
        .command(&command, &mut bytes)
        .unwrap();
    let sealed = bytes.clone();
    reseal(&mut bytes);
    assert_eq!(bytes, sealed);
}
