//! The arguments of sendshotctl.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sendshot_model::Engine;

/// Replicate live btrfs subvolumes between hosts.
///
/// Exit codes: 0 done; 1 failed, cancelled, or the daemon is not running; 2 wrong usage or
/// configuration; 3 the receiver could not be reached, try later; 4 refused by the receiver or by
/// a rule; 5 done, but what is named could not be brought over; 10 some of several pushes failed.
#[derive(Debug, Parser)]
#[command(name = "sendshotctl", version, max_term_width = 100)]
pub struct Arguments {
    /// Control socket of the daemon, if it is not the default one
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only errors and the requested output
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set this host up: three questions, a configuration with comments, pairing, and the first push
    ///
    /// On the host that holds the copies first; it prints a token, for which the setup of the other host asks. No file that
    /// exists is changed. Each question can be answered by an option instead. Needs root.
    Setup(SetupArguments),
    /// Replicate the present state of volumes to a receiver
    Push(PushArguments),
    /// Show what a push would do, and why
    Plan {
        /// Receiver and volume: `nas2:photos` or `nas2:/srv/photos`
        #[arg(value_name = "HOST:VOL")]
        target: OsString,
        /// Parent: auto, none (a full send), or the UUID of a snapshot
        #[arg(long, value_name = "PARENT", default_value = "auto", value_parser = NonEmptyStringValueParser::new())]
        parent: String,
        /// Engine that generates the stream [default: as for `push`]
        #[arg(long, value_enum)]
        engine: Option<EngineArgument>,
        /// Name the N paths that cost most of the stream [default of N: 10]
        #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "10")]
        top: Option<u32>,
    },
    /// List the states that this host retains for later pushes, and what the receivers hold
    List {
        /// Only this receiver and volume
        #[arg(value_name = "HOST:VOL")]
        target: Option<OsString>,
        /// List the interrupted pushes that can be resumed instead
        #[arg(long)]
        partials: bool,
        /// List the copies instead that the receivers held at the end of the last push. No receiver is asked
        #[arg(long, conflicts_with = "partials")]
        copies: bool,
    },
    /// Delete retained states beyond `keep` of sender.toml
    ///
    /// A push does this for its own volume and receiver when it is complete. The newest state that a
    /// receiver holds always stays, and so does every state that a running push may use. Needs root
    /// unless --dry-run is given.
    Prune {
        /// Only this receiver and volume
        #[arg(value_name = "HOST:VOL")]
        target: Option<OsString>,
        /// Only show what would be done
        #[arg(long, short = 'n')]
        dry_run: bool,
    },
    /// Delete one retained state, or all, of a receiver and volume; the copies there stay
    Forget(ForgetArguments),
    /// Adopt the states that another host left on a disk that stays with this host
    TakeOver {
        /// A path on the disk
        path: PathBuf,
        /// Do not ask for confirmation
        #[arg(long, short = 'y')]
        yes: bool,
    },
    /// Bring a copy back from a receiver
    ///
    /// Makes a new subvolume TARGET of a copy, or with --in-place puts it in the place of its volume. Nothing that
    /// exists is overwritten or deleted. An interrupted restore is continued by the same command. The receiver's administrator has to permit it, with the command that the
    /// refusal names. Needs root.
    Restore(RestoreArguments),
    /// Print one page for the worst day: receivers, volumes, where the copies are, and the commands
    ///
    /// It has no secrets. Keep it on paper, or anywhere but on this host.
    RecoverySheet {
        /// Print HTML, for the printer
        #[arg(long)]
        html: bool,
    },
    /// Show running and recent pushes, receivers and volumes; on a receiver what comes in, and the copies
    ///
    /// Both daemons are asked on a host that has both.
    Status {
        /// Refresh twice a second
        #[arg(long, short)]
        watch: bool,
        #[command(flatten)]
        daemon: Choice,
    },
    /// Check that everything is as it should be, for monitoring
    ///
    /// Its exit codes are those of monitoring plugins, unlike all other commands': 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    /// CRITICAL: a copy is too old, or nothing was heard of a volume for too long, or the receiver's disk is absent or full.
    /// Both daemons are asked on a host that has both.
    Check(CheckArguments),
    /// Show the configuration in effect
    Config {
        /// What to do
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Sum up a week on one page, for mail: what was pushed and received, and what has to be looked at
    ///
    /// `sendshot-summary.timer` sends it to root each Monday. Both daemons are asked on a host that has both.
    Summary(SummaryArguments),
    /// Show what happened: pushes, failures, deletions, restores, permissions
    ///
    /// The daemon records it, on either host. Both daemons are asked on a host that has both.
    History(HistoryArguments),
    /// Pause scheduled pushes; a push that is asked for by name runs all the same
    Pause {
        /// Only of this volume to this receiver [default: all]
        #[arg(value_name = "HOST:VOL")]
        target: Option<OsString>,
        /// For how long, like `90m` or `12h`; more than 24 hours needs root
        #[arg(long = "for", value_name = "TIME", value_parser = lasting, required_unless_present = "without_end")]
        lasts: Option<Duration>,
        /// Until `continue`; needs root
        #[arg(long, conflicts_with = "lasts")]
        without_end: bool,
    },
    /// Continue scheduled pushes that were paused
    Continue {
        /// Only the pause of this volume and receiver [default: all pauses]
        #[arg(value_name = "HOST:VOL")]
        target: Option<OsString>,
    },
    /// Cancel running pushes
    Cancel {
        /// The push of this volume to this receiver
        #[arg(value_name = "HOST:VOL", required_unless_present = "all")]
        target: Option<OsString>,
        /// All running pushes
        #[arg(long, conflicts_with = "target")]
        all: bool,
    },
    /// Pair with a receiver, with the token that `peer invite` printed there
    Pair(PairArguments),
    /// On the receiver: list copies, and manage its disks
    Copy {
        /// What to do
        #[command(subcommand)]
        command: CopyCommand,
    },
    /// On the receiver: manage the senders that it serves
    Peer {
        /// What to do
        #[command(subcommand)]
        command: PeerCommand,
    },
    /// Send and receive streams without daemons, for pipes and files
    Stream {
        /// What to do
        #[command(subcommand)]
        command: StreamCommand,
    },
    /// List what changed between two sendshots, path by path, without their snapshots
    Diff {
        /// The older one
        #[arg(value_name = "A")]
        old: PathBuf,
        /// The newer one
        #[arg(value_name = "B")]
        new: PathBuf,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Age from which a copy is too old, like `26h` [default: `max_age` of each volume]
    #[arg(long, value_name = "TIME", value_parser = lasting)]
    pub max_age: Option<Duration>,
    #[command(flatten)]
    pub daemon: Choice,
}

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub struct SetupArguments {
    /// Set up the side whose volumes are replicated [default: the side that is installed]
    #[arg(long, conflicts_with = "receiver")]
    pub sender: bool,
    /// Set up the side that holds the copies
    #[arg(long)]
    pub receiver: bool,
    /// Sender: the subvolume to be replicated
    #[arg(long, value_name = "PATH", conflicts_with = "receiver")]
    pub path: Option<String>,
    /// Sender: address of the receiver
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "receiver")]
    pub to: Option<String>,
    /// Sender: name for the receiver [default: the first label of its address]
    #[arg(long, value_name = "NAME", conflicts_with = "receiver")]
    pub name: Option<String>,
    /// Sender: when it is pushed, like `every 1h` or `0 3 * * *`
    #[arg(long, value_name = "WHEN", conflicts_with = "receiver")]
    pub schedule: Option<String>,
    /// Sender: the token that the receiver printed
    #[arg(long, value_name = "TOKEN", conflicts_with = "receiver")]
    pub token: Option<String>,
    /// Receiver: directory for the copies, on btrfs; it is made if it does not exist
    #[arg(long, value_name = "DIR", conflicts_with = "sender")]
    pub root: Option<String>,
    /// Receiver: name of the sender to invite
    #[arg(long, value_name = "NAME", conflicts_with = "sender")]
    pub from: Option<String>,
    /// Receiver: which copies are kept, like `24 hours hourly, 30 days daily`, or `all`
    #[arg(long, value_name = "RULE", conflicts_with = "sender")]
    pub keep: Option<String>,
    /// Receiver: address and port to listen on [default: [::]:7117]
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "sender")]
    pub listen: Option<String>,
    /// File to write, if it is not the usual one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every setting as the daemon has read it, with the defaults
    ///
    /// The output is a file that says the same. Both daemons are asked on a host that has both.
    Show {
        #[command(flatten)]
        daemon: Choice,
    },
}

