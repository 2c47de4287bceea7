//! The user's control over retained state: `list`, `prune`, `forget`.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sendshot_harness::compare::exact::{assert_copy, assert_same};
use sendshot_harness::compare::subvolumes;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{Output, Running, run};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::unprivileged::as_unprivileged;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::{Value, json};

const SENDSHOT: [&str; 2] = ["--engine", "sendshot"];
const KERNEL: [&str; 2] = ["--engine", "kernel"];

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap()
}

/// Changes the volume a little and pushes it.
#[track_caller]
fn push(sender: &SenderHost, round: usize) -> Value {
    fs::write(sender.photos().join("file"), format!("round {round}")).unwrap();
    sender.push_with("nas2:photos", &SENDSHOT)
}

/// Hosts with as many sendshots as `keep` allows by default: three.
fn kept_three() -> (Paired, Vec<Value>) {
    let hosts = Paired::new();
    let pushed = (0..3).map(|round| push(&hosts.sender, round)).collect();
    (hosts, pushed)
}

fn list(sender: &SenderHost) -> Vec<Value> {
    sender.ctl(&["list", "--json"]).success().jsons()
}

fn uuids(all: &[Value]) -> Vec<&str> {
    all.iter().map(|object| text(object, "uuid")).collect()
}

fn copies(receiver: &ReceiverHost) -> Vec<Value> {
    receiver.ctl(&["copy", "list", "--json"]).success().jsons()
}

/// Sets the number of sendshots that the daemon keeps.
fn set_keep(sender: &SenderHost, keep: u32) {
    let config = fs::read_to_string(sender.config()).unwrap();
    let config = config.replace("keep = 3", &format!("keep = {keep}"));
    fs::write(sender.config(), config).unwrap();
    sender.daemon.reload("configuration reloaded");
}

/// Runs `look` on the mounted state subvolume of the sender.
fn state_subvolume<T>(sender: &SenderHost, look: impl FnOnce(&Path) -> T) -> T {
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    look(&top.path().join(".sendshot"))
}

/// Lists the files in a directory of the state subvolume.
fn files(sender: &SenderHost, dir: &str) -> Vec<String> {
    state_subvolume(sender, |state| {
        let entries = fs::read_dir(state.join(dir)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    })
}

/// Asserts that exactly the files of the listed states are kept.
#[track_caller]
fn assert_only_listed(sender: &SenderHost) {
    let kept = list(sender);
    let sendshots = kept.iter().filter(|k| k["kind"] == "sendshot").count();
    assert_eq!(files(sender, "pushes").len(), kept.len());
    let names = files(sender, "sendshots");
    let hashes = names
        .iter()
        .filter(|name| name.ends_with(".hashes"))
        .count();
    assert_eq!(names.len() - hashes, sendshots, "{names:?}");
}

fn forget(sender: &SenderHost, arguments: &[&str]) -> Output {
    sender.ctl(&[&["forget", "--json"], arguments].concat())
}

/// Returns UUID and verdict for each state of a prune.
#[track_caller]
fn verdicts(output: &Output) -> Vec<(String, String)> {
    let verdict = |object: &Value| {
        let field = |name| text(object, name).to_owned();
        (field("uuid"), field("verdict"))
    };
    output.jsons().iter().map(verdict).collect()
}

#[test]
fn list_shows_size_age_holders_and_reason() {
    let (hosts, pushed) = kept_three();
    let snapshot = hosts.sender.push_with("nas2:photos", &KERNEL);
    let kept = list(&hosts.sender);
    assert_eq!(
        uuids(&kept),
        uuids(&[&pushed[1..], std::slice::from_ref(&snapshot)].concat()),
        "three are kept, the newest is a snapshot"
    );
    let receiver_id = hosts.sender.ctl(&["status", "--json"]).success().json();
    let receiver_id = receiver_id["receivers"][0]["receiver_id"].clone();
    for one in &kept {
        assert_eq!(one["volume"], "photos");
        assert_eq!(one["receiver"], "nas2");
        assert_eq!(one["state"], "acknowledged");
        assert!(one["age_seconds"].as_u64().unwrap() < 600, "{one}");
        assert_eq!(one["hashes_bytes"], 0);
        assert_eq!(
            one["holders"],
            json!([{
                "receiver": "nas2",
                "receiver_id": receiver_id,
                "state": "acknowledged",
                "paired": true,
            }])
        );
        let copies = copies(&hosts.receiver);
        let copy = copies.iter().find(|c| c["uuid"] == one["uuid"]).unwrap();
        assert!(
            text(copy, "name").starts_with(text(one, "time")),
            "copies are named otherwise: {one} {copy}"
        );
    }
    assert_eq!(kept[0]["kind"], "sendshot");
    assert!(kept[0]["sendshot_bytes"].as_u64().unwrap() > 0);
    assert!(text(&kept[0], "reason").contains("`keep`"));
    assert_eq!(kept[2]["kind"], "snapshot");
    assert_eq!(kept[2]["sendshot_bytes"], Value::Null);
    assert_eq!(kept[2]["reason"], "parent of the next push to nas2");
    let table = hosts.sender.ctl(&["list"]).success().stdout;
    for word in [
        "AGE",
        "COPY HELD BY",
        "snapshot",
        "nas2",
        text(&kept[1], "uuid"),
    ] {
        assert!(table.contains(word), "`{word}` is missing:\n{table}");
    }
}

#[test]
fn states_are_also_listed_by_path() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    let other = hosts.sender.fs().join("other");
    sendshot_harness::disks::streams::create(&other).unwrap();
    let (photos, other) = (
        format!("nas2:{}", photos.display()),
        format!("nas2:{}", other.display()),
    );
    hosts.sender.push_with(&other, &SENDSHOT);
    push(&hosts.sender, 0);
    let list = |target: &str| {
        let output = hosts.sender.ctl(&["list", "--json", target]).success();
        output.jsons().len()
    };
    assert_eq!((list(&other), list("nas2:other")), (1, 1));
    assert_eq!((list(&photos), list("nas2:photos")), (1, 1));
    assert_eq!(list("nas3:photos"), 0);
    hosts
        .sender
        .ctl(&["list", "nas2:/nowhere"])
        .fails(2, &["/nowhere", "help:"]);
    hosts.sender.ctl(&["list"]).success();
}

