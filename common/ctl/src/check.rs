//! `sendshotctl check`: whether everything is as it should be, for monitoring. Its exit codes are those of monitoring plugins,
//! unlike all other commands': 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sendshot_model::human;
use sendshot_proto::confirm;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::{
    ReceivedVolume, ReceiverStatusRequest, ReceiverStatusResponse, ReplicationState, StatusRequest,
    StatusResponse,
};
use serde::Serialize;

use crate::arguments::{CheckArguments, Choice};
use crate::client;
use crate::daemons::{self, Daemon};
use crate::output::{self, Output};

/// Exit code if the state is not known: the command line is wrong, or a daemon does not answer.
pub const UNKNOWN: u8 = 3;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Level {
    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => UNKNOWN,
        }
    }

    /// Which of two levels is reported: what is certainly bad comes before what is not known.
    fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// Receiver and volume, sender and volume, or `sender` or `receiver` for the daemon.
    pub place: String,
    pub what: String,
}

#[derive(Serialize)]
struct CheckJson {
    state: Level,
    /// Number of checked volumes.
    volumes: usize,
    findings: Vec<Finding>,
}

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// Number of checked volumes.
    volumes: usize,
    /// The worst first.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Adds what could not be found out.
    pub fn add_unknown(&mut self, place: &str, problem: &Problem) {
        self.findings.push(unknown(place, problem));
        self.sort();
    }

    fn sort(&mut self) {
        self.findings
            .sort_by_key(|finding| std::cmp::Reverse(finding.level.rank()));
    }

    /// The level of the worst finding.
    pub fn state(&self) -> Level {
        self.findings.first().map_or(Level::Ok, |worst| worst.level)
    }
}

/// Checks the daemons of this host. Never fails: what cannot be found out is a finding.
pub async fn run(arguments: CheckArguments, socket: Option<PathBuf>, output: &Output) -> ExitCode {
    let checked = gather(arguments.daemon, socket, arguments.max_age).await;
    let json = CheckJson {
        state: checked.state(),
        volumes: checked.volumes,
        findings: checked.findings,
    };
    output.result(&json, || text(&json));
    ExitCode::from(json.state.code())
}

/// Finds out what is not as it should be.
pub async fn gather(choice: Choice, socket: Option<PathBuf>, max_age: Option<Duration>) -> Checked {
    let mut volumes = 0;
    let mut findings = Vec::new();
    let Choice { sender, receiver } = choice;
    let is_every_daemon = socket.is_none() && !sender && !receiver;
    match daemons::connect(choice, socket).await {
        Err(problem) => findings.push(unknown("sendshot", &problem)),
        Ok(daemons) => {
            if is_every_daemon {
                findings.extend(client::stopped().map(|daemon| {
                    let what = format!("{daemon} has run on this host, and does not run now");
                    finding(Level::Unknown, daemon, what)
                }));
            }
            for daemon in daemons {
                let place = match &daemon {
                    Ok(daemon) => daemon.label().to_lowercase(),
                    Err(_) => "sendshot".to_owned(),
                };
                match of_daemon(daemon, max_age).await {
                    Ok((count, found)) => {
                        volumes += count;
                        findings.extend(found);
                    }
                    Err(problem) => findings.push(unknown(&place, &problem)),
                }
            }
        }
    }
    let mut checked = Checked { volumes, findings };
    checked.sort();
    checked
}

fn text(check: &CheckJson) -> String {
    let volumes = match check.volumes {
        1 => "1 volume".to_owned(),
        n => format!("{n} volumes"),
    };
    let mut lines = vec![match check.findings.first() {
        None => format!("SENDSHOT {} - {volumes}", check.state),
        Some(first) => format!("SENDSHOT {} - {}: {}", check.state, first.place, first.what),
    }];
    let rest = check.findings.iter().skip(1);
    lines.extend(rest.map(|of| format!("{} - {}: {}", of.level, of.place, of.what)));
    lines.join("\n")
}

fn unknown(place: &str, problem: &Problem) -> Finding {
    finding(Level::Unknown, place, problem.message.clone())
}

fn finding(level: Level, place: &str, what: impl Into<String>) -> Finding {
    Finding {
        level,
        place: place.to_owned(),
        what: what.into(),
    }
}

