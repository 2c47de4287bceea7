//! Errors have a message with a remedy and an exit code that scripts can rely on, and leave
//! nothing half done.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::disks::loopfs::{LoopFs, unmount_free};
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::{Output, run, tool};
use sendshot_harness::hosts::pairing::{Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::unprivileged::as_unprivileged;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;

#[test]
fn a_receiver_that_is_down_is_to_be_tried_later() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    hosts.receiver.daemon.stop();
    let address = hosts.receiver.address().to_string();
    let down = hosts.sender.ctl(&["push", "nas2:photos"]);
    down.fails(3, &["nas2", &address, "cannot be reached"]);
    let plan = hosts.sender.ctl(&["plan", "nas2:photos"]);
    plan.fails(3, &[&address]);
    let json = hosts
        .sender
        .ctl(&["push", "--json", "nas2:photos"])
        .fails(3, &[]);
    assert!(
        json.json()["error"].is_string(),
        "a script is not told what failed"
    );
    hosts.receiver.daemon.start();
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn wrong_targets_are_distinguished() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    fs::create_dir(sender.photos().join("dir")).unwrap();
    let push = |target: &str| sender.ctl(&["push", target]);
    push("nas9:photos").fails(2, &["`nas9` is not paired", "sendshotctl pair"]);
    push("nas2:photo").fails(2, &["no volume `photo`", "photos"]);
    let dir = sender.photos().join("dir");
    push(&format!("nas2:{}", dir.display())).fails(2, &[dir.to_str().unwrap(), "not a subvolume"]);
    push("nas2:/proc").fails(2, &["/proc", "not on btrfs"]);
    push("nas2:/no/such/path").fails(2, &["/no/such/path"]);
    let file = sender.photos().join("file");
    fs::write(&file, "").unwrap();
    let told = [file.to_str().unwrap(), "is a regular file"];
    push(&format!("nas2:{}", file.display())).fails(2, &told);
    let below = file.join("below");
    let told = [
        below.to_str().unwrap(),
        "a part of the path is not a directory",
    ];
    push(&format!("nas2:{}", below.display())).fails(2, &told);
    let pipe = sender.photos().join("pipe");
    tool("mkfifo", &[&pipe]);
    push(&format!("nas2:{}", pipe.display())).fails(2, &["is a pipe"]);
    for nonsense in [
        "photos",
        "nas2:",
        ":photos",
        "",
        "nas2",
        "nas2:../photos",
        "nas 2:photos",
    ] {
        push(nonsense).fails(2, &[]);
    }
    sender.ctl(&["push"]).fails(2, &[]);
    sender
        .ctl(&["push", "nas2:photos", "--engine", "magic"])
        .fails(2, &["magic"]);
    // None of these commands has begun a push.
    assert_no_leftovers(sender, receiver);
    let kept = sender.ctl(&["list", "--json"]).success();
    assert_eq!(
        kept.stdout, "",
        "something was kept of a push that never began"
    );
}

#[test]
fn a_received_subvolume_that_was_made_writable_is_not_pushed() {
    let hosts = Paired::new();
    let photos = std::fs::File::open(hosts.sender.photos()).unwrap();
    sendshot_sys::subvolume::set_received(&photos, uuid::Uuid::from_u128(7), 1).unwrap();
    let expected = ["was received from elsewhere", "btrfs subvolume snapshot"];
    let push = hosts.sender.ctl(&["push", "nas2:photos"]);
    push.fails(2, &expected);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

/// Puts the state directory on a full file system of its own.
#[test]
fn the_system_disk_is_full_and_the_data_disk_is_not_blamed() {
    let mut hosts = Paired::new();
    let other = hosts.sender.fs().join("other");
    streams::create(&other).unwrap();
    hosts.sender.daemon.stop();
    let state = hosts.sender.daemon.state_dir();
    let aside = state.with_extension("aside");
    fs::rename(&state, &aside).unwrap();
    fs::create_dir(&state).unwrap();
    tool(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=256k",
            "tmpfs",
            state.to_str().unwrap(),
        ],
    );
    let _mounted = Unmounted(state.clone());
    run(Command::new("cp").arg("-aT").arg(&aside).arg(&state)).success();
    hosts.sender.daemon.start();
    hosts.sender.push("nas2:photos");
    let full = fs::write(state.join("filler"), vec![0; 1 << 20]);
    assert!(full.is_err());
    let push = hosts
        .sender
        .ctl(&["push", &format!("nas2:{}", other.display())]);
    push.fails(1, &["volumes.json", "the sender's state directory"]);
    fs::remove_file(state.join("filler")).unwrap();
    hosts.sender.push(&format!("nas2:{}", other.display()));
    hosts.sender.daemon.stop();
}

