//! What a copy lacks because its receiver's file system cannot keep it.

use sendshot_model::{MAX_NOT_KEPT, NotKept, NotKeptEntry, NotKeptKind};

use crate::malformed::Malformed;
use crate::v1;

/// Parses a list. Its examples are truncated and made printable.
///
/// # Errors
/// [`Malformed::TooMany`].
pub fn parse(entries: Vec<v1::NotKept>) -> Result<NotKept, Malformed> {
    if entries.len() > MAX_NOT_KEPT {
        return Err(Malformed::TooMany {
            field: "not_kept",
            limit: MAX_NOT_KEPT,
        });
    }
    let entries = entries.into_iter().map(|entry| NotKeptEntry {
        kind: kind(entry.kind()),
        count: entry.count,
        example: entry.example,
    });
    Ok(entries.collect::<Vec<_>>().into())
}

/// Converts the list for a message.
pub fn message(list: &NotKept) -> Vec<v1::NotKept> {
    let entries = list.entries().into_iter();
    entries
        .map(|entry| v1::NotKept {
            kind: wire(entry.kind).into(),
            count: entry.count,
            example: entry.example,
        })
        .collect()
}

fn kind(kind: v1::NotKeptKind) -> NotKeptKind {
    use v1::NotKeptKind as Wire;
    match kind {
        Wire::NoCopyOnWrite => NotKeptKind::NoCopyOnWrite,
        Wire::CompressionFlag => NotKeptKind::CompressionFlag,
        Wire::CompressionProperty => NotKeptKind::CompressionProperty,
        Wire::Unspecified | Wire::OtherFlag => NotKeptKind::OtherFlag,
    }
}

fn wire(kind: NotKeptKind) -> v1::NotKeptKind {
    use v1::NotKeptKind as Wire;
    match kind {
        NotKeptKind::NoCopyOnWrite => Wire::NoCopyOnWrite,
        NotKeptKind::CompressionFlag => Wire::CompressionFlag,
        NotKeptKind::CompressionProperty => Wire::CompressionProperty,
        NotKeptKind::OtherFlag => Wire::OtherFlag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: i32, example: &str) -> v1::NotKept {
        v1::NotKept {
            kind,
            count: 2,
            example: example.to_owned(),
        }
    }

    #[test]
    fn a_list_is_short_and_printable_whatever_a_peer_says() {
        assert!(parse(vec![entry(1, "a"); MAX_NOT_KEPT + 1]).is_err());
        let list = parse(vec![entry(4711, "a\x1b"), entry(4, &"b".repeat(5000))]).unwrap();
        let entries = list.entries();
        assert_eq!(entries.len(), 1, "unknown kinds are other flags");
        assert_eq!((entries[0].count, entries[0].example.as_str()), (4, "a "));
        let long = parse(vec![entry(1, &"b".repeat(5000))]).unwrap();
        assert!(long.entries()[0].example.len() < 300);
    }

    #[test]
    fn sent_messages_are_parsed_back() {
        let mut list = NotKept::default();
        list.add(NotKeptKind::CompressionFlag, "a");
        list.add(NotKeptKind::OtherFlag, "b");
        assert_eq!(parse(message(&list)).unwrap(), list);
    }
}
