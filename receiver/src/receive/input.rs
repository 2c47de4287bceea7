//! What the thread of a transfer takes.

use sendshot_proto::transfer::Up;

/// The input of a transfer's thread.
#[derive(Debug)]
pub enum Input {
    /// A message from the sender.
    Up(Up),
    /// The sender's access was revoked.
    Unwelcome,
}
