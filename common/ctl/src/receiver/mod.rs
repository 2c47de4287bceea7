//! What is asked of the receiving daemon, a file a command.

pub mod copies;
pub mod partials;
pub mod peers;
pub mod roots;
