//! Schedules: volumes are pushed by themselves, unchanged ones cost nothing, and pauses hold.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::until;
use sendshot_sys::subvolume::{Access, snapshot};
use serde_json::{Value, json};

/// Writes the sender's configuration with these lines for the volume `photos`, and has the daemon read it.
fn schedule(hosts: &Paired, lines: &str) {
    let photos = hosts.sender.photos();
    let text = format!("[volumes.photos]\npath = {photos:?}\nreceivers = [\"nas2\"]\n{lines}\n");
    fs::write(hosts.sender.config(), text).unwrap();
    hosts.sender.daemon.reload("configuration reloaded");
}

fn replication(hosts: &Paired) -> Value {
    let status = hosts.sender.ctl(&["--json", "status"]).success().json();
    let all = status["replications"].as_array().unwrap().clone();
    let photos = all.into_iter().find(|state| state["volume"] == "photos");
    photos.unwrap_or_else(|| panic!("photos is not in {status}"))
}

fn copies(hosts: &Paired) -> usize {
    hosts
        .receiver
        .ctl(&["--json", "copy", "list"])
        .success()
        .jsons()
        .len()
}

#[test]
fn a_volume_is_pushed_by_its_schedule() {
    let hosts = Paired::new();
    fs::write(hosts.sender.photos().join("a"), "1").unwrap();
    schedule(&hosts, "schedule = 'every 1h'\njitter = '0s'");
    until::holds("it is pushed", || copies(&hosts) == 1);
    until::holds("its next run is planned", || {
        replication(&hosts)["next_run"].is_string()
    });
    let state = replication(&hosts);
    assert_eq!(state["schedule"], "every 1 h 00 min");
    assert_eq!(state["trouble"], Value::Null);
    // It is not due again, and the daemon keeps that across a restart.
    let not_due = hosts
        .sender
        .ctl(&["--json", "push", "--all", "--if-due"])
        .success()
        .json();
    assert_eq!(not_due["skipped"], "not-due", "{not_due}");
    let mut hosts = hosts;
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(copies(&hosts), 1);
    // A push by name is done all the same.
    hosts.sender.push("nas2:photos");
    assert_eq!(copies(&hosts), 2);
}

#[test]
fn an_unchanged_volume_is_not_pushed_if_due_and_a_changed_one_is() {
    let hosts = Paired::new();
    let file = hosts.sender.photos().join("a");
    fs::write(&file, "1").unwrap();
    schedule(&hosts, "");
    let if_due = || {
        let push = ["--json", "push", "--if-due", "nas2:photos"];
        hosts.sender.ctl(&push).success().json()
    };
    let first = if_due();
    assert!(first["copy"].is_string(), "{first}");
    for _ in 0..3 {
        let again = if_due();
        assert_eq!(again["skipped"], "unchanged", "{again}");
    }
    assert_eq!(copies(&hosts), 1);
    assert_eq!(replication(&hosts)["unchanged"], true);
    // What is only in memory goes with a later run; what is on the disk with this one.
    fs::write(&file, "2").unwrap();
    rustix::fs::syncfs(fs::File::open(&file).unwrap()).unwrap();
    assert_eq!(replication(&hosts)["unchanged"], false);
    let second = if_due();
    assert_exact(&hosts.sender, &hosts.receiver, &second);
    assert_eq!(if_due()["skipped"], "unchanged");
    // Another subvolume at the path is not the one that was pushed.
    let photos = hosts.sender.photos();
    fs::rename(&photos, photos.with_extension("old")).unwrap();
    let old = fs::File::open(photos.with_extension("old")).unwrap();
    let dir = fs::File::open(photos.parent().unwrap()).unwrap();
    let name = photos.file_name().unwrap();
    snapshot(old, dir, name, Access::ReadWrite).unwrap();
    assert!(if_due()["copy"].is_string());
}

#[test]
fn a_push_by_name_brings_what_was_written_just_before() {
    let hosts = Paired::new();
    let file = hosts.sender.photos().join("a");
    for round in 0..5 {
        let text = format!("round {round}");
        match round % 2 {
            0 => fs::write(&file, &text).unwrap(),
            _ => write_by_mmap(&file, &text),
        }
        let pushed = hosts.sender.push("nas2:photos");
        let copied = fs::read_to_string(hosts.receiver.copy(&pushed).join("a")).unwrap();
        assert_eq!(copied, text);
    }
}

/// Changes a file of the same length through a mapping, by another program.
fn write_by_mmap(file: &Path, text: &str) {
    let program = "import mmap, sys\nwith open(sys.argv[1], 'r+b') as f:\n  m = mmap.mmap(f.fileno(), 0)\n  m[:] = sys.argv[2].encode()\n";
    let written = Command::new("python3")
        .args(["-c", program])
        .arg(file)
        .arg(text)
        .status();
    assert!(written.unwrap().success());
}

