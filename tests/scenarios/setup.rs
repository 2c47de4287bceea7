//! A guided first set-up, up to the first copy.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::hosts::daemon::Daemon;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::{binaries, until};
use serde_json::Value;

/// Starts `sendshotctl setup` with answers as lines.
fn setup(daemon: &Daemon, config: &Path, options: &[&str], answers: &str) -> Child {
    let mut command = Command::new(binaries::path("sendshotctl"));
    command.arg("--json").arg("--socket").arg(daemon.socket());
    command
        .arg("setup")
        .arg("--config")
        .arg(config)
        .args(options);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(answers.as_bytes())
        .unwrap();
    child
}

/// Starts the daemon when its configuration is there, as the user does where no systemd runs, and waits for the command.
fn finish(child: Child, daemon: &mut Daemon, config: &Path) -> Output {
    until::holds("the configuration is written", || config.exists());
    daemon.start();
    child.wait_with_output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn three_questions_on_each_host_lead_to_the_first_copy() {
    let mut receiver = ReceiverHost::setup().make();
    let mut sender = SenderHost::setup().volume("photos", "photos").make();
    fs::write(sender.photos().join("a"), "1").unwrap();
    let (there, here) = (receiver.config(), sender.config());
    for config in [&there, &here] {
        fs::remove_file(config).unwrap();
    }
    let root = receiver.fs().join("copies");
    let address = receiver.address().to_string();
    let answers = format!("{}\nnas1\n\n", root.display());
    // The rest of the file system is too small for the usual reserve.
    let child = setup(
        &receiver.daemon,
        &there,
        &["--receiver", "--listen", &address],
        &answers,
    );
    let invited = json(&finish(child, &mut receiver.daemon, &there));
    let token = invited["token"].as_str().unwrap();
    let text = fs::read_to_string(&there).unwrap();
    assert!(
        text.contains("keep = \"24 hours hourly, 30 days daily, 12 months monthly\""),
        "{text}"
    );

    let answers = format!("{}\n{address}\n\n{token}\n", sender.photos().display());
    let child = setup(
        &sender.daemon,
        &here,
        &["--sender", "--name", "nas2"],
        &answers,
    );
    let pushed = json(&finish(child, &mut sender.daemon, &here));
    assert!(
        root.join(pushed["copy"].as_str().unwrap())
            .join("a")
            .exists()
    );
    let text = fs::read_to_string(&here).unwrap();
    assert!(text.contains("schedule = \"every 1h\""), "{text}");
    // The schedule is not held any more, and has nothing to do.
    let status = sender.ctl(&["--json", "status"]).success().json();
    let state = &status["replications"][0];
    assert_eq!(state["paused_until"], Value::Null, "{status}");
    assert!(state["next_run"].is_string(), "{status}");
    // Nothing that exists is changed.
    let again = setup(&sender.daemon, &here, &["--sender"], "");
    let again = again.wait_with_output().unwrap();
    assert_eq!(again.status.code(), Some(4), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("runs on this host already"));
    sender.daemon.stop();
    let again = setup(&sender.daemon, &here, &["--sender"], "");
    let again = again.wait_with_output().unwrap();
    assert_eq!(again.status.code(), Some(4), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("a set-up changes no file"));
    assert_eq!(fs::read_to_string(&here).unwrap(), text);
    sender.daemon.start();
}

#[test]
fn a_wrong_answer_writes_nothing_and_a_wrong_token_says_what_is_left() {
    let mut sender = SenderHost::setup().volume("photos", "photos").make();
    let receiver = ReceiverHost::new();
    let config = sender.config();
    fs::remove_file(&config).unwrap();
    let directory = sender.photos().join("directory");
    fs::create_dir(&directory).unwrap();
    let photos = sender.photos().display().to_string();
    let address = receiver.address().to_string();
    for (answers, why) in [
        ("photos\n".to_owned(), "not an absolute path"),
        (format!("{}\n", directory.display()), "not a subvolume"),
        (format!("{photos}\nroot@nas2\n"), "is not an address"),
        (format!("{photos}\nnas2\ndaily\n"), "every 15 min"),
        (format!("{photos}\nnas2\n"), "no token was given"),
        (String::new(), "no answer to: Which subvolume"),
    ] {
        let output = setup(&sender.daemon, &config, &["--sender"], &answers);
        let output = output.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{why}: {said}");
        assert!(!config.exists(), "{why}");
    }
    let answers = format!("{photos}\n{address}\nevery 2h\nsendshot-WRONG\n");
    let child = setup(
        &sender.daemon,
        &config,
        &["--sender", "--name", "nas2"],
        &answers,
    );
    let output = finish(child, &mut sender.daemon, &config);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("sendshotctl pair") && said.contains("sendshotctl push nas2:photos"),
        "{said}"
    );
    // What is left leads to the same end.
    let token = receiver.invite(&["nas1"]);
    sender
        .ctl(&["pair", &address, "--name", "nas2", "--token", &token])
        .success();
    let pushed = sender.push("nas2:photos");
    assert_exact(&sender, &receiver, &pushed);
    sender.ctl(&["continue"]).success();
}