#[test]
fn prune_applies_keep_and_says_of_each_why() {
    let (hosts, pushed) = kept_three();
    let before = copies(&hosts.receiver);
    let sender = &hosts.sender;
    let nothing = sender.ctl(&["prune", "--json"]).success();
    assert!(
        verdicts(&nothing)
            .iter()
            .all(|(_, verdict)| verdict == "kept")
    );
    set_keep(sender, 1);
    let reason = |kept: &Value| text(kept, "reason").to_owned();
    let listed = list(sender);
    assert!(
        reason(&listed[0]).contains("`prune` deletes it"),
        "{listed:?}"
    );

    let dry = sender.ctl(&["prune", "--dry-run", "--json"]).success();
    let expected: Vec<(String, String)> = pushed
        .iter()
        .zip(["deleted", "deleted", "kept"])
        .map(|(pushed, verdict)| (text(pushed, "uuid").to_owned(), verdict.to_owned()))
        .collect();
    assert_eq!(verdicts(&dry), expected);
    assert!(dry.jsons().iter().all(|one| one["dry_run"] == true));
    assert_eq!(list(sender).len(), 3, "a dry run deleted something");
    let told = sender.ctl(&["prune", "-n"]).success().stdout;
    assert_eq!(told.matches("would delete").count(), 2, "{told}");
    assert_eq!(told.matches("would keep").count(), 1, "{told}");

    let done = sender.ctl(&["prune", "--json", "nas2:photos"]).success();
    assert_eq!(verdicts(&done), expected);
    let reasons: Vec<String> = done.jsons().iter().map(reason).collect();
    assert!(reasons[0].contains("1 that `keep` allows"), "{reasons:?}");
    assert_eq!(reasons[2], "parent of the next push to nas2");
    assert_eq!(uuids(&list(sender)), [text(&pushed[2], "uuid")]);
    assert_only_listed(sender);
    assert_eq!(
        copies(&hosts.receiver),
        before,
        "copies are none of its business"
    );
    assert_eq!(push(sender, 9)["parent"], pushed[2]["uuid"]);
}

