//! The failures that a receiver reports.

use std::fmt;

use sendshot_model::printable;

use crate::v1;

/// The codes of `FailureCode`, as a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// An internal error of the receiver, or an unknown code.
    Internal,
    /// Another push of the volume is running at the receiver.
    Busy,
    /// The negotiated parent no longer exists.
    ParentGone,
    /// The negotiated parent was made writable or changed.
    ParentUnusable,
    /// A copy of the uuid is already held.
    AlreadyHeld,
    /// The stream, or the order of messages, breaks a rule.
    InvalidStream,
    /// The received data differs from the sent data.
    HashMismatch,
    /// The receiver's file system is full or over quota.
    NoSpace,
    /// The receiver's root is read-only.
    ReadOnly,
    /// The receiver's root is missing or not the right one.
    RootMissing,
    /// Reading or writing the receiver's disks failed.
    Io,
    /// The receiver is shutting down.
    ShuttingDown,
    /// The transfer cannot be resumed at the requested position.
    ResumeImpossible,
    /// The sender has reached its limit at the receiver.
    OverLimit,
    /// The receiver's file system cannot store something in the stream.
    Unsupported,
    /// Another disk of the receiver is present than the negotiated one.
    RootChanged,
    /// The receiver's administrator does not permit this sender to read its copies.
    NotPermitted,
    /// The receiver does not have the requested copy or path.
    NotFound,
    /// A fetched stream is longer than announced.
    LengthChanged,
}

/// A failure that the receiver reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind of the failure.
    pub code: Code,
    /// One sentence that names the object and the place.
    pub message: String,
    /// What the user can do; may be empty.
    pub remedy: String,
}

impl Failure {
    /// Makes a failure with a remedy.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<v1::Failure> for Failure {
    fn from(message: v1::Failure) -> Self {
        Self {
            code: message.code().into(),
            message: printable(&message.message),
            remedy: printable(&message.remedy),
        }
    }
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        let code: v1::FailureCode = failure.code.into();
        Self {
            code: code.into(),
            message: failure.message,
            remedy: failure.remedy,
        }
    }
}

impl From<v1::FailureCode> for Code {
    fn from(code: v1::FailureCode) -> Self {
        use v1::FailureCode as Wire;
        match code {
            Wire::Unspecified | Wire::Internal => Code::Internal,
            Wire::Busy => Code::Busy,
            Wire::ParentGone => Code::ParentGone,
            Wire::ParentUnusable => Code::ParentUnusable,
            Wire::AlreadyHeld => Code::AlreadyHeld,
            Wire::InvalidStream => Code::InvalidStream,
            Wire::HashMismatch => Code::HashMismatch,
            Wire::NoSpace => Code::NoSpace,
            Wire::ReadOnly => Code::ReadOnly,
            Wire::RootMissing => Code::RootMissing,
            Wire::Io => Code::Io,
            Wire::ShuttingDown => Code::ShuttingDown,
            Wire::ResumeImpossible => Code::ResumeImpossible,
            Wire::OverLimit => Code::OverLimit,
            Wire::Unsupported => Code::Unsupported,
            Wire::RootChanged => Code::RootChanged,
            Wire::NotPermitted => Code::NotPermitted,
            Wire::NotFound => Code::NotFound,
            Wire::LengthChanged => Code::LengthChanged,
        }
    }
}

impl From<Code> for v1::FailureCode {
    fn from(code: Code) -> Self {
        match code {
            Code::Internal => Self::Internal,
            Code::Busy => Self::Busy,
            Code::ParentGone => Self::ParentGone,
            Code::ParentUnusable => Self::ParentUnusable,
            Code::AlreadyHeld => Self::AlreadyHeld,
            Code::InvalidStream => Self::InvalidStream,
            Code::HashMismatch => Self::HashMismatch,
            Code::NoSpace => Self::NoSpace,
            Code::ReadOnly => Self::ReadOnly,
            Code::RootMissing => Self::RootMissing,
            Code::Io => Self::Io,
            Code::ShuttingDown => Self::ShuttingDown,
            Code::ResumeImpossible => Self::ResumeImpossible,
            Code::OverLimit => Self::OverLimit,
            Code::Unsupported => Self::Unsupported,
            Code::RootChanged => Self::RootChanged,
            Code::NotPermitted => Self::NotPermitted,
            Code::NotFound => Self::NotFound,
            Code::LengthChanged => Self::LengthChanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reader_leads_back_and_is_refused() {
        let failure = Failure::new(Code::NotPermitted, "x", "run `y`");
        let message = v1::Failure::from(failure.clone());
        assert_eq!(message.code, 17);
        assert_eq!(Failure::from(message), failure);
        assert_eq!(Code::NotPermitted.kind(), crate::problem::Kind::Refused);
    }

    #[test]
    fn unknown_codes_are_internal_faults() {
        let message = v1::Failure {
            code: 4711,
            message: "x".into(),
            remedy: String::new(),
        };
        assert_eq!(Failure::from(message).code, Code::Internal);
    }
}
