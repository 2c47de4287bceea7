//! Stage *generate*: the send stream as hashed segments.
//!
//! Two engines behind one interface: [`kernel()`] and [`sendshot()`]. Each works on its own threads, and all
//! buffers are bounded: a queue of segments, and the kernel's pipe. No file ever holds the stream. Dropping the
//! receiving end of the queue cancels.

mod error;
mod kernel;
mod sendshot;

pub use error::{Error, Generator, Output};
pub use kernel::kernel;
pub use sendshot::{Sendshots, sendshot, size, size_by_paths};
