//! What is executed as one: commands on one path that follow each other in a stream, and entries that are made under a
//! temporary name.

use sendshot_stream::Command;

/// A command and the offset of its first byte in the stream.
pub(crate) type Placed<'a> = (Command<'a>, u64);

/// Commands on one path, in the order of the stream.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) commands: Vec<Placed<'a>>,
    /// Where the first command makes its entry in the stream, and the rename to the path of the run.
    pub(crate) renamed: Option<Renamed<'a>>,
}

/// A temporary name in the root, and the rename that ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renamed<'a> {
    pub(crate) temporary: &'a [u8],
    /// Offset of the rename in the stream.
    pub(crate) offset: u64,
}

/// A directory that a stream makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewDir<'a> {
    pub(crate) path: &'a [u8],
    /// Offset of the command in the stream.
    pub(crate) offset: u64,
    /// If it is made under another name.
    pub(crate) renamed: Option<Renamed<'a>>,
}

impl Run<'_> {
    /// Whether its first command makes the entry.
    pub(crate) fn is_fresh(&self) -> bool {
        self.commands.first().is_some_and(|(c, _)| makes_entry(c))
    }
}

impl<'a> Renamed<'a> {
    /// The rename.
    pub(crate) fn command(self, to: &'a [u8]) -> Command<'a> {
        let path = self.temporary;
        Command::Rename { path, to }
    }
}

impl<'a> NewDir<'a> {
    pub(crate) fn new(path: &'a [u8], offset: u64) -> Self {
        Self {
            path,
            offset,
            renamed: None,
        }
    }

    /// The directory in its final place, if `command` renames it.
    pub(crate) fn renamed_by(self, command: &Command<'a>, offset: u64) -> Option<Self> {
        match *command {
            Command::Rename { path, to } if path == self.path && !to.is_empty() => Some(Self {
                path: to,
                renamed: Some(Renamed {
                    temporary: path,
                    offset,
                }),
                ..self
            }),
            _ => None,
        }
    }
}

/// Whether a command makes an entry that is no directory.
pub(crate) fn makes_entry(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Mkfile { .. }
            | Command::Mknod { .. }
            | Command::Mkfifo { .. }
            | Command::Mksock { .. }
            | Command::Symlink { .. }
    )
}
