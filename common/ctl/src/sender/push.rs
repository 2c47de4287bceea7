//! `sendshotctl push`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use sendshot_model::human;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::report::Report;
use sendshot_proto::v1::push_event::Event;
use sendshot_proto::v1::{
    CancelRequest, PushEvent, PushRequest, PushSkipped, StatusRequest, VolumeState,
};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::Streaming;

use crate::arguments::PushArguments;
use crate::client::{self, Sender};
use crate::outcome::{self, Outcome, SOME_FAILED};
use crate::output::{self, Output};
use crate::sender::plan;
use crate::sender::progress::Progress;

#[derive(Serialize)]
struct Detached {
    push: String,
    target: String,
}

#[derive(Serialize)]
struct Failed<'a> {
    target: &'a str,
    error: &'a str,
    remedy: &'a str,
}

/// How the command stopped following a push.
enum Followed {
    Done(Box<Report>),
    Detached(Vec<u8>),
    /// Nothing was due.
    Skipped(PushSkipped),
}

/// A push that was not due.
#[derive(Serialize)]
struct SkippedJson<'a> {
    target: &'a str,
    /// `paused`, `running`, `not-due` or `unchanged`.
    skipped: &'a str,
    reason: &'a str,
}

/// Pushes one volume after the other. A cancelled push is the last one.
pub async fn run(client: Sender, arguments: PushArguments, output: &Output) -> Outcome {
    let targets = match arguments.all {
        true => configured(client.clone()).await?,
        false => arguments.targets.clone(),
    };
    let several = targets.len() > 1;
    let mut failed = 0;
    // One listener for the whole command: a Ctrl-C between two pushes must not be lost.
    let mut interrupts = signal(SignalKind::interrupt())?;
    for target in &targets {
        let name = target.to_string_lossy().into_owned();
        match one(&client, target, &arguments, &mut interrupts, output).await {
            Ok(Followed::Done(report)) => output.report(&report, || text(&report)),
            Ok(Followed::Detached(push)) => {
                let detached = Detached {
                    push: output::uuid(&push),
                    target: name,
                };
                output.result(&detached, || {
                    format!("{} is under way; see `sendshotctl status`", detached.target)
                });
            }
            Ok(Followed::Skipped(skipped)) => {
                let json = SkippedJson {
                    target: &name,
                    skipped: &skipped.code,
                    reason: &skipped.reason,
                };
                output.report(&json, || format!("{name}: {}", skipped.reason));
            }
            Err(problem) if several && problem.kind != Kind::Cancelled => {
                failed += 1;
                report_failure(output, &name, &problem);
            }
            Err(problem) => {
                report_failure(output, &name, &problem);
                return Ok(outcome::exit_code(&problem));
            }
        }
    }
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_FAILED),
    })
}

/// All configured volumes, each with its receivers.
pub async fn configured(mut client: Sender) -> Result<Vec<OsString>, Problem> {
    let status = client.status(StatusRequest {}).await;
    let status = status.map_err(client::failed)?.into_inner();
    let of_volume = |volume: VolumeState| {
        let name = volume.name;
        let receivers = volume.receivers.into_iter();
        receivers.map(move |receiver| OsString::from(format!("{receiver}:{name}")))
    };
    let targets: Vec<OsString> = status.volumes.into_iter().flat_map(of_volume).collect();
    if targets.is_empty() {
        let message = "sender.toml configures no volume with a receiver";
        return Err(Problem::new(Kind::Usage, message)
            .remedy("write a table like `[volumes.photos]` with `path` and `receivers`"));
    }
    Ok(targets)
}

fn report_failure(output: &Output, target: &str, problem: &Problem) {
    if output.is_json() {
        let failed = Failed {
            target,
            error: &problem.message,
            remedy: &problem.remedy,
        };
        output.result(&failed, String::new);
    }
    eprintln!("sendshotctl: push {target}: {}", problem.message);
    if !problem.remedy.is_empty() {
        eprintln!("  help: {}", problem.remedy);
    }
}

async fn one(
    client: &Sender,
    target: &OsString,
    arguments: &PushArguments,
    interrupts: &mut Signal,
    output: &Output,
) -> Result<Followed, Problem> {
    let retry_for = arguments.retry_for.map(|span| span.as_millis());
    let request = PushRequest {
        if_due: arguments.if_due,
        retry_milliseconds: retry_for.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX)),
        ..plan::request(target, &arguments.parent, arguments.engine)?
    };
    let progress = Progress::new(*output, target.to_string_lossy().into_owned());
    let mut asked = client.clone();
    let mut asking = std::pin::pin!(asked.push(request));
    let mut cancelled = false;
    let events = loop {
        tokio::select! {
            events = &mut asking => break events.map_err(client::failed)?,
            // The daemon has not answered yet, and may be about to begin: the loop waits for that.
            _ = interrupts.recv() => interrupted(&mut cancelled, &progress),
        }
    };
    follow(
        client,
        events.into_inner(),
        arguments,
        interrupts,
        (progress, cancelled),
    )
    .await
}