#[test]
fn prune_looks_only_at_what_is_named() {
    let (hosts, _) = kept_three();
    let second = ReceiverHost::new();
    pair(&hosts.sender, &second, "nas3");
    for _ in 0..2 {
        hosts.sender.push_with("nas3:photos", &SENDSHOT);
    }
    set_keep(&hosts.sender, 1);
    let done = hosts
        .sender
        .ctl(&["prune", "--json", "nas3:photos"])
        .success();
    assert_eq!(done.jsons().len(), 2);
    assert_eq!(list(&hosts.sender).len(), 4);
    hosts.sender.ctl(&["prune"]).success();
    let kept = list(&hosts.sender);
    let holders: Vec<&str> = kept.iter().map(|kept| text(kept, "receiver")).collect();
    assert_eq!(holders, ["nas2", "nas3"], "each keeps its last common one");
}

#[test]
fn prune_never_leaves_a_receiver_without_a_state() {
    let (hosts, pushed) = kept_three();
    set_keep(&hosts.sender, 1);
    // The newest sendshot is deleted by hand.
    let newest = state_subvolume(&hosts.sender, |state| {
        let records = fs::read_dir(state.join("pushes")).unwrap();
        let record = records.map(|entry| entry.unwrap().path()).find(|path| {
            fs::read_to_string(path)
                .unwrap()
                .contains(text(&pushed[2], "uuid"))
        });
        let name = record.unwrap().file_stem().unwrap().to_owned();
        let sendshot = state
            .join("sendshots")
            .join(name)
            .with_extension("sendshot");
        fs::remove_file(sendshot).unwrap();
        pushed[2]["uuid"].clone()
    });
    let done = hosts.sender.ctl(&["prune", "--json"]).success().jsons();
    let verdict = |uuid: &Value| done.iter().find(|one| one["uuid"] == *uuid).unwrap();
    assert_eq!(verdict(&newest)["verdict"], "deleted");
    assert!(text(verdict(&newest), "reason").contains("deleted by another program"));
    assert_eq!(verdict(&pushed[1]["uuid"])["verdict"], "kept");
    assert_only_listed(&hosts.sender);
    assert_eq!(push(&hosts.sender, 9)["parent"], pushed[1]["uuid"]);
}

#[test]
fn a_sendshots_hashes_count_and_go_with_it() {
    let (hosts, _) = kept_three();
    state_subvolume(&hosts.sender, |state| {
        let entries = fs::read_dir(state.join("sendshots")).unwrap();
        let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        for path in paths {
            let mut name = path.into_os_string();
            name.push(".hashes");
            fs::write(name, [7; 1000]).unwrap();
        }
    });
    assert!(
        list(&hosts.sender)
            .iter()
            .all(|kept| kept["hashes_bytes"] == 1000)
    );
    set_keep(&hosts.sender, 2);
    hosts.sender.ctl(&["prune"]).success();
    assert_eq!(files(&hosts.sender, "sendshots").len(), 4);
    push(&hosts.sender, 9);
    assert_eq!(files(&hosts.sender, "sendshots").len(), 3);
    let all = ["nas2:photos", "--all", "--break-chain", "--yes"];
    forget(&hosts.sender, &all).success();
    assert!(files(&hosts.sender, "sendshots").is_empty());
    assert_only_listed(&hosts.sender);
}

#[test]
fn forget_deletes_only_what_is_named() {
    let (hosts, pushed) = kept_three();
    let sender = &hosts.sender;
    let before = copies(&hosts.receiver);
    let first = text(&pushed[0], "uuid");
    let gone = forget(sender, &["nas2:photos", &first[..13], "--yes"]).success();
    assert_eq!(gone.json()["uuid"], first);
    assert_eq!(
        gone.json()["consequence"],
        "the next push can still be incremental"
    );
    assert_eq!(uuids(&list(sender)), uuids(&pushed[1..]));
    // The newest may be deleted as well: the one before is still common.
    forget(sender, &["nas2:photos", text(&pushed[2], "uuid"), "--yes"]).success();
    assert_eq!(uuids(&list(sender)), [text(&pushed[1], "uuid")]);
    assert_only_listed(sender);
    assert_eq!(copies(&hosts.receiver), before, "forget touched a copy");
    assert_eq!(push(sender, 9)["parent"], pushed[1]["uuid"]);
}