/// Arguments of `summary`.
#[derive(Debug, Args)]
pub struct SummaryArguments {
    /// Since when: a span of time like `12h` or `7d`, a UTC day, or a time like `2026-11-22 03:00` [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Print a whole mail to this address, with its head, for `sendmail -t`
    #[arg(long, value_name = "ADDRESS", value_parser = NonEmptyStringValueParser::new(), conflicts_with = "json")]
    pub mail_to: Option<String>,
    #[command(flatten)]
    pub daemon: Choice,
}

/// Chooses a daemon.
#[derive(Debug, Clone, Copy, Args)]
pub struct Choice {
    /// Ask only the sender's daemon
    #[arg(long, conflicts_with = "receiver")]
    pub sender: bool,
    /// Ask only the receiver's daemon
    #[arg(long)]
    pub receiver: bool,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// Only this host, or this volume of it: on the sender the receiver's name, on the receiver the sender's
    #[arg(value_name = "HOST[:VOL]", value_parser = NonEmptyStringValueParser::new())]
    pub target: Option<String>,
    /// Only what happened since then: a span of time like `12h` or `7d`, a UTC day, or a time like `2026-11-22 03:00`
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    #[command(flatten)]
    pub daemon: Choice,
}

/// Arguments of `push`.
#[derive(Debug, Default, Args)]
pub struct PushArguments {
    /// Receiver and volume: `nas2:photos` or `nas2:/srv/photos`
    #[arg(value_name = "HOST:VOL", required_unless_present = "all")]
    pub targets: Vec<OsString>,
    /// Push every configured volume to each of its receivers, one after the other
    #[arg(long, conflicts_with_all = ["targets", "detach"])]
    pub all: bool,
    /// Push only what a scheduled run would push now: not a volume that is paused, not due by its schedule, or unchanged.
    /// An unchanged volume costs no snapshot, and does not wake its disk
    #[arg(long, conflicts_with_all = ["dry_run", "detach"])]
    pub if_due: bool,
    /// Parent: auto, none (a full send), or the UUID of a snapshot
    #[arg(long, value_name = "PARENT", default_value = "auto", value_parser = NonEmptyStringValueParser::new())]
    pub parent: String,
    /// Engine that generates the stream [default: kernel for a read-only snapshot and for a volume with
    /// `pin_parent`, else sendshot]
    #[arg(long, value_enum)]
    pub engine: Option<EngineArgument>,
    /// Return as soon as the push has started
    #[arg(long)]
    pub detach: bool,
    /// Retry for this long since the last progress, like `90s` or `12h`, also if the receiver cannot be
    /// reached at first [default: `retry_for` of sender.toml]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub retry_for: Option<Duration>,
    /// Only show what would be done, like `plan`
    #[arg(long, short = 'n')]
    pub dry_run: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// Receiver and volume: `nas2:photos`; with --list also only the receiver
    #[arg(value_name = "HOST:VOL")]
    pub source: Option<OsString>,
    /// Path of the subvolume to be made: nothing, or an empty directory, is there; with --path a directory
    #[arg(value_name = "TARGET")]
    pub target: Option<PathBuf>,
    /// First pair with the receiver at this address, by a token of `peer invite NAME --restore`, for restoring
    /// only. The key lies in /run, and later restores use it. This host's own key stays as it is
    #[arg(long, value_name = "HOST[:PORT]")]
    pub pair: Option<String>,
    /// With --pair: name for the receiver [default: the first label of its address]
    #[arg(long, requires = "pair")]
    pub name: Option<String>,
    /// With --pair: the token; without it, the command asks for it or reads it from standard input
    #[arg(long, requires = "pair")]
    pub token: Option<String>,
    /// List the copies instead, from the oldest to the newest
    #[arg(long, conflicts_with_all = ["target", "at", "accept_differences"])]
    pub list: bool,
    /// Name of the copy, the beginning of its UUID, or a UTC time like 2026-11-22 or `2026-11-22 03:00`: the
    /// newest copy not later than that; a day means its end [default: the newest copy]
    #[arg(long, value_name = "WHICH", value_parser = NonEmptyStringValueParser::new())]
    pub at: Option<String>,
    /// Put the copy in the place of its volume, keep the old volume as NAME.before-restore-TIME, and keep the
    /// chain: the next push is incremental. Takes no TARGET
    #[arg(long, conflicts_with_all = ["target", "list"])]
    pub in_place: bool,
    /// Only this file or directory, relative to the volume; may be given several times. TARGET is then a directory
    /// on any file system, in which each path gets its last name. What that file system cannot keep is listed, with
    /// exit code 5
    #[arg(long = "path", value_name = "P", conflicts_with_all = ["list", "in_place", "drill"])]
    pub path: Vec<PathBuf>,
    /// With --path: also make set-user-id and set-group-id bits, file capabilities and device nodes
    #[arg(long, requires = "path")]
    pub as_is: bool,
    /// Restore to a scratch subvolume on the volume's file system, check it, delete it, and record the outcome
    /// for `status`: proof that it works, before it is needed. Takes no TARGET
    #[arg(long, conflicts_with_all = ["target", "list", "in_place", "accept_differences"])]
    pub drill: bool,
    /// With --in-place: device of the volume's file system, if it is not mounted and cannot be found otherwise
    #[arg(long, value_name = "PATH", requires = "in_place")]
    pub device: Option<PathBuf>,
    /// With --in-place: the volume has a new disk, which is mounted at its path: put it there, although it was pushed
    /// from another file system last
    #[arg(long, requires = "in_place", conflicts_with = "device")]
    pub new_disk: bool,
    /// With --in-place: also if the volume is mounted or open. Its users continue in the old one; the report
    /// says what to remount
    #[arg(long, requires = "in_place")]
    pub while_in_use: bool,
    /// Accept a tree that differs from this host's own sendshot of the state
    #[arg(long)]
    pub accept_differences: bool,
    /// Continue after a broken connection for this long since the last progress, like `90s` or `12h`
    /// [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub retry_for: Option<Duration>,
    #[command(flatten)]
    pub paths: RestorePaths,
}

