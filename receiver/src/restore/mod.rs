//! Restore: lists the caller's copies, and sends one back as a stream.
//!
//! 1. [`list`] finds the copies of a sender;
//! 2. [`copy`] opens the requested one;
//! 3. [`capture`] makes a sendshot of it, which [`crate::store::captures`] keeps as long as a fetch may resume;
//! 4. [`stream`] generates the stream from the sendshot and the copy.
//!
//! [`fetches`] counts the running fetches. Nothing here decides who may fetch, and nothing is ever written into a
//! sender's directory.

pub mod capture;
pub mod copy;
pub mod fetches;
pub mod list;
pub mod stream;
