//! `sendshotctl pair`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::PairCommand;
use serde::Serialize;

use crate::arguments::PairArguments;
use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::Output;

/// Longest token that is read, in bytes.
const MAX_TOKEN: u64 = 1024;

#[derive(Serialize)]
struct Paired {
    receiver: String,
    sender_name: String,
    file: String,
}

pub async fn run(mut client: Sender, arguments: PairArguments, output: &Output) -> Outcome {
    let token = match arguments.token {
        Some(token) => token,
        None => ask(&arguments.address, "peer invite NAME")?,
    };
    let command = PairCommand {
        address: arguments.address,
        name: arguments.name.unwrap_or_default(),
        token,
    };
    let answer = client
        .pair(command)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    let paired = Paired {
        receiver: answer.name,
        sender_name: answer.sender_name,
        file: answer.file,
    };
    output.result(&paired, || {
        format!(
            "paired with {}, which knows this host as `{}`; written to {}\nnow: sendshotctl push {}:/path/of/a/subvolume",
            paired.receiver, paired.sender_name, paired.file, paired.receiver
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// Reads the token from standard input, with a prompt on a terminal.
///
/// `invite` is the command that prints it there.
///
/// # Errors
/// If there is none.
pub fn ask(address: &str, invite: &str) -> Result<String, Problem> {
    use std::io::Read;
    if io::stdin().is_terminal() {
        eprint!("token that `sendshotctl {invite}` printed on {address}: ");
        io::stderr().flush()?;
    }
    let mut line = String::new();
    io::stdin().lock().take(MAX_TOKEN).read_line(&mut line)?;
    if line.trim().is_empty() {
        return Err(Problem::new(Kind::Usage, "no token was given")
            .remedy(format!("run `sendshotctl {invite}` on {address}")));
    }
    Ok(line)
}