#[test]
fn a_state_can_be_named_by_its_time() {
    let hosts = Paired::new();
    push(&hosts.sender, 0);
    let time = text(&list(&hosts.sender)[0], "time").to_owned();
    let second_of_it = format!("{time}-2");
    until::holds("another second has begun", || now() > time);
    push(&hosts.sender, 1);
    let named = forget(&hosts.sender, &["nas2:photos", &time, "--yes"]).success();
    assert_eq!(named.json()["time"], time);
    assert_eq!(list(&hosts.sender).len(), 1);
    forget(&hosts.sender, &["nas2:photos", &second_of_it, "--yes"]).fails(2, &[&time, "UUID"]);
}

/// The current time in the format of copy names.
fn now() -> String {
    let output = run(Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]));
    output.success().stdout.trim().to_owned()
}

#[test]
fn the_last_common_state_goes_only_if_the_user_says_so() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    let first = push(sender, 0);
    let uuid = text(&first, "uuid");
    let refused = forget(sender, &["nas2:photos", uuid, "--yes"]);
    let refused = refused.fails(
        4,
        &[uuid, "nas2", "sends everything again", "--break-chain"],
    );
    assert!(refused.json()["error"]["message"].is_string());
    forget(sender, &["nas2:photos", "--all", "--yes"]).fails(4, &["--break-chain"]);
    assert_eq!(list(sender).len(), 1, "refused and done all the same");
    let gone = forget(sender, &["nas2:photos", uuid, "--yes", "--break-chain"]).success();
    assert!(text(&gone.json(), "consequence").contains("everything again"));
    assert!(list(sender).is_empty());
    assert_only_listed(sender);
    assert_eq!(copies(&hosts.receiver).len(), 1);
    let full = push(sender, 1);
    assert_eq!(full["parent"], Value::Null);
    let copy = assert_copy(&hosts.receiver, &full);
    assert_same(&sender.photos(), &copy);
}

#[test]
fn a_hidden_snapshot_is_forgotten_like_a_sendshot() {
    let hosts = Paired::new();
    let pushed = hosts.sender.push_with("nas2:photos", &KERNEL);
    let uuid = text(&pushed, "uuid");
    forget(&hosts.sender, &["nas2:photos", uuid, "--yes"]).fails(4, &["--break-chain"]);
    forget(
        &hosts.sender,
        &["nas2:photos", uuid, "--yes", "--break-chain"],
    )
    .success();
    let hidden: Vec<_> = subvolumes::list(hosts.sender.fs())
        .into_iter()
        .filter(|s| s.path.starts_with(".sendshot/"))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
    assert_only_listed(&hosts.sender);
}

#[test]
fn an_unclear_request_is_refused_with_the_choices() {
    let (hosts, pushed) = kept_three();
    let sender = &hosts.sender;
    let first = text(&pushed[0], "uuid");
    forget(sender, &["nas2:photos", "ffffffffffff", "--yes"]).fails(2, &[first, "help:"]);
    forget(sender, &["nas2:photos", "yesterday", "--yes"]).fails(2, &["yesterday", "help:"]);
    forget(sender, &["nas2:music", "--all", "--yes"]).fails(2, &["nas2:music", "list"]);
    forget(sender, &["nas3:photos", first, "--yes"]).fails(2, &["nas3:photos"]);
    forget(sender, &["photos", first, "--yes"]).fails(2, &["photos"]);
    forget(sender, &["nas2:photos", "--yes"]).fails(2, &["WHICH"]);
    forget(sender, &["nas2:photos", first, "--all", "--yes"]).fails(2, &["--all"]);
    forget(sender, &["nas2:photos", "", "--yes"]).fails(2, &[]);
    // There is no terminal for a question.
    forget(sender, &["nas2:photos", first]).fails(2, &["--yes"]);
    assert_eq!(list(sender).len(), 3, "something was deleted by mistake");
}

/// Runs forget on a terminal and types an answer; returns the exit code and the output.
fn answer(sender: &SenderHost, arguments: &[&str], typed: &str) -> (i32, String) {
    let socket = sender.daemon.socket();
    let words: Vec<String> = [&["forget"], arguments]
        .concat()
        .iter()
        .map(|w| (*w).to_owned())
        .collect();
    let command = format!(
        "{} --socket {} {}",
        binaries::path("sendshotctl").display(),
        socket.display(),
        words.join(" ")
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(typed.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), shown)
}

