//! Whole pushes over mutual TLS against the programs that people use instead, on file systems in memory, in turns:
//! `peers [--rounds N] [--first N] [--json FILE] [LOAD…]`. With `--first 1` only the push takes part, for a profile; with 2 also
//! the pipe with a sync, and with 3, for a full push, also the [`floor`].
//!
//! Prints medians: wall time, the time that the machine's processors were busy, and their ratios to
//! `btrfs send | btrfs receive` with a sync. It measures, and judges nothing: docs/performance.md has the targets.

#![allow(clippy::expect_used, reason = "a failure ends the measurement")]

mod contest;
mod floor;
mod loads;
mod peers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::contest::{Results, Setting, Turns};
use crate::loads::{Change, Content};

const GIB: u64 = 1 << 30;

/// A load, by its name.
const LOADS: [(&str, Setting); 11] = [
    ("tree", Setting::full(Content::Tree, "")),
    ("tree-zstd", Setting::full(Content::Tree, "compress=zstd")),
    ("random", Setting::full(Content::Random(GIB), "")),
    (
        "one-percent",
        Setting::changed(Content::Tree, Change::Spread),
    ),
    ("nothing", Setting::changed(Content::Tree, Change::Nothing)),
    ("empty-files", Setting::full(Content::Empty, "")),
    ("image", Setting::changed(Content::Image, Change::Scattered)),
    (
        "million-clustered",
        Setting::changed(Content::Small(1_000_000), Change::Clustered),
    ),
    (
        "million-spread",
        Setting::changed(Content::Small(1_000_000), Change::Spread),
    ),
    ("link-20ms", Setting::link(20)),
    ("link-100ms", Setting::link(100)),
];

/// Streams without daemons.
const STREAMS: [&str; 2] = ["receive-alone", "send-alone"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut turns = Turns {
        rounds: 5,
        first: usize::MAX,
    };
    let (mut json, mut chosen) = (None::<PathBuf>, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => turns.rounds = arguments.next().unwrap_or_default().parse()?,
            "--first" => turns.first = arguments.next().unwrap_or_default().parse()?,
            "--json" => json = arguments.next().map(PathBuf::from),
            name => chosen.push(name.to_owned()),
        }
    }
    let names = LOADS.iter().map(|(name, _)| *name).chain(STREAMS);
    let names: Vec<&str> = names.collect();
    if let Some(wrong) = chosen.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no load `{wrong}`: {}", names.join(", "));
    }
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|other| other == name);
    let mut results = Results::default();
    for (name, setting) in LOADS.iter().filter(|(name, _)| is_chosen(name)) {
        contest::run(name, *setting, turns, &mut results)?;
    }
    for name in STREAMS.into_iter().filter(|name| is_chosen(name)) {
        contest::streams(name, turns, &mut results)?;
    }
    if let Some(file) = json {
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
    }
    Ok(())
}
