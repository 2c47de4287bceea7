//! `sendshotctl plan`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use sendshot_model::Engine;
use sendshot_model::{Target, VolumeRef, human};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::report::lossy;
use sendshot_proto::v1::{PlanResponse, PushRequest};
use serde::Serialize;

use crate::arguments::EngineArgument;
use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output};

#[derive(Serialize)]
struct PlanJson {
    volume: String,
    receiver: String,
    parent: Option<String>,
    parent_reason: String,
    /// See docs/reasons.md; so is each copy's `verdict_code`.
    parent_reason_code: String,
    engine: String,
    /// `null` with the kernel engine, whose stream cannot be measured; so are `commands`.
    stream_bytes: Option<u64>,
    commands: Option<u64>,
    top: Vec<PathJson>,
    notes: Vec<String>,
    candidates: Vec<CandidateJson>,
    skipped: Vec<String>,
}

#[derive(Serialize)]
struct PathJson {
    path: String,
    stream_bytes: u64,
}

#[derive(Serialize)]
struct CandidateJson {
    copy: String,
    uuid: String,
    verdict: String,
    verdict_code: String,
    remedy: Option<String>,
}

/// Makes the message for `HOST:VOL`.
pub fn request(
    target: &OsString,
    parent: &str,
    engine: Option<EngineArgument>,
) -> Result<PushRequest, Problem> {
    let target = parse(target)?;
    Ok(PushRequest {
        receiver: target.receiver.to_string(),
        volume: volume_bytes(&target.volume),
        parent: parent.to_owned(),
        engine: engine
            .map_or("", |engine| Engine::from(engine).name())
            .to_owned(),
        top: 0,
        retry_milliseconds: None,
        if_due: false,
    })
}

/// Parses `HOST:VOL`.
pub fn parse(target: &OsString) -> Result<Target, Problem> {
    Target::parse(target).map_err(|e| Problem::from_error(Kind::Usage, &e))
}

/// A volume as messages name it.
pub fn volume_bytes(volume: &VolumeRef) -> Vec<u8> {
    match volume {
        VolumeRef::Name(name) => name.as_str().as_bytes().to_vec(),
        VolumeRef::Path(path) => path.as_os_str().as_bytes().to_vec(),
    }
}

/// Shows what a push would do.
pub async fn run(client: &mut Sender, request: PushRequest, output: &Output) -> Outcome {
    let answer = client
        .plan(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem.clone())?;
    let plan = json(answer);
    output.result(&plan, || text(&plan));
    Ok(ExitCode::SUCCESS)
}

fn json(answer: PlanResponse) -> PlanJson {
    PlanJson {
        volume: answer.volume,
        receiver: answer.receiver,
        parent: Some(output::uuid(&answer.parent)).filter(|uuid| !uuid.is_empty()),
        parent_reason: answer.parent_reason,
        parent_reason_code: answer.parent_reason_code,
        engine: answer.engine,
        stream_bytes: answer.stream_bytes,
        commands: answer.commands,
        top: answer
            .top
            .into_iter()
            .map(|cost| PathJson {
                path: lossy(&cost.path),
                stream_bytes: cost.stream_bytes,
            })
            .collect(),
        notes: answer.notes,
        candidates: answer
            .candidates
            .into_iter()
            .map(|candidate| CandidateJson {
                copy: candidate.name,
                uuid: output::uuid(&candidate.uuid),
                verdict: candidate.verdict,
                verdict_code: candidate.verdict_code,
                remedy: Some(candidate.remedy).filter(|remedy| !remedy.is_empty()),
            })
            .collect(),
        skipped: answer.skipped.iter().map(|path| lossy(path)).collect(),
    }
}

fn text(plan: &PlanJson) -> String {
    let kind = match &plan.parent {
        Some(parent) => format!("incremental, parent {parent}"),
        None => "full".to_owned(),
    };
    let mut text = format!(
        "{} to {}: {kind}\n  because  {}\n  engine   {}\n",
        plan.volume, plan.receiver, plan.parent_reason, plan.engine
    );
    if let (Some(bytes), Some(commands)) = (plan.stream_bytes, plan.commands) {
        let bytes = human::bytes_human(bytes);
        text += &format!("  stream   {bytes} in {commands} commands\n");
    }
    for note in &plan.notes {
        text += &format!("  note     {note}\n");
    }
    for PathJson { path, stream_bytes } in &plan.top {
        let path = if path.is_empty() { "." } else { path };
        let bytes = human::bytes_human(*stream_bytes);
        text += &format!("  {bytes:>10}  {path}\n");
    }
    if !plan.skipped.is_empty() {
        let skipped = human::few(&plan.skipped);
        text += &format!("  skipped  {skipped}: nested subvolumes are volumes of their own\n");
    }
    for candidate in &plan.candidates {
        text += &format!("  copy     {}: {}\n", candidate.copy, candidate.verdict);
        if let Some(remedy) = &candidate.remedy {
            text += &format!("  help     {remedy}\n");
        }
    }
    text
}
