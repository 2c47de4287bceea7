//! `/etc/sendshot/sender.toml`: which volumes are replicated, and to which receivers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sendshot_model::{PeerName, VolumeName};

use crate::document::{self, Entry, Section};
use crate::error::ConfigError;
use crate::error::Problem;
use crate::schedule::{Schedule, When, Window};

/// Default for the sendshots kept for each receiver: the last common one, and two more for a receiver that
/// lost its newest copies.
pub(crate) const DEFAULT_KEEP: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// Default for how long transient errors are retried: longer than a receiver takes to restart, but short
/// enough that a timer's next push does not find this one still trying.
const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(10 * 60);

/// Default for how long a push may make no progress: a disk that is saturated with writes can take minutes
/// for the data it has accepted.
const DEFAULT_STALL_AFTER: Duration = Duration::from_secs(10 * 60);

/// Default for how long an interrupted push is kept: its snapshot pins data.
const DEFAULT_RESUME_KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Default for the share of the file system that must be free for an interrupted push to be kept, in percent.
const DEFAULT_RESUME_MIN_FREE: u8 = 5;

/// Default for the pushes that run by schedules at one time: one more than one slow receiver takes.
const DEFAULT_MAX_PARALLEL: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// Default for the age of the newest copy from which this host warns.
pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Longest default jitter.
const MAX_DEFAULT_JITTER: Duration = Duration::from_secs(5 * 60);

/// The sender's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderConfig {
    /// How long transient errors are retried, since a push last made progress.
    pub retry_for: Duration,
    /// Time without any progress after which a connection is closed.
    pub stall_after: Duration,
    /// How long the snapshot of an interrupted push is kept for resuming it.
    pub resume_keep: Duration,
    /// Share of the volume's file system that must be free for that, in percent.
    pub resume_min_free: u8,
    /// Most pushes that run by schedules at one time; a receiver without a running push can always begin one.
    pub max_parallel: NonZeroU32,
    /// Where Prometheus finds the metrics, on a loopback address.
    pub metrics: Option<SocketAddr>,
    /// The configured volumes; there may be none, since any subvolume can be pushed by its path.
    pub volumes: BTreeMap<VolumeName, VolumeConfig>,
}

/// The content of a table `[volumes.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// Mount point of the subvolume; absolute. For a series of snapshots: the directory above all of them.
    pub path: PathBuf,
    /// The read-only snapshots that are its states, as an absolute pattern (`*`, `?`, `[…]`), if it is a
    /// series and not a live subvolume.
    pub snapshots: Option<String>,
    /// Receivers to which it is pushed, by their names from pairing; without duplicates.
    pub receivers: Vec<PeerName>,
    /// Number of sendshots kept for each receiver, including the last common one.
    pub keep: NonZeroU32,
    /// Whether the last snapshot is kept as the parent, for the kernel's own send, instead of a sendshot. It
    /// pins the data of the past.
    pub pin_parent: bool,
    /// When it is pushed by itself; never if there is none.
    pub schedule: Option<Schedule>,
    /// Age of the newest copy from which `status` and `check` of this host warn; `None` for never.
    pub max_age: Option<Duration>,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            retry_for: DEFAULT_RETRY_FOR,
            stall_after: DEFAULT_STALL_AFTER,
            resume_keep: DEFAULT_RESUME_KEEP,
            resume_min_free: DEFAULT_RESUME_MIN_FREE,
            max_parallel: DEFAULT_MAX_PARALLEL,
            metrics: None,
            volumes: BTreeMap::new(),
        }
    }
}

impl SenderConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`] if the file does not exist, cannot be read, or is not accepted.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        const REMEDY: &str = "make one with a table like `[volumes.photos]` holding \
            `path = \"/srv/photos\"` and `receivers = [\"nas2\"]`, \
            or an empty one to push by path only";
        Self::parse(file, &document::load(file, REMEDY)?)
    }

    /// Parses a file's text; `file` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError`] if the content is not accepted.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        document::parse(file, text, read)
    }
}

