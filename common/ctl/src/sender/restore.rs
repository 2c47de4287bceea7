//! `sendshotctl restore`: starts the program that restores, and shows its events.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use sendshot_model::restore::{
    Checked, ListedCopy, ListedVolume, NextPush, RestoreEvent, RestorePairing, RestoreReport,
    RestoreRequest, RestoreTask, WantedCopy,
};
use sendshot_model::{AnyPath, LeftOutEntry, human};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::{PushProgress, PushStage};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::RestoreArguments;
use crate::outcome::{self, Outcome};
use crate::output::{self, Output, table};
use crate::sender::pair;
use crate::sender::progress::Progress;

/// The program that restores.
const PROGRAM: &str = "sendshot-restore";

/// Restores what the arguments say.
pub async fn run(arguments: RestoreArguments, socket: Option<PathBuf>, output: &Output) -> Outcome {
    let request = request(&arguments)?;
    let mut child = start(&arguments, socket.as_deref())?;
    let mut input = child.stdin.take().ok_or_else(|| broken("has no input"))?;
    let events = child.stdout.take().ok_or_else(|| broken("has no output"))?;
    let mut line = serde_json::to_string(&request)
        .map_err(|e| Problem::from_error(Kind::Failed, &e))?
        .into_bytes();
    line.push(b'\n');
    // If it has ended already, its output says why.
    let _ = input.write_all(&line).await;
    // Ctrl-C reaches the program, too: this command stays to report how it ends. When this command ends, its end of
    // the input is closed, which cancels the program.
    let _interrupts = signal(SignalKind::interrupt())?;
    let name = arguments
        .source
        .as_ref()
        .map(|source| source.to_string_lossy().into_owned());
    let progress = Progress::new(*output, name.unwrap_or_default());
    let outcome = follow(BufReader::new(events).lines(), progress, output).await;
    let ended = child.wait().await?;
    match outcome {
        Ok(Some(code)) => Ok(code),
        Ok(None) => Err(broken(&format!("ended without a result ({ended})"))),
        Err(problem) => Err(problem),
    }
}

fn broken(what: &str) -> Problem {
    Problem::new(Kind::Failed, format!("{PROGRAM} {what}"))
        .remedy("the same command continues where it stopped")
}

/// Starts the program that lies beside this one, or that the shell would find.
fn start(arguments: &RestoreArguments, socket: Option<&Path>) -> Result<Child, Problem> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(PROGRAM)))
        .filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(PROGRAM));
    let mut command = Command::new(&program);
    command.args(arguments.paths.options());
    if let Some(socket) = socket {
        command.arg("--socket").arg(socket);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(false)
        .spawn()
        .map_err(|e| {
            Problem::new(
                Kind::Failed,
                format!("cannot start {}: {e}", program.display()),
            )
            .remedy("it is installed with sendshotctl; copy it into the same directory")
        })
}

fn request(arguments: &RestoreArguments) -> Result<RestoreRequest, Problem> {
    let pairing = pairing(arguments)?;
    let (receiver, volume) = match (&arguments.source, &pairing) {
        (Some(source), _) => split(source),
        // Its name follows from the pairing.
        (None, Some(_)) => (OsStr::new(""), None),
        (None, None) => return Err(usage("say which receiver, HOST or HOST:VOL")),
    };
    let receiver = receiver
        .to_str()
        .ok_or_else(|| usage("the receiver's name is not text"))?
        .to_owned();
    let task = match arguments.list {
        true => RestoreTask::List {
            volume: volume.map(|volume| volume.to_string_lossy().into_owned()),
        },
        false if !arguments.path.is_empty() => paths(arguments, volume)?,
        false if arguments.drill => RestoreTask::Drill {
            copy: wanted(arguments, volume)?,
        },
        false if arguments.in_place => in_place(arguments, volume)?,
        false => whole(arguments, volume)?,
    };
    Ok(RestoreRequest {
        receiver,
        pairing,
        retry_seconds: arguments.retry_for.map(|time| time.as_secs()),
        task,
    })
}

fn pairing(arguments: &RestoreArguments) -> Result<Option<RestorePairing>, Problem> {
    let Some(address) = &arguments.pair else {
        return Ok(None);
    };
    let token = match &arguments.token {
        Some(token) => token.clone(),
        None => pair::ask(address, "peer invite NAME --restore")?,
    };
    Ok(Some(RestorePairing {
        address: address.clone(),
        name: arguments.name.clone(),
        token,
    }))
}

