//! `sendshotctl copy root`.

use std::process::ExitCode;

use sendshot_model::human;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::{RootState, RootsRequest, RootsResponse};
use serde::Serialize;

use crate::arguments::RootCommand;
use crate::client::{self, Receiver};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output, table};
use crate::sender::forget;

#[derive(Serialize)]
struct RootJson {
    id: String,
    filesystem: String,
    added_at: Option<String>,
    seen_at: Option<String>,
    present: bool,
}

/// Runs a command on the receiver's disks.
pub async fn run(mut client: Receiver, command: RootCommand, output: &Output) -> Outcome {
    match command {
        RootCommand::List => {
            let answer = client.roots(RootsRequest::default()).await;
            show(checked(answer)?.roots, output);
        }
        RootCommand::Add => {
            let answer = client.add_root(RootsRequest::default()).await;
            for root in checked(answer)?.roots {
                let line = format!("disk {} is one of this receiver's", output::uuid(&root.id));
                output.report(&json(root), || line);
            }
        }
        RootCommand::Remove { id } => {
            let request = RootsRequest {
                id,
                ..Default::default()
            };
            let answer = client.remove_root(request).await;
            show(checked(answer)?.roots, output);
        }
        RootCommand::TakeOver { yes } => take_over(&mut client, yes, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn checked(
    answer: Result<tonic::Response<RootsResponse>, tonic::Status>,
) -> Result<RootsResponse, Problem> {
    let answer = answer.map_err(client::failed)?.into_inner();
    outcome::check(answer.problem.clone())?;
    Ok(answer)
}

async fn take_over(client: &mut Receiver, yes: bool, output: &Output) -> Result<(), Problem> {
    if !yes {
        forget::check_terminal()?;
    }
    let whose = checked(client.take_over_root(RootsRequest::default()).await)?;
    if whose.owner_id.is_empty() {
        // A current receiver would have reported either case as an error.
        let message = "the disk at `root` is not that of another receiver";
        return Err(Problem::new(Kind::Usage, message)
            .remedy("`sendshotctl copy root list` shows its disks; `copy root add` adds one"));
    }
    let owner = output::uuid(&whose.owner_id);
    let senders = match whose.senders.as_slice() {
        [] => "no copies".to_owned(),
        names => format!("copies of {}", human::few(names)),
    };
    output.note(&format!(
        "the disk at `root` is that of the receiver with id {owner}, and holds {senders}"
    ));
    if !yes
        && !forget::is_yes("Make it this receiver's? The other one will refuse it from then on.")?
    {
        return Err(Problem::new(Kind::Cancelled, "nothing was changed"));
    }
    let request = RootsRequest {
        owner_id: whose.owner_id,
        ..Default::default()
    };
    for root in checked(client.take_over_root(request).await)?.roots {
        let line = format!(
            "disk {} is this receiver's now; pair each sender again: `sendshotctl peer invite NAME`",
            output::uuid(&root.id)
        );
        output.report(&json(root), || line);
    }
    Ok(())
}

fn show(roots: Vec<RootState>, output: &Output) {
    if output.is_json() {
        for root in roots {
            output.result(&json(root), String::new);
        }
    } else if roots.is_empty() {
        output.note("no disk has been mounted yet");
    } else {
        let rows = roots.into_iter().map(row).collect();
        let titles = ["disk", "file system", "added", "seen last", ""];
        output.result(&(), || table(&titles, rows));
    }
}

fn json(root: RootState) -> RootJson {
    RootJson {
        id: output::uuid(&root.id),
        filesystem: output::uuid(&root.fsid),
        added_at: output::time_json(root.added_at),
        seen_at: output::time_json(root.seen_at),
        present: root.present,
    }
}

fn row(root: RootState) -> Vec<String> {
    vec![
        output::uuid(&root.id),
        output::uuid(&root.fsid),
        output::time(root.added_at),
        output::time(root.seen_at),
        if root.present { "here now" } else { "" }.to_owned(),
    ]
}
