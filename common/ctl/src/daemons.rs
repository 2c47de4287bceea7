//! The daemons of this host that a command asks which both know.

use std::path::PathBuf;
use std::process::ExitCode;

use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::GrantsRequest;
use tonic::Code;

use crate::arguments::Choice;
use crate::client::{self, Receiver, Sender};
use crate::outcome::{self, Outcome};
use crate::output::Output;

/// A daemon of this host.
#[derive(Debug)]
pub enum Daemon {
    Sender(Sender),
    Receiver(Receiver),
}

impl Daemon {
    /// Its label before what it answers.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Sender(_) => "Sender",
            Self::Receiver(_) => "Receiver",
        }
    }
}

/// Connects to the chosen daemon, or to the one behind the socket that the user named; otherwise to all whose sockets are
/// there. One of two that cannot be reached is an error of its own.
///
/// # Errors
/// If there is none, or the chosen one cannot be reached.
pub async fn connect(
    choice: Choice,
    socket: Option<PathBuf>,
) -> Result<Vec<Result<Daemon, Problem>>, Problem> {
    if choice.sender {
        return Ok(vec![Ok(Daemon::Sender(client::sender(socket).await?))]);
    }
    if choice.receiver {
        return Ok(vec![Ok(Daemon::Receiver(client::receiver(socket).await?))]);
    }
    if let Some(socket) = socket {
        return Ok(vec![Ok(behind(socket).await?)]);
    }
    match (client::has_sender(), client::has_receiver()) {
        (true, true) => Ok(vec![
            client::sender(None).await.map(Daemon::Sender),
            client::receiver(None).await.map(Daemon::Receiver),
        ]),
        (true, false) => Ok(vec![Ok(Daemon::Sender(client::sender(None).await?))]),
        (false, true) => Ok(vec![Ok(Daemon::Receiver(client::receiver(None).await?))]),
        (false, false) => Err(Problem::new(
            Kind::Failed,
            "neither sendshot-sender nor sendshot-receiver is running on this host",
        )
        .remedy("start the one that this host needs: `systemctl start sendshot-sender` or `systemctl start sendshot-receiver`")),
    }
}

/// Does something with each daemon. Where there are several, one that fails is reported, and the others are asked all the same.
///
/// # Errors
/// Those of `ask`, if there is one daemon.
pub async fn each(
    daemons: &mut [Result<Daemon, Problem>],
    output: &Output,
    mut ask: impl AsyncFnMut(&mut Daemon) -> Result<(), Problem>,
) -> Outcome {
    let is_one = daemons.len() == 1;
    let mut code = ExitCode::SUCCESS;
    for daemon in daemons {
        let asked = match daemon {
            Ok(daemon) => ask(daemon).await,
            Err(problem) => Err(problem.clone()),
        };
        match asked {
            Ok(()) => {}
            Err(problem) if is_one => return Err(problem),
            Err(problem) => {
                output.problem(&problem);
                code = outcome::exit_code(&problem);
            }
        }
    }
    Ok(code)
}

/// Finds out which daemon listens on a socket, by a call that only the receiver's knows.
async fn behind(socket: PathBuf) -> Result<Daemon, Problem> {
    // If none does, it is called the sender's, as for the commands that only that one knows.
    let sender = client::sender(Some(socket.clone())).await?;
    let mut receiver = client::receiver(Some(socket)).await?;
    match receiver.grants(GrantsRequest {}).await {
        Err(status) if status.code() == Code::Unimplemented => Ok(Daemon::Sender(sender)),
        Err(status) => Err(client::failed(status)),
        Ok(_) => Ok(Daemon::Receiver(receiver)),
    }
}