/// A mount; unmounted on drop.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

#[test]
fn several_pushes_go_on_after_one_failed_and_say_so() {
    let hosts = Paired::of(
        SenderHost::setup()
            .volume("a", "a")
            .volume("b", "b")
            .start(),
    );
    let arguments = ["push", "--json", "nas2:a", "nas2:nope", "nas2:b"];
    let output = hosts.sender.ctl(&arguments).fails(10, &["nope"]);
    let objects = output.jsons();
    assert_eq!(objects.len(), 3, "one object a line for each: {output:?}");
    assert!(objects[0]["copy"].is_string() && objects[2]["copy"].is_string());
    assert!(objects[1]["error"].is_string());
    let output = hosts
        .sender
        .ctl(&["push", "--json", "nas2:a", "nas2:b"])
        .success();
    assert_eq!(output.jsons().len(), 2);
}

#[test]
fn without_the_daemon_the_command_says_how_to_start_it() {
    let sender = SenderHost::setup().volume("photos", "photos").make();
    let arguments: [&[&str]; 4] = [
        &["push", "nas2:photos"],
        &["status"],
        &["list"],
        &["cancel", "--all"],
    ];
    for arguments in arguments {
        let socket = sender.daemon.socket();
        let output = sender
            .ctl(arguments)
            .fails(1, &[socket.to_str().unwrap(), "help:"]);
        assert!(
            output.stderr.contains("systemctl start sendshot-sender"),
            "{}",
            output.stderr
        );
    }
    let output = sender.ctl(&["copy", "list"]).fails(1, &["help:"]);
    assert!(
        output.stderr.contains("sendshot-receiver"),
        "{}",
        output.stderr
    );
}

/// Asserts that a daemon with a wrong configuration reports the error, with `--check` and at its start.
#[track_caller]
fn refused(daemon: &sendshot_harness::hosts::daemon::Daemon, texts: &[&str]) {
    for options in [&["--check"][..], &[]] {
        let output = run(daemon.command().args(options));
        assert_ne!(
            output.code, 0,
            "a wrong configuration is accepted: {output:?}"
        );
        for text in texts {
            assert!(
                output.stderr.contains(text),
                "not told `{text}`: {}",
                output.stderr
            );
        }
    }
}

#[test]
fn a_configuration_typo_is_shown_with_a_suggestion() {
    let sender = SenderHost::setup().make();
    let write = |text: &str| fs::write(sender.config(), text).unwrap();
    write("[volumes.photos]\npath = \"/srv/photos\"\n\nreciever = [\"nas2\"]\n");
    refused(
        &sender.daemon,
        &["sender.toml", "4", "reciever", "receivers"],
    );
    write("[volume.photos]\npath = \"/srv/photos\"\n");
    refused(&sender.daemon, &["volume", "volumes"]);
    write("[volumes.photos]\n");
    refused(&sender.daemon, &["path"]);
    write("[volumes.photos]\npath = \"srv/photos\"\n");
    refused(&sender.daemon, &["2", "srv/photos", "absolute"]);
    write("[volumes.photos]\npath = \"/srv/photos\"\nkeep = 0\n");
    refused(&sender.daemon, &["3", "keep"]);
    write("[volumes.photos\n");
    refused(&sender.daemon, &["1"]);
    fs::remove_file(sender.config()).unwrap();
    refused(&sender.daemon, &["sender.toml"]);
    write("[volumes.photos]\npath = \"/srv/photos\"\n");
    assert_eq!(run(sender.daemon.command().arg("--check")).code, 0);

    let receiver = ReceiverHost::make(256 << 20, "");
    let root = receiver.root();
    let write = |text: String| fs::write(receiver.config(), text).unwrap();
    write(format!("root = {root:?}\nlisen = \"[::]:7117\"\n"));
    refused(&receiver.daemon, &["receiver.toml", "2", "lisen", "listen"]);
    write(format!("root = {root:?}\n[senders.nas1]\nkepe = \"all\"\n"));
    refused(&receiver.daemon, &["3", "kepe", "keep"]);
    write("listen = \"[::]:7117\"\n".to_owned());
    refused(&receiver.daemon, &["root"]);
    write(format!("root = {root:?}\nlisten = \"everywhere\"\n"));
    refused(&receiver.daemon, &["2", "everywhere"]);
}