/// Handles Ctrl-C: the first one cancels, the second leaves at once.
fn interrupted(cancelled: &mut bool, progress: &Progress) {
    if *cancelled {
        leave();
    }
    *cancelled = true;
    progress.say("cancelling; Ctrl-C again leaves at once");
}

/// Follows a push to its end. The daemon owns the push: it continues whatever happens here, unless the user cancels
/// it with Ctrl-C. A second Ctrl-C leaves at once.
async fn follow(
    client: &Sender,
    mut events: Streaming<PushEvent>,
    arguments: &PushArguments,
    interrupts: &mut Signal,
    (mut progress, mut cancelled): (Progress, bool),
) -> Result<Followed, Problem> {
    let mut push = Vec::new();
    loop {
        let event = tokio::select! {
            event = events.message() => event.map_err(client::failed)?,
            _ = interrupts.recv() => {
                interrupted(&mut cancelled, &progress);
                // A request without an id would cancel every push; the id is about to arrive.
                if !push.is_empty() {
                    cancel(client.clone(), push.clone());
                }
                continue;
            }
        };
        let ended = || {
            Problem::new(
                Kind::Failed,
                "the connection to the daemon was lost during the push",
            )
        };
        match event.ok_or_else(ended)?.event {
            Some(Event::Started(started)) => {
                push = started.push_id;
                if cancelled {
                    cancel(client.clone(), push.clone());
                    continue;
                }
                if arguments.detach {
                    return Ok(Followed::Detached(push));
                }
            }
            Some(Event::Stage(stage)) => progress.stage(stage),
            Some(Event::Progress(bytes)) => progress.progress(&bytes),
            Some(Event::Done(report)) => {
                return report
                    .try_into()
                    .map(|report| Followed::Done(Box::new(report)))
                    .map_err(|e| {
                        Problem::new(Kind::Failed, format!("the daemon's report is invalid: {e}"))
                    });
            }
            Some(Event::Failed(problem)) => return Err(problem.into()),
            Some(Event::Skipped(skipped)) => return Ok(Followed::Skipped(skipped)),
            None => {}
        }
    }
}

fn cancel(mut client: Sender, push_id: Vec<u8>) {
    tokio::spawn(async move {
        let request = CancelRequest {
            push_id,
            ..Default::default()
        };
        // The push's own events report how it ended.
        let _ = client.cancel(request).await;
    });
}

/// Leaves without waiting for anything. A daemon that hangs may never receive a cancellation on a connection
/// that is closed when it wakes up.
fn leave() -> ! {
    eprintln!("sendshotctl: stopped waiting before the daemon answered");
    eprintln!(
        "  help: `sendshotctl status` shows whether the push is still running; `sendshotctl cancel` ends it"
    );
    std::process::exit(1)
}

/// Describes a completed push, for users.
fn text(report: &Report) -> String {
    let time = Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
    let mut lines = vec![format!(
        "pushed {} to {}: {} in {}",
        report.volume,
        report.receiver,
        human::bytes_human(report.stream_bytes),
        human::duration(time),
    )];
    if report.copy.is_empty() {
        lines.push(format!("  {}", report.parent_reason));
        return lines.join("\n");
    }
    lines.push(format!("  copy     {}", report.copy));
    match report.earlier.len() {
        0 => {}
        1 => lines.push("  before   1 older snapshot".to_owned()),
        n => lines.push(format!("  before   {n} older snapshots")),
    }
    match (report.resumed_at, &report.completed_first) {
        (Some(offset), None) => {
            lines.push(format!("  resumed  at {}", human::bytes_human(offset)));
        }
        (Some(offset), Some(copy)) => lines.push(format!(
            "  before   {copy} was completed, an interrupted push, from {} on",
            human::bytes_human(offset)
        )),
        (None, Some(copy)) => {
            lines.push(format!("  before   {copy} was found to be complete"));
        }
        (None, None) => {}
    }
    lines.push(match report.parent {
        Some(parent) => format!("  parent   {parent}: {}", report.parent_reason),
        None => format!("  parent   none, all was sent: {}", report.parent_reason),
    });
    lines.extend(
        report
            .pruned
            .iter()
            .map(|uuid| format!("  pruned   {uuid}")),
    );
    if !report.newly_skipped.is_empty() {
        lines.push(format!(
            "  skipped  {}: nested subvolumes are volumes of their own",
            human::few(&report.newly_skipped)
        ));
    }
    if report.not_recorded {
        lines.push(
            "  note     the file system is read-only, so no state of this push is retained: the next push cannot build on it, and this one could not have been resumed after a restart"
                .to_owned(),
        );
    }
    let not_kept = report.not_kept.entries();
    lines.extend(not_kept.iter().map(output::not_kept_line));
    lines.join("\n")
}