#[test]
fn on_a_terminal_forget_asks_and_takes_only_a_yes() {
    let (hosts, pushed) = kept_three();
    let first = text(&pushed[0], "uuid");
    for no in ["n\n", "\n", "maybe\n"] {
        let (code, shown) = answer(&hosts.sender, &["nas2:photos", first], no);
        assert_eq!(code, 1, "{shown}");
        assert!(shown.contains(first) && shown.contains("[y/N]"), "{shown}");
        assert!(shown.contains("nothing was deleted"), "{shown}");
        assert_eq!(list(&hosts.sender).len(), 3);
    }
    let (code, shown) = answer(&hosts.sender, &["nas2:photos", first], "y\n");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(uuids(&list(&hosts.sender)), uuids(&pushed[1..]));
    // A refused deletion is not asked about.
    let (code, shown) = answer(&hosts.sender, &["nas2:photos", "--all"], "y\n");
    assert_eq!(code, 4, "{shown}");
    assert!(!shown.contains("[y/N]"), "{shown}");
}

#[test]
fn a_receiver_that_was_unpaired_can_be_forgotten() {
    let (hosts, pushed) = kept_three();
    fs::remove_file(hosts.sender.receiver_file("nas2")).unwrap();
    set_keep(&hosts.sender, 1);
    hosts.sender.ctl(&["prune"]).success();
    let kept = list(&hosts.sender);
    assert_eq!(
        uuids(&kept),
        [text(&pushed[2], "uuid")],
        "policy keeps the last"
    );
    assert_eq!(kept[0]["holders"][0]["paired"], false);
    let reason = text(&kept[0], "reason");
    assert!(reason.contains("not paired any more") && reason.contains("`forget`"));
    let all = ["nas2:photos", "--all", "--yes"];
    forget(&hosts.sender, &all).fails(4, &["--break-chain"]);
    forget(&hosts.sender, &[&all[..], &["--break-chain"]].concat()).success();
    assert_only_listed(&hosts.sender);
    assert!(list(&hosts.sender).is_empty());
}

#[test]
fn states_of_a_former_receiver_can_be_forgotten() {
    let hosts = Paired::new();
    let before = push(&hosts.sender, 0);
    let again = ReceiverHost::new();
    fs::remove_file(hosts.sender.receiver_file("nas2")).unwrap();
    pair(&hosts.sender, &again, "nas2");
    let after = push(&hosts.sender, 1);
    assert_eq!(
        after["parent"],
        Value::Null,
        "the new instance holds nothing"
    );
    let kept = list(&hosts.sender);
    assert_eq!(uuids(&kept), [text(&before, "uuid"), text(&after, "uuid")]);
    assert!(
        text(&kept[0], "reason").contains("set up again"),
        "{kept:?}"
    );
    assert_ne!(
        kept[0]["holders"][0]["receiver_id"],
        kept[1]["holders"][0]["receiver_id"]
    );
    let old = ["nas2:photos", text(&before, "uuid"), "--yes"];
    forget(&hosts.sender, &old).fails(4, &["--break-chain"]);
    forget(&hosts.sender, &[&old[..], &["--break-chain"]].concat()).success();
    assert_eq!(push(&hosts.sender, 2)["parent"], after["uuid"]);
}

#[test]
fn a_volume_that_is_not_configured_any_more_can_be_forgotten() {
    let (mut hosts, _) = kept_three();
    hosts.sender.reconfigure(&[("music", "music")]);
    assert_eq!(list(&hosts.sender).len(), 3);
    let all = ["nas2:photos", "--all", "--yes", "--break-chain"];
    assert_eq!(forget(&hosts.sender, &all).success().jsons().len(), 3);
    assert_only_listed(&hosts.sender);
    assert!(list(&hosts.sender).is_empty());
}

