//! Fuzzes the parser of send streams.
//!
//! An input: a byte of options (bit 0: correct the checksum of every command), a slice length, the stream.

use sendshot_stream::{DecodeError, Encoder, HEADER_LEN, Item, Parser, Version, dump};

use crate::bytes::Bytes;
use crate::corpus;
use sendshot_adversary::hostile::frame::crc32c;

/// Bytes of a command before its payload.
const COMMAND_HEAD: usize = 10;

/// Result of parsing: positions and bytes of the commands, and the error if there was one.
type Outcome = (Vec<(u64, u64, Vec<u8>)>, Result<(), DecodeError>);

/// Parses an input. The result must not depend on the slices, parsed commands must encode and parse again
/// equal, and text shown to users must be free of control characters.
///
/// # Panics
/// If one of these does not hold.
pub fn run(input: &[u8]) {
    let mut input = Bytes(input);
    let (how, slice) = (input.byte(), usize::from(input.short()).max(1));
    let stream = match how & 1 {
        0 => input.0.to_vec(),
        _ => mended(input.0),
    };
    let whole = parse(&stream, stream.len().max(1));
    assert_eq!(
        parse(&stream, slice),
        whole,
        "it depends on slices of {slice}"
    );
    if let Err(error) = &whole.1 {
        assert!(error.offset <= stream.len() as u64 && !error.to_string().is_empty());
    }
}

/// The hostile corpus, most of whose checksums are correct.
pub fn seeds() -> Vec<Vec<u8>> {
    let streams = corpus::hostile_streams().filter(|stream| stream.len() < 16 * 1024);
    streams
        .map(|stream| [&[1, 100, 0][..], &stream].concat())
        .collect()
}

/// Returns the stream with corrected checksums of all complete commands.
pub(super) fn mended(stream: &[u8]) -> Vec<u8> {
    let mut stream = stream.to_vec();
    let mut at = HEADER_LEN;
    while let Some(head) = stream.get(at..at + COMMAND_HEAD) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at.saturating_add(COMMAND_HEAD).saturating_add(len);
        let Some(command) = stream.get_mut(at..end) else {
            break;
        };
        command[6..COMMAND_HEAD].fill(0);
        let crc = crc32c(0, command);
        command[6..COMMAND_HEAD].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    stream
}

fn parse(stream: &[u8], slice: usize) -> Outcome {
    let (mut parser, mut items) = (Parser::new(), Vec::new());
    let mut version = Version::V1;
    for mut input in stream.chunks(slice) {
        loop {
            let located = match parser.next(&mut input) {
                Ok(Some(located)) => located,
                Ok(None) => break,
                Err(error) => return (items, Err(error)),
            };
            let said = match located.item {
                Item::Header(found) => {
                    version = found;
                    Vec::new()
                }
                Item::Command(command) => {
                    let line = dump::line(&command).to_string();
                    assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
                    let mut said = Vec::new();
                    let encoder = Encoder::new(version);
                    encoder.command(&command, &mut said).expect("it came");
                    let mut again = Parser::resume(version, 0);
                    let parsed = again.next(&mut said.as_slice()).unwrap().unwrap();
                    assert_eq!(parsed.item, located.item);
                    said
                }
            };
            items.push((located.start, located.end, said));
        }
        assert!(input.is_empty(), "a slice is taken whole");
    }
    (items, parser.finish())
}