fn read(root: &Section<'_>) -> Result<SenderConfig, Problem> {
    root.accept(&[
        "volumes",
        "retry_for",
        "stall_after",
        "resume_keep",
        "resume_min_free",
        "max_parallel",
        "metrics",
    ])?;
    let mut config = SenderConfig::default();
    for (key, value) in [
        ("retry_for", &mut config.retry_for),
        ("stall_after", &mut config.stall_after),
        ("resume_keep", &mut config.resume_keep),
    ] {
        if let Some(entry) = root.get(key) {
            *value = entry.duration()?;
        }
    }
    if let Some(entry) = root.get("resume_min_free") {
        config.resume_min_free = entry.percent()?;
    }
    if let Some(entry) = root.get("max_parallel") {
        config.max_parallel = entry.count()?;
    }
    if let Some(entry) = root.get("metrics") {
        config.metrics = Some(entry.loopback_address()?);
    }
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
    section.accept(&[
        "path",
        "snapshots",
        "receivers",
        "keep",
        "pin_parent",
        "schedule",
        "jitter",
        "windows",
        "max_age",
    ])?;
    let (path, snapshots) = match section.get("snapshots") {
        None => {
            let path = section.require("path", "path = \"/srv/photos\"")?;
            (new_path(&path, before)?, None)
        }
        Some(pattern) => {
            if let Some(path) = section.get("path") {
                return Err(path.problem("a volume has either a `path` or `snapshots`"));
            }
            let (above, pattern) = new_pattern(&pattern, before)?;
            (above, Some(pattern))
        }
    };
    Ok(VolumeConfig {
        path,
        snapshots,
        receivers: section
            .get("receivers")
            .map_or(Ok(Vec::new()), |list| receivers(&list))?,
        keep: section
            .get("keep")
            .map_or(Ok(DEFAULT_KEEP), |keep| keep.count())?,
        pin_parent: section
            .get("pin_parent")
            .map_or(Ok(false), |pin| pin.switch())?,
        schedule: read_schedule(section)?,
        max_age: section
            .get("max_age")
            .map_or(Ok(Some(DEFAULT_MAX_AGE)), |age| age.age())?,
    })
}

fn read_schedule(section: &Section<'_>) -> Result<Option<Schedule>, Problem> {
    let Some(entry) = section.get("schedule") else {
        for key in ["jitter", "windows"] {
            if let Some(entry) = section.get(key) {
                return Err(entry.key_problem(format!("`{key}` is of no use without `schedule`")));
            }
        }
        return Ok(None);
    };
    let when: When = entry.parse()?;
    let windows = section
        .get("windows")
        .map(|list| -> Result<Vec<Window>, Problem> {
            list.list()?.iter().map(Entry::parse).collect()
        });
    let jitter = section.get("jitter");
    Ok(Some(Schedule {
        jitter: jitter.map_or(Ok(default_jitter(&when)), |jitter| jitter.duration())?,
        windows: windows.unwrap_or(Ok(Vec::new()))?,
        when,
    }))
}

/// The jitter of a schedule that has none of its own.
pub(crate) fn default_jitter(when: &When) -> Duration {
    match when {
        When::Every(interval) => (*interval / 10).min(MAX_DEFAULT_JITTER),
        When::Calendar(_) => Duration::from_secs(60),
    }
}

fn new_path(entry: &Entry<'_>, before: &SenderConfig) -> Result<PathBuf, Problem> {
    let path = entry.path()?;
    match before
        .volumes
        .iter()
        .find(|(_, volume)| volume.path == path && volume.snapshots.is_none())
    {
        None => Ok(path),
        Some((name, _)) => Err(entry.problem(format!("volume `{name}` has this path already"))),
    }
}

