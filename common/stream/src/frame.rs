//! Splits slices of a stream into its headers and commands.

use crate::command::Command;
use crate::crc;
use crate::decode;
use crate::error::{DecodeError, Fault};
use crate::format::{COMMAND_HEADER_LEN, HEADER_LEN, Kind, MAGIC, Version};

/// An element of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// The stream header.
    Header(Version),
    /// A command with its operands.
    Command(Command<'a>),
}

/// An item and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located<'a> {
    /// Offset of its first byte from the start of the stream.
    pub start: u64,
    /// Offset after its last byte.
    pub end: u64,
    /// The decoded item.
    pub item: Item<'a>,
}

/// Parses a stream that arrives in slices.
///
/// It holds at most one command, and copies only commands that are not whole in one slice.
#[derive(Debug)]
pub struct Parser {
    expected: Expected,
    /// The beginning of an incomplete item, or the item last returned.
    buffer: Vec<u8>,
    /// Whether `buffer` was returned, and must be cleared.
    handed_out: bool,
    /// Offset of the next item.
    offset: u64,
}

/// The item that may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The stream header.
    Header,
    /// A command of a stream of this version.
    Command(Version),
    /// A header, the first command of another subvolume, or the end.
    Another(Version),
}

impl Parser {
    /// Makes a parser at the start of a stream.
    pub fn new() -> Self {
        Self::at(Expected::Header, 0)
    }

    /// Makes a parser in the middle of a stream of this version: at the first byte of a command, which is
    /// `offset` bytes from the start of the stream.
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

    /// Takes the next item from the front of `input`. `None` means that all of `input` was consumed and more
    /// is needed.
    ///
    /// # Errors
    /// See [`DecodeError`]; the parser must not be used again.
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

    /// Takes the next item from the front of `input` if it is whole there: it borrows from nothing else. `None` means
    /// that [`Parser::next`] has to be called.
    ///
    /// # Errors
    /// See [`DecodeError`]; the parser must not be used again.
    pub fn next_whole<'b>(
        &mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<Located<'b>>, DecodeError> {
        if self.handed_out {
            self.buffer.clear();
            self.handed_out = false;
        }
        let start = self.offset;
        let whole = match self.buffer.is_empty() {
            true => take_whole(self.expected, input).map_err(|fault| fault.at(start))?,
            false => None,
        };
        whole.map(|bytes| self.parsed(bytes)).transpose()
    }

    fn parsed<'b>(&mut self, bytes: &'b [u8]) -> Result<Located<'b>, DecodeError> {
        let start = self.offset;
        let (item, next) = parse(self.expected, bytes).map_err(|fault| fault.at(start))?;
        let end = start + bytes.len() as u64;
        self.offset = end;
        self.expected = next;
        Ok(Located { start, end, item })
    }

    /// Returns the offset of the next item in bytes from the start of the stream: a position for
    /// [`Parser::resume`], unless a header is expected there.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the version of the stream, once its header was read.
    pub fn version(&self) -> Option<Version> {
        match self.expected {
            Expected::Header => None,
            Expected::Command(version) | Expected::Another(version) => Some(version),
        }
    }

    /// Checks whether the stream may end here.
    ///
    /// # Errors
    /// [`Fault::Empty`], [`Fault::Truncated`], [`Fault::MissingEnd`], or [`Fault::BadMagic`] for short input
    /// that is not a stream.
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

/// Takes one item if it is whole in `input`.
fn take_whole<'b>(expected: Expected, input: &mut &'b [u8]) -> Result<Option<&'b [u8]>, Fault> {
    let len = item_len(expected, input)?;
    let Some((item, rest)) = len.and_then(|len| input.split_at_checked(len)) else {
        return Ok(None);
    };
    *input = rest;
    Ok(Some(item))
}

/// Takes one whole item, without copying if it is whole in `input`.
fn take<'a, 'b: 'a>(
    expected: Expected,
    buffer: &'a mut Vec<u8>,
    complete: &mut bool,
    input: &mut &'b [u8],
) -> Result<Option<&'a [u8]>, Fault> {
    if buffer.is_empty()
        && let Some(item) = take_whole(expected, input)?
    {
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

/// Returns the length of the item that begins with `bytes`, or `None` if more bytes are needed.
///
/// The magic cannot begin a command: as a length it exceeds every limit.
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

/// Parses one whole item; also returns what may follow it.
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
