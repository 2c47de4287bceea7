//! `sendshotctl stream receive`.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use sendshot_apply::parent::{FindError, Trust};
use sendshot_apply::receive::{Event, Options, ReceiveError};
use sendshot_apply::{Location, Policies, Scope, receive};
use sendshot_model::{NotKept, NotKeptEntry};
use sendshot_sender::problem::{Kind, Problem};
use sendshot_stream::dump;
use sendshot_sys::filesystem;
use serde::Serialize;

use super::{input, usage};
use crate::arguments::StreamReceiveArguments;
use crate::outcome::Outcome;
use crate::output::{self, Output};

#[derive(Serialize)]
struct ReceivedJson {
    name: String,
    uuid: String,
    path: String,
    not_kept: Vec<NotKeptEntry>,
}

/// Receives a stream into a directory.
pub fn run(arguments: &StreamReceiveArguments, output: &Output) -> Outcome {
    let dir = &arguments.dir;
    let target = open(dir)?;
    let parents = parents(arguments, &target)?;
    let scope = match (arguments.parents_anywhere, &parents[..]) {
        (true, _) => Scope::Anywhere,
        (false, []) => Scope::Target,
        (false, parents) => Scope::Beneath(parents),
    };
    let options = Options {
        trust: match arguments.strict {
            true => Trust::Strict,
            false => Trust::Lenient,
        },
        scope,
        policies: Policies::default(),
    };
    let input = input(arguments.input.as_deref())?;
    let mut lacks = NotKept::default();
    let tell = |event| tell(event, &mut lacks, dir, output);
    receive(input, &target, options, tell).map_err(|e| problem(&e, dir))?;
    Ok(ExitCode::SUCCESS)
}

fn open(dir: &Path) -> Result<OwnedFd, Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .map_err(|e| usage(format!("open {}: {}", dir.display(), io::Error::from(e))))
}

/// The directories of `--parents`. A snapshot cannot be made across file systems.
fn parents(arguments: &StreamReceiveArguments, target: &OwnedFd) -> Result<Vec<OwnedFd>, Problem> {
    let mut opened = Vec::new();
    for dir in &arguments.parents {
        let fd = open(dir)?;
        let is_same = filesystem::is_btrfs(&fd)?
            && filesystem::is_btrfs(target)?
            && filesystem::fsid(&fd)? == filesystem::fsid(target)?;
        if !is_same {
            return Err(usage(format!(
                "{} (--parents) is on another file system than {}",
                dir.display(),
                arguments.dir.display()
            )));
        }
        opened.push(fd);
    }
    Ok(opened)
}

/// `lacks` holds what is not kept of the copy that is completed next.
fn tell(event: Event, lacks: &mut NotKept, dir: &Path, output: &Output) {
    match event {
        // `btrfs receive` prints "At subvol" to standard error, and "At snapshot" to standard output.
        Event::Begun(subvolume) => {
            let text = format!("receiving {}", dump::escaped(&subvolume.name));
            match subvolume.parent {
                None => output.note(&text),
                Some(_) => output.stdout_note(&text),
            }
        }
        Event::Doubtful { name, why } => eprintln!(
            "sendshotctl: warning: {} is used as parent although {why}; --strict refuses it",
            name.display()
        ),
        Event::NotKept(list) => *lacks = list,
        Event::Received(copy) => {
            let not_kept = std::mem::take(lacks).entries();
            for entry in &not_kept {
                output.note(&output::not_kept_line(entry));
            }
            let received = ReceivedJson {
                name: copy.name.to_string_lossy().into_owned(),
                uuid: copy.info.received_uuid.to_string(),
                path: dir.join(&copy.name).to_string_lossy().into_owned(),
                not_kept,
            };
            output.report(&received, || format!("received {}", received.path));
        }
    }
}

fn problem(error: &ReceiveError, dir: &Path) -> Problem {
    let kind = match error {
        ReceiveError::NotBtrfs | ReceiveError::ReadOnly => Kind::Usage,
        ReceiveError::Stream(_)
        | ReceiveError::Read(_)
        | ReceiveError::Target(_)
        | ReceiveError::Staging(_) => Kind::Failed,
    };
    let mut problem = Problem::from_error(kind, error);
    problem.message = format!("receive into {}: {}", dir.display(), problem.message);
    match location(error) {
        Some(location) => problem.remedy(elsewhere_remedy(location)),
        None => problem,
    }
}

/// Where a parent or clone source lies that was refused only for that.
fn location(error: &ReceiveError) -> Option<&Location> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(FindError::Elsewhere { location, .. }) = error.downcast_ref() {
            return Some(location);
        }
        cause = error.source();
    }
    None
}

fn elsewhere_remedy(location: &Location) -> String {
    let anywhere = "--parents-anywhere takes parents from anywhere on the file system";
    match location {
        Location::Visible(path) => {
            let dir = path.parent().unwrap_or(path);
            format!(
                "--parents {} takes parents from beneath that directory, {anywhere}",
                dir.display()
            )
        }
        Location::FromTop(_) => anywhere.to_owned(),
    }
}
