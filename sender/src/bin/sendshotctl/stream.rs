//! `sendshotctl stream`: send streams without daemons.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use sendshot_apply::parent::Trust;
use sendshot_apply::receive::{Event, Options, ReceiveError};
use sendshot_apply::{Policies, receive};
use sendshot_engine::diff::Version;
use sendshot_engine::{Frozen, Sendshot, hashes, save, verify};
use sendshot_sender::engine::Engine;
use sendshot_sender::generate::{self, Source};
use sendshot_sender::problem::{Kind, Problem};
use sendshot_stream::{Item, Parser, dump};
use sendshot_sys::{filesystem, subvolume};
use serde::Serialize;

use crate::arguments::{StreamCommand, StreamSendArguments};
use crate::outcome::Outcome;
use crate::output::Output;

/// Bytes read at a time.
const CHUNK: usize = 1024 * 1024;

/// Does what is asked.
pub fn run(command: StreamCommand, output: &Output) -> Outcome {
    match command {
        StreamCommand::Send(arguments) => send(&arguments, output).map_err(is_for_root),
        StreamCommand::Receive { input, strict, dir } => {
            take(input.as_deref(), strict, &dir, output).map_err(is_for_root)
        }
        StreamCommand::Dump { input } => dump_stream(input.as_deref(), output),
    }
}

/// The kernel's words for what it does for root alone do not say so.
fn is_for_root(problem: Problem) -> Problem {
    let explained = problem.kind != Kind::Failed || !problem.remedy.is_empty();
    if explained || rustix::process::geteuid().is_root() {
        return problem;
    }
    problem.remedy("only root can send and receive streams")
}

fn usage(message: String) -> Problem {
    Problem::new(Kind::Usage, message)
}

/// Opens a read-only subvolume on btrfs.
fn open_snapshot(path: &Path) -> Result<OwnedFd, Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| usage(format!("open {}: {}", path.display(), io::Error::from(e))))?;
    if !filesystem::is_btrfs(&fd)? {
        return Err(usage(format!("{} is not on btrfs", path.display())));
    }
    if !subvolume::is_subvolume(&fd)? {
        return Err(usage(format!("{} is not a subvolume", path.display())));
    }
    if !subvolume::info(&fd)?.read_only {
        return Err(usage(format!("{} is writable", path.display()))
            .remedy("only read-only snapshots can be sent: `btrfs subvolume snapshot -r`"));
    }
    Ok(fd)
}

fn send(arguments: &StreamSendArguments, output: &Output) -> Outcome {
    let snapshot = open_snapshot(&arguments.snapshot)?;
    let newest = filesystem::send_stream_version();
    let stream_version = arguments.proto.unwrap_or(newest);
    if stream_version > newest {
        return Err(usage(format!(
            "this kernel makes streams of version {newest} at most"
        )));
    }
    let named = arguments.sendshot.is_some() || arguments.save_sendshot.is_some();
    let engine = match arguments.engine {
        Some(Engine::Kernel) if named => {
            return Err(usage("the kernel engine knows no sendshots".into())
                .remedy("leave out --engine, or name a snapshot with --parent"));
        }
        Some(Engine::Sendshot) if arguments.parent.is_some() => {
            return Err(
                usage("a snapshot as parent is for the kernel engine".into())
                    .remedy("leave out --engine, or name a file with --sendshot"),
            );
        }
        Some(engine) => engine,
        None if arguments.parent.is_some() => Engine::Kernel,
        None => Engine::Sendshot,
    };
    let sink = Sink::open(arguments.output.as_deref())?;
    let sent = match engine {
        Engine::Kernel => send_by_kernel(arguments, snapshot, stream_version, &sink, output),
        Engine::Sendshot => send_by_sendshot(arguments, &snapshot, stream_version, &sink, output),
    };
    match sent {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(problem) => {
            sink.discard();
            Err(problem)
        }
    }
}

fn send_by_kernel(
    arguments: &StreamSendArguments,
    snapshot: OwnedFd,
    stream_version: u32,
    sink: &Sink,
    output: &Output,
) -> Result<(), Problem> {
    let parent = match &arguments.parent {
        Some(path) => Some(parent_id(&snapshot, path, output)?),
        None => None,
    };
    let source = Source {
        snapshot,
        parent,
        stream_version,
    };
    pump(source, sink)
}