fn wanted(arguments: &RestoreArguments, volume: Option<&OsStr>) -> Result<WantedCopy, Problem> {
    let volume = volume.ok_or_else(|| {
        usage("say which volume, HOST:VOL; `sendshotctl restore --list HOST` shows them")
    })?;
    Ok(WantedCopy {
        volume: Path::new(volume).into(),
        at: arguments.at.clone(),
    })
}

fn paths(arguments: &RestoreArguments, volume: Option<&OsStr>) -> Result<RestoreTask, Problem> {
    let copy = wanted(arguments, volume)?;
    let target = arguments
        .target
        .as_ref()
        .ok_or_else(|| usage("say where to: a directory, like /tmp/out"))?;
    let target = std::path::absolute(target).map_err(|e| usage(&e.to_string()))?;
    Ok(RestoreTask::Paths {
        copy,
        paths: arguments
            .path
            .iter()
            .map(|path| path.as_path().into())
            .collect(),
        target: AnyPath::from(target.as_path()),
        as_is: arguments.as_is,
    })
}

fn in_place(arguments: &RestoreArguments, volume: Option<&OsStr>) -> Result<RestoreTask, Problem> {
    Ok(RestoreTask::InPlace {
        copy: wanted(arguments, volume)?,
        device: arguments.device.as_deref().map(AnyPath::from),
        new_disk: arguments.new_disk,
        while_in_use: arguments.while_in_use,
        accept_differences: arguments.accept_differences,
    })
}

fn whole(arguments: &RestoreArguments, volume: Option<&OsStr>) -> Result<RestoreTask, Problem> {
    let copy = wanted(arguments, volume)?;
    let target = arguments.target.as_ref().ok_or_else(|| {
        usage("say where to: the path of the subvolume to be made, like /srv/photos.restored")
    })?;
    let target = std::path::absolute(target).map_err(|e| usage(&e.to_string()))?;
    Ok(RestoreTask::Beside {
        copy,
        target: AnyPath::from(target.as_path()),
        accept_differences: arguments.accept_differences,
    })
}

/// Splits `HOST[:VOL]`.
fn split(source: &OsString) -> (&OsStr, Option<&OsStr>) {
    let bytes = source.as_bytes();
    match bytes.iter().position(|byte| *byte == b':') {
        Some(at) => {
            let volume = OsStr::from_bytes(&bytes[at + 1..]);
            let host = OsStr::from_bytes(&bytes[..at]);
            (host, Some(volume).filter(|volume| !volume.is_empty()))
        }
        None => (source, None),
    }
}

fn usage(text: &str) -> Problem {
    Problem::new(Kind::Usage, text)
}

/// Shows events until the last one; `None` if the program ended without a result.
async fn follow(
    mut lines: Lines<BufReader<ChildStdout>>,
    mut progress: Progress,
    output: &Output,
) -> Result<Option<ExitCode>, Problem> {
    let mut result = None;
    while let Some(line) = lines.next_line().await? {
        let event: RestoreEvent = serde_json::from_str(&line)
            .map_err(|e| broken(&format!("sent an invalid event: {e}")))?;
        match event {
            RestoreEvent::Note { text } => progress.say(&text),
            RestoreEvent::Stage { stage, detail } => {
                progress.stage(PushStage { stage, detail });
            }
            RestoreEvent::Begun {
                copy,
                length,
                resumed_at,
                permitted_seconds,
            } => progress.say(&begun(&copy, length, resumed_at, permitted_seconds)),
            RestoreEvent::Progress { done, length } => progress.progress(&PushProgress {
                stream_bytes: done,
                applied_bytes: done,
                total_bytes: length,
            }),
            RestoreEvent::Listed { volumes } => {
                list(volumes, output);
                result = Some(ExitCode::SUCCESS);
            }
            RestoreEvent::Restored { report } => {
                progress.hide();
                output.report(&report, || text(&report));
                let is_loss = |entry: &LeftOutEntry| !entry.kind.is_of_storage();
                result = Some(match report.left_out.iter().any(is_loss) {
                    true => ExitCode::from(outcome::NOT_ALL),
                    false => ExitCode::SUCCESS,
                });
            }
            RestoreEvent::Drilled { report } => {
                progress.hide();
                output.report(&report, || drilled(&report));
                result = Some(ExitCode::SUCCESS);
            }
            RestoreEvent::Failed {
                kind,
                message,
                remedy,
            } => {
                progress.hide();
                return Err(Problem::new(kind_of(&kind), message).remedy(remedy));
            }
        }
    }
    Ok(result)
}

fn kind_of(kind: &str) -> Kind {
    match kind {
        "cancelled" => Kind::Cancelled,
        "usage" => Kind::Usage,
        "unreachable" => Kind::Unreachable,
        "refused" => Kind::Refused,
        _ => Kind::Failed,
    }
}

