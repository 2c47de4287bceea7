//! `sendshotctl pause` and `continue`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::{ContinueRequest, PauseRequest};
use serde::Serialize;

use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output};
use crate::sender::plan;

#[derive(Serialize)]
struct PausedJson {
    /// `null` for a pause without an end.
    until: Option<String>,
}

#[derive(Serialize)]
struct ContinuedJson {
    ended: u32,
}

/// Receiver and volume of a request; both empty for all.
fn names(target: Option<&OsString>) -> Result<(String, Vec<u8>), Problem> {
    let Some(target) = target else {
        return Ok(Default::default());
    };
    let target = plan::parse(target)?;
    let volume = plan::volume_bytes(&target.volume);
    Ok((target.receiver.to_string(), volume))
}

fn shown(target: Option<&OsString>) -> String {
    match target {
        Some(target) => format!("the schedule of {}", target.to_string_lossy()),
        None => "all schedules".to_owned(),
    }
}

/// Pauses schedules, for a time or without an end.
pub async fn pause(
    mut client: Sender,
    target: Option<OsString>,
    lasts: Option<Duration>,
    output: &Output,
) -> Outcome {
    let (receiver, volume) = names(target.as_ref())?;
    let request = PauseRequest {
        receiver,
        volume,
        seconds: lasts.map_or(0, |lasts| lasts.as_secs()),
    };
    let answer = client.pause(request).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem)?;
    let until = (answer.until != 0).then(|| output::time(answer.until));
    let what = shown(target.as_ref());
    output.report(
        &PausedJson {
            until: until.clone(),
        },
        || match until {
            Some(until) => format!("{what}: paused until {until}"),
            None => format!("{what}: paused until `sendshotctl continue`"),
        },
    );
    Ok(ExitCode::SUCCESS)
}

/// Ends pauses.
pub async fn end(mut client: Sender, target: Option<OsString>, output: &Output) -> Outcome {
    let (receiver, volume) = names(target.as_ref())?;
    let request = ContinueRequest { receiver, volume };
    let answer = client.r#continue(request).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem)?;
    if answer.ended == 0 && target.is_some() {
        let message = format!("{} is not paused by itself", shown(target.as_ref()));
        let remedy =
            "`sendshotctl status` shows what is paused; `sendshotctl continue` ends every pause";
        return Err(Problem::new(Kind::Failed, message).remedy(remedy));
    }
    let ended = answer.ended;
    output.report(&ContinuedJson { ended }, || match ended {
        0 => "nothing was paused".to_owned(),
        1 => "1 pause ended".to_owned(),
        n => format!("{n} pauses ended"),
    });
    Ok(ExitCode::SUCCESS)
}