#[test]
fn a_copy_that_the_receiver_lost_is_found_when_it_is_to_confirm() {
    let hosts = Paired::new();
    fs::write(hosts.sender.photos().join("a"), "1").unwrap();
    // A report is old at once.
    schedule(&hosts, "max_age = '0s'");
    let if_due = || {
        let push = ["--json", "push", "--if-due", "nas2:photos"];
        hosts.sender.ctl(&push).success().json()
    };
    let pushed = if_due();
    assert_eq!(if_due()["skipped"], "unchanged");
    let status = || hosts.receiver.ctl(&["--json", "status"]).success().json();
    let confirmed = status()["volumes"][0].clone();
    assert!(confirmed["confirmed_at"].is_string(), "{confirmed}");
    let copy = pushed["copy"].as_str().unwrap();
    let delete = ["copy", "delete", copy, "--yes", "--break-chain"];
    hosts.receiver.ctl(&delete).success();
    let again = if_due();
    assert!(again["copy"].is_string(), "{again}");
    assert_exact(&hosts.sender, &hosts.receiver, &again);
}

#[test]
fn a_pause_stops_the_schedule_and_not_a_push_by_name() {
    let hosts = Paired::new();
    fs::write(hosts.sender.photos().join("a"), "1").unwrap();
    let ctl = |arguments: &[&str]| hosts.sender.ctl(arguments);
    schedule(&hosts, "");
    ctl(&["pause", "nas2:photos", "--for", "2h"]).success();
    schedule(&hosts, "schedule = 'every 1h'\njitter = '0s'");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(copies(&hosts), 0);
    assert!(replication(&hosts)["paused_until"].is_string());
    let skipped = ctl(&["--json", "push", "--all", "--if-due"])
        .success()
        .json();
    assert_eq!(skipped["skipped"], "paused", "{skipped}");
    hosts.sender.push("nas2:photos");
    assert_eq!(copies(&hosts), 1);
    fs::write(hosts.sender.photos().join("a"), "2").unwrap();
    ctl(&["pause", "nas2:music", "--for", "1h"]).fails(2, &["configures"]);
    ctl(&["pause"]).fails(2, &["--for"]);
    ctl(&["continue"]).success();
    until::holds("the schedule continues", || copies(&hosts) == 2);
    ctl(&["continue", "nas2:photos"]).fails(1, &["is not paused"]);
    // A pause without an end is shown, also after a restart.
    ctl(&["pause", "--without-end"]).success();
    let mut hosts = hosts;
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    assert_eq!(replication(&hosts)["paused_until"], json!("never"));
}

#[test]
fn an_absent_receiver_delays_no_other_and_is_retried() {
    let mut hosts = Paired::new();
    let other = sendshot_harness::hosts::receiver_host::ReceiverHost::new();
    sendshot_harness::hosts::pairing::pair(&hosts.sender, &other, "nas3");
    hosts.receiver.daemon.stop();
    let (photos, music) = (hosts.sender.photos(), hosts.sender.fs().join("music"));
    sendshot_harness::disks::streams::create(&music).unwrap();
    let text = format!(
        "max_parallel = 1\n[volumes.photos]\npath = {photos:?}\nreceivers = [\"nas2\", \"nas3\"]\nschedule = 'every 1h'\njitter = '0s'\n\
         [volumes.music]\npath = {music:?}\nreceivers = [\"nas2\", \"nas3\"]\nschedule = 'every 1h'\njitter = '0s'\n"
    );
    fs::write(hosts.sender.config(), text).unwrap();
    hosts.sender.daemon.reload("configuration reloaded");
    let on_other = || {
        other
            .ctl(&["--json", "copy", "list"])
            .success()
            .jsons()
            .len()
    };
    until::holds("the other receiver gets both", || on_other() == 2);
    let status = hosts.sender.ctl(&["--json", "status"]).success().json();
    let states = status["replications"].as_array().unwrap();
    let absent = states
        .iter()
        .find(|state| state["receiver"] == "nas2" && state["trouble"].is_string());
    assert!(absent.is_some(), "{status}");
}

