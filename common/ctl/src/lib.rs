//! The command line of sendshotctl, from which its manual pages are made too. The command itself is the binary.

#![allow(missing_docs, reason = "names say it; what surprises is documented")]

pub mod arguments;
