//! Checks every fault of a stream, and how it is reported.
#![allow(clippy::unwrap_used)] // helpers of tests

use sendshot_stream::{Command, DecodeError, EncodeError, Encoder, Fault, Item, Parser, Version};

const V1: Encoder = encoder(1);
const V2: Encoder = encoder(2);

const fn encoder(number: u32) -> Encoder {
    Encoder::new(if number == 1 {
        Version::V1
    } else {
        Version::V2
    })
}

fn stream(encoder: Encoder, commands: &[Command<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder.header(&mut bytes);
    for command in commands {
        encoder.command(command, &mut bytes).unwrap();
    }
    bytes
}

/// Returns the number of items, or the error, for the stream in one piece; checks that it is the same byte by byte.
fn read(bytes: &[u8]) -> Result<usize, DecodeError> {
    let whole = read_in(bytes, bytes.len().max(1));
    assert_eq!(whole, read_in(bytes, 1));
    whole
}

fn read_in(bytes: &[u8], cut: usize) -> Result<usize, DecodeError> {
    let (mut parser, mut items) = (Parser::new(), 0);
    for mut input in bytes.chunks(cut) {
        while parser.next(&mut input)?.is_some() {
            items += 1;
        }
    }
    parser.finish()?;
    Ok(items)
}

fn fault(bytes: &[u8]) -> (u64, Fault) {
    let error = read(bytes).unwrap_err();
    (error.offset, error.fault)
}

/// Builds a command with any number and payload, and a valid checksum.
fn raw(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    let crc = !crc32c::crc32c_append(!0, &frame);
    frame[6..10].copy_from_slice(&crc.to_le_bytes());
    frame
}

fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

fn raw_fault(encoder: Encoder, number: u16, payload: &[u8]) -> Fault {
    let mut bytes = stream(encoder, &[]);
    bytes.extend_from_slice(&raw(number, payload));
    let (offset, fault) = fault(&bytes);
    assert_eq!(offset, 17);
    fault
}

const PATH: u16 = 15;
const DATA: u16 = 19;
const FILE_OFFSET: u16 = 18;
const MKDIR: u16 = 4;
const WRITE: u16 = 15;
const TRUNCATE: u16 = 17;

#[test]
fn the_beginning_must_be_a_header_of_a_known_version() {
    assert_eq!(fault(b""), (0, Fault::Empty));
    assert_eq!(fault(b"hello"), (0, Fault::BadMagic));
    assert_eq!(
        fault(b"ERROR: not a btrfs filesystem\n"),
        (0, Fault::BadMagic)
    );
    assert_eq!(fault(b"btrfs-stream\x01\x01\0\0\0"), (0, Fault::BadMagic));
    assert_eq!(fault(b"btrfs-str"), (0, Fault::Truncated));
    for number in [0, 3] {
        let mut bytes = b"btrfs-stream\0".to_vec();
        bytes.extend_from_slice(&u32::to_le_bytes(number));
        assert_eq!(fault(&bytes), (0, Fault::UnsupportedVersion(number)));
    }
}

#[test]
fn a_command_cannot_come_before_the_header() {
    assert_eq!(
        fault(&raw(MKDIR, &attribute(PATH, b"d"))),
        (0, Fault::BadMagic)
    );
}

#[test]
fn the_end_must_come() {
    let mkdir = Command::Mkdir { path: b"d" };
    let bytes = stream(V2, &[mkdir]);
    assert_eq!(fault(&bytes), (bytes.len() as u64, Fault::MissingEnd));
    assert_eq!(fault(&bytes[..bytes.len() - 1]), (17, Fault::Truncated));
    assert_eq!(fault(&bytes[..17]), (17, Fault::MissingEnd));
    assert_eq!(read(&stream(V2, &[mkdir, Command::End])), Ok(3));
}

#[test]
fn an_interrupted_send_shows_as_a_second_header() {
    let mut bytes = stream(V1, &[Command::Mkdir { path: b"d" }]);
    let at = bytes.len() as u64;
    bytes.extend_from_slice(&stream(V1, &[Command::End]));
    assert_eq!(fault(&bytes), (at, Fault::SecondHeader));

    let mut directly = stream(V1, &[]);
    directly.extend_from_slice(&stream(V1, &[Command::End]));
    assert_eq!(fault(&directly), (17, Fault::SecondHeader));
}

#[test]
fn a_second_subvolume_needs_no_header() {
    let subvol = Command::Subvol {
        path: b"s",
        uuid: uuid::Uuid::from_u128(1),
        ctransid: 7,
    };
    assert_eq!(
        read(&stream(V2, &[subvol, Command::End, subvol, Command::End])),
        Ok(5)
    );
    let mut bytes = stream(V2, &[subvol, Command::End]);
    bytes.extend_from_slice(&stream(V1, &[subvol, Command::End]));
    assert_eq!(read(&bytes), Ok(6));
}

#[test]
fn nothing_else_may_follow_the_end() {
    let bytes = stream(V2, &[Command::End, Command::Rmdir { path: b"d" }]);
    assert_eq!(fault(&bytes), (27, Fault::AfterEnd("rmdir")));
    let bytes = stream(V2, &[Command::End, Command::End]);
    assert_eq!(fault(&bytes), (27, Fault::AfterEnd("end")));
    let mut bytes = stream(V2, &[Command::End]);
    bytes.push(0);
    assert_eq!(fault(&bytes), (27, Fault::Truncated));
}

#[test]
fn lengths_are_capped_before_anything_is_kept() {
    for (encoder, limit) in [(V1, 64 * 1024_u32), (V2, 1024 * 1024)] {
        for len in [limit + 1, u32::MAX] {
            let mut bytes = stream(encoder, &[]);
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&[0; 6]);
            let expected = Fault::TooLong {
                len: len.into(),
                limit: limit.into(),
            };
            assert_eq!(fault(&bytes), (17, expected));
        }
    }
}