/// What `--check` says, and its exit code.
fn checked(daemon: &sendshot_harness::hosts::daemon::Daemon, options: &[&str]) -> (i32, String) {
    let output = run(daemon.command().arg("--check").args(options));
    (output.code, format!("{}{}", output.stdout, output.stderr))
}

#[test]
fn a_check_says_what_will_be_done_and_what_cannot_be() {
    let mut hosts = Paired::new();
    let (sender, receiver) = (&hosts.sender, &hosts.receiver);
    let photos = sender.photos();
    let write = |more: &str| {
        let text = format!(
            "[volumes.photos]\npath = {photos:?}\nreceivers = ['nas2']\nschedule = 'every 1h'\n{more}"
        );
        fs::write(sender.config(), text).unwrap();
    };
    write("");
    let (code, text) = checked(&sender.daemon, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("to nas2, every 1 h 00 min") && !text.contains("warning"),
        "{text}"
    );
    let (code, text) = checked(&sender.daemon, &["--online"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("nas2: ") && text.contains("answers: sendshot-receiver"),
        "{text}"
    );
    // A daemon starts without a disk or a pairing, so that these are warnings.
    write("[volumes.absent]\npath = '/srv/absent'\nreceivers = ['nas9']\n");
    let (code, text) = checked(&sender.daemon, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("warning: absent: cannot open /srv/absent"),
        "{text}"
    );
    assert!(text.contains("sendshotctl pair nas9"), "{text}");
    assert_eq!(checked(&sender.daemon, &["--online"]).0, 1);

    let (code, text) = checked(&receiver.daemon, &["--online"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("this receiver's daemon answers"), "{text}");
    receiver.ctl(&["peer", "revoke", "nas1"]).success();
    write("");
    let (code, text) = checked(&sender.daemon, &["--online"]);
    assert_eq!(code, 4, "{text}");
    hosts.receiver.daemon.stop();
    let (code, text) = checked(&hosts.sender.daemon, &["--online"]);
    assert_eq!(code, 3, "{text}");
    let other = std::net::TcpListener::bind(hosts.receiver.address()).unwrap();
    let (code, text) = checked(&hosts.receiver.daemon, &["--online"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another program listens on"), "{text}");
    drop(other);
    let (code, text) = checked(&hosts.receiver.daemon, &["--online"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("is free"), "{text}");
    hosts.receiver.daemon.start();
}

#[test]
fn the_configuration_in_effect_is_shown() {
    let hosts = Paired::new();
    let show = ["--json", "config", "show"];
    for (config, daemon, ctl) in [
        (
            hosts.sender.config(),
            &hosts.sender.daemon,
            hosts.sender.ctl(&show),
        ),
        (
            hosts.receiver.config(),
            &hosts.receiver.daemon,
            hosts.receiver.ctl(&show),
        ),
    ] {
        let shown = ctl.success().json();
        assert_eq!(shown["differs"], false, "{shown}");
        let text = shown["text"].as_str().unwrap().to_owned();
        let before = fs::read_to_string(&config).unwrap();
        // What is shown is accepted, and says the same.
        fs::write(&config, &text).unwrap();
        assert_eq!(checked(daemon, &[]).0, 0, "{text}");
        fs::write(&config, before).unwrap();
    }
    let before = fs::read_to_string(hosts.sender.config()).unwrap();
    fs::write(hosts.sender.config(), format!("max_parallel = 7\n{before}")).unwrap();
    let shown = hosts.sender.ctl(&show).success().json();
    assert_eq!(shown["differs"], true, "{shown}");
    assert!(
        shown["text"]
            .as_str()
            .unwrap()
            .contains("max_parallel = 2 "),
        "{shown}"
    );
    hosts.sender.daemon.reload("configuration reloaded");
    let shown = hosts.sender.ctl(&["config", "show"]).success().stdout;
    assert!(shown.contains("max_parallel = 7\n"), "{shown}");
    fs::write(hosts.sender.config(), "wrong").unwrap();
    let shown = hosts.sender.ctl(&show).success().json();
    assert!(shown["file_problem"].is_string(), "{shown}");
}

#[test]
fn a_root_that_is_not_btrfs_is_refused_at_the_start() {
    let receiver = ReceiverHost::make(256 << 20, "");
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    receiver.configure(elsewhere.path());
    let output = run(&mut receiver.daemon.command());
    output
        .clone()
        .fails(output.code, &[elsewhere.path().to_str().unwrap(), "btrfs"]);
    assert_ne!(output.code, 0);
    assert_eq!(
        fs::read_dir(elsewhere.path()).unwrap().count(),
        0,
        "it was filled"
    );
    receiver.configure(Path::new("/no/such/directory"));
    let output = run(&mut receiver.daemon.command());
    output.clone().fails(output.code, &["/no/such/directory"]);
    assert_ne!(output.code, 0);
}

#[test]
fn a_root_that_became_read_only_is_named() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    fill::tree(&sender.photos(), 1);
    let first = sender.push("nas2:photos");
    let root = receiver.root();
    tool(
        "mount",
        &[
            "-o".as_ref(),
            "remount,ro".as_ref(),
            receiver.fs().as_os_str(),
        ],
    );
    receiver.daemon.may_log("read-only");
    let texts = [root.to_str().unwrap(), "read-only", "help:"];
    sender.ctl(&["push", "nas2:photos"]).fails(1, &texts);
    tool(
        "mount",
        &[
            "-o".as_ref(),
            "remount,rw".as_ref(),
            receiver.fs().as_os_str(),
        ],
    );
    let second = sender.push("nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
    assert_exact(sender, receiver, &second);
    assert_no_leftovers(sender, receiver);
}

#[test]
fn an_empty_mount_point_is_never_filled() {
    // The disk for the copies is mounted on a directory that is itself on btrfs.
    let disk = LoopFs::new(512 << 20, &[], "").unwrap();
    let mut hosts = Paired::of(SenderHost::new());
    let root = hosts.receiver.root();
    hosts.receiver.daemon.stop();
    let below: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    for path in below {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }
    // Makes the root new on purpose.
    let _ = fs::remove_file(hosts.receiver.daemon.state_dir().join("root.json"));
    let mounted = Mount::at(disk.path(), &root, "bind");
    hosts.receiver.daemon.start();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    assert!(hosts.receiver.copy(&first).exists());

    // Unmounted while the daemon runs, which must not have kept it busy.
    let unmounted = run(Command::new("umount").arg(&root));
    assert_eq!(
        unmounted.code, 0,
        "the admin cannot unmount the root: {}",
        unmounted.stderr
    );
    hosts.receiver.daemon.may_log("is its disk mounted");
    let texts = [root.to_str().unwrap(), "mount"];
    hosts.sender.ctl(&["push", "nas2:photos"]).fails(1, &texts);
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        0,
        "the empty mount point was filled"
    );

    // Unmounted at the next start: the daemon or the push reports it.
    hosts.receiver.daemon.stop();
    let output = run(&mut timed(hosts.receiver.daemon.command()));
    assert!(output.stderr.contains("mount"), "{}", output.stderr);
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        0,
        "the empty mount point was filled"
    );

    mount::mount(disk.path(), &root, "bind");
    hosts.receiver.daemon.start();
    let second = hosts.sender.push("nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
    hosts.sender.daemon.stop();
    hosts.receiver.daemon.stop();
    hosts.sender.daemon.start();
    hosts.receiver.daemon.start();
    drop(mounted);
}

#[test]
fn a_root_whose_disk_is_missing_is_not_created() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    let (fs, root) = (hosts.receiver.fs().to_owned(), hosts.receiver.root());
    let fsid = tool(
        "findmnt",
        &["-n", "-o", "UUID", "--target", fs.to_str().unwrap()],
    );
    let fsid = fsid.trim();
    hosts.receiver.daemon.may_log("root ");

    let aside = fs.join("aside");
    fs::rename(&root, &aside).unwrap();
    let texts = [
        "no such directory",
        "is mounted",
        fsid,
        "put the directory back",
    ];
    hosts.sender.ctl(&["push", "nas2:photos"]).fails(1, &texts);
    fs::rename(&aside, &root).unwrap();

    unmount_free(&fs).unwrap();
    until::holds("the disk is free", || mount::devices(&fs).is_empty());
    let away = ["its disk is not mounted", fsid, "mount it"];
    let check = |hosts: &Paired| {
        let refused = hosts.sender.ctl(&["push", "nas2:photos"]);
        refused.clone().fails(1, &away);
        assert!(!refused.stderr.contains("create"), "{refused:?}");
        let checked = run(hosts.receiver.daemon.command().arg("--check"));
        assert_ne!(checked.code, 0);
        assert!(checked.stderr.contains("not mounted"), "{checked:?}");
    };
    check(&hosts);
    // At its next start the daemon waits for the disk.
    hosts.receiver.daemon.stop();
    hosts.receiver.daemon.start();
    check(&hosts);
    // The directory below the mount point is on another file system.
    fs::create_dir(&root).unwrap();
    check(&hosts);
    fs::remove_dir(&root).unwrap();
    mount::mount(&mount::image(&fs), &fs, "loop");
    let second = hosts.sender.push("nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
}

#[test]
fn a_senders_directory_that_is_something_else_is_named() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    fill::tree(&sender.photos(), 1);
    let dir = receiver.root().join("nas1");
    std::os::unix::fs::symlink(receiver.fs(), &dir).unwrap();
    receiver.daemon.may_log("symbolic link");
    let texts = [dir.to_str().unwrap(), "is a symbolic link", "move it away"];
    sender.ctl(&["push", "nas2:photos"]).fails(1, &texts);
    fs::remove_file(&dir).unwrap();
    sender.push("nas2:photos");
}

#[test]
fn a_read_only_senders_directory_is_no_read_only_disk() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    fill::tree(&sender.photos(), 1);
    let dir = receiver.root().join("nas1");
    streams::create(&dir).unwrap();
    let set_ro = |value: &str| {
        let arguments = ["property", "set", dir.to_str().unwrap(), "ro", value];
        tool("btrfs", &arguments);
    };
    receiver.daemon.may_log("read-only");
    // Before the volume's directory is made, and after.
    for _ in 0..2 {
        set_ro("true");
        let refused = sender.ctl(&["push", "nas2:photos"]);
        let texts = [
            "nas1",
            "lies in a read-only subvolume",
            "btrfs property set",
        ];
        refused.clone().fails(1, &texts);
        assert!(
            !refused.stderr.contains("file system is read-only"),
            "{refused:?}"
        );
        set_ro("false");
        sender.push("nas2:photos");
        fill::file(sender.photos().join("new"), 2, 5000);
    }
}

/// Wraps a command to end it after a few seconds.
fn timed(command: Command) -> Command {
    let mut timed = Command::new("timeout");
    timed
        .arg("5")
        .arg(command.get_program())
        .args(command.get_args());
    timed
}

#[test]
fn a_token_works_once_and_only_for_its_receiver() {
    let sender = SenderHost::new();
    let receiver = ReceiverHost::new();
    let address = receiver.address().to_string();
    let pair_with = |token: &str| -> Output {
        sender.ctl(&["pair", &address, "--name", "nas2", "--token", token])
    };
    let file = sender.receiver_file("nas2");

    // A token of another receiver than the one that answers.
    let other = ReceiverHost::new();
    pair_with(&other.invite(&["nas1"])).fails(4, &[&address, "another receiver"]);
    // A token of the right receiver, from an invitation that was replaced.
    let replaced = receiver.invite(&["nas1"]);
    let token = receiver.invite(&["nas1"]);
    pair_with(&replaced).fails(4, &["peer invite"]);
    // A mistyped token, and texts that are no tokens.
    let mut mistyped = token.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'A' { 'B' } else { 'A' });
    let output = pair_with(&mistyped);
    assert!([2, 4].contains(&output.code), "{output:?}");
    for nonsense in ["", "sendshot-", "hunter2"] {
        let output = pair_with(nonsense);
        assert!([2, 4].contains(&output.code), "{output:?}");
        assert!(output.stderr.contains("token"), "{output:?}");
    }
    assert!(!file.exists(), "a pairing that failed was written down");

    pair_with(&token).success();
    assert!(file.exists());

    // A lost response can be requested again; another host with the same token is refused.
    pair_with(&token).success();

    let thief = SenderHost::new();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    thief
        .ctl(&arguments)
        .fails(4, &["used", "peer revoke nas1"]);
    assert!(!thief.receiver_file("nas2").exists());

    sender.push("nas2:photos");
    receiver
        .ctl(&["peer", "invite", "nas1"])
        .fails(2, &["nas1", "--replace"]);
}

#[test]
fn a_revoked_sender_learns_the_remedy() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    fill::tree(&sender.photos(), 1);
    let first = sender.push("nas2:photos");
    receiver.ctl(&["peer", "revoke", "nas1"]).success();
    receiver.daemon.may_log("revoked");
    let refused = sender.ctl(&["push", "nas2:photos"]);
    refused.fails(4, &["revoked", "peer invite nas1"]);
    assert!(receiver.copy(&first).exists(), "revoking took the copies");
    receiver
        .ctl(&["peer", "revoke", "nobody"])
        .fails(2, &["nobody"]);
    assert_no_leftovers(sender, receiver);
}

