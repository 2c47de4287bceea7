//! `/etc/sendshot/receiver.toml`: where copies are held, and which are kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use sendshot_model::{PeerName, VolumeName};
use sendshot_retention::{DEFAULT_PROTECT, Part, Policy, Rule, RuleError, Unit, explain};

use crate::address::DEFAULT_PORT;
use crate::document::{self, Entry, Section};
use crate::error::ConfigError;
use crate::error::Problem;

/// Default for how long the rest of an interrupted push is kept: as long as senders keep theirs.
pub(crate) const DEFAULT_PARTIAL_KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Default for the bytes between two checkpoints.
pub(crate) const DEFAULT_CHECKPOINT_BYTES: u64 = 64 << 20;

/// Default for the time between two checkpoints: each one commits the file system.
pub(crate) const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// The receiver's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Address on which it listens; `[::]:7117` by default, which on Linux accepts IPv4 as well.
    pub listen: SocketAddr,
    /// The directory, on btrfs, that contains each sender's directory; absolute.
    pub root: PathBuf,
    /// How long the rest of an interrupted push is kept.
    pub partial_keep: Duration,
    /// Minimum bytes of a stream between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Minimum time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// The zone of the calendar by which days, weeks, months and years are counted; `None` for the host's own.
    pub timezone: Option<TimeZone>,
    /// What decides whether the clock is good.
    pub clock: ClockRule,
    /// The least free space.
    pub min_free: MinFree,
    /// Where Prometheus finds the metrics, on a loopback address.
    pub metrics: Option<SocketAddr>,
    /// Policies by sender. A sender that is not listed has the defaults.
    pub senders: BTreeMap<PeerName, SenderPolicy>,
}

/// The content of a table `[senders.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderPolicy {
    /// The copies that are kept.
    pub keep: KeepPolicy,
    /// The same for single volumes, by their directories; it takes precedence.
    pub volumes: BTreeMap<VolumeName, KeepPolicy>,
    /// Maximum number of the sender's volumes.
    pub max_volumes: NonZeroU32,
    /// Maximum number of the sender's bytes, of streams and of what their commands allocated; `None` if only
    /// free space limits it.
    pub max_bytes: Option<u64>,
    /// Maximum number of pushes that are running or interrupted at a time.
    pub max_partials: NonZeroU32,
    /// The permission to read copies.
    pub restore: RestoreRule,
    /// Maximum number of the sender's fetches at a time.
    pub max_fetches: NonZeroU32,
}

/// Default for the age of the newest copy from which this host warns: a weekend does not ring.
pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Default for the volumes of a sender: more than any realistic configuration, few enough to be listed.
const DEFAULT_MAX_VOLUMES: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Default for the simultaneous pushes of a sender. Each one has a thread and open files.
const DEFAULT_MAX_PARTIALS: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// Default for the simultaneous fetches of a sender. Each one captures a copy and reads it whole.
const DEFAULT_MAX_FETCHES: NonZeroU32 = NonZeroU32::new(2).unwrap();

impl Default for SenderPolicy {
    fn default() -> Self {
        Self {
            keep: KeepPolicy::default(),
            volumes: BTreeMap::new(),
            max_volumes: DEFAULT_MAX_VOLUMES,
            max_bytes: None,
            max_partials: DEFAULT_MAX_PARTIALS,
            restore: RestoreRule::Ask,
            max_fetches: DEFAULT_MAX_FETCHES,
        }
    }
}

/// Decides whether a sender can read its own copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestoreRule {
    /// Root of the receiver grants the permission, for a time.
    #[default]
    Ask,
    /// The sender's own key can always read.
    Always,
    /// No key can read, not even with a grant.
    Never,
}

/// The time of a copy that counts for its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Times {
    /// That of its commit, by the receiver's clock.
    #[default]
    Commit,
    /// That of its snapshot, as the sender stated it: never earlier than that of the copy before it, and never later than
    /// its commit.
    Snapshot,
}

/// What decides whether the clock of this host is good enough to delete by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockRule {
    /// The kernel says that it is synchronised.
    #[default]
    Kernel,
    /// The administrator says so.
    Trusted,
}

