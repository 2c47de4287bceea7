//! From slices of a stream to its headers and commands.

use crate::command::Command;
use crate::crc;
use crate::decode;
use crate::error::{DecodeError, Fault};
use crate::format::{COMMAND_HEADER_LEN, HEADER_LEN, Kind, MAGIC, Version};

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// The stream header.
    Header(Version),
    /// A command.
    Command(Command<'a>),
}

/// An item and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located<'a> {
    /// Its first byte, counted from the start of the stream.
    pub start: u64,
    /// The byte behind its last.
    pub end: u64,
    /// The item.
    pub item: Item<'a>,
}

/// Reads a stream that comes in slices.
///
/// It holds at most one command, and copies only those that do not lie whole in a slice.
#[derive(Debug)]
pub struct Parser {
    expected: Expected,
    /// The beginning of an item that has not come whole yet, or the item last handed out.
    buffer: Vec<u8>,
    /// Whether `buffer` has been handed out, and so is to be emptied.
    handed_out: bool,
    /// Where the next item begins.
    offset: u64,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The stream header.
    Header,
    /// A command of a stream of this version.
    Command(Version),
    /// A header, another subvolume's first command, or nothing.
    Another(Version),
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self::at(Expected::Header, 0)
    }

    /// A parser in the middle of a stream of this version: at the first byte of a command,
    /// which is `offset` bytes from the start of the stream.
    pub fn resume(version: Version, offset: u64) -> Self {
        Self::at(Expected::Command(version), offset)
    }

    fn at(expected: Expected, offset: u64) -> Self {
        Self {
            expected,
            buffer: Vec::new(),
            handed_out: false,
            offset,
        }
    }

    /// Takes the next item from `input`, which it shortens by what it has taken. `None` means
    /// that all of `input` is taken and more is needed.
    ///
    /// # Errors
    /// [`DecodeError`]; the parser is of no further use then.
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<Located<'a>>, DecodeError> {
        if self.handed_out {
            self.buffer.clear();
            self.handed_out = false;
        }
        let (expected, start) = (self.expected, self.offset);
        let Some(bytes) = take(expected, &mut self.buffer, &mut self.handed_out, input)
            .map_err(|fault| fault.at(start))?
        else {
            return Ok(None);
        };
        let end = start + bytes.len() as u64;
        let (item, next) = parse(expected, bytes).map_err(|fault| fault.at(start))?;
        self.offset = end;
        self.expected = next;
        Ok(Some(Located { start, end, item }))
    }

    /// Where the next item begins, in bytes from the start of the stream: a place to
    /// [`Parser::resume`] at, unless a header is expected there.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The stream's version, once its header was read.
    pub fn version(&self) -> Option<Version> {
        match self.expected {
            Expected::Header => None,
            Expected::Command(version) | Expected::Another(version) => Some(version),
        }
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// [`Fault::Empty`], [`Fault::Truncated`], [`Fault::MissingEnd`], or [`Fault::BadMagic`]
    /// for something short that is no stream.
    pub fn finish(&self) -> Result<(), DecodeError> {
        let partial: &[u8] = if self.handed_out { &[] } else { &self.buffer };
        let fault = match self.expected {
            Expected::Header if partial.is_empty() => Fault::Empty,
            Expected::Header if !MAGIC.starts_with(&partial[..partial.len().min(MAGIC.len())]) => {
                Fault::BadMagic
            }
            _ if !partial.is_empty() => Fault::Truncated,
            Expected::Another(_) => return Ok(()),
            Expected::Header | Expected::Command(_) => Fault::MissingEnd,
        };
        Err(fault.at(self.offset))
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes one whole item, from `input` alone if it is whole there.
fn take<'a, 'b: 'a>(
    expected: Expected,
    buffer: &'a mut Vec<u8>,
    complete: &mut bool,
    input: &mut &'b [u8],
) -> Result<Option<&'a [u8]>, Fault> {
    if buffer.is_empty()
        && let Some(len) = item_len(expected, input)?
        && let Some((item, rest)) = input.split_at_checked(len)
    {
        *input = rest;
        return Ok(Some(item));
    }
    loop {
        let len = item_len(expected, buffer)?;
        if len == Some(buffer.len()) {
            *complete = true;
            return Ok(Some(buffer));
        }
        let missing = len.unwrap_or(COMMAND_HEADER_LEN) - buffer.len();
        let (more, rest) = input.split_at(missing.min(input.len()));
        if more.is_empty() {
            return Ok(None);
        }
        buffer.extend_from_slice(more);
        *input = rest;
    }
}

/// Length of the item that begins with `bytes`, or `None` if that cannot be told yet.
///
/// The magic cannot be the beginning of a command: as a length it is beyond any limit.
fn item_len(expected: Expected, bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(head) = bytes.first_chunk::<COMMAND_HEADER_LEN>() else {
        return Ok(None);
    };
    let is_header = MAGIC.starts_with(head);
    let version = match expected {
        Expected::Header if is_header => return Ok(Some(HEADER_LEN)),
        Expected::Header => return Err(Fault::BadMagic),
        Expected::Another(_) if is_header => return Ok(Some(HEADER_LEN)),
        Expected::Command(_) if is_header => return Err(Fault::SecondHeader),
        Expected::Command(version) | Expected::Another(version) => version,
    };
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let limit = version.max_payload();
    match usize::try_from(len) {
        Ok(len) if len <= limit => Ok(Some(COMMAND_HEADER_LEN + len)),
        _ => Err(Fault::TooLong {
            len: len.into(),
            limit: limit as u64,
        }),
    }
}

/// Parses one whole item; also says what may follow it.
fn parse(expected: Expected, bytes: &[u8]) -> Result<(Item<'_>, Expected), Fault> {
    match expected {
        Expected::Header => header(bytes),
        Expected::Another(_) if bytes.starts_with(&MAGIC[..COMMAND_HEADER_LEN]) => header(bytes),
        Expected::Command(version) => command(version, bytes),
        Expected::Another(version) => match command(version, bytes)? {
            (Item::Command(c), _) if !matches!(c.kind(), Kind::Subvol | Kind::Snapshot) => {
                Err(Fault::AfterEnd(c.name()))
            }
            begun => Ok(begun),
        },
    }
}

fn header(bytes: &[u8]) -> Result<(Item<'_>, Expected), Fault> {
    let Some((&version, _)) = bytes
        .strip_prefix(MAGIC)
        .and_then(<[u8]>::split_first_chunk)
    else {
        return Err(Fault::BadMagic);
    };
    let number = u32::from_le_bytes(version);
    let version = Version::from_number(number).ok_or(Fault::UnsupportedVersion(number))?;
    Ok((Item::Header(version), Expected::Command(version)))
}

fn command(version: Version, frame: &[u8]) -> Result<(Item<'_>, Expected), Fault> {
    let (&head, payload) = frame
        .split_first_chunk::<COMMAND_HEADER_LEN>()
        .ok_or(Fault::Truncated)?;
    let [_, _, _, _, n0, n1, crc @ ..] = head;
    let (stored, found) = (u32::from_le_bytes(crc), crc::of_command(frame));
    if stored != found {
        return Err(Fault::WrongCrc { stored, found });
    }
    let number = u16::from_le_bytes([n0, n1]);
    let kind = Kind::from_number(number, version).ok_or(Fault::UnknownCommand(number))?;
    let command = decode::command(kind, payload, version)?;
    let next = match kind {
        Kind::End => Expected::Another(version),
        _ => Expected::Command(version),
    };
    Ok((Item::Command(command), next))
}
