//! The btrfs send stream, versions 1 and 2, as bytes and as commands.
//!
//! A stream consists of a header and commands, each framed with its length and a CRC. [`Parser`] takes it in
//! slices of any size and returns one [`Command`] after the other, borrowed from the slice if it is whole
//! there; [`Encoder`] does the reverse. Neither does any I/O, and the parser never holds more than one
//! command, whose length is limited before any memory is allocated: its input is untrusted.
//!
//! ```
//! use sendshot_stream::{Command, Encoder, Item, Parser, Version};
//!
//! let encoder = Encoder::new(Version::V2);
//! let mut bytes = Vec::new();
//! encoder.header(&mut bytes);
//! encoder.command(&Command::Mkfile { path: b"notes" }, &mut bytes)?;
//! encoder.command(&Command::End, &mut bytes)?;
//!
//! let mut parser = Parser::new();
//! let mut names = Vec::new();
//! for slice in bytes.chunks(7) {
//!     let mut input = slice;
//!     while let Some(located) = parser.next(&mut input)? {
//!         if let Item::Command(command) = located.item {
//!             names.push(command.name());
//!         }
//!     }
//! }
//! parser.finish()?;
//! assert_eq!(names, ["mkfile", "end"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod command;
mod crc;
mod decode;
pub mod dump;
mod encode;
mod error;
mod format;
mod frame;

pub use command::{Command, Timespec};
pub use encode::{EncodeError, Encoder};
pub use error::{DecodeError, Fault};
pub use format::{HEADER_LEN, MAX_DATA_V1, MAX_DATA_V2, MAX_PAYLOAD_V1, MAX_PAYLOAD_V2, Version};
pub use frame::{Item, Located, Parser};
