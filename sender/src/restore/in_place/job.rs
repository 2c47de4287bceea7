//! What the user wants to have restored in its place.

use std::path::PathBuf;

use crate::restore::whole::Volume;

/// A volume to be restored in its place.
#[derive(Debug)]
pub(in crate::restore) struct Job<'a> {
    pub(in crate::restore) volume: Volume<'a>,
    /// Device of its file system, if the user names it.
    pub(in crate::restore) device: Option<PathBuf>,
    /// Whether the old volume may be mounted or open.
    pub(in crate::restore) while_in_use: bool,
}
