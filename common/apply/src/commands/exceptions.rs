//! Policies for restores: what a file system cannot keep is listed, and privileges are left out.

use std::collections::BTreeMap;

use rustix::io::Errno;
use sendshot_model::{LeftOut, LeftOutKind};
use sendshot_stream::Command;
use sendshot_stream::dump::escaped;

/// How the applier handles what the file system cannot keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unsupported {
    /// The command fails, except for the properties of [`sendshot_model::NotKept`].
    #[default]
    Refuse,
    /// Attributes and entries that the file system cannot keep are counted in [`LeftOut`]. The data of a regular
    /// file is never left out: it fails, or its entry is counted. Only for full streams of the sendshot engine:
    /// an entry that was left out cannot be renamed or removed later on.
    List,
}

/// How the applier handles privileges in a stream: set-user-id and set-group-id bits (of all types of files), file
/// capabilities, and device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privileges {
    /// They are applied.
    #[default]
    Apply,
    /// They are left out and counted in [`LeftOut`].
    List,
}

/// The exceptions that were made.
#[derive(Debug, Default)]
pub(crate) struct Exceptions {
    left_out: LeftOut,
    /// The path that was last counted for each kind: the commands for one file are adjacent, and it counts once.
    last: BTreeMap<LeftOutKind, Vec<u8>>,
    /// The last file whose owner was not kept.
    unowned: Option<Vec<u8>>,
    /// The last file whose access control list was not kept, and what the list granted to the group.
    unlisted: Option<(Vec<u8>, u64)>,
    /// Whether the file system keeps holes; `None` if it was not observed yet.
    pub(crate) keeps_holes: Option<bool>,
}

impl Exceptions {
    pub(crate) fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Counts a kind for a path, once for adjacent commands.
    pub(crate) fn note(&mut self, kind: LeftOutKind, path: &[u8]) {
        if self.last.get(&kind).is_some_and(|last| last == path) {
            return;
        }
        self.last.insert(kind, path.to_vec());
        let shown = if path.is_empty() { b"." } else { path };
        self.left_out.add(kind, &escaped(shown).to_string());
    }

    /// Counts an owner that was not kept, so that its privileges are not given to another.
    pub(crate) fn lost_owner(&mut self, path: &[u8]) {
        self.note(LeftOutKind::Owner, path);
        self.unowned = Some(path.to_vec());
    }

    pub(crate) fn is_unowned(&self, path: &[u8]) -> bool {
        self.unowned.as_deref() == Some(path)
    }

    /// Counts an attribute that was not kept.
    pub(crate) fn lost_attribute(&mut self, path: &[u8], name: &[u8], value: &[u8]) {
        self.note(kind_of(name), path);
        if name == ACCESS_ACL {
            // Without the list's entry nothing is known that the group may do.
            self.unlisted = Some((path.to_vec(), group_of(value).unwrap_or(0)));
        }
    }

    /// Returns a mode without what it grants only because of an access control list that was not kept: the bits of
    /// the group are then the upper limit of all entries, not the rights of the group.
    pub(crate) fn without_list(&self, path: &[u8], mode: u64) -> u64 {
        match &self.unlisted {
            Some((unlisted, group)) if unlisted == path => mode & (!0o070 | (group << 3)),
            _ => mode,
        }
    }
}

/// Attribute with the access control list of an inode.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// Attribute with the access control list that new entries of a directory get.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// Attribute with file capabilities.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

fn kind_of(name: &[u8]) -> LeftOutKind {
    match name {
        ACCESS_ACL | DEFAULT_ACL => LeftOutKind::AccessControlList,
        CAPABILITY => LeftOutKind::Capability,
        _ => LeftOutKind::ExtendedAttribute,
    }
}

/// Returns the permissions of the owning group in an access control list: a version of 4 bytes, then entries of a
/// tag, permissions and an id (`linux/posix_acl_xattr.h`).
fn group_of(list: &[u8]) -> Option<u64> {
    const GROUP_OBJ: [u8; 2] = [4, 0];
    let entries = list.get(4..)?.chunks_exact(8);
    let mut groups = entries.filter(|entry| entry[..2] == GROUP_OBJ);
    groups.next().map(|entry| u64::from(entry[2] & 7))
}

/// Whether an error of making an entry may concern its name: it is too long, has bytes that the file system does
/// not accept, or is equal to another name if case does not count.
pub(crate) fn is_about_name(error: Errno) -> bool {
    [Errno::NAMETOOLONG, Errno::INVAL, Errno::ILSEQ, Errno::EXIST].contains(&error)
}

/// Whether an error of making an entry says that the file system, or this user, cannot make its type.
pub(crate) fn is_about_type(error: Errno) -> bool {
    [
        Errno::PERM,
        Errno::ACCESS,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::NOTTY,
    ]
    .contains(&error)
}

/// Whether an error of setting an attribute says that the file system, or this user, cannot set it.
pub(crate) fn is_about_attribute(error: Errno) -> bool {
    is_about_type(error)
        || [
            Errno::INVAL,
            Errno::OVERFLOW,
            Errno::TOOBIG,
            Errno::RANGE,
            Errno::NAMETOOLONG,
        ]
        .contains(&error)
}

/// Whether an error of linking a file can be avoided by a copy.
pub(crate) fn is_about_link(error: Errno) -> bool {
    is_about_type(error) || [Errno::MLINK, Errno::XDEV].contains(&error)
}

/// Returns the kind of an entry that cannot be made because of its type; `None` for a directory or a regular file.
pub(crate) fn kind_of_entry(command: &Command<'_>) -> Option<LeftOutKind> {
    match command {
        Command::Mknod { .. } => Some(LeftOutKind::DeviceNode),
        Command::Mkfifo { .. } | Command::Mksock { .. } => Some(LeftOutKind::SpecialFile),
        Command::Symlink { .. } => Some(LeftOutKind::SymbolicLink),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_commands_for_a_file_count_once() {
        let mut exceptions = Exceptions::default();
        for path in [b"a", b"a", b"b", b"b", b"a"] {
            exceptions.note(LeftOutKind::CompressedData, path);
            exceptions.note(LeftOutKind::Owner, b"");
        }
        let entries = exceptions.left_out().entries();
        let counted: Vec<_> = entries
            .iter()
            .map(|entry| (entry.kind, entry.count, entry.example.as_str()))
            .collect();
        let expected = [
            (LeftOutKind::Owner, 1, "."),
            (LeftOutKind::CompressedData, 3, "a"),
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn a_lost_list_gives_the_group_nothing() {
        let mut exceptions = Exceptions::default();
        // u::rw-, u:1001:rwx, g::r--, m::rwx, o::---
        let entry = |tag: u8, rights: u8| [tag, 0, rights, 0, 0, 0, 0, 0];
        let entries = [
            entry(1, 6),
            entry(2, 7),
            entry(4, 4),
            entry(16, 7),
            entry(32, 0),
        ];
        let list = [&[2, 0, 0, 0][..], &entries.concat()].concat();
        exceptions.lost_attribute(b"a", ACCESS_ACL, &list);
        assert_eq!(exceptions.without_list(b"a", 0o2670), 0o2640);
        assert_eq!(exceptions.without_list(b"a", 0o604), 0o604);
        assert_eq!(exceptions.without_list(b"b", 0o670), 0o670);
        exceptions.lost_attribute(b"b", ACCESS_ACL, b"\x02");
        assert_eq!(exceptions.without_list(b"b", 0o677), 0o607);
    }
}
