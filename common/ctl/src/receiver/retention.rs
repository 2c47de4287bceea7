//! `sendshotctl copy prune`, `delete`, `hold`, `release` and `retime`.

use std::process::ExitCode;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use sendshot_model::human;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::change_copy_request::Change;
use sendshot_proto::v1::{
    AcceptClockRequest, ChangeCopyRequest, ConfirmedVolume, DeleteCopy, HoldCopy,
    PruneCopiesRequest, PrunedVolume, RebuildLedger, ReleaseCopy, RetimeCopy,
};
use sendshot_sys::clock;
use serde::Serialize;

use crate::arguments::{DeleteCopyArguments, HoldArguments, PruneCopiesArguments, RetimeArguments};
use crate::client::{self, Receiver};
use crate::outcome::{self, Outcome};
use crate::output::Output;
use crate::sender::forget;

#[derive(Debug, Serialize)]
struct PrunedJson {
    sender: String,
    volume: String,
    rule: String,
    copies: Vec<String>,
    deleted: bool,
    not_deleted: Option<String>,
    must_be_confirmed: bool,
    left: Vec<String>,
}

/// Deletes the copies that no rule keeps, or shows them.
pub async fn prune(
    mut client: Receiver,
    arguments: PruneCopiesArguments,
    output: &Output,
) -> Outcome {
    if !arguments.dry_run && !arguments.yes {
        forget::check_terminal()?;
    }
    let which = arguments.which.unwrap_or_default();
    let (sender, volume) = which.split_once('/').unwrap_or((&which, ""));
    let request = PruneCopiesRequest {
        sender: sender.to_owned(),
        volume: volume.to_owned(),
        dry_run: true,
        confirmed: Vec::new(),
    };
    let would = ask(&mut client, request.clone()).await?;
    if arguments.dry_run {
        show(would, Shown::WouldGo, output);
        return Ok(ExitCode::SUCCESS);
    }
    let confirmed: Vec<ConfirmedVolume> = would
        .iter()
        .filter(|volume| volume.asks == arguments.confirm && volume.not_deleted.is_empty())
        .map(|volume| ConfirmedVolume {
            sender: volume.sender.clone(),
            volume: volume.volume.clone(),
            copies: volume.copies.clone(),
        })
        .collect();
    if confirmed.is_empty() {
        show(would, Shown::WouldGo, output);
        output.note("nothing is deleted");
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.yes {
        let is_meant = |volume: &&PrunedVolume| {
            let mut confirmed = confirmed.iter();
            confirmed.any(|of| of.sender == volume.sender && of.volume == volume.volume)
        };
        for volume in would.iter().filter(is_meant) {
            eprintln!("{}", line(volume));
            volume.copies.iter().for_each(|copy| eprintln!("  {copy}"));
        }
        if !forget::is_yes("Delete these copies?")? {
            return Err(Problem::new(Kind::Cancelled, "nothing was deleted"));
        }
    }
    let done = ask(
        &mut client,
        PruneCopiesRequest {
            dry_run: false,
            confirmed,
            ..request
        },
    )
    .await?;
    show(done, Shown::Deleted, output);
    Ok(ExitCode::SUCCESS)
}

async fn ask(
    client: &mut Receiver,
    request: PruneCopiesRequest,
) -> Result<Vec<PrunedVolume>, Problem> {
    let answer = client.prune_copies(request).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem)?;
    Ok(answer.volumes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    WouldGo,
    Deleted,
}

fn show(volumes: Vec<PrunedVolume>, shown: Shown, output: &Output) {
    if volumes.is_empty() {
        output.note("no copy goes by its rule");
    }
    for volume in volumes {
        let is_deleted = shown == Shown::Deleted && volume.not_deleted.is_empty();
        let text = || {
            let mut lines = vec![match is_deleted {
                true => format!(
                    "{}/{}: deleted {}",
                    volume.sender,
                    volume.volume,
                    copies(&volume)
                ),
                false => line(&volume),
            }];
            lines.extend(volume.copies.iter().map(|copy| format!("  {copy}")));
            lines.extend(volume.left.iter().map(|left| format!("  left: {left}")));
            lines.join("\n")
        };
        let json = PrunedJson {
            sender: volume.sender.clone(),
            volume: volume.volume.clone(),
            rule: volume.rule.clone(),
            copies: volume.copies.clone(),
            deleted: is_deleted,
            not_deleted: Some(volume.not_deleted.clone()).filter(|why| !why.is_empty()),
            must_be_confirmed: volume.asks,
            left: volume.left.clone(),
        };
        output.report(&json, text);
    }
}

fn copies(volume: &PrunedVolume) -> String {
    match volume.copies.len() {
        1 => "1 copy".to_owned(),
        count => format!("{count} copies"),
    }
}

fn line(volume: &PrunedVolume) -> String {
    let mut line = format!(
        "{}/{} ({}): {} would go",
        volume.sender,
        volume.volume,
        volume.rule,
        copies(volume)
    );
    if volume.asks {
        line += ", and must be confirmed: --confirm";
    }
    if !volume.not_deleted.is_empty() {
        line += &format!("; nothing is deleted: {}", volume.not_deleted);
    }
    line
}

/// Deletes a copy.
pub async fn delete(client: Receiver, arguments: DeleteCopyArguments, output: &Output) -> Outcome {
    let request = of_copy(&arguments.copy)?;
    confirm(
        arguments.yes,
        &format!(
            "Delete the copy {}? It cannot be brought back.",
            arguments.copy
        ),
    )?;
    let break_chain = arguments.break_chain;
    let change = Change::Delete(DeleteCopy { break_chain });
    send(client, request, change, output).await
}

/// Holds a copy.
pub async fn hold(client: Receiver, arguments: HoldArguments, output: &Output) -> Outcome {
    let request = of_copy(&arguments.copy)?;
    let until = arguments.until.as_deref().map(time).transpose()?;
    let change = Change::Hold(HoldCopy {
        reason: arguments
            .reason
            .unwrap_or_else(|| "by the administrator".to_owned()),
        until: until.unwrap_or(0),
    });
    send(client, request, change, output).await
}

/// Ends the holds of a copy.
pub async fn release(client: Receiver, copy: String, output: &Output) -> Outcome {
    let request = of_copy(&copy)?;
    send(client, request, Change::Release(ReleaseCopy {}), output).await
}

/// States the time of a copy, makes a new ledger, or accepts the clock.
pub async fn retime(client: Receiver, arguments: RetimeArguments, output: &Output) -> Outcome {
    if arguments.clock {
        return accept_clock(client, arguments.yes, output).await;
    }
    let which = arguments.which.unwrap_or_default();
    if arguments.rebuild {
        let request = of_volume(&which)?;
        confirm(
            arguments.yes,
            &format!(
                "Make a new ledger for {which}, with the times of the copies' names? Its holds are lost."
            ),
        )?;
        return send(client, request, Change::Rebuild(RebuildLedger {}), output).await;
    }
    let request = of_copy(&which)?;
    let time = arguments.time.as_deref().ok_or_else(|| {
        Problem::new(
            Kind::Usage,
            "say which time the copy is of, like 2026-11-22 or 2026-11-22T03:00:00Z",
        )
    })?;
    let change = Change::Retime(RetimeCopy {
        time: self::time(time)?,
    });
    send(client, request, change, output).await
}

async fn accept_clock(mut client: Receiver, yes: bool, output: &Output) -> Outcome {
    let request = AcceptClockRequest {
        now: Timestamp::now().as_second(),
        since_boot: i64::try_from(clock::since_boot().as_secs()).unwrap_or(0),
    };
    let now = human::utc(request.now);
    confirm(
        yes,
        &format!("It is {now} by this host's clock. Is that right?"),
    )?;
    let answer = client.accept_clock(request).await;
    let answer = answer.map_err(client::failed)?.into_inner();
    outcome::check(answer.problem)?;
    let done = format!(
        "the time of this host is accepted: {}",
        human::utc(answer.now)
    );
    output.report(&DoneJson { done: done.clone() }, || done);
    Ok(ExitCode::SUCCESS)
}

fn confirm(yes: bool, question: &str) -> Result<(), Problem> {
    if yes {
        return Ok(());
    }
    forget::check_terminal()?;
    match forget::is_yes(question)? {
        true => Ok(()),
        false => Err(Problem::new(Kind::Cancelled, "nothing was changed")),
    }
}

#[derive(Debug, Serialize)]
struct DoneJson {
    done: String,
}

async fn send(
    mut client: Receiver,
    request: ChangeCopyRequest,
    change: Change,
    output: &Output,
) -> Outcome {
    let request = ChangeCopyRequest {
        change: Some(change),
        ..request
    };
    let answer = client.change_copy(request).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem)?;
    let done = answer.done;
    output.report(&DoneJson { done: done.clone() }, || done);
    Ok(ExitCode::SUCCESS)
}

