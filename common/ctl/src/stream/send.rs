//! `sendshotctl stream send`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use sendshot_engine::capture::save;
use sendshot_engine::diff::Version;
use sendshot_engine::format::hashes;
use sendshot_engine::stream::{HashWriter, Pages};
use sendshot_engine::{Frozen, Sendshot, WireNumber, compare_hashes};
use sendshot_model::Engine;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_sys::send_pipe::{self, Source};
use sendshot_sys::subvolume::Info;
use sendshot_sys::{filesystem, subvolume};

use super::clone_sources::best_parent;
use super::input::usage;
use super::sink::{Sink, Writing};
use crate::arguments::StreamSendArguments;
use crate::outcome::Outcome;
use crate::output::Output;

/// A stream announces the transaction number that the snapshot's origin announced.
const NUMBER: WireNumber = WireNumber::Origin;

/// A read-only subvolume named by the user.
struct Snapshot {
    path: PathBuf,
    /// Name in streams.
    name: OsString,
    root: OwnedFd,
    info: Info,
}

impl Snapshot {
    fn open(path: &Path) -> Result<Self, Problem> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| {
            usage(format!(
                "cannot open {}: {}",
                path.display(),
                io::Error::from(e)
            ))
        })?;
        let look = |e| Problem::local_io(&format!("check {}", path.display()), &e);
        if !filesystem::is_btrfs(&root).map_err(look)? {
            return Err(usage(format!("{} is not on btrfs", path.display())));
        }
        if let Some(sizes) = filesystem::untested(&root).map_err(look)? {
            return Err(usage(format!("{}: {sizes}", path.display())));
        }
        if !subvolume::is_subvolume(&root).map_err(look)? {
            return Err(usage(format!("{} is not a subvolume", path.display())));
        }
        let info = subvolume::info(&root).map_err(look)?;
        if !info.read_only {
            return Err(usage(format!("{} is writable", path.display()))
                .remedy("only read-only snapshots can be sent: `btrfs subvolume snapshot -r`"));
        }
        let name = path.canonicalize().map_err(look)?;
        Ok(Self {
            path: path.to_owned(),
            name: name.file_name().unwrap_or_default().to_owned(),
            root,
            info,
        })
    }
}