/// The least free space of the root's disk, below which no push begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinFree {
    /// 5 % of the disk or 20 GiB, whichever is less.
    Default,
    /// Bytes.
    Bytes(u64),
    /// Percent of the disk.
    Percent(u8),
}

impl MinFree {
    /// Returns the bytes for a disk of this size.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        let percent = |percent: u8| total / 100 * u64::from(percent);
        match self {
            Self::Default => percent(5).min(20 << 30),
            Self::Bytes(bytes) => bytes,
            Self::Percent(of_disk) => percent(of_disk),
        }
    }
}

/// What the file says of the copies of a sender, or of a volume. `None` where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeepPolicy {
    /// The rule.
    pub keep: Option<Rule>,
    /// The minimum age.
    pub protect: Option<Duration>,
    /// The time that counts.
    pub times: Option<Times>,
    /// Age of the newest copy from which this host warns; `Some(None)` for never.
    pub max_age: Option<Option<Duration>>,
}

impl ReceiverConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`] if the file does not exist, cannot be read, or is not accepted.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        const REMEDY: &str = "make one with a line like `root = \"/srv/backup\"`, \
            a directory on btrfs for the copies";
        Self::parse(file, &document::load(file, REMEDY)?)
    }

    /// Parses a file's text; `file` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError`] if the content is not accepted.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        document::parse(file, text, read)
    }

    /// Keeps the former values of the keys that a running receiver cannot change, and returns the keys that differed.
    pub fn keep_fixed(&mut self, former: &Self) -> Vec<&'static str> {
        let mut differed = Vec::new();
        if self.listen != former.listen {
            self.listen = former.listen;
            differed.push("listen");
        }
        if self.root != former.root {
            self.root.clone_from(&former.root);
            differed.push("root");
        }
        differed
    }

    /// Returns the policy for this sender.
    #[must_use]
    pub fn policy(&self, sender: &PeerName) -> SenderPolicy {
        self.senders.get(sender).cloned().unwrap_or_default()
    }

    /// The tables that decide about the copies of a volume, by its directory: the volume's own first.
    fn tables(&self, sender: &str, volume: &str) -> impl Iterator<Item = &KeepPolicy> + Clone {
        let of_sender = self
            .senders
            .iter()
            .find(|(name, _)| name.as_str() == sender);
        let of_sender = of_sender.map(|(_, policy)| policy);
        let of_volume = of_sender.and_then(|policy| {
            let mut volumes = policy.volumes.iter();
            volumes.find(|(name, _)| name.as_str() == volume)
        });
        let both = [
            of_volume.map(|(_, keep)| keep),
            of_sender.map(|policy| &policy.keep),
        ];
        both.into_iter().flatten()
    }

    /// Returns the policy for the copies of a volume, by its directory, and the time that counts for them.
    #[must_use]
    pub fn retention(&self, sender: &str, volume: &str) -> (Policy, Times) {
        let both = || self.tables(sender, volume);
        let policy = Policy {
            rule: both()
                .find_map(|keep| keep.keep.clone())
                .unwrap_or_default(),
            protect: both()
                .find_map(|keep| keep.protect)
                .unwrap_or(DEFAULT_PROTECT),
            timezone: self.calendar(),
        };
        let times = both().find_map(|keep| keep.times).unwrap_or_default();
        (policy, times)
    }

    /// Returns the age of the newest copy of a volume, by its directory, from which this host warns; `None` for never.
    #[must_use]
    pub fn max_age(&self, sender: &str, volume: &str) -> Option<Duration> {
        let mut both = self.tables(sender, volume);
        both.find_map(|table| table.max_age)
            .unwrap_or(Some(DEFAULT_MAX_AGE))
    }

    /// Returns the zone of the calendar.
    #[must_use]
    pub fn calendar(&self) -> TimeZone {
        self.timezone.clone().unwrap_or_else(TimeZone::system)
    }

    /// Says in words what the rules will do, one line for each sender and volume that the file names.
    #[must_use]
    pub fn explain(&self, now: i64) -> Vec<String> {
        let mut lines = Vec::new();
        for (sender, policy) in &self.senders {
            let of = |volume: &str| explain(&self.retention(sender.as_str(), volume).0, now);
            lines.push(format!("{sender}: {}", of("")));
            let volumes = policy.volumes.keys();
            lines.extend(
                volumes.map(|volume| format!("{sender}/{volume}: {}", of(volume.as_str()))),
            );
        }
        if lines.is_empty() {
            return lines;
        }
        let zone = self.calendar();
        let name = zone.iana_name().unwrap_or("the zone of this host");
        lines.push(format!("days, weeks, months and years are those of {name}"));
        lines
    }
}