/// Paths of the sending daemon, if they are not the default ones.
#[derive(Debug, Args)]
pub struct RestorePaths {
    /// Configuration file of the sender, if it is not the default one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State directory of the sender, if it is not the default one
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the files of paired receivers, if it is not the default one
    #[arg(long, value_name = "DIR")]
    pub receivers_dir: Option<PathBuf>,
    /// Directory of temporary keys, if it is not the default one
    #[arg(long, value_name = "DIR", hide = true)]
    pub runtime_dir: Option<PathBuf>,
    /// Least bytes between two points from which an interrupted restore continues after a crash
    #[arg(long, value_name = "BYTES", hide = true)]
    pub checkpoint_bytes: Option<u64>,
}

impl RestorePaths {
    /// The same options for the program that restores.
    pub fn options(&self) -> Vec<OsString> {
        let paths = [
            ("--config", &self.config),
            ("--state-dir", &self.state_dir),
            ("--receivers-dir", &self.receivers_dir),
            ("--runtime-dir", &self.runtime_dir),
        ];
        let paths = paths.into_iter().filter_map(|(option, path)| {
            let path = path.as_ref()?;
            Some([OsString::from(option), path.into()])
        });
        let mut all: Vec<OsString> = paths.flatten().collect();
        if let Some(bytes) = self.checkpoint_bytes {
            let checkpoints = [
                "--checkpoint-bytes",
                &bytes.to_string(),
                "--checkpoint-interval",
                "0",
            ];
            all.extend(checkpoints.map(OsString::from));
        }
        all
    }
}