async fn of_daemon(
    daemon: Result<Daemon, Problem>,
    max_age: Option<Duration>,
) -> Result<(usize, Vec<Finding>), Problem> {
    match daemon? {
        Daemon::Sender(mut client) => {
            let status = client.status(StatusRequest {}).await;
            let status = status.map_err(client::failed)?.into_inner();
            if status.replications.is_empty()
                && status
                    .volumes
                    .iter()
                    .any(|volume| !volume.receivers.is_empty())
            {
                let message =
                    "the daemon is of an older version, which does not say how old the copies are";
                return Err(Problem::new(Kind::Failed, message));
            }
            let current = status.replications.iter().filter(|state| !state.other_disk);
            Ok((current.count(), of_sender(&status, max_age)))
        }
        Daemon::Receiver(mut client) => {
            let status = client.status(ReceiverStatusRequest {}).await;
            let status = status.map_err(client::failed)?.into_inner();
            crate::outcome::check(status.problem.clone())?;
            Ok((status.volumes.len(), of_receiver(&status, max_age)))
        }
    }
}

fn is_ahead(at: i64) -> bool {
    confirm::is_ahead(at, jiff::Timestamp::now().as_second())
}

fn ahead(place: &str, at: i64) -> Finding {
    let at = output::time(at);
    let what = format!("its last sign of life is in the future, {at}: a clock was wrong, or is");
    finding(Level::Warning, place, what)
}

/// What is wrong on a sender.
fn of_sender(status: &StatusResponse, max_age: Option<Duration>) -> Vec<Finding> {
    let current = status.replications.iter().filter(|state| !state.other_disk);
    let pushes = current.flat_map(|state| of_push(state, max_age));
    let volumes = status
        .volumes
        .iter()
        .filter(|volume| !volume.problem.is_empty());
    let volumes = volumes.map(|volume| finding(Level::Warning, &volume.name, &*volume.problem));
    let receivers = status
        .receivers
        .iter()
        .filter(|receiver| !receiver.problem.is_empty());
    let receivers =
        receivers.map(|receiver| finding(Level::Warning, &receiver.name, &*receiver.problem));
    let drills = status.drills.iter().filter(|drill| !drill.error.is_empty());
    let drills = drills.map(|drill| {
        let place = format!("{}:{}", drill.receiver, drill.volume);
        let what = format!("the last restore drill failed: {}", drill.error);
        finding(Level::Warning, &place, what)
    });
    let metrics = Some(&*status.metrics_trouble).filter(|trouble| !trouble.is_empty());
    let metrics = metrics.map(|trouble| finding(Level::Warning, "sender", trouble));
    pushes
        .chain(metrics)
        .chain(volumes)
        .chain(receivers)
        .chain(drills)
        .collect()
}

fn of_push(state: &ReplicationState, max_age: Option<Duration>) -> Vec<Finding> {
    let place = format!("{}:{}", state.receiver, state.volume);
    let max = max_age.map_or(state.max_age, |age| age.as_secs());
    let mut findings = Vec::new();
    let is_fresh_now = |age: u64| max == 0 || age <= max;
    match state.fresh_at {
        0 if max > 0 => findings.push(finding(Level::Critical, &place, "it was never pushed")),
        0 => {}
        at if is_ahead(at) => findings.push(ahead(&place, at)),
        at => {
            let age = output::age(at).as_secs();
            if !is_fresh_now(age) {
                let age = human::duration(Duration::from_secs(age));
                let max = human::duration(Duration::from_secs(max));
                let what = format!("the newest copy is {age} old, over {max}");
                findings.push(finding(Level::Critical, &place, what));
            }
        }
    }
    if !state.trouble.is_empty() {
        let what = format!("the last push failed: {}", state.trouble);
        findings.push(finding(Level::Warning, &place, what));
    }
    match state.paused_until {
        0 => {}
        until if until < 0 => findings.push(finding(Level::Warning, &place, "it is paused")),
        until => {
            let what = format!("it is paused until {}", output::time(until));
            findings.push(finding(Level::Warning, &place, what));
        }
    }
    findings
}

/// What is wrong on a receiver.
fn of_receiver(status: &ReceiverStatusResponse, max_age: Option<Duration>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !status.disk_problem.is_empty() {
        findings.push(finding(Level::Critical, "receiver", &*status.disk_problem));
    }
    if status.is_read && status.free_bytes < status.min_free_bytes {
        let what = format!(
            "its disk has {} free; no push begins below {}",
            human::bytes_human(status.free_bytes),
            human::bytes_human(status.min_free_bytes)
        );
        findings.push(finding(Level::Critical, "receiver", what));
    }
    let has_rule = |volume: &ReceivedVolume| !volume.rule.starts_with("all;");
    if !status.clock_trouble.is_empty() && status.volumes.iter().any(has_rule) {
        let what = format!("no copy is deleted by its rule: {}", status.clock_trouble);
        findings.push(finding(Level::Warning, "receiver", what));
    }
    if !status.metrics_trouble.is_empty() {
        findings.push(finding(
            Level::Warning,
            "receiver",
            &*status.metrics_trouble,
        ));
    }
    for unreadable in &status.unreadable {
        findings.push(finding(
            Level::Critical,
            unreadable,
            "its copies cannot be read",
        ));
    }
    findings.extend(
        status
            .volumes
            .iter()
            .flat_map(|volume| of_volume(volume, max_age)),
    );
    findings
}

