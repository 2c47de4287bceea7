//! `sendshotctl forget`.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;

use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::report::lossy;
use sendshot_proto::v1::{ForgetFilesystemRequest, ForgetRequest, ForgetResponse, KeptSnapshot};
use serde::Serialize;

use crate::arguments::ForgetArguments;
use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output};
use crate::sender::list::{self, KeptJson};
use crate::sender::not_looked_at;
use crate::sender::plan;

/// Longest line that is read from the terminal, in bytes.
const MAX_ANSWER: u64 = 1024;

/// A deleted state: the fields of `list`, and the consequence.
#[derive(Serialize)]
struct ForgottenJson {
    #[serde(flatten)]
    kept: KeptJson,
    consequence: String,
}

/// Deletes the states that the user names, after asking.
pub async fn run(mut client: Sender, arguments: ForgetArguments, output: &Output) -> Outcome {
    let target = plan::parse(&arguments.target.unwrap_or_default())?;
    let mut request = ForgetRequest {
        receiver: target.receiver.to_string(),
        volume: plan::volume_bytes(&target.volume),
        which: arguments.which.unwrap_or_default(),
        all: arguments.all,
        root: arguments.root.unwrap_or_default(),
        break_chain: arguments.break_chain,
        dry_run: false,
        agreed: Vec::new(),
    };
    if !arguments.yes {
        // Without a terminal, --yes is required whatever would be deleted.
        check_terminal()?;
        let dry_run = ForgetRequest {
            dry_run: true,
            ..request.clone()
        };
        let would_go = ask_daemon(&mut client, dry_run).await?;
        confirm(&would_go)?;
        let pushes = would_go.snapshots.into_iter().map(|kept| kept.push_id);
        request.agreed = pushes.collect();
    }
    let answer = ask_daemon(&mut client, request).await?;
    for kept in answer.snapshots {
        show(kept, &answer.consequence, output);
    }
    output.note(&answer.consequence);
    not_looked_at::show(answer.not_looked_at, output);
    Ok(ExitCode::SUCCESS)
}

/// A forgotten file system.
#[derive(Serialize)]
struct FilesystemJson {
    filesystem: String,
    path: String,
}

/// Has the sender forget a file system that will not come back.
pub async fn filesystem(mut client: Sender, id: String, output: &Output) -> Outcome {
    let request = ForgetFilesystemRequest { filesystem: id };
    let answer = client.forget_filesystem(request).await;
    let answer = answer.map_err(client::failed)?.into_inner();
    outcome::check(answer.problem)?;
    let json = FilesystemJson {
        filesystem: output::uuid(&answer.filesystem),
        path: lossy(&answer.path),
    };
    output.report(&json, || {
        format!(
            "forgotten: file system {}, last at {}; if it comes back, a push from it or `take-over PATH` finds it again",
            json.filesystem, json.path
        )
    });
    Ok(ExitCode::SUCCESS)
}

async fn ask_daemon(
    client: &mut Sender,
    request: ForgetRequest,
) -> Result<ForgetResponse, Problem> {
    let answer = client.forget(request).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem.clone())?;
    Ok(answer)
}

/// Checks that the user can be asked.
///
/// # Errors
/// If standard input is not a terminal.
pub fn check_terminal() -> Result<(), Problem> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Usage,
        "standard input is not a terminal, so the question cannot be asked",
    )
    .remedy("add --yes if you are sure"))
}

/// Asks before states are deleted; anything but a clear yes is a no.
fn confirm(would_go: &ForgetResponse) -> Result<(), Problem> {
    for kept in &would_go.snapshots {
        eprintln!("{}, {}", list::one_line(kept), list::size(kept));
    }
    let question = format!("Delete this? {}.", would_go.consequence);
    match is_yes(&question)? {
        true => Ok(()),
        false => Err(Problem::new(Kind::Cancelled, "nothing was deleted")),
    }
}

/// Asks a question; anything but a clear yes is a no.
///
/// # Errors
/// I/O errors of the terminal.
pub fn is_yes(question: &str) -> io::Result<bool> {
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().take(MAX_ANSWER).read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn show(kept: KeptSnapshot, consequence: &str, output: &Output) {
    let line = format!("deleted {}, {}", list::one_line(&kept), list::size(&kept));
    let json = ForgottenJson {
        kept: list::json(kept),
        consequence: consequence.to_owned(),
    };
    output.report(&json, || line);
}
