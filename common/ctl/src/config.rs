//! `sendshotctl config show`, of either daemon.

use std::path::PathBuf;

use sendshot_model::printable;
use sendshot_proto::problem::Problem;
use sendshot_proto::v1::{ShowConfigRequest, ShowConfigResponse};
use serde::Serialize;

use crate::arguments::Choice;
use crate::client;
use crate::daemons::{self, Daemon};
use crate::outcome::Outcome;
use crate::output::Output;

#[derive(Serialize)]
struct ConfigJson {
    daemon: String,
    file: String,
    /// A file that says the same as the configuration in effect.
    text: String,
    /// Whether the file says something else now.
    differs: bool,
    /// Why the file is not accepted now.
    file_problem: Option<String>,
}

/// Shows the configuration of the daemons of this host.
pub async fn show(choice: Choice, socket: Option<PathBuf>, output: &Output) -> Outcome {
    let mut daemons = daemons::connect(choice, socket).await?;
    let show = async |daemon: &mut Daemon| of_daemon(daemon, output).await;
    daemons::each(&mut daemons, output, show).await
}

async fn of_daemon(daemon: &mut Daemon, output: &Output) -> Result<(), Problem> {
    let name = daemon.label().to_lowercase();
    let shown = match daemon {
        Daemon::Sender(client) => client.show_config(ShowConfigRequest {}).await,
        Daemon::Receiver(client) => client.show_config(ShowConfigRequest {}).await,
    };
    let ShowConfigResponse {
        text,
        file,
        differs,
        file_problem,
    } = shown.map_err(client::failed)?.into_inner();
    let file = printable(&String::from_utf8_lossy(&file));
    let unit = format!("sendshot-{name}");
    match (file_problem.as_str(), differs) {
        ("", false) => {}
        ("", true) => output.note(&format!(
            "{file} was changed since the daemon read it: `systemctl reload {unit}`; some settings need a restart"
        )),
        (problem, _) => output.note(&format!("{file} is not accepted any more: {problem}")),
    }
    let json = ConfigJson {
        daemon: name,
        file: file.clone(),
        text: text.clone(),
        differs,
        file_problem: Some(file_problem).filter(|problem| !problem.is_empty()),
    };
    output.result(&json, || {
        format!("# in effect in {unit}, from {file}\n{text}")
    });
    Ok(())
}
