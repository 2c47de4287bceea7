//! The file systems that `list`, `prune` and `forget` could not read.

use sendshot_proto::report::lossy;
use sendshot_proto::v1::NotLookedAt;
use serde::Serialize;

use crate::output::{self, Output};

/// A separate line after the results, without any of their fields, so that a program that reads those ignores
/// it.
#[derive(Serialize)]
struct Line {
    not_looked_at: FilesystemJson,
}

#[derive(Serialize)]
struct FilesystemJson {
    filesystem: String,
    path: String,
    /// `null` if not known.
    last_seen: Option<String>,
    /// See docs/reasons.md.
    code: String,
    reason: String,
}

/// Shows the file systems: as objects, or as notes.
pub fn show(missed: Vec<NotLookedAt>, output: &Output) {
    for filesystem in missed {
        let uuid = output::uuid(&filesystem.filesystem);
        let path = lossy(&filesystem.path);
        let last_seen = output::time_json(filesystem.last_seen);
        if output.is_json() {
            let not_looked_at = FilesystemJson {
                filesystem: uuid,
                path,
                last_seen,
                code: filesystem.code,
                reason: filesystem.reason,
            };
            output.result(&Line { not_looked_at }, String::new);
            continue;
        }
        let when = match last_seen {
            Some(_) => format!("last seen {}", output::time(filesystem.last_seen)),
            None => "not seen since an upgrade".to_owned(),
        };
        output.note(&format!(
            "not checked: file system {uuid}, {when} at {path}: {}",
            filesystem.reason
        ));
    }
}
