//! `sendshotctl stream`: send streams without daemons.

mod clone_sources;
mod input;
mod read_ahead;
mod receive;
mod send;
mod sink;

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use sendshot_proto::problem::{Kind, Problem};
use sendshot_stream::{Item, Parser, dump};
use serde::Serialize;

use self::input::input;
use crate::arguments::StreamCommand;
use crate::outcome::Outcome;
use crate::output::Output;

/// Bytes read at a time.
const CHUNK: usize = 1024 * 1024;

pub fn run(command: StreamCommand, output: &Output) -> Outcome {
    match command {
        StreamCommand::Send(arguments) => send::run(&arguments, output).map_err(is_for_root),
        StreamCommand::Receive(arguments) => receive::run(&arguments, output).map_err(is_for_root),
        StreamCommand::Dump { input } => dump_stream(input.as_deref(), output),
    }
}

/// Adds a remedy, as the kernel's errors do not say that an operation needs root.
fn is_for_root(problem: Problem) -> Problem {
    let explained = problem.kind != Kind::Failed || !problem.remedy.is_empty();
    if explained || rustix::process::geteuid().is_root() {
        return problem;
    }
    problem.remedy("only root can send and receive streams")
}

fn dump_stream(from: Option<&Path>, output: &Output) -> Outcome {
    let mut source = input(from)?;
    let mut parser = Parser::new();
    let mut chunk = vec![0; CHUNK];
    let mut out = BufWriter::new(io::stdout().lock());
    let broken = |e: sendshot_stream::DecodeError| Problem::from_error(Kind::Failed, &e);
    loop {
        let len = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                return Err(Problem::new(
                    Kind::Failed,
                    format!("cannot read the stream: {e}"),
                ));
            }
        };
        let mut bytes = &chunk[..len];
        while let Some(located) = parser.next(&mut bytes).map_err(broken)? {
            if print(&mut out, &located.item, located.start, output).is_err() {
                return Ok(ExitCode::SUCCESS); // the reader has closed the pipe
            }
        }
    }
    let _ = out.flush();
    parser.finish().map_err(broken)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct CommandJson {
    offset: u64,
    command: String,
}

fn print(out: &mut impl Write, item: &Item<'_>, offset: u64, output: &Output) -> io::Result<()> {
    let text = match item {
        Item::Header(version) => format!("stream version={version:?}"),
        Item::Command(command) => dump::line(command).to_string(),
    };
    if output.is_json() {
        let command = CommandJson {
            offset,
            command: text,
        };
        return writeln!(out, "{}", serde_json::to_string(&command)?);
    }
    writeln!(out, "{text}")
}
