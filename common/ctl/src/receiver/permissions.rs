//! `sendshotctl peer grant`, `grants` and `revoke --restore`: who can restore copies.

use std::process::ExitCode;
use std::time::Duration;

use sendshot_proto::v1::{GrantRequest, GrantState, GrantsRequest, RevokeRequest};
use serde::Serialize;

use crate::client::{self, Receiver};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output, table};
use crate::receiver::peers::notes;

#[derive(Serialize)]
struct Granted {
    name: String,
    volume: Option<String>,
    until: Option<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct GrantJson {
    name: String,
    volume: Option<String>,
    from: Option<String>,
    until: Option<String>,
    kind: String,
}

#[derive(Serialize)]
struct Withdrawn {
    name: String,
    withdrawn: u32,
    notes: Vec<String>,
}

/// Permits a sender to restore its own copies.
pub async fn grant(
    mut client: Receiver,
    name: String,
    volume: Option<String>,
    lasts: Duration,
    output: &Output,
) -> Outcome {
    let request = GrantRequest {
        name: name.clone(),
        volume: volume.clone().unwrap_or_default(),
        seconds: lasts.as_secs(),
    };
    let answer = client
        .grant(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    notes(&answer.notes, output);
    let granted = Granted {
        name,
        volume,
        until: output::time_json(answer.until),
        notes: answer.notes,
    };
    output.report(&granted, || {
        let name = &granted.name;
        let what = match &granted.volume {
            Some(volume) => format!("its copies of {volume}"),
            None => "all its copies".to_owned(),
        };
        let until = output::time(answer.until);
        format!("{name} can restore {what} until {until}; `sendshotctl peer revoke {name} --restore` ends that")
    });
    Ok(ExitCode::SUCCESS)
}

/// Shows the grants and temporary keys.
pub async fn list(mut client: Receiver, output: &Output) -> Outcome {
    let answer = client
        .grants(GrantsRequest {})
        .await
        .map_err(client::failed)?;
    let grants = answer.into_inner().grants;
    if output.is_json() {
        for grant in grants {
            output.result(&json(grant), String::new);
        }
    } else if grants.is_empty() {
        output.note("nothing is granted and there is no temporary key");
    } else {
        let rows = grants.into_iter().map(row).collect();
        output.result(&(), || {
            table(&["name", "scope", "from", "until", "kind"], rows)
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn json(grant: GrantState) -> GrantJson {
    GrantJson {
        name: grant.name,
        volume: Some(grant.volume).filter(|volume| !volume.is_empty()),
        from: output::time_json(grant.from),
        until: output::time_json(grant.until),
        kind: grant.kind,
    }
}

fn row(grant: GrantState) -> Vec<String> {
    let scope = match grant.volume.as_str() {
        "" => "all volumes".to_owned(),
        volume => format!("volume {volume}"),
    };
    let kind = grant.kind.replace('-', " ");
    vec![
        grant.name,
        scope,
        output::time(grant.from),
        output::time(grant.until),
        kind,
    ]
}

/// Withdraws the permissions to restore the copies of a sender.
pub async fn withdraw(mut client: Receiver, name: String, output: &Output) -> Outcome {
    let request = RevokeRequest {
        name: name.clone(),
        restore: true,
    };
    let answer = client
        .revoke(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    notes(&answer.notes, output);
    let withdrawn = Withdrawn {
        name,
        withdrawn: answer.withdrawn,
        notes: answer.notes,
    };
    output.result(&withdrawn, || {
        let name = &withdrawn.name;
        match withdrawn.withdrawn {
            0 => format!("nothing was granted for {name}, and it has no temporary key"),
            _ => format!("what was granted to restore the copies of {name} has ended"),
        }
    });
    Ok(ExitCode::SUCCESS)
}