#[test]
fn a_push_that_the_end_of_the_daemon_interrupts_begins_again() {
    use sendshot_harness::faults::link::{Rule, Way};
    use sendshot_harness::hosts::pairing::Linked;
    let mut hosts = Linked::new();
    sendshot_harness::trees::fill::file(hosts.sender.photos().join("big"), 1, 24 << 20);
    hosts.link.set(Way::Up, Rule::Slow(8 << 20));
    hosts
        .sender
        .ctl(&["push", "--detach", "nas2:photos"])
        .success();
    until::holds("the transfer is under way", || {
        let status = hosts.sender.ctl(&["--json", "status"]).success().json();
        status["running"][0]["applied_bytes"].as_u64() > Some(4 << 20)
    });
    hosts.sender.daemon.stop();
    hosts.link.set(Way::Up, Rule::Pass);
    hosts.sender.daemon.start();
    let copies = || {
        hosts
            .receiver
            .ctl(&["--json", "copy", "list"])
            .success()
            .jsons()
    };
    until::holds("it is completed", || copies().len() == 1);
}

#[test]
fn a_volume_that_cannot_be_pushed_is_told_in_status() {
    let hosts = Paired::new();
    let path = hosts.sender.fs().join("missing");
    let text = format!(
        "[volumes.photos]\npath = {path:?}\nreceivers = [\"nas2\"]\nschedule = 'every 1h'\njitter = '0s'\n"
    );
    fs::write(hosts.sender.config(), text).unwrap();
    hosts.sender.daemon.reload("configuration reloaded");
    until::holds("the trouble is told", || {
        replication(&hosts)["trouble"].is_string()
    });
    let trouble = replication(&hosts)["trouble"].to_string();
    assert!(trouble.contains("missing"), "{trouble}");
    let text = hosts.sender.ctl(&["status"]).success().stdout;
    assert!(
        text.contains("trouble, see below") && text.contains("missing"),
        "{text}"
    );
}

#[test]
fn check_tells_monitoring_what_is_wrong_on_either_host() {
    let hosts = Paired::new();
    let check = |host: &dyn Fn(&[&str]) -> sendshot_harness::hosts::command::Output,
                 more: &[&str]| {
        let output = host(&[&["check"], more].concat());
        (output.code, output.stdout)
    };
    let sender = |arguments: &[&str]| hosts.sender.ctl(arguments);
    let receiver = |arguments: &[&str]| hosts.receiver.ctl(arguments);
    schedule(&hosts, "max_age = '1h'");
    let (code, text) = check(&sender, &[]);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.starts_with("SENDSHOT CRITICAL - nas2:photos: it was never pushed"),
        "{text}"
    );
    hosts.sender.push("nas2:photos");
    assert_eq!(
        check(&sender, &[]),
        (0, "SENDSHOT OK - 1 volume\n".to_owned())
    );
    assert_eq!(
        check(&receiver, &[]),
        (0, "SENDSHOT OK - 1 volume\n".to_owned())
    );
    std::thread::sleep(Duration::from_secs(3));
    for host in [&sender as &dyn Fn(&[&str]) -> _, &receiver] {
        let (code, text) = check(host, &["--max-age", "1s"]);
        assert_eq!(code, 2, "{text}");
        assert_eq!(check(host, &["--max-age", "much"]).0, 3);
        assert_eq!(check(host, &["--nonsense"]).0, 3);
    }
    hosts.sender.ctl(&["pause", "--for", "1h"]).success();
    let (code, text) = check(&sender, &[]);
    assert_eq!(code, 1, "{text}");
    let mut hosts = hosts;
    hosts.sender.daemon.stop();
    let gone = hosts.sender.ctl(&["check"]);
    assert_eq!(gone.code, 3, "{gone:?}");
    assert!(gone.stdout.starts_with("SENDSHOT UNKNOWN - "), "{gone:?}");
}

/// A month of hourly runs under a moved clock: the host sleeps each night, is off for days, and is restarted. `SCHEDULE_DAYS`
/// is the number of days.
#[test]
fn each_missed_run_is_made_up_for_once() {
    let days = std::env::var("SCHEDULE_DAYS").map_or(4, |days| days.parse().unwrap());
    let mut hosts = Paired::new();
    let clock = sendshot_harness::hosts::clock::Clock::new();
    clock.of(&mut hosts.sender.daemon);
    schedule(&hosts, "schedule = 'every 1h'\njitter = '0s'");
    until::holds("the first run", || copies(&hosts) == 1);
    let is_idle = |hosts: &Paired| replication(hosts)["running"] == Value::Null;
    let (mut expected, mut is_asleep) = (1, false);
    for hour in 1..days * 24 {
        // Off from the second day on for a day in four, and asleep from 22 to 7.
        let (day, of_day) = (hour / 24, hour % 24);
        let is_off = day % 4 == 1;
        if is_off || !(7..22).contains(&of_day) {
            is_asleep = true;
            continue;
        }
        if day % 4 == 2 && of_day == 7 {
            // It comes back from being off.
            hosts.sender.daemon.stop();
            clock.set(&format!("+{hour}h"));
            fs::write(hosts.sender.photos().join("a"), hour.to_string()).unwrap();
            hosts.sender.daemon.start();
        } else {
            fs::write(hosts.sender.photos().join("a"), hour.to_string()).unwrap();
            rustix::fs::syncfs(fs::File::open(hosts.sender.photos()).unwrap()).unwrap();
            clock.set(&format!("+{hour}h"));
            // The daemon looks at the wall clock by itself every half minute.
            hosts.sender.ctl(&["continue"]).success();
        }
        expected += 1;
        until::holds(
            &format!("hour {hour} has its run, after sleep: {is_asleep}"),
            || copies(&hosts) == expected,
        );
        is_asleep = false;
        // And no second one.
        until::holds("it is idle", || is_idle(&hosts));
        hosts.sender.ctl(&["continue"]).success();
        let again = hosts
            .sender
            .ctl(&["--json", "push", "--all", "--if-due"])
            .success()
            .json();
        assert!(again["skipped"].is_string(), "hour {hour}: {again}");
        assert_eq!(copies(&hosts), expected, "hour {hour}");
    }
    println!("{days} days, {expected} runs");
}