#[test]
fn an_unconfirmed_state_stays_until_forgotten() {
    let hosts = Linked::new();
    let photos = hosts.sender.photos();
    let first = push(&hosts.sender, 0);
    fill::file(photos.join("small"), 3, 40_000);
    let before = hosts.link.bytes(Way::Up);
    hosts.link.set(Way::Up, Rule::Slow(20_000));
    let arguments = [&["push", "nas2:photos"], &SENDSHOT[..]].concat();
    let running = hosts.sender.ctl_start(&arguments);
    until::holds("the data is on its way", || {
        hosts.link.bytes(Way::Up) > before + 25_000
    });
    hosts.link.set(Way::Down, Rule::Lose);
    hosts.link.set(Way::Up, Rule::Pass);
    until::holds("the receiver has committed", || {
        copies(&hosts.receiver).len() == 2
    });
    hosts.link.cut();
    running.finish().fails(3, &[]);
    hosts.link.mend();

    let kept = list(&hosts.sender);
    assert_eq!(kept[1]["state"], "unconfirmed", "{kept:?}");
    assert_eq!(kept[1]["reason_code"], "unconfirmed");
    assert_eq!(kept[1]["holders"][0]["state"], "unconfirmed");
    let table = hosts.sender.ctl(&["list"]).success().stdout;
    assert!(table.contains("nas2 (unconfirmed)"), "{table}");
    set_keep(&hosts.sender, 1);
    let pruned = hosts.sender.ctl(&["prune", "--json"]).success();
    assert!(
        verdicts(&pruned)
            .iter()
            .all(|(_, verdict)| verdict == "kept")
    );
    let unconfirmed = text(&kept[1], "uuid");
    // The acknowledged state is the last common one, whatever becomes of the unconfirmed one.
    let acknowledged = ["nas2:photos", text(&first, "uuid"), "--yes"];
    forget(&hosts.sender, &acknowledged).fails(4, &["--break-chain"]);
    forget(&hosts.sender, &["nas2:photos", unconfirmed, "--yes"]).success();
    assert_only_listed(&hosts.sender);
    let hidden = subvolumes::list(hosts.sender.fs());
    assert!(
        !hidden.iter().any(|s| s.path.starts_with(".sendshot/")),
        "{hidden:?}"
    );
    assert_eq!(copies(&hosts.receiver).len(), 2);
    let next = push(&hosts.sender, 9);
    assert_eq!(next["parent"], first["uuid"]);
    assert_same(&photos, &assert_copy(&hosts.receiver, &next));
}

#[test]
fn states_of_another_host_are_never_touched() {
    let (mut hosts, pushed) = kept_three();
    hosts.sender.daemon.stop();
    state_subvolume(&hosts.sender, |state| {
        for entry in fs::read_dir(state.join("pushes")).unwrap() {
            let path = entry.unwrap().path();
            let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            record["sender"] = json!("3f2b8c1e-5d0a-4c7e-9b1f-0a2d4e6f8091");
            fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        }
    });
    let before = (
        files(&hosts.sender, "pushes"),
        files(&hosts.sender, "sendshots"),
    );
    hosts.sender.daemon.start();
    set_keep(&hosts.sender, 1);
    let listed = list(&hosts.sender);
    let is_foreign = |state: &Value| state["foreign_host"].is_string();
    assert!(
        listed.len() == 3 && listed.iter().all(is_foreign),
        "{listed:#?}"
    );
    assert_eq!(hosts.sender.ctl(&["prune", "--json"]).success().stdout, "");
    for which in ["--all", text(&pushed[0], "uuid")] {
        forget(
            &hosts.sender,
            &["nas2:photos", which, "--yes", "--break-chain"],
        )
        .fails(2, &[]);
    }
    let after = (
        files(&hosts.sender, "pushes"),
        files(&hosts.sender, "sendshots"),
    );
    assert_eq!(after, before);
}

/// Starts a push and waits until it is in the middle of its data.
fn in_the_middle() -> (Linked, Vec<Value>, Running) {
    let hosts = Linked::new();
    let pushed = (0..3).map(|round| push(&hosts.sender, round)).collect();
    fill::file(hosts.sender.photos().join("big"), 1, 8 << 20);
    hosts.link.set(Way::Up, Rule::Slow(1 << 20));
    let before = hosts.link.bytes(Way::Up);
    let arguments = [&["push", "--json", "nas2:photos"], &SENDSHOT[..]].concat();
    let running = hosts.sender.ctl_start(&arguments);
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + (1 << 19)
    });
    (hosts, pushed, running)
}