fn read(root: &Section<'_>) -> Result<ReceiverConfig, Problem> {
    root.accept(&[
        "listen",
        "root",
        "senders",
        "partial_keep",
        "checkpoint_bytes",
        "checkpoint_interval",
        "timezone",
        "clock",
        "min_free",
        "metrics",
    ])?;
    let duration = |key, default| {
        root.get(key)
            .map_or(Ok(default), |entry: Entry<'_>| entry.duration())
    };
    Ok(ReceiverConfig {
        listen: root
            .get("listen")
            .map_or(Ok(default_listen()), |entry| listen(&entry))?,
        root: root.require("root", "root = \"/srv/backup\"")?.path()?,
        partial_keep: duration("partial_keep", DEFAULT_PARTIAL_KEEP)?,
        checkpoint_bytes: root
            .get("checkpoint_bytes")
            .map_or(Ok(DEFAULT_CHECKPOINT_BYTES), |entry| entry.bytes())?,
        checkpoint_interval: duration("checkpoint_interval", DEFAULT_CHECKPOINT_INTERVAL)?,
        timezone: root
            .get("timezone")
            .map(|entry| timezone(&entry))
            .transpose()?,
        clock: root
            .get("clock")
            .map_or(Ok(ClockRule::Kernel), |entry| clock(&entry))?,
        min_free: root
            .get("min_free")
            .map_or(Ok(MinFree::Default), |entry| min_free(&entry))?,
        metrics: root
            .get("metrics")
            .map(|entry| entry.loopback_address())
            .transpose()?,
        senders: root
            .get("senders")
            .map_or(Ok(BTreeMap::new()), |entry| senders(&entry))?,
    })
}

pub(crate) fn default_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT)
}

fn listen(entry: &Entry<'_>) -> Result<SocketAddr, Problem> {
    let text = entry.text()?;
    text.parse().map_err(|_| {
        entry
            .problem(format!("`{text}` is not an IP address with a port"))
            .help("for example \"[::]:7117\" for everyone, or \"192.0.2.7:7117\"")
    })
}

fn senders(entry: &Entry<'_>) -> Result<BTreeMap<PeerName, SenderPolicy>, Problem> {
    let mut senders = BTreeMap::new();
    for entry in entry.section()?.entries() {
        senders.insert(entry.parse_key()?, policy(&entry.section()?)?);
    }
    Ok(senders)
}

