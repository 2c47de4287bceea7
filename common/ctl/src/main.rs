//! sendshotctl: the command for senders and receivers.

#![allow(missing_docs, reason = "names say it; what surprises is documented")]

mod check;
mod client;
mod completions;
mod config;
mod daemons;
mod diff;
mod history;
mod outcome;
mod output;
mod receiver;
mod sender;
mod setup;
mod status;
mod stream;
mod summary;

use std::process::ExitCode;

use clap::Parser;
use outcome::Outcome;
use output::Output;
use receiver::peers::Purpose;
use sender::foreign::Foreign;
use sender::list::What;
use sendshot_ctl::arguments;
use sendshot_ctl::arguments::{
    Arguments, Command, ConfigCommand, CopyCommand, ForgetArguments, PeerCommand,
};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    let output = Output::new(arguments.json, arguments.quiet);
    match run(arguments, &output) {
        Ok(code) => code,
        Err(problem) => {
            output.problem(&problem);
            outcome::exit_code(&problem)
        }
    }
}

/// Prints why a command line is not understood, or the help or version that it asks for. Of `check`, monitoring learns that the
/// state is unknown.
fn not_understood(error: &clap::Error) -> ExitCode {
    // A reader that has closed the pipe is not an error.
    let _ = error.print();
    let is_check = || {
        let mut words = std::env::args_os().skip(1);
        words.any(|word| word == "check")
    };
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_check() => ExitCode::from(check::UNKNOWN),
        code => ExitCode::from(u8::try_from(code).unwrap_or(2)),
    }
}

/// Runs a command. Those without a daemon run without the asynchronous runtime.
fn run(arguments: Arguments, output: &Output) -> Outcome {
    match arguments.command {
        Command::Stream { command } => stream::run(command, output),
        Command::Completions { shell } => completions::run(shell),
        Command::Diff { old, new } => diff::run(&old, &new, output),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let socket = arguments.socket;
            runtime.block_on(ask(command, socket, output))
        }
    }
}

async fn ask(command: Command, socket: Option<std::path::PathBuf>, output: &Output) -> Outcome {
    match command {
        Command::Push(arguments) if arguments.dry_run => {
            let mut client = client::sender(socket).await?;
            let targets = match arguments.all {
                true => sender::push::configured(client.clone()).await?,
                false => arguments.targets,
            };
            for target in &targets {
                let request = sender::plan::request(target, &arguments.parent, arguments.engine)?;
                sender::plan::run(&mut client, request, output).await?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Push(arguments) => {
            sender::push::run(client::sender(socket).await?, arguments, output).await
        }
        Command::Plan {
            target,
            parent,
            engine,
            top,
        } => {
            let mut request = sender::plan::request(&target, &parent, engine)?;
            request.top = top.unwrap_or(0);
            sender::plan::run(&mut client::sender(socket).await?, request, output).await
        }
        Command::List {
            target,
            partials,
            copies,
        } => {
            let what = match (partials, copies) {
                (true, _) => What::Partials,
                (_, true) => What::Copies,
                (false, false) => What::Kept,
            };
            sender::list::run(client::sender(socket).await?, target, what, output).await
        }
        Command::Prune { target, dry_run } => {
            sender::prune::run(client::sender(socket).await?, target, dry_run, output).await
        }
        Command::Forget(ForgetArguments {
            foreign: Some(path),
            yes,
            ..
        }) => {
            sender::foreign::run(
                client::sender(socket).await?,
                Foreign::Forget,
                path,
                yes,
                output,
            )
            .await
        }
        Command::Forget(ForgetArguments {
            filesystem: Some(id),
            ..
        }) => sender::forget::filesystem(client::sender(socket).await?, id, output).await,
        Command::Forget(arguments) => {
            sender::forget::run(client::sender(socket).await?, arguments, output).await
        }
        Command::TakeOver { path, yes } => {
            sender::foreign::run(
                client::sender(socket).await?,
                Foreign::TakeOver,
                path,
                yes,
                output,
            )
            .await
        }
        Command::Restore(arguments) => sender::restore::run(arguments, socket, output).await,
        Command::RecoverySheet { html } => {
            sender::recovery_sheet::run(client::sender(socket).await?, html, output).await
        }
        Command::Status { watch, daemon } => status::run(daemon, watch, socket, output).await,
        Command::Check(arguments) => Ok(check::run(arguments, socket, output).await),
        Command::Config {
            command: ConfigCommand::Show { daemon },
        } => config::show(daemon, socket, output).await,
        Command::Setup(arguments) => setup::run(arguments, socket, output).await,
        Command::Summary(arguments) => summary::run(arguments, socket, output).await,
        Command::History(arguments) => history::run(arguments, socket, output).await,
        Command::Pause { target, lasts, .. } => {
            sender::pause::pause(client::sender(socket).await?, target, lasts, output).await
        }
        Command::Continue { target } => {
            sender::pause::end(client::sender(socket).await?, target, output).await
        }
        Command::Cancel { target, all } => {
            sender::cancel::run(client::sender(socket).await?, target, all, output).await
        }
        Command::Pair(arguments) => {
            sender::pair::run(client::sender(socket).await?, arguments, output).await
        }
        Command::Copy { command } => match command {
            CopyCommand::List { which, partials } => {
                receiver::copies::list(
                    client::receiver(socket).await?,
                    which,
                    partials.into(),
                    output,
                )
                .await
            }
            CopyCommand::Prune(arguments) => {
                receiver::retention::prune(client::receiver(socket).await?, arguments, output).await
            }
            CopyCommand::Delete(arguments) => {
                receiver::retention::delete(client::receiver(socket).await?, arguments, output)
                    .await
            }
            CopyCommand::Hold(arguments) => {
                receiver::retention::hold(client::receiver(socket).await?, arguments, output).await
            }
            CopyCommand::Release { copy } => {
                receiver::retention::release(client::receiver(socket).await?, copy, output).await
            }
            CopyCommand::Retime(arguments) => {
                receiver::retention::retime(client::receiver(socket).await?, arguments, output)
                    .await
            }
            CopyCommand::Root { command } => {
                receiver::roots::run(client::receiver(socket).await?, command, output).await
            }
        },
        Command::Peer { command } => {
            let client = client::receiver(socket).await?;
            match command {
                PeerCommand::Invite {
                    name,
                    replace,
                    restore: false,
                    ..
                } => receiver::peers::invite(client, name, replace.into(), output).await,
                PeerCommand::Invite {
                    name,
                    restore: true,
                    volume,
                    lasts,
                    ..
                } => {
                    let purpose = Purpose::Restore { volume, lasts };
                    receiver::peers::invite(client, name, purpose, output).await
                }
                PeerCommand::List => receiver::peers::list(client, output).await,
                PeerCommand::Grant {
                    name,
                    volume,
                    lasts,
                } => receiver::permissions::grant(client, name, volume, lasts, output).await,
                PeerCommand::Grants => receiver::permissions::list(client, output).await,
                PeerCommand::Revoke {
                    name,
                    restore: false,
                } => receiver::peers::revoke(client, name, output).await,
                PeerCommand::Revoke {
                    name,
                    restore: true,
                } => receiver::permissions::withdraw(client, name, output).await,
            }
        }
        Command::Stream { .. } | Command::Completions { .. } | Command::Diff { .. } => {
            Ok(ExitCode::SUCCESS)
        }
    }
}