fn of_volume(which: &str) -> Result<ChangeCopyRequest, Problem> {
    match which.split('/').collect::<Vec<_>>().as_slice() {
        [sender, volume] => Ok(ChangeCopyRequest {
            sender: (*sender).to_owned(),
            volume: (*volume).to_owned(),
            ..ChangeCopyRequest::default()
        }),
        _ => Err(Problem::new(
            Kind::Usage,
            format!("`{which}` is not SENDER/VOLUME"),
        )),
    }
}

fn of_copy(which: &str) -> Result<ChangeCopyRequest, Problem> {
    match which.split('/').collect::<Vec<_>>().as_slice() {
        [sender, volume, copy] => Ok(ChangeCopyRequest {
            sender: (*sender).to_owned(),
            volume: (*volume).to_owned(),
            copy: (*copy).to_owned(),
            change: None,
        }),
        _ => Err(
            Problem::new(Kind::Usage, format!("`{which}` is not SENDER/VOLUME/COPY"))
                .remedy("`sendshotctl copy list` shows the copies"),
        ),
    }
}

/// Parses a time: a day (its beginning in UTC), a time in UTC, or a span from now like `30d`.
fn time(text: &str) -> Result<i64, Problem> {
    let at = |time: Timestamp| time.as_second();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(at(time));
    }
    let civil = text.parse::<DateTime>().ok();
    let civil = civil.or_else(|| text.parse::<Date>().ok().map(|day| day.at(0, 0, 0, 0)));
    if let Some(zoned) = civil.and_then(|civil| civil.to_zoned(TimeZone::UTC).ok()) {
        return Ok(at(zoned.timestamp()));
    }
    let span = text.parse::<jiff::Span>().ok();
    let span = span.and_then(|span| {
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        span.to_duration(days).ok()
    });
    let later = span.and_then(|span| Timestamp::now().checked_add(span).ok());
    later.map(at).ok_or_else(|| {
        let example = human::utc(Timestamp::now().as_second());
        Problem::new(Kind::Usage, format!("`{text}` is not a time")).remedy(format!(
            "write one like 2027-01-31, `{example}`, or `90 days` from now"
        ))
    })
}
