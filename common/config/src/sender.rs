//! `/etc/sendshot/sender.toml`: what is replicated, and where to.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use sendshot_model::{PeerName, VolumeName};

use crate::ConfigError;
use crate::document::{self, Entry, Section};
use crate::error::Problem;

/// How many sendshots are kept for each receiver unless a volume says otherwise: the last common
/// one, and two more for a receiver that lost its newest copies.
const DEFAULT_KEEP: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SenderConfig {
    /// The configured volumes; none is fine, since any subvolume can be pushed by its path.
    pub volumes: BTreeMap<VolumeName, VolumeConfig>,
}

/// One table `[volumes.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// Where the subvolume is mounted; absolute.
    pub path: PathBuf,
    /// Where it is pushed to, by the names they were paired under; none twice.
    pub receivers: Vec<PeerName>,
    /// Sendshots kept for each receiver, the last common one included.
    pub keep: NonZeroU32,
    /// Whether the last snapshot stays as the parent, for the kernel's own send, instead of a
    /// sendshot. It pins the data of the past.
    pub pin_parent: bool,
}

impl SenderConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// If there is no such file, it cannot be read, or it says something that is not accepted.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        const REMEDY: &str = "make one with a table like `[volumes.photos]` holding \
            `path = \"/srv/photos\"` and `receivers = [\"nas2\"]`, \
            or an empty one to push by path only";
        Self::parse(file, &document::load(file, REMEDY)?)
    }

    /// Reads a file's text; `file` is only for messages.
    ///
    /// # Errors
    /// If it says something that is not accepted.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        document::parse(file, text, read)
    }
}

fn read(root: &Section<'_>) -> Result<SenderConfig, Problem> {
    root.accept(&["volumes"])?;
    let mut config = SenderConfig::default();
    let Some(volumes) = root.get("volumes") else {
        return Ok(config);
    };
    for entry in volumes.section()?.entries() {
        let name: VolumeName = entry.parse_key()?;
        let volume = read_volume(&entry.section()?, &config)?;
        config.volumes.insert(name, volume);
    }
    Ok(config)
}

fn read_volume(section: &Section<'_>, before: &SenderConfig) -> Result<VolumeConfig, Problem> {
    section.accept(&["path", "receivers", "keep", "pin_parent"])?;
    let path = section.require("path", "path = \"/srv/photos\"")?;
    Ok(VolumeConfig {
        path: new_path(&path, before)?,
        receivers: section
            .get("receivers")
            .map_or(Ok(Vec::new()), |list| receivers(&list))?,
        keep: section
            .get("keep")
            .map_or(Ok(DEFAULT_KEEP), |keep| keep.count())?,
        pin_parent: section
            .get("pin_parent")
            .map_or(Ok(false), |pin| pin.switch())?,
    })
}

fn new_path(entry: &Entry<'_>, before: &SenderConfig) -> Result<PathBuf, Problem> {
    let path = entry.path()?;
    match before
        .volumes
        .iter()
        .find(|(_, volume)| volume.path == path)
    {
        None => Ok(path),
        Some((name, _)) => Err(entry.problem(format!("volume `{name}` has this path already"))),
    }
}