/// The sendshot is durable before the first byte of the stream leaves.
fn send_by_sendshot(
    arguments: &StreamSendArguments,
    snapshot: &OwnedFd,
    stream_version: u32,
    sink: &Sink,
    output: &Output,
) -> Result<(), Problem> {
    let failed = |e: &dyn std::error::Error| Problem::from_error(Kind::Failed, e);
    let unusable = |e: sendshot_engine::file::Error| {
        Problem::from_error(Kind::Usage, &e).remedy("without --sendshot everything is sent")
    };
    let parent = arguments
        .sendshot
        .as_deref()
        .map(sendshot_engine::open)
        .transpose()
        .map_err(unusable)?;
    let path = arguments.save_sendshot.as_deref();
    // It may be anything that is read-only: received a moment ago, or written to before.
    let frozen = Frozen::write_back(snapshot).map_err(|e| {
        let what = format!("write back {}", arguments.snapshot.display());
        Problem::local_io(&what, &e)
    })?;
    let mut captured = capture(frozen, parent.as_ref(), path)?;
    if let (Some(parent), Some(path)) = (&parent, path) {
        let (dir, name) = save::place(path)?;
        captured = verify(parent, captured, snapshot, dir, name).map_err(|e| failed(&e))?;
    }
    let name = arguments.snapshot.canonicalize()?;
    let source = sendshot_engine::Source {
        m: parent.as_ref(),
        n: &captured,
        snapshot,
        name: name.file_name().unwrap_or_default().as_bytes(),
        version: match stream_version {
            1 => Version::V1,
            _ => Version::V2,
        },
    };
    let mut out = &sink.file;
    let out = |bytes: &[u8]| out.write_all(bytes);
    let Some(path) = path else {
        return sendshot_engine::stream(&source, None, out).map_err(|e| failed(&e));
    };
    let (dir, name) = save::place(path)?;
    let uuid = captured.head().uuid;
    let saved = hashes::save(dir, name, uuid, |hashes| {
        sendshot_engine::stream(&source, Some(hashes), out)
    });
    if let Err(e) = saved.map_err(|e| failed(&e))? {
        output.note(&format!(
            "the stream is whole, but hashes of files without checksums are not kept beside {}: {e}",
            path.display()
        ));
    }
    Ok(())
}

/// Captures into the file that is asked for, or into one without a name.
fn capture(
    snapshot: Frozen<'_>,
    before: Option<&Sendshot>,
    path: Option<&Path>,
) -> Result<Sendshot, Problem> {
    if let Some(path) = path {
        let saved = sendshot_engine::save_to(snapshot, before, path);
        return match saved {
            Ok((sendshot, _)) => Ok(sendshot),
            Err(e) => {
                let problem = Problem::from(e);
                let message = format!("save {}: {}", path.display(), problem.message);
                Err(Problem { message, ..problem })
            }
        };
    }
    let failed = |e: io::Error| Problem::new(Kind::Failed, format!("capture the snapshot: {e}"));
    let file = tempfile::tempfile().map_err(failed)?;
    let (writer, ..) = sendshot_engine::capture(snapshot, BufWriter::new(file))
        .map_err(|e| Problem::from(save::Error::from(e)))?;
    let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    Sendshot::from_file(file, Path::new("(temporary)"))
        .map_err(|e| Problem::from_error(Kind::Failed, &e))
}

/// The subvolume id of the parent; the kernel would make a wrong stream of an unrelated one
/// without a word.
fn parent_id(snapshot: &OwnedFd, path: &Path, output: &Output) -> Result<u64, Problem> {
    let parent = open_snapshot(path)?;
    if filesystem::fsid(&parent)? != filesystem::fsid(snapshot)? {
        return Err(usage(format!(
            "{} is on another file system than the snapshot",
            path.display()
        )));
    }
    let (parent, child) = (subvolume::info(&parent)?, subvolume::info(snapshot)?);
    let siblings = parent.parent_uuid == child.parent_uuid && !parent.parent_uuid.is_nil();
    if !siblings && parent.uuid != child.parent_uuid && parent.parent_uuid != child.uuid {
        output.note(&format!(
            "sendshotctl: note: {} is not a snapshot of the same subvolume; if the two are not \
             related at all, the result will be wrong",
            path.display()
        ));
    }
    Ok(parent.id)
}