#[test]
fn nothing_that_a_running_push_uses_is_pruned_or_forgotten() {
    let (hosts, pushed, running) = in_the_middle();
    let sender = &hosts.sender;
    set_keep(sender, 1);
    let listed = list(sender);
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[3]["reason"], "it is being pushed");
    assert_eq!(listed[3]["state"], "unfinished");
    let pruned = sender.ctl(&["prune", "--json"]).success();
    for one in pruned.jsons() {
        assert_eq!(one["verdict"], "kept", "{one}");
    }
    for which in [&pushed[0], &pushed[2], &listed[3]] {
        let which = ["nas2:photos", text(which, "uuid"), "--yes", "--break-chain"];
        forget(sender, &which).fails(4, &["is running", "cancel"]);
    }
    forget(sender, &["nas2:photos", "--all", "--yes", "--break-chain"]).fails(4, &["is running"]);
    assert_eq!(list(sender).len(), 4);
    hosts.link.mend();
    let done = running.finish().success().json();
    assert_eq!(done["parent"], pushed[2]["uuid"]);
    assert_same(&sender.photos(), &assert_copy(&hosts.receiver, &done));
    assert_eq!(list(sender).len(), 1, "it applied `keep` itself");
    assert_only_listed(sender);
}

#[test]
fn other_volumes_can_be_pruned_during_a_push() {
    let hosts = Linked::of(
        SenderHost::setup()
            .volume("photos", "photos")
            .volume("music", "music")
            .start(),
    );
    for _ in 0..2 {
        hosts.sender.push_with("nas2:music", &SENDSHOT);
    }
    fill::file(hosts.sender.photos().join("big"), 1, 8 << 20);
    hosts.link.set(Way::Up, Rule::Slow(1 << 20));
    let before = hosts.link.bytes(Way::Up);
    let arguments = [&["push", "nas2:photos"], &SENDSHOT[..]].concat();
    let running = hosts.sender.ctl_start(&arguments);
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + (1 << 19)
    });
    let all = ["nas2:music", "--all", "--yes", "--break-chain"];
    forget(&hosts.sender, &all).success();
    assert_eq!(list(&hosts.sender).len(), 1, "only what is being pushed");
    hosts.link.mend();
    running.finish().success();
}

/// Sets a flag on drop, even after a failure, because the other thread waits for it.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn pushes_and_prunes_run_side_by_side() {
    let hosts = Paired::new();
    let mut last = push(&hosts.sender, 0);
    set_keep(&hosts.sender, 1);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let pruning = scope.spawn(|| {
            let mut runs = 0;
            while !over.load(Ordering::Relaxed) {
                for one in hosts.sender.ctl(&["prune", "--json"]).success().jsons() {
                    assert_ne!(one["verdict"], "failed", "{one}");
                }
                // Everything but the last state: a push never needs more.
                let all = ["forget", "nas2:photos", "--all", "--yes"];
                let code = hosts.sender.ctl(&all).code;
                assert!(code == 4, "forget ended with {code}");
                runs += 1;
            }
            runs
        });
        let end = Over(&over);
        for round in 1..12 {
            let next = push(&hosts.sender, round);
            assert_eq!(next["parent"], last["uuid"], "round {round}");
            last = next;
        }
        drop(end);
        assert!(pruning.join().unwrap() > 3);
    });
    assert_eq!(uuids(&list(&hosts.sender)), [text(&last, "uuid")]);
    assert_only_listed(&hosts.sender);
    assert_same(&hosts.sender.photos(), &assert_copy(&hosts.receiver, &last));
}

#[test]
fn only_commands_that_delete_need_root() {
    let (hosts, pushed) = kept_three();
    let ctl = |arguments: &[&str]| as_unprivileged(&hosts.sender.daemon, arguments);
    let first = text(&pushed[0], "uuid");
    ctl(&["prune"]).fails(4, &["root", "--dry-run"]);
    ctl(&["forget", "nas2:photos", first, "--yes"]).fails(4, &["root"]);
    ctl(&["prune", "--dry-run"]).success();
    ctl(&["list", "nas2:photos"]).success();
    ctl(&["list", "nas2:/root"]).fails(4, &["root"]);
    assert_eq!(list(&hosts.sender).len(), 3);
}
