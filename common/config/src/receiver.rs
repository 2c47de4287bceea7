//! `/etc/sendshot/receiver.toml`: where copies are held, and which are kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sendshot_model::PeerName;

use crate::address::DEFAULT_PORT;
use crate::document::{self, Entry, Section};
use crate::error::ConfigError;
use crate::error::Problem;

/// Default for how long the rest of an interrupted push is kept: as long as senders keep theirs.
const DEFAULT_PARTIAL_KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Default for the bytes between two checkpoints.
const DEFAULT_CHECKPOINT_BYTES: u64 = 64 << 20;

/// Default for the time between two checkpoints: each one commits the file system.
const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

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
    /// Policies by sender. A sender that is not listed has the defaults.
    pub senders: BTreeMap<PeerName, SenderPolicy>,
}

/// The content of a table `[senders.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderPolicy {
    /// The copies that are kept.
    pub keep: Keep,
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

/// Default for the volumes of a sender: more than any realistic configuration, few enough to be listed.
const DEFAULT_MAX_VOLUMES: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Default for the simultaneous pushes of a sender. Each one has a thread and open files.
const DEFAULT_MAX_PARTIALS: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// Default for the simultaneous fetches of a sender. Each one captures a copy and reads it whole.
const DEFAULT_MAX_FETCHES: NonZeroU32 = NonZeroU32::new(2).unwrap();

impl Default for SenderPolicy {
    fn default() -> Self {
        Self {
            keep: Keep::All,
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

/// Selects the copies of a sender that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Every copy is kept.
    #[default]
    All,
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
}

fn read(root: &Section<'_>) -> Result<ReceiverConfig, Problem> {
    root.accept(&[
        "listen",
        "root",
        "senders",
        "partial_keep",
        "checkpoint_bytes",
        "checkpoint_interval",
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
        senders: root
            .get("senders")
            .map_or(Ok(BTreeMap::new()), |entry| senders(&entry))?,
    })
}

fn default_listen() -> SocketAddr {
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
        keep: section
            .get("keep")
            .map_or(Ok(Keep::All), |entry| keep(&entry))?,
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

fn keep(entry: &Entry<'_>) -> Result<Keep, Problem> {
    match entry.text()? {
        "all" => Ok(Keep::All),
        other => Err(entry
            .problem(format!("`{other}` is not accepted"))
            .help("this version keeps every copy: write \"all\" or leave the line out")),
    }
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
        assert_eq!(config.policy(&"nas1".parse().unwrap()).keep, Keep::All);
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
            "receiver.toml:3:8: `senders.nas1.keep`: `7d` is not accepted\n  \
             |\n\
             3 | keep = '7d'\n  \
             |        ^^^^\n  \
             = this version keeps every copy: write \"all\" or leave the line out"
        );
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