fn receivers(list: &Entry<'_>) -> Result<Vec<PeerName>, Problem> {
    let mut receivers = Vec::new();
    for entry in list.list()? {
        let name: PeerName = entry.parse()?;
        if receivers.contains(&name) {
            return Err(entry.problem(format!("`{name}` is listed twice")));
        }
        receivers.push(name);
    }
    Ok(receivers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SenderConfig, ConfigError> {
        SenderConfig::parse(Path::new("sender.toml"), text)
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_example_is_accepted() {
        let config = parse(include_str!("../../../deploy/sender.toml")).unwrap();
        assert!(config.volumes.contains_key("photos"));
    }

    #[test]
    fn a_volume_has_defaults() {
        let config = parse("[volumes.photos]\npath = '/srv/photos'\n").unwrap();
        let volume = &config.volumes["photos"];
        assert_eq!(volume.path, Path::new("/srv/photos"));
        assert_eq!(volume.receivers, []);
        assert_eq!(volume.keep.get(), 3);
        assert!(!volume.pin_parent);
    }

    #[test]
    fn a_volume_can_ask_for_its_snapshot_to_stay() {
        let config = parse("[volumes.vm]\npath = '/srv/vm'\npin_parent = true\n").unwrap();
        assert!(config.volumes["vm"].pin_parent);
        let mistyped = error("[volumes.vm]\npath = '/srv/vm'\npin_parents = true\n");
        assert!(
            mistyped.contains("did you mean `pin_parent`?"),
            "{mistyped}"
        );
    }

    #[test]
    fn an_empty_file_is_fine() {
        assert_eq!(parse("# nothing yet\n").unwrap(), SenderConfig::default());
    }

    #[test]
    fn a_mistyped_key_is_shown_with_the_right_one() {
        assert_eq!(
            error("[volumes.photos]\npath = \"/srv/photos\"\nreciever = [\"nas2\"]\n"),
            "sender.toml:3:1: unknown key `reciever`\n  \
             |\n\
             3 | reciever = [\"nas2\"]\n  \
             | ^^^^^^^^\n  \
             = did you mean `receivers`? accepted in [volumes.photos]: `path`, `receivers`, `keep`, `pin_parent`"
        );
    }

    #[test]
    fn a_foreign_key_is_told_what_is_accepted() {
        assert_eq!(
            error("interval = '1h'\n"),
            "sender.toml:1:1: unknown key `interval`\n  \
             |\n\
             1 | interval = '1h'\n  \
             | ^^^^^^^^\n  \
             = accepted at the top: `volumes`"
        );
    }

    #[test]
    fn a_missing_path_is_asked_for() {
        assert_eq!(
            error("\n[volumes.photos]\nkeep = 1\n"),
            "sender.toml:2:10: [volumes.photos] lacks the key `path`\n  \
             |\n\
             2 | [volumes.photos]\n  \
             |          ^^^^^^\n  \
             = add a line like `path = \"/srv/photos\"`"
        );
    }

    #[test]
    fn wrong_values_are_shown() {
        for (line, message) in [
            (
                "path = 'photos'",
                "`volumes.p.path`: the path must be absolute, that is start with `/`",
            ),
            (
                "path = '/srv/../etc'",
                "`volumes.p.path`: the path must not contain `..`",
            ),
            (
                "path = 7",
                "`volumes.p.path`: expected a string, found an integer",
            ),
            (
                "path = '/a'\nkeep = 0",
                "`volumes.p.keep`: expected a whole number from 1 to 4294967295",
            ),
            (
                "path = '/a'\nkeep = -1",
                "`volumes.p.keep`: expected a whole number from 1 to 4294967295",
            ),
            (
                "path = '/a'\nkeep = 'all'",
                "`volumes.p.keep`: expected a whole number, found a string",
            ),
            (
                "path = '/a'\npin_parent = 'yes'",
                "`volumes.p.pin_parent`: expected true or false, found a string",
            ),
            (
                "path = '/a'\nreceivers = 'nas2'",
                "`volumes.p.receivers`: expected a list, found a string",
            ),
            (
                "path = '/a'\nreceivers = ['b', 'b']",
                "`volumes.p.receivers`: `b` is listed twice",
            ),
        ] {
            let error = error(&format!("[volumes.p]\n{line}\n"));
            let first = error.lines().next().unwrap();
            assert!(first.ends_with(message), "{first}");
        }
    }

    #[test]
    fn what_stands_twice_is_shown_at_its_second_place() {
        let twice = error("[volumes.a]\npath = '/a'\n[volumes.a]\npath = '/b'\n");
        assert!(twice.starts_with("sender.toml:3:"), "{twice}");
        let path = error("[volumes.a]\npath = '/a'\n[volumes.b]\npath = '/a/'\n");
        assert_eq!(
            path,
            "sender.toml:4:8: `volumes.b.path`: volume `a` has this path already\n  \
             |\n\
             4 | path = '/a/'\n  \
             |        ^^^^^"
        );
    }

    #[test]
    fn wrong_names_are_shown() {
        assert!(
            error("[volumes.'.x']\npath = '/a'\n").starts_with(
                "sender.toml:1:10: `.x` cannot be a volume's name: it starts with `.`"
            )
        );
        let receiver = error("[volumes.a]\npath = '/a'\nreceivers = ['nas2', 'a/b']\n");
        assert!(receiver.starts_with("sender.toml:3:22: `volumes.a.receivers`: `a/b` cannot be"));
    }

    #[test]
    fn broken_toml_is_shown_with_its_line() {
        let error = error("[volumes.photos]\npath = /srv\n");
        assert!(error.starts_with("sender.toml:2:8: "), "{error}");
    }

    #[test]
    fn an_absent_file_says_how_to_make_one() {
        let error = SenderConfig::load(Path::new("/nonexistent/sender.toml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nonexistent/sender.toml: there is no such file; make one with a table like \
             `[volumes.photos]` holding `path = \"/srv/photos\"` and `receivers = [\"nas2\"]`, \
             or an empty one to push by path only"
        );
    }
}