#[test]
fn a_reinstalled_receiver_is_not_the_old_one() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    hosts.sender.push("nas2:photos");
    hosts.receiver.daemon.stop();
    fs::remove_dir_all(hosts.receiver.daemon.state_dir()).unwrap();
    // The root names its receiver, and how it can change hands. Here it becomes a new one's.
    let output = run(&mut timed(hosts.receiver.daemon.command()));
    assert!(output.stderr.contains("copy root take-over"), "{output:?}");
    fs::remove_file(hosts.receiver.root().join(".sendshot-root")).unwrap();
    let _ = fs::remove_dir_all(hosts.receiver.daemon.state_dir());
    hosts.receiver.daemon.start();
    hosts.receiver.daemon.may_log("certificate");
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["another receiver", "pair"]);
    // After pairing again, everything works.
    fs::remove_file(hosts.sender.receiver_file("nas2")).unwrap();
    pair(&hosts.sender, &hosts.receiver, "nas2");
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

/// A swap file in use.
struct Swap(PathBuf);

impl Swap {
    fn on(path: PathBuf) -> Self {
        fs::write(&path, "").unwrap();
        tool("chattr", &["+C".as_ref(), path.as_os_str()]);
        fs::write(&path, vec![0; 4 << 20]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        tool("mkswap", &[&path]);
        tool("swapon", &[&path]);
        Self(path)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = run(Command::new("swapoff").arg(&self.0));
    }
}

#[test]
fn an_active_swap_file_in_the_volume_is_named_with_its_remedy() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    fs::create_dir(sender.photos().join("var")).unwrap();
    fill::tree(&sender.photos(), 1);
    let swap = Swap::on(sender.photos().join("var/swap file"));
    let texts = ["var/swap file", "swapoff", "help:"];
    sender.ctl(&["push", "nas2:photos"]).fails(2, &texts);
    drop(swap);
    let pushed = sender.push("nas2:photos");
    assert_exact(sender, receiver, &pushed);
    assert_no_leftovers(sender, receiver);
}