#[test]
fn damage_is_found_by_the_checksum() {
    let mut bytes = stream(V2, &[Command::Mkdir { path: b"d" }]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(matches!(fault(&bytes), (17, Fault::WrongCrc { .. })));
}

#[test]
fn commands_of_other_versions_are_unknown() {
    for number in [0, 23, 25, 26] {
        assert_eq!(raw_fault(V1, number, b""), Fault::UnknownCommand(number));
    }
    for number in [0, 26, 999] {
        assert_eq!(raw_fault(V2, number, b""), Fault::UnknownCommand(number));
    }
}

#[test]
fn attributes_must_be_known_whole_and_single() {
    let unknown = |attribute| Fault::UnknownAttribute {
        command: "mkdir",
        attribute,
    };
    assert_eq!(raw_fault(V1, MKDIR, &attribute(25, b"")), unknown(25));
    assert_eq!(raw_fault(V2, MKDIR, &attribute(32, b"")), unknown(32));
    assert_eq!(raw_fault(V2, MKDIR, &attribute(0, b"")), unknown(0));

    let truncated = Fault::TruncatedAttribute { command: "mkdir" };
    let path = attribute(PATH, b"dir");
    for len in [1, 2, 3, 6] {
        assert_eq!(raw_fault(V2, MKDIR, &path[..len]), truncated, "{len}");
    }

    let duplicate = Fault::DuplicateAttribute {
        command: "mkdir",
        attribute: "path",
    };
    assert_eq!(
        raw_fault(V2, MKDIR, &[&path[..], &path].concat()),
        duplicate
    );

    let missing = Fault::MissingAttribute {
        command: "mkdir",
        attribute: "path",
    };
    assert_eq!(raw_fault(V2, MKDIR, b""), missing);

    let wrong = Fault::WrongSize {
        command: "truncate",
        attribute: "size",
        expected: 8,
        found: 4,
    };
    let payload = [path, attribute(4, &[0; 4])].concat();
    assert_eq!(raw_fault(V2, TRUNCATE, &payload), wrong);
}

#[test]
fn data_of_version_2_takes_all_that_follows() {
    let offset = attribute(FILE_OFFSET, &[0; 8]);
    let path = attribute(PATH, b"f");
    let mut payload = [&offset[..], &DATA.to_le_bytes(), &path].concat();
    let missing = Fault::MissingAttribute {
        command: "write",
        attribute: "path",
    };
    assert_eq!(raw_fault(V2, WRITE, &payload), missing);

    payload = [&path[..], &offset, &DATA.to_le_bytes(), b"abc"].concat();
    let mut bytes = stream(V2, &[]);
    bytes.extend_from_slice(&raw(WRITE, &payload));
    let (mut parser, mut input) = (Parser::new(), &bytes[..]);
    parser.next(&mut input).unwrap();
    let item = parser.next(&mut input).unwrap().unwrap().item;
    let expected = Command::Write {
        path: b"f",
        offset: 0,
        data: b"abc",
    };
    assert_eq!(item, Item::Command(expected));
}

#[test]
fn a_parser_resumes_at_a_command_boundary() {
    let commands = [Command::Mkdir { path: b"d" }, Command::Rmdir { path: b"d" }];
    let bytes = stream(V2, &commands);
    let boundary = stream(V2, &commands[..1]).len();
    let mut parser = Parser::resume(Version::V2, boundary as u64);
    let mut input = &bytes[boundary..];
    let located = parser.next(&mut input).unwrap().unwrap();
    assert_eq!(located.start, boundary as u64);
    assert_eq!(located.end, bytes.len() as u64);
    assert_eq!(located.item, Item::Command(commands[1]));
    assert_eq!(parser.offset(), bytes.len() as u64);
}

#[test]
fn the_encoder_refuses_commands_of_later_versions() {
    let mut out = b"before".to_vec();
    let fallocate = Command::Fallocate {
        path: b"f",
        mode: 3,
        offset: 0,
        len: 1,
    };
    assert!(matches!(
        V1.command(&fallocate, &mut out),
        Err(EncodeError::NotInVersion { .. })
    ));
    let data = vec![0; 65536];
    let write = Command::Write {
        path: b"f",
        offset: 0,
        data: &data,
    };
    assert!(matches!(
        V1.command(&write, &mut out),
        Err(EncodeError::AttributeTooLong { len: 65536, .. })
    ));
    let data = vec![0; 1024 * 1024];
    let write = Command::Write {
        path: b"f",
        offset: 0,
        data: &data,
    };
    assert!(matches!(
        V2.command(&write, &mut out),
        Err(EncodeError::TooLong { .. })
    ));
    assert_eq!(out, b"before");
}

#[test]
fn data_written_in_place_makes_the_same_bytes() {
    let data: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    for encoder in [V1, V2] {
        let write = |data| Command::Write {
            path: b"f",
            offset: 9,
            data,
        };
        let (mut copied, mut in_place) = (Vec::new(), Vec::new());
        encoder.command(&write(&data), &mut copied).unwrap();
        encoder
            .command_with_data(&write(b""), data.len(), &mut in_place, |room| {
                room.copy_from_slice(&data);
                Ok::<(), EncodeError>(())
            })
            .unwrap();
        assert_eq!(copied, in_place);
    }
}
