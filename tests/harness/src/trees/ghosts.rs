//! Sendshots that describe files that do not exist.

use std::fs::File;
use std::path::Path;

use sendshot_engine::format::entry::{InodeItem, Name, REGULAR};
use sendshot_engine::{Entry, Sendshot, Writer};

/// Inode number of the added file: higher than that of any file that a test makes.
const NUMBER: u64 = 1 << 30;

/// Adds an empty file `name` in the directory with inode number `parent` to a sendshot.
///
/// # Panics
/// If it is no sendshot, or cannot be written.
#[track_caller]
pub fn add(path: &Path, parent: u64, name: &str) {
    let sendshot = Sendshot::open(path).unwrap();
    let haunted = path.with_extension("haunted");
    let mut writer = Writer::new(File::create(&haunted).unwrap(), sendshot.head()).unwrap();
    let mut reader = sendshot.reader().unwrap();
    while let Some(entry) = reader.next_entry().unwrap() {
        writer.entry(&entry).unwrap();
    }
    let item = InodeItem {
        generation: 7,
        transid: 7,
        mode: REGULAR | 0o644,
        ..InodeItem::default()
    };
    writer.entry(&Entry::Inode(NUMBER, item)).unwrap();
    let name = name.as_bytes().to_vec();
    writer.entry(&Entry::Name(Name { parent, name })).unwrap();
    writer.finish().unwrap();
    std::fs::rename(haunted, path).unwrap();
}