#[test]
fn unprivileged_users_push_only_what_is_configured() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    streams::create(&sender.fs().join("secret")).unwrap();
    for daemon in [&sender.daemon, &receiver.daemon] {
        let mode = fs::metadata(daemon.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o660, "every user could talk to the daemon");
    }
    let by_path = format!("nas2:{}", sender.fs().join("secret").display());
    for command in ["push", "plan"] {
        as_unprivileged(&sender.daemon, &[command, &by_path]).fails(4, &["root"]);
    }
    let token = receiver.invite(&["nas7"]);
    let address = receiver.address().to_string();
    let pairing = ["pair", &address, "--name", "nas7", "--token", &token];
    as_unprivileged(&sender.daemon, &pairing).fails(4, &["root"]);
    as_unprivileged(&receiver.daemon, &["peer", "invite", "mallory"]).fails(4, &["root"]);
    as_unprivileged(&receiver.daemon, &["peer", "revoke", "nas1"]).fails(4, &["root"]);
    as_unprivileged(&sender.daemon, &["push", "nas2:photos"]).success();
    as_unprivileged(&sender.daemon, &["status"]).success();
    let kept = sender.ctl(&["list", "--json"]).success().jsons();
    assert_eq!(
        kept.len(),
        1,
        "a push that was refused left something: {kept:?}"
    );
}
