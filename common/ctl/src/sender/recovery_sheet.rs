//! `sendshotctl recovery-sheet`: one page for the worst day.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use sendshot_proto::report::lossy;
use sendshot_proto::v1::last_push::Outcome as Ended;
use sendshot_proto::v1::{StatusRequest, StatusResponse, VolumeState};
use serde::Serialize;

use crate::client::{self, Sender};
use crate::outcome::Outcome;
use crate::output::Output;

/// The content of the sheet.
#[derive(Serialize)]
struct Sheet {
    host: String,
    printed_at: String,
    software: String,
    receivers: Vec<ReceiverLine>,
    volumes: Vec<VolumeLine>,
}

#[derive(Serialize)]
struct ReceiverLine {
    name: String,
    address: String,
    receiver_id: String,
    /// Fingerprint of its authority, as `openssl` shows the first 20 bytes of the SHA-256.
    fingerprint: String,
}

#[derive(Serialize)]
struct VolumeLine {
    name: String,
    path: String,
    /// For each receiver, the directory of its copies below the receiver's `root`.
    copies: Vec<CopiesLine>,
}

#[derive(Serialize)]
struct CopiesLine {
    receiver: String,
    /// `None` before the first push.
    directory: Option<String>,
}

/// Prints the sheet.
pub async fn run(mut client: Sender, html: bool, output: &Output) -> Outcome {
    let answer = client.status(StatusRequest {}).await;
    let sheet = sheet(answer.map_err(client::failed)?.into_inner());
    let text = text(&sheet);
    output.result(&sheet, || match html {
        true => page(&text),
        false => text,
    });
    Ok(ExitCode::SUCCESS)
}

fn sheet(status: StatusResponse) -> Sheet {
    let last = &status.last;
    let directory = |volume: &str, receiver: &str| {
        let mut of = last
            .iter()
            .filter(|last| last.volume == volume && last.receiver == receiver);
        match of.next()?.outcome.as_ref()? {
            Ended::Done(report) => Some(report.copy.rsplit_once('/')?.0.to_owned()),
            Ended::Failed(_) => None,
        }
    };
    let volumes = status.volumes.iter().map(|volume| VolumeLine {
        name: volume.name.clone(),
        path: lossy(&volume.path),
        copies: receivers_of(&status, volume)
            .into_iter()
            .map(|receiver| CopiesLine {
                directory: directory(&volume.name, &receiver),
                receiver,
            })
            .collect(),
    });
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Sheet {
        host: host.trim().to_owned(),
        printed_at: jiff::Timestamp::now()
            .strftime("%Y-%m-%d %H:%MZ")
            .to_string(),
        software: status.software.clone(),
        volumes: volumes.collect(),
        receivers: status
            .receivers
            .iter()
            .map(|receiver| ReceiverLine {
                name: receiver.name.clone(),
                address: receiver.address.clone(),
                receiver_id: crate::output::uuid(&receiver.receiver_id),
                fingerprint: receiver.fingerprint.clone(),
            })
            .collect(),
    }
}

/// The configured receivers of a volume, and those to which it was pushed.
fn receivers_of(status: &StatusResponse, volume: &VolumeState) -> BTreeSet<String> {
    let pushed = status.last.iter().filter(|last| last.volume == volume.name);
    let pushed = pushed.map(|last| last.receiver.clone());
    volume.receivers.iter().cloned().chain(pushed).collect()
}

fn text(sheet: &Sheet) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!(
        "Recovery sheet of {}, printed {} by {}",
        sheet.host, sheet.printed_at, sheet.software
    ));
    line("No secrets are on this page.".into());
    line("\nReceivers: the hosts that have the copies".into());
    for receiver in &sheet.receivers {
        line(format!("  {}  {}", receiver.name, receiver.address));
        line(format!("      id          {}", receiver.receiver_id));
        line(format!("      fingerprint {}", receiver.fingerprint));
    }
    line("\nVolumes, and where their copies are below `root` of the receiver".into());
    for volume in &sheet.volumes {
        line(format!("  {}  {}", volume.name, volume.path));
        for copies in &volume.copies {
            let directory = copies.directory.as_deref().unwrap_or("(no push yet)");
            line(format!(
                "      {}: {directory}/YYYYMMDDTHHMMSSZ",
                copies.receiver
            ));
        }
    }
    line("\nWhat to do".into());
    for (what, command) in commands(sheet) {
        line(format!("  {what}\n      {command}"));
    }
    line("\nWithout Sendshot: a copy is a read-only btrfs subvolume. `btrfs send COPY | ssh HOST btrfs receive DIR`,".into());
    line("or `cp -a`, brings it back. docs/restore.md has every step.".into());
    out
}

fn commands(sheet: &Sheet) -> Vec<(String, String)> {
    let receiver = sheet.receivers.first();
    let (name, address) = receiver.map_or(("nas2", "nas2.lan"), |r| (&r.name, &r.address));
    let volume = sheet
        .volumes
        .first()
        .map_or("photos", |volume| &volume.name);
    // This host's name at the receiver is the first part of its directories.
    let directories = sheet.volumes.iter().flat_map(|volume| &volume.copies);
    let mut named = directories.filter_map(|copies| copies.directory.as_deref()?.split_once('/'));
    let own = named.next().map_or("NAME", |(own, _)| own);
    vec![
        (
            format!("1. On {name}, as root: permit the restore, and note the token"),
            format!("sendshotctl peer invite {own} --restore --for 24h"),
        ),
        (
            "2. On any Linux system with the two programs sendshotctl and sendshot-restore, as root".into(),
            format!("sendshotctl restore --pair {address} --name {name} --list"),
        ),
        (
            "3. Bring a whole volume to a btrfs file system".into(),
            format!("sendshotctl restore {name}:{volume} /mnt/{volume}"),
        ),
        (
            "4. An older copy: the newest one that is not later than a time in UTC".into(),
            format!("sendshotctl restore {name}:{volume} --at '2026-11-22 03:00' /mnt/{volume}"),
        ),
    ]
}

/// The same as a page for the printer.
fn page(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Recovery sheet</title>\n\
         <style>@page {{ margin: 15mm }} pre {{ font: 10pt/1.35 monospace; white-space: pre-wrap }}</style>\n\
         <pre>{escaped}</pre>\n</html>\n"
    )
}