/// Where a stream goes.
struct Sink {
    file: File,
    path: Option<PathBuf>,
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, Problem> {
        let Some(path) = path else {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(usage("a stream is not for a terminal".into())
                    .remedy("pipe it somewhere, or name a file with -f"));
            }
            let file = File::from(rustix::io::dup(stdout).map_err(io::Error::from)?);
            return Ok(Self { file, path: None });
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| usage(format!("open {}: {e}", path.display())))?;
        let is_file = file.metadata()?.is_file();
        let path = is_file.then(|| path.to_owned());
        Ok(Self { file, path })
    }

    /// Half a stream is of no use to anybody.
    fn discard(self) {
        if let Some(path) = self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn pump(source: Source, sink: &Sink) -> Result<(), Problem> {
    let (mut reader, sending) = generate::kernel_pipe(source)?;
    let copied = io::copy(&mut reader, &mut &sink.file);
    drop(reader);
    copied.map_err(|e| Problem::new(Kind::Failed, format!("write the stream: {e}")))?;
    Ok(generate::finish(sending)?)
}

fn input(path: Option<&Path>) -> Result<Box<dyn Read>, Problem> {
    let Some(path) = path else {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(usage("no stream: standard input is a terminal".into())
                .remedy("pipe a stream in, or name a file with -f"));
        }
        return Ok(Box::new(stdin.lock()));
    };
    let file = File::open(path).map_err(|e| usage(format!("open {}: {e}", path.display())))?;
    Ok(Box::new(file))
}

#[derive(Serialize)]
struct ReceivedJson {
    name: String,
    uuid: String,
    path: String,
}

fn take(from: Option<&Path>, strict: bool, dir: &Path, output: &Output) -> Outcome {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(dir, flags, Mode::empty())
        .map_err(|e| usage(format!("open {}: {}", dir.display(), io::Error::from(e))))?;
    let trust = if strict {
        Trust::Strict
    } else {
        Trust::Lenient
    };
    let options = Options {
        trust,
        policies: Policies::default(),
    };
    let tell = |event| tell(event, dir, output);
    receive(input(from)?, &target, options, tell).map_err(|e| receive_problem(&e, dir))?;
    Ok(ExitCode::SUCCESS)
}

fn tell(event: Event, dir: &Path, output: &Output) {
    match event {
        Event::Begun(subvolume) => {
            let name = dump::escaped(&subvolume.name);
            output.note(&format!("receiving {name}"));
        }
        Event::Doubtful { name, why } => eprintln!(
            "sendshotctl: warning: {} is used as parent although {why}; --strict refuses it",
            name.display()
        ),
        Event::Received(copy) => {
            let received = ReceivedJson {
                name: copy.name.to_string_lossy().into_owned(),
                uuid: copy.info.received_uuid.to_string(),
                path: dir.join(&copy.name).to_string_lossy().into_owned(),
            };
            output.result(&received, || format!("received {}", received.path));
        }
    }
}

fn receive_problem(error: &ReceiveError, dir: &Path) -> Problem {
    let kind = match error {
        ReceiveError::NotBtrfs | ReceiveError::ReadOnly => Kind::Usage,
        ReceiveError::Stream(_)
        | ReceiveError::Read(_)
        | ReceiveError::Target(_)
        | ReceiveError::Staging(_) => Kind::Failed,
    };
    let mut problem = Problem::from_error(kind, error);
    problem.message = format!("receive into {}: {}", dir.display(), problem.message);
    problem
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
            Err(e) => return Err(Problem::new(Kind::Failed, format!("read the stream: {e}"))),
        };
        let mut bytes = &chunk[..len];
        while let Some(located) = parser.next(&mut bytes).map_err(broken)? {
            if print(&mut out, &located.item, located.start, output).is_err() {
                return Ok(ExitCode::SUCCESS); // the reader hung up
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