fn begun(copy: &str, length: u64, resumed_at: u64, permitted: Option<u64>) -> String {
    let mut text = format!("restores {copy}: {}", human::bytes_human(length));
    if resumed_at > 0 {
        text += &format!(", of which {} are here", human::bytes_human(resumed_at));
    }
    if let Some(seconds) = permitted {
        let left = human::duration(std::time::Duration::from_secs(seconds));
        text += &format!("; permitted for {left}");
    }
    text
}

fn list(volumes: Vec<ListedVolume>, output: &Output) {
    if output.is_json() {
        for volume in &volumes {
            output.result(volume, String::new);
        }
        return;
    }
    if volumes.is_empty() {
        output.note("the receiver has no copies of this host");
        return;
    }
    let rows = volumes.into_iter().flat_map(|volume| {
        let name = volume.volume;
        volume.copies.into_iter().map(move |copy| row(&name, copy))
    });
    let rows: Vec<_> = rows.collect();
    output.result(&(), || {
        table(
            &["volume", "copy", "received", "committed", "uuid", "remarks"],
            rows,
        )
    });
}

fn row(volume: &str, copy: ListedCopy) -> Vec<String> {
    let remarks = match (copy.writable, copy.doubt) {
        (true, _) => "writable: cannot be restored".to_owned(),
        (false, Some(doubt)) => doubt,
        (false, None) => String::new(),
    };
    vec![
        volume.to_owned(),
        copy.name,
        copy.received_bytes
            .map(human::bytes_human)
            .unwrap_or_default(),
        copy.committed_at.unwrap_or_default(),
        output::short_id(&copy.uuid),
        remarks,
    ]
}

fn text(report: &RestoreReport) -> String {
    let target = PathBuf::from(report.target.clone());
    let mut lines = vec![format!(
        "restored {}:{} of {} to {}: {} in {}",
        report.receiver,
        report.volume,
        report.copy,
        target.display(),
        human::bytes_human(report.stream_bytes),
        human::duration(std::time::Duration::from_secs_f64(report.seconds)),
    )];
    if let Some(offset) = report.resumed_at.filter(|at| *at < report.stream_bytes) {
        lines.push(format!(
            "  continued an interrupted restore at {}",
            human::bytes_human(offset)
        ));
    }
    if let Some(replaced) = &report.replaced {
        let path = PathBuf::from(replaced.clone());
        lines.push(match path.is_absolute() {
            true => format!("  the old volume is {}", path.display()),
            false => format!(
                "  the old volume is {} from the top level of its file system",
                path.display()
            ),
        });
    }
    match &report.next_push {
        Some(NextPush::ThisCopy) => lines.push("  the next push is incremental".to_owned()),
        Some(NextPush::NotThisCopy { reason }) => {
            lines.push(format!(
                "  the next push does not build on this copy: {reason}"
            ));
        }
        None => {}
    }
    if let Some(doubt) = &report.doubt {
        lines.push(format!("  about the copy: {doubt}"));
    }
    lines.extend(report.not_kept.iter().map(output::not_kept_line));
    for entry in &report.left_out {
        lines.push(format!(
            "  left out {} × {}: {}",
            entry.count,
            entry.kind.description(),
            entry.example
        ));
    }
    lines.extend(checked(&report.checked));
    lines.join("\n")
}

fn drilled(report: &RestoreReport) -> String {
    let mut lines = vec![format!(
        "drill: {}:{} of {} can be restored: {} in {}",
        report.receiver,
        report.volume,
        report.copy,
        human::bytes_human(report.stream_bytes),
        human::duration(std::time::Duration::from_secs_f64(report.seconds)),
    )];
    lines.extend(checked(&report.checked));
    lines.join("\n")
}

fn checked(checked: &Checked) -> Vec<String> {
    if checked.names == 0 && !checked.own_sendshot {
        return Vec::new();
    }
    if checked.own_sendshot {
        let mut lines = vec![match checked.differences.is_empty() {
            true => format!(
                "  checked: {} names, their owners, permissions, sizes, times and attributes are those of this \
                 host's own sendshot",
                checked.names
            ),
            false => "  accepted although it differs from this host's own sendshot:".to_owned(),
        }];
        lines.extend(checked.differences.iter().map(|what| format!("    {what}")));
        return lines;
    }
    let mut lines = vec![format!(
        "  {} names; this host has no sendshot of this state to compare with",
        checked.names
    )];
    for (what, paths) in [
        ("set-user-id or set-group-id", &checked.set_id),
        ("with capabilities", &checked.capabilities),
        ("device node", &checked.devices),
    ] {
        lines.extend(paths.iter().map(|path| format!("    {what}: {path}")));
    }
    lines
}