/// The replay of the log at the mount after a power loss brings the data back, and not the number of the volume's last change.
#[test]
fn what_was_fsynced_before_a_power_loss_is_pushed() {
    use sendshot_harness::hosts::sender_host::SenderHost;
    let mut hosts = Paired::of(
        SenderHost::setup()
            .volume("photos", "photos")
            .power()
            .start(),
    );
    fs::write(hosts.sender.photos().join("a"), "1").unwrap();
    let if_due = |hosts: &Paired| {
        let push = ["--json", "push", "--if-due", "nas2:photos"];
        hosts.sender.ctl(&push).success().json()
    };
    assert!(if_due(&hosts)["copy"].is_string());
    assert_eq!(if_due(&hosts)["skipped"], "unchanged");
    hosts.sender.lose_power_after_a_fsync("database");
    hosts.sender.daemon.start();
    let pushed = if_due(&hosts);
    assert!(pushed["copy"].is_string(), "{pushed}");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert_eq!(if_due(&hosts)["skipped"], "unchanged");
}

#[test]
fn a_schedule_that_was_there_before_the_pairing_begins_with_it() {
    use sendshot_harness::hosts::pairing::pair;
    use sendshot_harness::hosts::receiver_host::ReceiverHost;
    use sendshot_harness::hosts::sender_host::SenderHost;
    let sender = SenderHost::setup().volume("photos", "photos").start();
    let photos = sender.photos();
    let text = format!(
        "[volumes.photos]\npath = {photos:?}\nreceivers = [\"nas2\"]\nschedule = 'every 1h'\njitter = '0s'\n"
    );
    fs::write(sender.config(), text).unwrap();
    sender.daemon.reload("configuration reloaded");
    until::holds("it waits for the pairing", || {
        let status = sender.ctl(&["--json", "status"]).success().json();
        status["replications"][0]["trouble"].is_string()
    });
    let receiver = ReceiverHost::new();
    pair(&sender, &receiver, "nas2");
    let hosts = Paired { sender, receiver };
    until::holds("it is pushed", || copies(&hosts) == 1);
}

#[test]
fn a_receiver_that_cannot_be_asked_costs_no_snapshot_of_an_unchanged_volume() {
    let mut hosts = Paired::new();
    fs::write(hosts.sender.photos().join("a"), "1").unwrap();
    // A report is old after a second.
    schedule(&hosts, "max_age = '4s'");
    let push = ["--json", "push", "--if-due", "nas2:photos"];
    hosts.sender.ctl(&push).success();
    hosts.sender.wait_until_released();
    std::thread::sleep(Duration::from_millis(1500));
    let generation =
        || sendshot_sys::filesystem::generation(fs::File::open(hosts.sender.fs()).unwrap());
    rustix::fs::syncfs(fs::File::open(hosts.sender.fs()).unwrap()).unwrap();
    let before = generation().unwrap();
    // The receiver answers, and has no disk.
    let (root, away) = (hosts.receiver.root(), hosts.receiver.fs().join("away"));
    fs::rename(&root, &away).unwrap();
    let asked = hosts.sender.ctl(&push);
    assert_ne!(asked.code, 0, "{asked:?}");
    assert_eq!(
        generation().unwrap(),
        before,
        "the source disk was written to"
    );
    // It is recorded, so that `status` and `check` say it.
    assert_ne!(replication(&hosts)["trouble"], Value::Null);
    fs::rename(&away, &root).unwrap();
    let again = hosts.sender.ctl(&push).success().json();
    assert_eq!(again["skipped"], "unchanged", "{again}");
    hosts.receiver.daemon.forgive();
}
