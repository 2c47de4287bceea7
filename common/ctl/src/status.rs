//! `sendshotctl status`, of either daemon.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::Choice;
use crate::daemons::{self, Daemon};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::{receiver, sender};

/// How often `--watch` refreshes.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

/// Clears the terminal and moves the cursor to its upper left corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the status, once or repeatedly.
pub async fn run(choice: Choice, watch: bool, socket: Option<PathBuf>, output: &Output) -> Outcome {
    loop {
        // A daemon that was restarted is asked over a new connection.
        let mut daemons = daemons::connect(choice, socket.clone()).await?;
        let is_both = daemons.len() > 1;
        if watch && !output.is_json() {
            let _ = write!(std::io::stdout(), "{CLEAR}");
        }
        let show = async |daemon: &mut Daemon| show(daemon, is_both, output).await;
        let code = daemons::each(&mut daemons, output, show).await?;
        if !watch {
            return Ok(code);
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH_INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
    }
}

async fn show(
    daemon: &mut Daemon,
    is_both: bool,
    output: &Output,
) -> Result<(), sendshot_proto::problem::Problem> {
    if is_both && !output.is_json() {
        output.result(&(), || format!("== {} ==", daemon.label()));
    }
    match daemon {
        Daemon::Sender(client) => sender::status::show(client, output).await,
        Daemon::Receiver(client) => receiver::status::show(client, output).await,
    }
}
