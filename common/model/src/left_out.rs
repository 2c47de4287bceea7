//! What a restore leaves out or stores in another way: the target may be on any file system, and the user may not
//! want the privileges that files carry.
//!
//! Inode flags and the compression property are counted by [`crate::NotKept`], as for copies.

use serde::{Deserialize, Serialize};

use crate::tally::{Tally, TallyEntry};

/// A kind of property or entry that was left out or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutKind {
    /// An entry whose name the file system does not accept, or regards as equal to another.
    Name,
    /// An entry in a directory that was left out.
    InLeftOutDirectory,
    /// A device node that cannot be made.
    DeviceNode,
    /// A device node that the user did not ask for.
    DeviceNodeNotWanted,
    /// A pipe or socket.
    SpecialFile,
    /// A symbolic link.
    SymbolicLink,
    /// A hard link, made as a file of its own.
    HardLink,
    /// Owner and group.
    Owner,
    /// Permissions.
    Mode,
    /// Bits for set-user-id and set-group-id that the user did not ask for, or whose owner was not kept.
    SetId,
    /// An access control list.
    AccessControlList,
    /// File capabilities that the file system cannot keep.
    Capability,
    /// File capabilities that the user did not ask for.
    CapabilityNotWanted,
    /// Another extended attribute.
    ExtendedAttribute,
    /// Times of access and modification.
    Times,
    /// Holes, stored as zeros.
    Holes,
    /// Reserved space.
    Reservation,
    /// Data shared between files, stored once for each.
    SharedData,
    /// Compressed data, stored uncompressed.
    CompressedData,
}

impl LeftOutKind {
    /// Returns a description for users.
    pub fn description(self) -> &'static str {
        match self {
            Self::Name => "entry whose name the file system cannot hold",
            Self::InLeftOutDirectory => "entry in a directory that was left out",
            Self::DeviceNode => "device node",
            Self::DeviceNodeNotWanted => "device node, not made unless requested",
            Self::SpecialFile => "pipe or socket",
            Self::SymbolicLink => "symbolic link",
            Self::HardLink => "hard link, made as a separate file",
            Self::Owner => "owner and group",
            Self::Mode => "permissions",
            Self::SetId => "set-user-id or set-group-id bit, not set",
            Self::AccessControlList => "access control list",
            Self::Capability => "file capabilities",
            Self::CapabilityNotWanted => "file capabilities, not set unless requested",
            Self::ExtendedAttribute => "extended attribute",
            Self::Times => "times",
            Self::Holes => "holes, stored as zeros",
            Self::Reservation => "reserved space",
            Self::SharedData => "shared data, stored separately",
            Self::CompressedData => "compressed data, stored uncompressed",
        }
    }

    /// Whether only the way is another in which the file system stores the data.
    pub fn is_of_storage(self) -> bool {
        match self {
            Self::Holes | Self::Reservation | Self::SharedData | Self::CompressedData => true,
            Self::Name
            | Self::InLeftOutDirectory
            | Self::DeviceNode
            | Self::DeviceNodeNotWanted
            | Self::SpecialFile
            | Self::SymbolicLink
            | Self::HardLink
            | Self::Owner
            | Self::Mode
            | Self::SetId
            | Self::AccessControlList
            | Self::Capability
            | Self::CapabilityNotWanted
            | Self::ExtendedAttribute
            | Self::Times => false,
        }
    }

    /// Whether an entry is missing, and not only a property of one.
    pub fn is_entry(self) -> bool {
        match self {
            Self::Name
            | Self::InLeftOutDirectory
            | Self::DeviceNode
            | Self::DeviceNodeNotWanted
            | Self::SpecialFile
            | Self::SymbolicLink => true,
            Self::HardLink
            | Self::Owner
            | Self::Mode
            | Self::SetId
            | Self::AccessControlList
            | Self::Capability
            | Self::CapabilityNotWanted
            | Self::ExtendedAttribute
            | Self::Times
            | Self::Holes
            | Self::Reservation
            | Self::SharedData
            | Self::CompressedData => false,
        }
    }
}

/// Number and example of one kind that was left out.
pub type LeftOutEntry = TallyEntry<LeftOutKind>;

/// What a restore left out or stored in another way, by kind. Its size is bounded.
pub type LeftOut = Tally<LeftOutKind>;
