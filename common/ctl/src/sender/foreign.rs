//! `sendshotctl forget --foreign` and `sendshotctl take-over`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sendshot_model::human;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::{ForeignRequest, KeptSnapshot};

use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::Output;
use crate::sender::forget;
use crate::sender::list;

/// What to do with the states of other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Delete them.
    Forget,
    /// Make them this host's own.
    TakeOver,
}

/// Carries it out, after asking the user.
pub async fn run(
    mut client: Sender,
    what: Foreign,
    path: PathBuf,
    yes: bool,
    output: &Output,
) -> Outcome {
    let mut request = ForeignRequest {
        path: absolute(&path)?.as_os_str().as_bytes().to_vec(),
        take_over: what == Foreign::TakeOver,
        dry_run: false,
        agreed: Vec::new(),
    };
    if !yes {
        forget::check_terminal()?;
        let dry_run = ForeignRequest {
            dry_run: true,
            ..request.clone()
        };
        let found = ask_daemon(&mut client, dry_run).await?;
        let question = match what {
            Foreign::Forget => {
                "Delete this? The next push of the host that left it sends everything again."
            }
            Foreign::TakeOver => {
                "Take this over for this host? The other host will not find it again."
            }
        };
        show(&found);
        if !forget::is_yes(question)? {
            return Err(Problem::new(Kind::Cancelled, "nothing was changed"));
        }
        request.agreed = found.into_iter().map(|kept| kept.push_id).collect();
    }
    let done = match what {
        Foreign::Forget => "deleted",
        Foreign::TakeOver => "taken over",
    };
    for kept in ask_daemon(&mut client, request).await? {
        let line = format!("{done}: {} of {}", list::one_line(&kept), kept.foreign_host);
        output.report(&list::json(kept), || line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a path absolute: the daemon has another working directory.
fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path).map_err(|e| Problem::local_io("resolve the path", &e))
}

fn show(found: &[KeptSnapshot]) {
    for kept in found.iter().take(human::FEW) {
        eprintln!(
            "{} of {}, {}",
            list::one_line(kept),
            kept.foreign_host,
            list::size(kept)
        );
    }
    if let Some(more) = found.len().checked_sub(human::FEW).filter(|more| *more > 0) {
        eprintln!("and {more} more");
    }
}

async fn ask_daemon(
    client: &mut Sender,
    request: ForeignRequest,
) -> Result<Vec<KeptSnapshot>, Problem> {
    let answer = client.foreign(request).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem)?;
    Ok(answer.snapshots)
}
