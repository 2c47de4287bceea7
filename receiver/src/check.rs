//! `sendshot-receiver --check`: whether the configuration can be used, and what it will do; with `--online` also whether the
//! address can be listened on.
//!
//! What keeps the daemon from its start is an error; everything else is a warning.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::{ClockRule, ReceiverConfig};
use sendshot_identity::{CA_CERTIFICATE, CaFingerprint};
use sendshot_model::human;
use sendshot_retention::Rule;
use sendshot_sys::{clock, filesystem};

use crate::store::clock::ClockTrouble;
use crate::store::root::Root;

/// Longest wait for the daemon to answer on its own address.
const DEADLINE: Duration = Duration::from_secs(5);

/// Which checks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that need no network.
    Offline,
    /// All.
    Online,
}

/// Prints what was found, and returns the exit code: 1 if the daemon could not start, and after `--online` for any warning.
pub fn run(config: &Path, state_dir: &Path, scope: Scope) -> ExitCode {
    match check(config, state_dir, scope) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}

fn check(config: &Path, state_dir: &Path, scope: Scope) -> anyhow::Result<u8> {
    let config = ReceiverConfig::load(config)?;
    if let Err(error) = Root::check(&config.root, state_dir) {
        anyhow::bail!("{error}; {}", error.remedy());
    }
    println!("root {}", config.root.display());
    for line in config.explain(Timestamp::now().as_second()) {
        println!("{line}");
    }
    let mut warnings: Vec<String> = [of_space(&config), of_clock(&config)]
        .into_iter()
        .flatten()
        .collect();
    if scope == Scope::Online {
        match of_address(config.listen, state_dir)? {
            Ok(answer) => println!("{answer}"),
            Err(warning) => warnings.push(warning),
        }
    }
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    Ok(u8::from(scope == Scope::Online && !warnings.is_empty()))
}

fn of_space(config: &ReceiverConfig) -> Option<String> {
    let root = std::fs::File::open(&config.root).ok()?;
    let space = filesystem::space(&root).ok()?;
    let least = config.min_free.of(space.total);
    (space.free < least).then(|| {
        let (free, least) = (human::bytes_human(space.free), human::bytes_human(least));
        format!("the disk has {free} free, and no push begins below {least} (`min_free`)")
    })
}

/// Why no rule could delete anything by this host's clock.
fn of_clock(config: &ReceiverConfig) -> Option<String> {
    let has_rule = |keep: &sendshot_config::KeepPolicy| {
        keep.keep.as_ref().is_some_and(|rule| *rule != Rule::All)
    };
    let mut policies = config.senders.values();
    let any =
        policies.any(|policy| has_rule(&policy.keep) || policy.volumes.values().any(has_rule));
    let is_bad = config.clock == ClockRule::Kernel && !clock::is_synchronised();
    (any && is_bad).then(|| {
        let why = ClockTrouble::NotSynchronised.describe();
        format!("no rule deletes copies: {why}")
    })
}

/// Whether the address can be listened on, or this receiver's daemon answers there.
fn of_address(listen: SocketAddr, state_dir: &Path) -> anyhow::Result<Result<String, String>> {
    let error = match TcpListener::bind(listen) {
        Ok(_) => return Ok(Ok(format!("{listen} is free, and the daemon does not run"))),
        Err(error) => error,
    };
    if error.kind() != ErrorKind::AddrInUse {
        return Ok(Err(format!("cannot listen on {listen}: {error}")));
    }
    let authority = std::fs::read_to_string(state_dir.join(CA_CERTIFICATE)).ok();
    let Some(fingerprint) = authority.as_deref().and_then(CaFingerprint::of_pem) else {
        return Ok(Err(format!("another program listens on {listen}")));
    };
    let config = sendshot_identity::pairing_client_config(fingerprint)?;
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let connected = runtime.block_on(sendshot_identity::connect(
        &host,
        listen.port(),
        config,
        DEADLINE,
    ));
    Ok(match connected {
        Ok(_) => Ok(format!("{listen}: this receiver's daemon answers")),
        Err(error) => Err(format!(
            "another program listens on {listen}, or the daemon does not answer: {error}"
        )),
    })
}
