//! `sendshotctl stream receive`.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sendshot_apply::parent::{FindError, Trust};
use sendshot_apply::receive::{Event, Options, ReceiveError};
use sendshot_apply::{Location, NoDirectory, Policies, Scope, WriteObstacle, receive};
use sendshot_model::{NotKept, NotKeptEntry};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_stream::dump;
use sendshot_sys::filesystem;
use serde::Serialize;

use super::input::{input, usage};
use super::read_ahead::ReadAhead;
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
    let input = ReadAhead::new(input(arguments.input.as_deref())?);
    let mut lacks = NotKept::default();
    let tell = |event| tell(event, &mut lacks, dir, output);
    receive(input, &target, options, tell).map_err(|e| problem(&e, dir, &target))?;
    Ok(ExitCode::SUCCESS)
}

fn open(dir: &Path) -> Result<OwnedFd, Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| {
        usage(format!(
            "cannot open {}: {}",
            dir.display(),
            io::Error::from(e)
        ))
    })
}

/// Opens the directories of `--parents`. A snapshot cannot be made across file systems.
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

/// Shows an event. `lacks` holds what is not kept of the copy that is completed next.
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
        // The policies of a copy leave nothing out.
        Event::LeftOut(_) => {}
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

fn problem(error: &ReceiveError, dir: &Path, target: &OwnedFd) -> Problem {
    let kind = match error {
        ReceiveError::NotBtrfs | ReceiveError::ReadOnly(_) => Kind::Usage,
        ReceiveError::Untested(_) => Kind::Refused,
        ReceiveError::Stream(_)
        | ReceiveError::Read(_)
        | ReceiveError::Target(_)
        | ReceiveError::Staging(_) => Kind::Failed,
    };
    let mut problem = Problem::from_error(kind, error);
    problem.message = format!("cannot receive into {}: {}", dir.display(), problem.message);
    problem.remedy(remedy(error, target).unwrap_or_default())
}

/// What the user can do, if anything.
fn remedy(error: &ReceiveError, target: &OwnedFd) -> Option<String> {
    match error {
        ReceiveError::NotBtrfs => Some("DIR must be a directory on btrfs".to_owned()),
        ReceiveError::ReadOnly(obstacle) => Some(obstacle.remedy().to_owned()),
        ReceiveError::Untested(filesystem::Untested::Blocks(_)) => Some(
            "receive on a file system that was made with `mkfs.btrfs --sectorsize 4096`".to_owned(),
        ),
        ReceiveError::Untested(filesystem::Untested::Pages(_)) => Some(
            "boot a kernel with pages of 4 KiB, or receive with `btrfs receive`, which takes the same streams".to_owned(),
        ),
        // The error was in reading the input, not on this file system.
        ReceiveError::Read(_) => None,
        ReceiveError::Stream(stream) => match stream.errno() {
            Some(errno) => file_system_remedy(errno, target),
            None => remedy_of_causes(error, target),
        },
        ReceiveError::Target(_) | ReceiveError::Staging(_) => remedy_of_causes(error, target),
    }
}

fn remedy_of_causes(error: &ReceiveError, target: &OwnedFd) -> Option<String> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<FindError>() {
            if let Some(remedy) = find_remedy(found) {
                return Some(remedy);
            }
        } else if let Some(io) = cause.downcast_ref::<io::Error>() {
            return match NoDirectory::within(io) {
                Some(other) => Some(other.remedy()),
                None => file_system_remedy(Errno::from_io_error(io)?, target),
            };
        }
        next = cause.source();
    }
    None
}

/// The remedy for a parent or clone source that was not found.
fn find_remedy(error: &FindError) -> Option<String> {
    match error {
        FindError::Elsewhere { location, .. } => Some(elsewhere_remedy(location)),
        FindError::TopLevel { source, .. } => Some(source.remedy()),
        FindError::SearchElsewhere { source, .. }
            if Errno::from_io_error(source) == Some(Errno::PERM) =>
        {
            let text =
                "searching a whole btrfs needs CAP_SYS_ADMIN on the host: run it as root there";
            Some(text.to_owned())
        }
        FindError::Search { .. }
        | FindError::SearchElsewhere { .. }
        | FindError::Missing(_)
        | FindError::Unusable { .. } => None,
    }
}

/// The remedy for an error of the file system that is received into.
fn file_system_remedy(errno: Errno, target: &OwnedFd) -> Option<String> {
    let text = match errno {
        Errno::NOSPC => {
            "this file system is full: free space on it (delete copies, or grow it), and receive again"
        }
        Errno::DQUOT => {
            "a quota of this file system is exhausted: raise or remove it (`btrfs qgroup show -r` lists the \
             limits), or delete copies that count, and receive again"
        }
        Errno::ROFS => match WriteObstacle::of(target) {
            Ok(Some(obstacle)) => obstacle.remedy(),
            Ok(None) => {
                "the directory can be written to, so the new subvolume was made read-only by another program: find the program that changes subvolumes below the directory, and receive again"
            }
            Err(_) => return None,
        },
        Errno::IO => "the disk of this file system fails: read the kernel log",
        Errno::UCLEAN => {
            "this file system is damaged: read the kernel log, and run `btrfs check` on the unmounted \
             file system"
        }
        _ => return None,
    };
    Some(text.to_owned())
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
