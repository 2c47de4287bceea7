//! Finds who uses a volume: mounts of it in every mount namespace, and processes with files open in it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sendshot_model::human;
use sendshot_sys::{filesystem, mounts};

use crate::restore::error::Error;
use crate::restore::in_place::place::{VolumePlace, open_volume};

/// Most users of a kind that are named.
const MAX_NAMED: usize = 10;

/// The users of a volume.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Mount points of the volume, or of something in it.
    mounted: BTreeSet<PathBuf>,
    /// Processes with files open in it: id and name.
    processes: BTreeSet<(u32, String)>,
}

impl Users {
    pub(super) fn is_empty(&self) -> bool {
        self.mounted.is_empty() && self.processes.is_empty()
    }

    /// Names them.
    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        let mounted: Vec<String> = self
            .mounted
            .iter()
            .map(|at| at.display().to_string())
            .collect();
        if !mounted.is_empty() {
            parts.push(format!("it is mounted at {}", human::few(&mounted)));
        }
        let processes: Vec<String> = self
            .processes
            .iter()
            .take(MAX_NAMED)
            .map(|(id, name)| format!("{name} ({id})"))
            .collect();
        if !processes.is_empty() {
            parts.push(format!("open files: {}", human::few(&processes)));
        }
        parts.join("; ")
    }

    /// What the user has to do after the exchange, line by line.
    pub(super) fn advice(&self, place: &VolumePlace, kept: Option<&PathBuf>) -> String {
        let mut lines = vec![match kept {
            Some(kept) => format!(
                "whoever used the volume continues in the old one, {}: nothing that is written there is lost, and it is \
                 not pushed",
                kept.display()
            ),
            None => "the volume is in use".to_owned(),
        }];
        for (id, name) in self.processes.iter().take(MAX_NAMED) {
            lines.push(format!("  restart {name} ({id})"));
        }
        let from_top = place.path_from_top();
        for at in &self.mounted {
            lines.push(format!(
                "  umount {0} && mount -o subvol=/{1} UUID={2} {0}",
                at.display(),
                from_top.display(),
                place.fsid
            ));
        }
        if let Some(old) = &place.old {
            for line in lines_with_id(Path::new("/etc/fstab"), old.id) {
                lines.push(format!(
                    "  /etc/fstab names the old volume by its id, write subvol=/{} instead: {line}",
                    from_top.display()
                ));
            }
        }
        lines.join("\n")
    }
}

/// The lines of a table of file systems that name a subvolume by its id.
fn lines_with_id(table: &Path, id: u64) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let wanted = format!("subvolid={id}");
    let names_it = |line: &&str| {
        let options = line.split_whitespace().nth(3).unwrap_or_default();
        !line.trim_start().starts_with('#') && options.split(',').any(|option| option == wanted)
    };
    text.lines().filter(names_it).map(str::to_owned).collect()
}

/// Finds the users of a volume. Processes that end meanwhile do not count.
///
/// # Errors
/// I/O errors of `/proc`.
pub(super) fn find(place: &VolumePlace) -> Result<Users, Error> {
    let mut users = Users::default();
    if place.old.is_none() {
        return Ok(users);
    }
    let look = Error::io("look for users of the volume in /proc");
    let top = place.top()?;
    let from_top = Path::new("/").join(place.path_from_top());
    let devices = filesystem::device_paths(&top).map_err(&look)?;
    let devices: Vec<PathBuf> = devices
        .iter()
        .map(|device| fs::canonicalize(device).unwrap_or_else(|_| device.clone()))
        .collect();
    let volume = rustix::fs::fstat(open_volume(place)?).map_err(|e| look(e.into()))?;
    let device_of_volume = volume.st_dev;
    let mut namespaces = BTreeSet::new();
    for entry in fs::read_dir("/proc").map_err(&look)? {
        let entry = entry.map_err(&look)?;
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if id == std::process::id() {
            continue;
        }
        let process = entry.path();
        let namespace = fs::read_link(process.join("ns/mnt")).unwrap_or_default();
        if namespaces.insert(namespace) {
            let table = fs::read(process.join("mountinfo")).unwrap_or_default();
            let of_volume = mounts::of_subvolume(&table, &from_top, |source| {
                let source = fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
                devices.contains(&source)
            });
            users.mounted.extend(of_volume);
        }
        if has_open(&process, device_of_volume) {
            users.processes.insert((id, name_of(&process)));
        }
    }
    Ok(users)
}

/// Whether a process has a file open in the subvolume with this device number.
fn has_open(process: &Path, device: u64) -> bool {
    let is_there = |path: PathBuf| fs::metadata(path).is_ok_and(|file| file.dev() == device);
    let in_dir = |name: &str| -> io::Result<bool> {
        for entry in fs::read_dir(process.join(name))? {
            if is_there(entry?.path()) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    ["cwd", "root", "exe"]
        .into_iter()
        .any(|name| is_there(process.join(name)))
        || ["fd", "map_files"]
            .into_iter()
            .any(|name| in_dir(name).unwrap_or(false))
}

fn name_of(process: &Path) -> String {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    let name = OsString::from_vec(name).to_string_lossy().trim().to_owned();
    sendshot_model::printable(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_the_old_volume_by_id_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# UUID=1 /a btrfs subvolid=257 0 0\nUUID=1 /a btrfs rw,subvolid=257 0 0\n\
                    UUID=1 /b btrfs subvolid=2571 0 0\nUUID=1 /c btrfs subvol=photos 0 0\n";
        fs::write(file.path(), text).unwrap();
        let found = lines_with_id(file.path(), 257);
        assert_eq!(found, ["UUID=1 /a btrfs rw,subvolid=257 0 0"]);
    }
}
