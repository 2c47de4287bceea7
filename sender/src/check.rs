//! `sendshot-sender --check`: whether the configuration can be used, and what it will do; with `--online` also whether each
//! receiver answers.
//!
//! What keeps the daemon from its start is an error. A volume that cannot be pushed now is a warning: its disk may come later.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::process::ExitCode;

use jiff::Timestamp;
use sendshot_config::{ReceiverEntry, SenderConfig, VolumeConfig};
use sendshot_identity::{SenderKey, Validity};
use sendshot_model::{PeerName, VolumeName, human};
use sendshot_proto::problem::{Kind, Problem};

use crate::connection::link;
use crate::shared::probes::{Patience, Probes};
use crate::shared::sender::Paths;
use crate::volume::resolve;

/// Which checks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The configuration and the pairings: what a start depends on. No volume is touched, so that a disk that does not answer
    /// cannot keep the daemon from its start.
    ConfigOnly,
    /// All that need no network.
    Offline,
    /// All.
    Online,
}

/// Prints what was found, and returns the exit code: 1 if the daemon could not start; after `--online` also 3 or 4 if a
/// receiver cannot be reached, or refuses, and 1 for any other warning.
pub fn run(paths: &Paths, scope: Scope) -> ExitCode {
    match check(paths, scope) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}

fn check(paths: &Paths, scope: Scope) -> anyhow::Result<u8> {
    let config = SenderConfig::load(&paths.config)?;
    let receivers = sendshot_config::load_dir(&paths.receivers_dir)?;
    let mut warnings = 0;
    let mut warn = |place: &dyn std::fmt::Display, problem: &Problem| {
        warnings += 1;
        eprintln!("warning: {place}: {}", problem.message);
        if !problem.remedy.is_empty() {
            eprintln!("  help: {}", problem.remedy);
        }
    };
    let probes = Probes::default();
    for (name, volume) in &config.volumes {
        println!("{name}: {}", in_words(volume));
        if scope != Scope::ConfigOnly
            && let Some(problem) = of_volume(&probes, name, volume)
        {
            warn(name, &problem);
        }
        for receiver in &volume.receivers {
            if !receivers.contains_key(receiver) {
                let message = format!("its receiver `{receiver}` is not paired yet");
                let remedy = format!("run `sendshotctl pair {receiver}`");
                warn(name, &Problem::new(Kind::Failed, message).remedy(remedy));
            }
        }
    }
    for (name, entry) in &receivers {
        if let Some(problem) = of_certificate(name, entry) {
            warn(name, &problem);
        }
    }
    if scope != Scope::Online {
        return Ok(0);
    }
    let mut code = 0;
    for (name, answer) in ask(paths, &receivers)? {
        match answer {
            Ok(software) => println!("{name}: {} answers: {software}", receivers[&name].address),
            Err(problem) => {
                warn(&name, &problem);
                code = match problem.kind {
                    Kind::Unreachable => 3,
                    Kind::Refused => 4,
                    Kind::Failed | Kind::Cancelled | Kind::Usage => 1,
                };
            }
        }
    }
    Ok(match (code, warnings) {
        (0, 1..) => 1,
        (code, _) => code,
    })
}

/// What will be done with a volume.
fn in_words(volume: &VolumeConfig) -> String {
    let mut words = match &volume.snapshots {
        Some(pattern) => pattern.clone(),
        None => volume.path.display().to_string(),
    };
    let receivers: Vec<_> = volume.receivers.iter().map(PeerName::as_str).collect();
    let _ = match receivers.as_slice() {
        [] => write!(words, ", to no receiver by itself"),
        some => write!(words, " to {}", human::few(some)),
    };
    match &volume.schedule {
        None => words += ", by `sendshotctl push` only",
        Some(schedule) => {
            let _ = write!(words, ", {}", schedule.when);
            if !schedule.windows.is_empty() {
                words += ", within its windows";
            }
        }
    }
    words
}

/// Why a volume cannot be pushed now.
fn of_volume(probes: &Probes, name: &VolumeName, volume: &VolumeConfig) -> Option<Problem> {
    let (of, configured) = (name.clone(), volume.clone());
    let looked = probes.ask(&volume.path, Patience::Short, move |_| {
        Ok(resolve::look(&of, &configured))
    });
    match looked {
        Ok(looked) => looked.err().map(Problem::from),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => {
            let message = format!("{} does not answer", volume.path.display());
            Some(Problem::new(Kind::Failed, message))
        }
        Err(e) => Some(Problem::from_error(Kind::Failed, &e)),
    }
}

fn of_certificate(name: &PeerName, entry: &ReceiverEntry) -> Option<Problem> {
    let validity = Validity::of_pem(&entry.client_certificate)?;
    validity.ends_soon(Timestamp::now()).then(|| {
        let ends = human::utc(validity.not_after.as_second());
        let message = format!("this host's certificate there expires at {ends}");
        Problem::new(Kind::Failed, message)
            .remedy(format!("renew it with a push to {name}, or pair again"))
    })
}

/// Connects to each receiver; returns what each says that it is.
fn ask(
    paths: &Paths,
    receivers: &BTreeMap<PeerName, ReceiverEntry>,
) -> anyhow::Result<Vec<(PeerName, Result<String, Problem>)>> {
    if receivers.is_empty() {
        return Ok(Vec::new());
    }
    if !SenderKey::exists(&paths.state_dir) {
        anyhow::bail!(
            "{} has no key of this host: has the daemon ever run here?",
            paths.state_dir.display()
        );
    }
    let key = SenderKey::load_or_create(&paths.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = async {
        let mut answers = Vec::new();
        for (name, entry) in receivers {
            let answer = link::connect(entry, &key).await;
            let answer = answer.map(|link| link.software().to_owned());
            answers.push((name.clone(), answer.map_err(Problem::from)));
        }
        answers
    };
    Ok(runtime.block_on(asked))
}
