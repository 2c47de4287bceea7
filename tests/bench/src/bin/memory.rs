//! Pushes 2 GiB and prints the peak memory of both daemons. Fails above 64 MiB.

#![allow(clippy::expect_used, reason = "a failure ends the measurement")]

use std::process::ExitCode;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::hosts::daemon::Daemon;
use sendshot_harness::hosts::pairing::pair;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Memory limit of each daemon, in bytes.
const LIMIT: u64 = 64 * MIB;
/// Size of the file systems in bytes, with room for the volume.
const DISK: u64 = 6 << 30;
/// Files of the volume: many small ones, and few big ones.
const SMALL: u64 = 20_000;
const SMALL_LEN: usize = 25_000;
const BIG: u64 = 13;
const BIG_LEN: usize = 128 << 20;

fn main() -> ExitCode {
    let sender = SenderHost::setup()
        .size(DISK)
        .volume("photos", "photos")
        .start();
    let receiver = ReceiverHost::with_size(DISK);
    pair(&sender, &receiver, "nas2");
    write(&sender);
    let full = sender.push("nas2:photos");
    report("full push", &full);
    std::fs::write(sender.photos().join("new"), "new").expect("the volume is writable");
    let next = sender.push("nas2:photos");
    report("incremental push", &next);
    assert_exact(&sender, &receiver, &next);

    let held = [("sender", &sender.daemon), ("receiver", &receiver.daemon)];
    match held.map(|(name, daemon)| within(name, daemon)) {
        [true, true] => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn write(sender: &SenderHost) {
    for i in 0..SMALL {
        let dir = sender.photos().join(format!("dir {}", i % 100));
        std::fs::create_dir_all(&dir).expect("the volume is writable");
        fill::file(dir.join(format!("small {i}")), i, SMALL_LEN);
    }
    for i in 0..BIG {
        fill::file(sender.photos().join(format!("big {i}")), i, BIG_LEN);
    }
}

fn report(what: &str, pushed: &Value) {
    let bytes = pushed["stream_bytes"].as_u64().unwrap_or_default();
    let seconds = pushed["seconds"].as_f64().unwrap_or_default();
    let rate = bytes as f64 / MIB as f64 / seconds;
    println!(
        "{what}: {} MiB in {seconds:.1} s, {rate:.0} MiB/s",
        bytes / MIB
    );
}

fn within(name: &str, daemon: &Daemon) -> bool {
    let peak = daemon.peak_memory();
    println!(
        "peak memory of the {name}: {:.1} MiB, limit {} MiB",
        peak as f64 / MIB as f64,
        LIMIT / MIB
    );
    peak <= LIMIT
}