fn policy(section: &Section<'_>) -> Result<SenderPolicy, Problem> {
    section.accept(&[
        "keep",
        "protect",
        "times",
        "max_age",
        "volumes",
        "max_volumes",
        "max_bytes",
        "max_partials",
        "restore",
        "max_fetches",
    ])?;
    let count = |key, default| {
        section
            .get(key)
            .map_or(Ok(default), |entry: Entry<'_>| entry.count())
    };
    Ok(SenderPolicy {
        keep: keep_policy(section)?,
        volumes: section
            .get("volumes")
            .map_or(Ok(BTreeMap::new()), |entry| volumes(&entry))?,
        max_volumes: count("max_volumes", DEFAULT_MAX_VOLUMES)?,
        max_bytes: section
            .get("max_bytes")
            .map(|entry| entry.bytes())
            .transpose()?,
        max_partials: count("max_partials", DEFAULT_MAX_PARTIALS)?,
        restore: section
            .get("restore")
            .map_or(Ok(RestoreRule::Ask), |entry| restore(&entry))?,
        max_fetches: count("max_fetches", DEFAULT_MAX_FETCHES)?,
    })
}

fn restore(entry: &Entry<'_>) -> Result<RestoreRule, Problem> {
    match entry.text()? {
        "ask" => Ok(RestoreRule::Ask),
        "always" => Ok(RestoreRule::Always),
        "never" => Ok(RestoreRule::Never),
        other => Err(entry
            .problem(format!("`{other}` is not accepted"))
            .help("write \"ask\" (`sendshotctl peer grant` permits it for a time), \"always\" or \"never\"")),
    }
}

fn volumes(entry: &Entry<'_>) -> Result<BTreeMap<VolumeName, KeepPolicy>, Problem> {
    let mut volumes = BTreeMap::new();
    for entry in entry.section()?.entries() {
        let section = entry.section()?;
        section.accept(&["keep", "protect", "times", "max_age"])?;
        volumes.insert(entry.parse_key()?, keep_policy(&section)?);
    }
    Ok(volumes)
}

fn keep_policy(section: &Section<'_>) -> Result<KeepPolicy, Problem> {
    Ok(KeepPolicy {
        keep: section.get("keep").map(|entry| keep(&entry)).transpose()?,
        protect: section
            .get("protect")
            .map(|entry| entry.duration())
            .transpose()?,
        times: section
            .get("times")
            .map(|entry| times(&entry))
            .transpose()?,
        max_age: section
            .get("max_age")
            .map(|entry| entry.age())
            .transpose()?,
    })
}

fn times(entry: &Entry<'_>) -> Result<Times, Problem> {
    match entry.text()? {
        "commit" => Ok(Times::Commit),
        "snapshot" => Ok(Times::Snapshot),
        other => Err(entry.problem(format!("`{other}` is not accepted")).help(
            "write \"commit\" (this host's clock) or \"snapshot\" (the time that the sender states)",
        )),
    }
}

fn clock(entry: &Entry<'_>) -> Result<ClockRule, Problem> {
    match entry.text()? {
        "kernel" => Ok(ClockRule::Kernel),
        "trusted" => Ok(ClockRule::Trusted),
        other => Err(entry.problem(format!("`{other}` is not accepted")).help(
            "write \"kernel\", or \"trusted\" on a host on which nothing tells the kernel that its clock is synchronised",
        )),
    }
}

fn timezone(entry: &Entry<'_>) -> Result<TimeZone, Problem> {
    let text = entry.text()?;
    TimeZone::get(text).map_err(|_| {
        entry
            .problem(format!("`{text}` is not a time zone of this host"))
            .help("for example \"Europe/Berlin\" or \"UTC\"; the package tzdata has them")
    })
}

fn min_free(entry: &Entry<'_>) -> Result<MinFree, Problem> {
    match entry.text()?.ends_with('%') {
        true => entry.percent().map(MinFree::Percent),
        false => entry.bytes().map(MinFree::Bytes),
    }
}

/// Reads a rule: a text like "24 hours hourly, 30 days daily", or a table like `{ hourly = 24, daily = 30 }`.
fn keep(entry: &Entry<'_>) -> Result<Rule, Problem> {
    let problem = |error: RuleError| entry.problem(&error).help(error.remedy());
    if let Ok(section) = entry.section() {
        return table(&section, problem);
    }
    entry.text()?.parse().map_err(problem)
}

fn table(section: &Section<'_>, problem: impl Fn(RuleError) -> Problem) -> Result<Rule, Problem> {
    const ALL_DAYS: &str = "all_days";
    let adverbs = Unit::ALL.map(Unit::adverb);
    let keys: Vec<&str> = adverbs.into_iter().chain([ALL_DAYS]).collect();
    section.accept(&keys)?;
    let mut parts = Vec::new();
    for entry in section.entries() {
        let number = entry.count()?;
        let count = Rule::count(entry.key, &number.to_string()).map_err(&problem)?;
        let unit = Unit::ALL
            .into_iter()
            .find(|unit| unit.adverb() == entry.key);
        parts.push(match unit {
            Some(unit) => Part::OneEach { count, unit },
            None => Part::AllYounger { days: count },
        });
    }
    Rule::of(parts).map_err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ReceiverConfig, ConfigError> {
        ReceiverConfig::parse(Path::new("receiver.toml"), text)
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_example_is_accepted() {
        let config = parse(include_str!("../../../deploy/receiver.toml")).unwrap();
        assert_eq!(config.root, Path::new("/srv/backup"));
    }

    #[test]
    fn a_sender_can_be_limited() {
        let text =
            "root = '/b'\n[senders.nas1]\nmax_volumes = 2\nmax_bytes = '2 TiB'\nmax_partials = 1\n";
        let config = parse(text).unwrap();
        let policy = config.policy(&"nas1".parse().unwrap());
        assert_eq!(policy.max_volumes.get(), 2);
        assert_eq!(policy.max_bytes, Some(2 << 40));
        assert_eq!(policy.max_partials.get(), 1);
        let other = config.policy(&"nas2".parse().unwrap());
        assert_eq!((other.max_volumes.get(), other.max_bytes), (1000, None));
    }

    #[test]
    fn reading_copies_needs_a_grant_unless_the_file_decides() {
        let rule = |line: &str| {
            let text = format!("root = '/b'\n[senders.nas1]\n{line}\n");
            parse(&text).unwrap().policy(&"nas1".parse().unwrap())
        };
        for (line, expected) in [
            ("", RestoreRule::Ask),
            ("restore = 'ask'", RestoreRule::Ask),
            ("restore = 'always'", RestoreRule::Always),
            ("restore = 'never'", RestoreRule::Never),
        ] {
            assert_eq!(rule(line).restore, expected, "{line}");
        }
        assert_eq!(rule("").max_fetches.get(), 2);
        assert_eq!(rule("max_fetches = 5").max_fetches.get(), 5);
        let other = parse("root = '/b'\n").unwrap();
        let other = other.policy(&"nas2".parse().unwrap());
        assert_eq!(other.restore, RestoreRule::Ask);
    }

    #[test]
    fn an_unknown_rule_for_restoring_is_refused() {
        assert_eq!(
            error("root = '/a'\n[senders.nas1]\nrestore = 'yes'\n"),
            "receiver.toml:3:11: `senders.nas1.restore`: `yes` is not accepted\n  \
             |\n\
             3 | restore = 'yes'\n  \
             |           ^^^^^\n  \
             = write \"ask\" (`sendshotctl peer grant` permits it for a time), \"always\" or \"never\""
        );
    }

    #[test]
    fn the_root_is_enough() {
        let config = parse("root = '/srv/backup'\n").unwrap();
        assert_eq!(config.listen.to_string(), "[::]:7117");
        assert_eq!(config.checkpoint_bytes, 64 << 20);
        assert_eq!(config.checkpoint_interval.as_secs(), 2);
        let (policy, times) = config.retention("nas1", "photos");
        assert_eq!((policy.rule, times), (Rule::All, Times::Commit));
    }

    #[test]
    fn a_running_receiver_keeps_its_address_and_root() {
        let former = parse("root = '/a'\nlisten = '[::1]:7117'\n").unwrap();
        let with = |text: &str| {
            let mut config = parse(text).unwrap();
            let differed = config.keep_fixed(&former);
            assert_eq!((config.listen, &config.root), (former.listen, &former.root));
            (differed, config.partial_keep.as_secs())
        };
        let other = with("root = '/b'\nlisten = '[::1]:7118'\npartial_keep = '1s'\n");
        assert_eq!(other, (vec!["listen", "root"], 1));
        let same = with("root = '/a'\nlisten = '[::1]:7117'\npartial_keep = '2s'\n");
        assert_eq!(same, (vec![], 2));
    }

    #[test]
    fn a_missing_root_is_asked_for() {
        assert_eq!(
            error("listen = '[::1]:7117'\n"),
            "receiver.toml: the key `root` is missing\n  = add a line like `root = \"/srv/backup\"`"
        );
    }

    #[test]
    fn an_address_without_port_is_shown() {
        assert_eq!(
            error("root = '/a'\nlisten = 'localhost'\n"),
            "receiver.toml:2:10: `listen`: `localhost` is not an IP address with a port\n  \
             |\n\
             2 | listen = 'localhost'\n  \
             |          ^^^^^^^^^^^\n  \
             = for example \"[::]:7117\" for everyone, or \"192.0.2.7:7117\""
        );
    }

    #[test]
    fn another_retention_is_refused() {
        assert_eq!(
            error("root = '/a'\n[senders.nas1]\nkeep = '7d'\n"),
            "receiver.toml:3:8: `senders.nas1.keep`: `7d` is not a part of a rule\n  \
             |\n\
             3 | keep = '7d'\n  \
             |        ^^^^\n  \
             = write \"all\", or a list like \"24 hours hourly, 30 days daily, 12 months monthly, 10 years yearly\"; \
             \"7 days all\" keeps all copies of 7 days"
        );
    }

    #[test]
    fn a_volume_has_precedence_over_its_sender() {
        let text = "root = '/b'\ntimezone = 'Europe/Berlin'\n[senders.nas1]\nkeep = '30 days daily'\n\
                    protect = '3 days'\n[senders.nas1.volumes.photos]\nkeep = { hourly = 24, all_days = 7 }\n\
                    times = 'snapshot'\n";
        let config = parse(text).unwrap();
        let (policy, times) = config.retention("nas1", "photos");
        assert_eq!(policy.rule.to_string(), "24 hours hourly, 7 days all");
        assert_eq!(
            (policy.protect.as_secs(), times),
            (3 * 86_400, Times::Snapshot)
        );
        assert_eq!(policy.timezone.iana_name(), Some("Europe/Berlin"));
        let (policy, times) = config.retention("nas1", "music");
        assert_eq!(
            (policy.rule.to_string().as_str(), times),
            ("30 days daily", Times::Commit)
        );
        let (policy, _) = config.retention("nas2", "photos");
        assert_eq!((policy.rule, policy.protect), (Rule::All, DEFAULT_PROTECT));
        let said = config.explain(1_795_000_000);
        assert!(
            said[0].starts_with("nas1: keeps the earliest copy of each of the last 30 days"),
            "{said:?}"
        );
        assert_eq!(
            said[2],
            "days, weeks, months and years are those of Europe/Berlin"
        );
    }

    #[test]
    fn free_space_is_kept_by_the_lesser_of_two() {
        assert_eq!(MinFree::Default.of(100 << 30), 5 * ((100 << 30) / 100));
        assert_eq!(MinFree::Default.of(100 << 40), 20 << 30);
        let of = |value: &str| {
            parse(&format!("root = '/b'\nmin_free = '{value}'\n"))
                .unwrap()
                .min_free
        };
        assert_eq!(of("10%"), MinFree::Percent(10));
        assert_eq!(of("3 GiB"), MinFree::Bytes(3 << 30));
        assert!(error("root = '/b'\ntimezone = 'Mars'\n").contains("`Mars` is not a time zone"));
        assert!(error("root = '/b'\nclock = 'good'\n").contains("`good` is not accepted"));
    }

    #[test]
    fn wrong_shapes_are_shown() {
        for (text, message) in [
            (
                "root = '/a'\nsenders = 1",
                "`senders`: expected a table, found an integer",
            ),
            (
                "root = '/a'\n[senders]\nkeep = 'all'",
                "`senders.keep`: expected a table, found a string",
            ),
            (
                "root = '/a'\n[senders.nas1]\nkepp = 'all'",
                "unknown key `kepp`",
            ),
            ("root = ['/a']", "`root`: expected a string, found a list"),
            (
                "root = '/a'\n[senders.nas1]\nrestore = true",
                "`senders.nas1.restore`: expected a string, found true or false",
            ),
            (
                "root = '/a'\n[senders.nas1]\nmax_fetches = 0",
                "`senders.nas1.max_fetches`: expected a whole number from 1 to 4294967295",
            ),
        ] {
            let error = error(text);
            assert!(error.lines().next().unwrap().ends_with(message), "{error}");
        }
    }
}