/// Returns a pattern, and the directory above everything that it can match.
fn new_pattern(entry: &Entry<'_>, before: &SenderConfig) -> Result<(PathBuf, String), Problem> {
    let path = entry.path()?;
    let pattern = entry.text()?.to_owned();
    let is_taken = |volume: &VolumeConfig| volume.snapshots.as_ref() == Some(&pattern);
    let mut others = before.volumes.iter();
    if let Some((name, _)) = others.find(|(_, volume)| is_taken(volume)) {
        return Err(entry.problem(format!("volume `{name}` has these snapshots already")));
    }
    let is_plain = |part: &std::path::Component<'_>| {
        !part.as_os_str().to_string_lossy().contains(['*', '?', '['])
    };
    let above: PathBuf = path.components().take_while(is_plain).collect();
    if above == path {
        return Err(entry
            .problem("the path has no `*`, so it is that of one snapshot")
            .help("a series is named like \"/srv/.snapshots/*/snapshot\""));
    }
    Ok((above, pattern))
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
        assert_eq!(volume.schedule, None);
        assert_eq!(volume.max_age, Some(DEFAULT_MAX_AGE));
    }

    #[test]
    fn a_volume_can_have_a_schedule() {
        let volume = |lines: &str| parse(&format!("[volumes.a]\npath = '/a'\n{lines}"));
        let config =
            volume("schedule = 'every 1h'\nwindows = ['22:00-06:00']\nmax_age = 'never'").unwrap();
        let schedule = config.volumes["a"].schedule.clone().unwrap();
        assert_eq!(schedule.when, When::Every(Duration::from_secs(3600)));
        assert_eq!(schedule.jitter, Duration::from_secs(300));
        assert_eq!(schedule.windows.len(), 1);
        assert_eq!(config.volumes["a"].max_age, None);
        let wrong = volume("schedule = 'daily'").unwrap_err().to_string();
        assert!(
            wrong.contains("neither an interval like `every 15 min`"),
            "{wrong}"
        );
        let alone = volume("jitter = '1m'").unwrap_err().to_string();
        assert!(
            alone.contains("`jitter` is of no use without `schedule`"),
            "{alone}"
        );
        assert!(parse("max_parallel = 0").is_err());
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
    fn spans_and_shares_have_units() {
        let text = "retry_for = '90s'\nstall_after = '2m'\nresume_keep = '3 days'\nresume_min_free = '10%'\n";
        let config = parse(text).unwrap();
        assert_eq!(config.retry_for.as_secs(), 90);
        assert_eq!(config.stall_after.as_secs(), 120);
        assert_eq!(config.resume_keep.as_secs(), 3 * 86_400);
        assert_eq!(config.resume_min_free, 10);
        for (line, message) in [
            (
                "retry_for = '-5m'",
                "`retry_for`: `-5m` is not a span of time",
            ),
            (
                "retry_for = '1 month'",
                "`retry_for`: `1 month` is not a span of time",
            ),
            (
                "retry_for = 600",
                "`retry_for`: expected a string, found an integer",
            ),
            (
                "resume_min_free = '101%'",
                "`resume_min_free`: `101%` is not a percentage",
            ),
            (
                "resume_min_free = '5'",
                "`resume_min_free`: `5` is not a percentage",
            ),
        ] {
            let error = error(line);
            let first = error.lines().next().unwrap();
            assert!(first.ends_with(message), "{first}");
        }
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
             = did you mean `receivers`? accepted in [volumes.photos]: `path`, `snapshots`, `receivers`, `keep`, `pin_parent`, `schedule`, `jitter`, `windows`, `max_age`"
        );
    }

    #[test]
    fn a_foreign_key_reports_what_is_accepted() {
        assert_eq!(
            error("interval = '1h'\n"),
            "sender.toml:1:1: unknown key `interval`\n  \
             |\n\
             1 | interval = '1h'\n  \
             | ^^^^^^^^\n  \
             = accepted at the top: `volumes`, `retry_for`, `stall_after`, `resume_keep`, `resume_min_free`, `max_parallel`, `metrics`"
        );
    }

    #[test]
    fn a_series_of_snapshots_has_a_pattern_instead_of_a_path() {
        let config = parse("[volumes.x]\nsnapshots = '/srv/.snapshots/*/snapshot'\n").unwrap();
        let volume = &config.volumes["x"];
        assert_eq!(volume.path, Path::new("/srv/.snapshots"));
        assert_eq!(
            volume.snapshots.as_deref(),
            Some("/srv/.snapshots/*/snapshot")
        );
        for (lines, expected) in [
            (
                "path = '/a'\nsnapshots = '/a/*'",
                "either a `path` or `snapshots`",
            ),
            ("snapshots = '/a/b'", "has no `*`"),
            ("snapshots = 'a/*'", "must be absolute"),
        ] {
            let error = error(&format!("[volumes.x]\n{lines}\n"));
            assert!(error.contains(expected), "{error}");
        }
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
    fn duplicate_keys_are_shown_at_the_second() {
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