/// Writes the streams of snapshots, one after the other.
pub fn run(arguments: &StreamSendArguments, output: &Output) -> Outcome {
    let paths = arguments.snapshots.iter();
    let snapshots: Vec<Snapshot> = paths
        .map(|path| Snapshot::open(path))
        .collect::<Result<_, _>>()?;
    let newest = filesystem::send_stream_version();
    let stream_version = arguments.proto.unwrap_or(newest);
    if stream_version > newest {
        return Err(usage(format!(
            "this kernel makes streams of version {newest} at most"
        )));
    }
    match engine(arguments)? {
        Engine::Kernel => {
            let plans = kernel_plans(arguments, &snapshots, output)?;
            let send = |snapshot: Snapshot, plan: KernelPlan, sink: &Sink| {
                let source = Source {
                    snapshot: snapshot.root,
                    parent: plan.parent,
                    clone_sources: plan.clone_sources,
                    stream_version,
                };
                pump(source, sink)
            };
            send_all(arguments, snapshots, plans, output, send)?;
        }
        Engine::Sendshot => {
            let files = sendshot_files(&snapshots, arguments.save_sendshot.as_deref())?;
            let mut before = parent_sendshot(arguments)?;
            let send = |snapshot: Snapshot, file: Option<PathBuf>, sink: &Sink| {
                let sent = send_by_sendshot(
                    &snapshot,
                    before.as_ref(),
                    file.as_deref(),
                    stream_version,
                    sink,
                    output,
                )?;
                before = Some(sent);
                Ok(())
            };
            send_all(arguments, snapshots, files, output, send)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends each snapshot by its plan. All usage errors have been found before: from here on an existing file is
/// overwritten.
fn send_all<P>(
    arguments: &StreamSendArguments,
    snapshots: Vec<Snapshot>,
    plans: Vec<P>,
    output: &Output,
    mut send: impl FnMut(Snapshot, P, &Sink) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let sink = Sink::open(arguments.output.as_deref())?;
    for (snapshot, plan) in snapshots.into_iter().zip(plans) {
        let path = snapshot.path.clone();
        // `btrfs send` prints "At subvol" to standard error, too.
        output.note(&format!("sending {}", path.display()));
        if let Err(problem) = send(snapshot, plan, &sink) {
            sink.discard();
            let message = format!("cannot send {}: {}", path.display(), problem.message);
            return Err(Problem { message, ..problem });
        }
    }
    Ok(())
}

fn engine(arguments: &StreamSendArguments) -> Result<Engine, Problem> {
    let names_sendshots = arguments.sendshot.is_some() || arguments.save_sendshot.is_some();
    let names_snapshots = arguments.parent.is_some() || !arguments.clone_sources.is_empty();
    let asked = arguments.engine.map(Engine::from);
    let is_sendshot = names_sendshots || asked == Some(Engine::Sendshot);
    if is_sendshot && !arguments.clone_sources.is_empty() {
        return Err(usage(
            "only the kernel engine takes clone sources: the sendshot engine clones within the snapshot and \
             from its parent only"
                .into(),
        )
        .remedy("leave out -c, or --engine sendshot, --sendshot and --save-sendshot"));
    }
    match asked {
        Some(Engine::Kernel) if names_sendshots => {
            Err(usage("the kernel engine does not use sendshots".into())
                .remedy("leave out --engine, or name a snapshot with --parent"))
        }
        Some(Engine::Sendshot) if arguments.parent.is_some() => Err(usage(
            "only the kernel engine takes a snapshot as parent".into(),
        )
        .remedy("leave out --engine, or name a file with --sendshot")),
        Some(engine) => Ok(engine),
        None if names_snapshots => Ok(Engine::Kernel),
        None => Ok(Engine::Sendshot),
    }
}

/// The parent and clone sources of a stream by the kernel engine.
struct KernelPlan {
    /// Subvolume id of the parent.
    parent: Option<u64>,
    /// Subvolume ids of the clone sources.
    clone_sources: Vec<u64>,
}

/// Chooses parents and clone sources like `btrfs send`: with `-c` and without `-p` the best clone source is the
/// parent, and a sent snapshot is a clone source of those after it.
fn kernel_plans(
    arguments: &StreamSendArguments,
    snapshots: &[Snapshot],
    output: &Output,
) -> Result<Vec<KernelPlan>, Problem> {
    let open = |path: &PathBuf| {
        let named = Snapshot::open(path)?;
        for snapshot in snapshots {
            if filesystem::fsid(&named.root)? != filesystem::fsid(&snapshot.root)? {
                return Err(usage(format!(
                    "{} is on another file system than the snapshot",
                    path.display()
                )));
            }
        }
        Ok(named)
    };
    let named_parent = arguments.parent.as_ref().map(open).transpose()?;
    let mut sources = Vec::new();
    for path in &arguments.clone_sources {
        sources.push(open(path)?.info);
    }
    let mut plans = Vec::new();
    for snapshot in snapshots {
        let parent = match &named_parent {
            Some(parent) => {
                warn_of_stranger(parent, snapshot, output);
                Some(parent.info.id)
            }
            None if arguments.clone_sources.is_empty() => None,
            None => Some(best_of(snapshot, &sources)?.id),
        };
        plans.push(KernelPlan {
            parent,
            clone_sources: sources.iter().map(|source| source.id).collect(),
        });
        if !arguments.clone_sources.is_empty() {
            sources.push(snapshot.info.clone());
        }
    }
    Ok(plans)
}

fn best_of<'a>(snapshot: &Snapshot, sources: &'a [Info]) -> Result<&'a Info, Problem> {
    best_parent(&snapshot.info, sources).ok_or_else(|| {
        usage(format!(
            "no clone source is a snapshot of the same subvolume as {}",
            snapshot.path.display()
        ))
        .remedy("name its parent with --parent")
    })
}

/// Warns of an unrelated parent, of which the kernel would make a wrong stream without an error.
fn warn_of_stranger(parent: &Snapshot, child: &Snapshot, output: &Output) {
    let (of, from) = (&parent.info, &child.info);
    let siblings = of.parent_uuid == from.parent_uuid && !of.parent_uuid.is_nil();
    if !siblings && of.uuid != from.parent_uuid && of.parent_uuid != from.uuid {
        output.note(&format!(
            "sendshotctl: note: {} is not a snapshot of the same subvolume; if the two are not \
             related at all, the result will be wrong",
            parent.path.display()
        ));
    }
}

fn pump(source: Source, sink: &Sink) -> Result<(), Problem> {
    let (mut reader, sending) = send_pipe::start(source).map_err(|e| Problem::failed(&e))?;
    let copied = io::copy(&mut reader, &mut &sink.file);
    drop(reader);
    copied.map_err(|e| Problem::new(Kind::Failed, format!("cannot write the stream: {e}")))?;
    send_pipe::finish(sending).map_err(|e| Problem::failed(&e))
}

fn parent_sendshot(arguments: &StreamSendArguments) -> Result<Option<Sendshot>, Problem> {
    let file = arguments.sendshot.as_deref();
    file.map(sendshot_engine::open).transpose().map_err(|e| {
        Problem::from_error(Kind::Usage, &e).remedy("without --sendshot everything is sent")
    })
}

/// The files for the sendshots of the snapshots: in a directory, under each snapshot's name.
fn sendshot_files(
    snapshots: &[Snapshot],
    path: Option<&Path>,
) -> Result<Vec<Option<PathBuf>>, Problem> {
    let Some(path) = path else {
        return Ok(snapshots.iter().map(|_| None).collect());
    };
    if !path.is_dir() {
        return match snapshots {
            [_] => Ok(vec![Some(path.to_owned())]),
            _ => Err(
                usage(format!("{} is not a directory", path.display())).remedy(
                    "several snapshots need one, in which each sendshot is named NAME.sendshot",
                ),
            ),
        };
    }
    let mut names = HashSet::new();
    let mut files = Vec::new();
    for snapshot in snapshots {
        let mut name = snapshot.name.clone();
        name.push(".sendshot");
        if !names.insert(name.clone()) {
            return Err(usage(format!(
                "two snapshots would have their sendshot in {}",
                path.join(name).display()
            ))
            .remedy("send them one by one, or leave out --save-sendshot"));
        }
        files.push(Some(path.join(name)));
    }
    Ok(files)
}

/// Sends a snapshot as changes since the one `before`. Its sendshot, which is returned, is durable before the first
/// byte of the stream leaves.
fn send_by_sendshot(
    snapshot: &Snapshot,
    before: Option<&Sendshot>,
    path: Option<&Path>,
    stream_version: u32,
    sink: &Sink,
    output: &Output,
) -> Result<Sendshot, Problem> {
    let failed = |e: &dyn std::error::Error| Problem::from_error(Kind::Failed, e);
    // It may be any read-only subvolume: received a moment ago, or written to before.
    let frozen = Frozen::write_back(&snapshot.root).map_err(|e| {
        let what = format!("write back {}", snapshot.path.display());
        Problem::local_io(&what, &e)
    })?;
    let mut captured = capture(frozen, before, path)?;
    if let (Some(before), Some(path)) = (before, path) {
        let (dir, name) = save::place(path)?;
        captured =
            compare_hashes(before, captured, &snapshot.root, dir, name).map_err(|e| failed(&e))?;
    }
    let source = sendshot_engine::Source {
        parent: before,
        target: &captured,
        snapshot: &snapshot.root,
        name: snapshot.name.as_bytes(),
        version: match stream_version {
            1 => Version::V1,
            _ => Version::V2,
        },
        pages: Pages::Keep,
    };
    let writing = sink.file.try_clone().and_then(Writing::start);
    let mut writing = writing.map_err(|e| Problem::local_io("start to write the stream", &e))?;
    let mut write = |hashes: Option<&mut HashWriter>| {
        sendshot_engine::stream_from(&source, None, hashes, |part| writing.part(part.bytes))?;
        writing
            .finish()
            .map_err(sendshot_engine::stream::Error::Write)
    };
    let Some(path) = path else {
        write(None).map_err(|e| failed(&e))?;
        return Ok(captured);
    };
    let (dir, name) = save::place(path)?;
    let uuid = captured.head().uuid;
    let saved = hashes::save(&dir, name, uuid, |hashes| write(Some(hashes)));
    match saved.map_err(|e| failed(&e))? {
        Ok(()) => Ok(captured.with_hashes(hashes::open_at(dir, name, uuid))),
        Err(e) => {
            output.note(&format!(
                "the stream is complete, but hashes of files without checksums are not kept beside {}: {e}",
                path.display()
            ));
            Ok(captured.with_hashes(None))
        }
    }
}

fn not_captured(error: &save::Error) -> Problem {
    Problem::failed(error).prefer_remedy(error.remedy())
}

/// Captures into the requested file, or into a temporary one.
fn capture(
    snapshot: Frozen<'_>,
    before: Option<&Sendshot>,
    path: Option<&Path>,
) -> Result<Sendshot, Problem> {
    if let Some(path) = path {
        save::place(path).map_err(|e| {
            usage(format!(
                "cannot save {}: its directory cannot be opened: {e}",
                path.display()
            ))
            .remedy("name a file in an existing directory")
        })?;
        let saved = sendshot_engine::save_to(snapshot, NUMBER, before, path);
        return match saved {
            Ok((sendshot, _)) => Ok(sendshot),
            Err(e) => {
                let problem = not_captured(&e);
                let message = format!("cannot save {}: {}", path.display(), problem.message);
                Err(Problem { message, ..problem })
            }
        };
    }
    let failed =
        |e: io::Error| Problem::new(Kind::Failed, format!("cannot capture the snapshot: {e}"));
    let file = tempfile::tempfile().map_err(|e| {
        let dir = std::env::temp_dir();
        Problem::new(
            Kind::Failed,
            format!("cannot create a temporary file in {}: {e}", dir.display()),
        )
        .remedy("free space there, or have TMPDIR name another directory")
    })?;
    let (writer, ..) = sendshot_engine::capture(snapshot, NUMBER, BufWriter::new(file))
        .map_err(|e| not_captured(&e.into()))?;
    let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    Sendshot::from_file(file, Path::new("(temporary)"))
        .map_err(|e| Problem::from_error(Kind::Failed, &e))
}