/// Parses a span of time with units. A day has 24 hours.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a span of time; write one like 90s, 10m or 12h");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let duration = duration.ok().and_then(|span| Duration::try_from(span).ok());
    duration.ok_or_else(wrong)
}

/// Parses a time in the past: a span of time before now, or a date; without a zone in UTC, and a day means its begin.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(span) = span(text) {
        let time = Timestamp::now().checked_sub(span);
        return time.map_err(|_| format!("`{text}` is too long"));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).ok();
    let zoned = text.parse().ok().and_then(utc);
    zoned.map(|zoned| zoned.timestamp()).ok_or_else(|| {
        format!("`{text}` is no time; write a span like 12h or 7d, or a UTC time like 2026-11-22 or `2026-11-22 03:00`")
    })
}

/// Parses a span of time for a permission, which is counted in seconds.
fn lasting(text: &str) -> Result<Duration, String> {
    match span(text)? {
        span if span < Duration::from_secs(1) => Err("it must be at least a second".to_owned()),
        span => Ok(span),
    }
}

/// Arguments of `forget`.
#[derive(Debug, Args)]
pub struct ForgetArguments {
    /// Receiver and volume, as `list` shows them; either may have been removed since
    #[arg(value_name = "HOST:VOL", required_unless_present_any = ["foreign", "filesystem"])]
    pub target: Option<OsString>,
    /// UUID, the beginning of one, or UTC time like 20261122T030000Z
    #[arg(value_name = "WHICH", required_unless_present_any = ["all", "root", "foreign", "filesystem"], value_parser = NonEmptyStringValueParser::new())]
    pub which: Option<String>,
    /// Delete all states of this receiver and volume
    #[arg(long, conflicts_with_all = ["which", "root"])]
    pub all: bool,
    /// Delete the states for this disk of the receiver, which is gone for good: its id in `list`
    #[arg(long, value_name = "ID", conflicts_with = "which", value_parser = NonEmptyStringValueParser::new())]
    pub root: Option<String>,
    /// Delete all states that other hosts left on the disk of this path
    #[arg(long, value_name = "PATH", conflicts_with_all = ["target", "which", "all", "root", "break_chain"])]
    pub foreign: Option<PathBuf>,
    /// Remove a file system that is gone for good from `list`: its id, or the beginning of it. Nothing on it
    /// is deleted
    #[arg(long, value_name = "ID", conflicts_with_all = ["target", "which", "all", "root", "foreign", "break_chain"], value_parser = NonEmptyStringValueParser::new())]
    pub filesystem: Option<String>,
    /// Delete even the last state that both hosts have in common: the next push sends everything
    #[arg(long)]
    pub break_chain: bool,
    /// Do not ask for confirmation
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// Arguments of `pair`.
#[derive(Debug, Args)]
pub struct PairArguments {
    /// The receiver's address
    #[arg(value_name = "HOST[:PORT]")]
    pub address: String,
    /// Name for it; required if the address is not a host name [default: its first label]
    #[arg(long)]
    pub name: Option<String>,
    /// The token; without it, the command asks for it or reads it from standard input
    #[arg(long)]
    pub token: Option<String>,
}

/// What to do with copies.
#[derive(Debug, Subcommand)]
pub enum CopyCommand {
    /// List the copies, read from the file system
    List {
        /// Only this sender, or this volume of it
        #[arg(value_name = "SENDER[/VOLUME]")]
        which: Option<String>,
        /// List running and interrupted transfers instead; none of them is a copy
        #[arg(long)]
        partials: bool,
    },
    /// Delete the copies that no rule of receiver.toml keeps
    Prune(PruneCopiesArguments),
    /// Delete one copy
    Delete(DeleteCopyArguments),
    /// Hold a copy: no rule deletes it
    Hold(HoldArguments),
    /// End the holds of a copy
    Release {
        /// The copy
        #[arg(value_name = "SENDER/VOLUME/COPY")]
        copy: String,
    },
    /// State the time of a copy, by which its age is counted
    Retime(RetimeArguments),
    /// Manage the disks that take turns as this receiver's root
    Root {
        /// What to do
        #[command(subcommand)]
        command: RootCommand,
    },
}

/// Which copies to delete by their rules.
#[derive(Debug, Args)]
pub struct PruneCopiesArguments {
    /// Only this sender, or this volume of it
    #[arg(value_name = "SENDER[/VOLUME]")]
    pub which: Option<String>,
    /// Only show what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// Delete only in the volumes where it must be confirmed: the first run under another rule would delete more than
    /// three copies, or a run more than half
    #[arg(long, conflicts_with = "dry_run")]
    pub confirm: bool,
    /// Do not ask. Does not imply --confirm
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// The copy to delete.
#[derive(Debug, Args)]
pub struct DeleteCopyArguments {
    /// The copy
    #[arg(value_name = "SENDER/VOLUME/COPY")]
    pub copy: String,
    /// Also if it is the newest of its volume: the next push then sends everything again
    #[arg(long)]
    pub break_chain: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// The copy to hold.
#[derive(Debug, Args)]
pub struct HoldArguments {
    /// The copy
    #[arg(value_name = "SENDER/VOLUME/COPY")]
    pub copy: String,
    /// Why, for those who find the hold later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// End of the hold: a day, a time in UTC, or a span from now like `90 days` [default: no end]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// The copy of which to state the time.
#[derive(Debug, Args)]
pub struct RetimeArguments {
    /// The copy; with --rebuild only SENDER/VOLUME
    #[arg(value_name = "SENDER/VOLUME[/COPY]", required_unless_present = "clock")]
    pub which: Option<String>,
    /// The time: a day, or a time in UTC. It must lie between those of the copies before and after it
    #[arg(
        value_name = "TIME",
        required_unless_present_any = ["rebuild", "clock"],
        conflicts_with = "rebuild"
    )]
    pub time: Option<String>,
    /// Accept the present time of this host as right, after its clock has moved by an hour or more
    #[arg(long, conflicts_with_all = ["which", "time", "rebuild"])]
    pub clock: bool,
    /// Make a new ledger of a volume whose ledger is missing or damaged, with the times of the copies' names
    #[arg(long)]
    pub rebuild: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// What to do with the disks of a receiver.
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Add the disk that is mounted at `root` now
    Add,
    /// List the disks, and when each was last seen
    List,
    /// Remove a disk; its copies stay
    Remove {
        /// Its id in `list`, or the beginning of that
        id: String,
    },
    /// Adopt the disk that is mounted at `root` now and belongs to another receiver
    TakeOver {
        /// Do not ask for confirmation
        #[arg(long, short = 'y')]
        yes: bool,
    },
}

/// What to do with senders.
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// Print a one-time token with which a sender can pair, or any host can restore
    Invite {
        /// Name of the sender; its copies go into a directory of this name
        name: String,
        /// Replace the host that is paired under this name: keep the copies, revoke the old key. The new
        /// host can restore the copies for 24 hours
        #[arg(long)]
        replace: bool,
        /// Invite any host to restore the copies of this name with a temporary key, and to do nothing
        /// else; the host that is paired under this name continues to push
        #[arg(long, conflicts_with = "replace")]
        restore: bool,
        /// With --restore: only the copies of this volume, by its directory
        #[arg(long, requires = "restore", value_name = "V", value_parser = NonEmptyStringValueParser::new())]
        volume: Option<String>,
        /// With --restore: life of the temporary key from the use of the token, like `90m` or `24h`
        /// [default: 24h]
        #[arg(long = "for", requires = "restore", value_name = "TIME", value_parser = lasting)]
        lasts: Option<Duration>,
    },
    /// List senders and open invitations
    List,
    /// Permit a sender to restore its own copies, for a time
    Grant {
        /// Name of the sender
        name: String,
        /// Only the copies of this volume, by its directory
        #[arg(long, value_name = "V", value_parser = NonEmptyStringValueParser::new())]
        volume: Option<String>,
        /// For how long from now, like `90m` or `24h`
        #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
        lasts: Duration,
    },
    /// List who can restore copies now, and until when
    Grants,
    /// Stop serving a sender; its copies stay
    Revoke {
        /// Name of the sender
        name: String,
        /// Only withdraw what permits restoring: grants, the temporary key, an open invitation to restore
        #[arg(long)]
        restore: bool,
    },
}

/// What to do with streams.
#[derive(Debug, Subcommand)]
pub enum StreamCommand {
    /// Write the send streams of read-only snapshots, like `btrfs send`
    Send(StreamSendArguments),
    /// Apply streams in a directory, like `btrfs receive`
    Receive(StreamReceiveArguments),
    /// Show the commands of a stream, one per line
    Dump {
        /// Read the stream from a file
        #[arg(short = 'f', value_name = "IN")]
        input: Option<PathBuf>,
    },
}

/// Arguments of `stream receive`.
#[derive(Debug, Args)]
pub struct StreamReceiveArguments {
    /// Read the stream from a file
    #[arg(short = 'f', value_name = "IN")]
    pub input: Option<PathBuf>,
    /// Refuse a parent that changed since it was received, even if only by its own finish, or that
    /// has another transaction number than the stream names
    #[arg(long)]
    pub strict: bool,
    /// Also take parents and clone sources from any depth beneath this directory of the same file
    /// system; may be given several times
    #[arg(long, value_name = "DIR")]
    pub parents: Vec<PathBuf>,
    /// Take parents and clone sources from anywhere on the file system
    #[arg(long)]
    pub parents_anywhere: bool,
    /// Directory for the subvolumes; parents are found directly in it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Arguments of `stream send`.
#[derive(Debug, Args)]
pub struct StreamSendArguments {
    /// Send only what changed since this read-only snapshot (kernel engine)
    #[arg(long, short, value_name = "SNAPSHOT", conflicts_with_all = ["sendshot", "save_sendshot"])]
    pub parent: Option<PathBuf>,
    /// Share data with this read-only snapshot, which the receiver has; may be given several times.
    /// Without --parent the best of them is the parent (kernel engine)
    #[arg(long = "clone-source", short = 'c', value_name = "SNAPSHOT")]
    pub clone_sources: Vec<PathBuf>,
    /// Send only what changed since the snapshot that this sendshot was saved of
    #[arg(long, value_name = "FILE")]
    pub sendshot: Option<PathBuf>,
    /// Save the snapshot's sendshot, to be the parent of a later stream; the snapshot can then be
    /// deleted. Several snapshots need a directory, in which each is named NAME.sendshot
    #[arg(long, value_name = "FILE|DIR")]
    pub save_sendshot: Option<PathBuf>,
    /// Engine that generates the stream [default: kernel if a snapshot is named as parent or clone source, else
    /// sendshot]
    #[arg(long, value_enum)]
    pub engine: Option<EngineArgument>,
    /// Stream version [default: the newest that this kernel supports]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=2))]
    pub proto: Option<u32>,
    /// Write the stream to a file
    #[arg(short = 'f', value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// The snapshots; several are written one after the other. With the sendshot engine each builds
    /// on the one before it, with clone sources each can share data with those before it
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<PathBuf>,
}

/// The engines as values of `--engine`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EngineArgument {
    /// The sendshot engine; its parent is a sendshot, which pins no data
    Sendshot,
    /// The kernel engine; its parent is a snapshot, which pins the data of the past
    Kernel,
}

impl From<EngineArgument> for Engine {
    fn from(argument: EngineArgument) -> Self {
        match argument {
            EngineArgument::Sendshot => Self::Sendshot,
            EngineArgument::Kernel => Self::Kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_the_past_is_a_span_or_a_date() {
        let parsed = |text: &str| since(text).map(|time| time.to_string());
        assert_eq!(parsed("2026-11-22").as_deref(), Ok("2026-11-22T00:00:00Z"));
        assert_eq!(
            parsed("2026-11-22 03:00").as_deref(),
            Ok("2026-11-22T03:00:00Z")
        );
        assert_eq!(
            parsed("2026-11-22T03:00:00+01:00").as_deref(),
            Ok("2026-11-22T02:00:00Z")
        );
        let ago = |text: &str| {
            let then = since(text).unwrap();
            Timestamp::now().as_second() - then.as_second()
        };
        let week = 7 * 24 * 60 * 60;
        assert!((week..week + 60).contains(&ago("7d")));
        assert!((5400..5460).contains(&ago("90m")));
        for wrong in ["yesterday", "-1h", "", "2026-13-01"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