fn of_volume(volume: &ReceivedVolume, max_age: Option<Duration>) -> Vec<Finding> {
    let place = format!("{}:{}", volume.sender, volume.volume);
    let max = max_age.map_or(volume.max_age, |age| age.as_secs());
    let mut findings = Vec::new();
    let times = [volume.newest_at, volume.confirmed_at];
    if let Some(at) = times.into_iter().find(|at| is_ahead(*at)) {
        findings.push(ahead(&place, at));
    }
    let heard = confirm::heard_at(volume, jiff::Timestamp::now().as_second());
    let age = output::age(heard).as_secs();
    if max > 0 && age > max {
        let last = match volume.newest.as_str() {
            "" => "no copy came".to_owned(),
            newest => format!("the last copy is {newest}"),
        };
        let max = human::duration(Duration::from_secs(max));
        let what = format!("{last}, and nothing was heard for over {max}");
        findings.push(finding(Level::Critical, &place, what));
    }
    for (text, what) in [
        (&volume.trouble, "none of its copies is deleted"),
        (
            &volume.asks,
            "a run has to be confirmed by `sendshotctl copy prune --confirm`",
        ),
    ] {
        if !text.is_empty() {
            findings.push(finding(Level::Warning, &place, format!("{what}: {text}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    fn pushed(age: i64) -> ReplicationState {
        ReplicationState {
            volume: "photos".to_owned(),
            receiver: "nas2".to_owned(),
            fresh_at: now() - age,
            max_age: 3600,
            ..ReplicationState::default()
        }
    }

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_push_is_judged_by_its_age_and_its_last_outcome() {
        assert!(of_push(&pushed(60), None).is_empty());
        assert_eq!(levels(&of_push(&pushed(7200), None)), [Level::Critical]);
        assert!(of_push(&pushed(7200), Some(Duration::from_secs(90_000))).is_empty());
        let never = ReplicationState {
            fresh_at: 0,
            ..pushed(0)
        };
        assert_eq!(levels(&of_push(&never, None)), [Level::Critical]);
        let unwatched = ReplicationState {
            max_age: 0,
            ..pushed(1 << 30)
        };
        assert!(of_push(&unwatched, None).is_empty());
        let failed = ReplicationState {
            trouble: "no".to_owned(),
            paused_until: -1,
            ..pushed(60)
        };
        assert_eq!(
            levels(&of_push(&failed, None)),
            [Level::Warning, Level::Warning]
        );
    }

    #[test]
    fn silence_at_the_receiver_is_critical_unless_it_was_confirmed() {
        let volume = ReceivedVolume {
            sender: "nas1".to_owned(),
            volume: "photos".to_owned(),
            newest: "20261122T030000Z".to_owned(),
            newest_at: now() - 7200,
            max_age: 3600,
            rule: "all; protect".to_owned(),
            ..ReceivedVolume::default()
        };
        assert_eq!(levels(&of_volume(&volume, None)), [Level::Critical]);
        let confirmed = ReceivedVolume {
            confirmed_at: now() - 60,
            ..volume
        };
        assert!(of_volume(&confirmed, None).is_empty());
    }

    #[test]
    fn a_time_in_the_future_is_not_fresh() {
        assert_eq!(levels(&of_push(&pushed(-100_000), None)), [Level::Warning]);
        let volume = ReceivedVolume {
            newest_at: now() + 100_000,
            max_age: 3600,
            ..ReceivedVolume::default()
        };
        assert_eq!(
            levels(&of_volume(&volume, None)),
            [Level::Warning, Level::Critical]
        );
    }

    #[test]
    fn the_worst_finding_is_the_first_line() {
        let findings = vec![
            finding(Level::Critical, "nas2:photos", "the newest copy is old"),
            finding(Level::Warning, "nas2:mail", "it is paused"),
        ];
        let check = CheckJson {
            state: Level::Critical,
            volumes: 2,
            findings,
        };
        assert_eq!(
            text(&check),
            "SENDSHOT CRITICAL - nas2:photos: the newest copy is old\nWARNING - nas2:mail: it is paused"
        );
    }
}
