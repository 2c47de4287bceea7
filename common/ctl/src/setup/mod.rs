//! `sendshotctl setup`: a guided first set-up of either side. It asks three questions, writes a configuration with comments,
//! starts the daemon, pairs, and pushes.

mod file;
mod questions;
mod receiver;
mod sender;

use std::path::PathBuf;

use sendshot_proto::problem::{Kind, Problem};

use crate::arguments::SetupArguments;
use crate::client;
use crate::outcome::Outcome;
use crate::output::Output;

/// Sets up the chosen side, or the one whose daemon is installed.
pub async fn run(arguments: SetupArguments, socket: Option<PathBuf>, output: &Output) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(Kind::Failed, "setting up needs root").remedy("use sudo"));
    }
    match side(&arguments)? {
        Side::Sender => sender::run(arguments, socket, output).await,
        Side::Receiver => receiver::run(arguments, socket, output).await,
    }
}

enum Side {
    Sender,
    Receiver,
}

fn side(choice: &SetupArguments) -> Result<Side, Problem> {
    let installed = |daemon| client::is_installed(daemon);
    match (choice.sender, choice.receiver) {
        (true, _) => return Ok(Side::Sender),
        (_, true) => return Ok(Side::Receiver),
        (false, false) => {}
    }
    match (installed("sendshot-sender"), installed("sendshot-receiver")) {
        (true, false) => Ok(Side::Sender),
        (false, true) => Ok(Side::Receiver),
        (true, true) => Err(Problem::new(
            Kind::Usage,
            "this host has both sendshot-sender and sendshot-receiver",
        )
        .remedy("say which to set up: `sendshotctl setup --receiver` on the host that holds the copies, `--sender` on the one with the volumes")),
        (false, false) => Err(Problem::new(
            Kind::Usage,
            "neither sendshot-sender nor sendshot-receiver is installed on this host",
        )
        .remedy("install the one that this host needs: the receiver holds the copies")),
    }
}
