//! Sets up a host whose volumes are pushed.
//!
//! Steps: 1. ask; 2. write the configuration; 3. start the daemon; 4. hold the volume's schedule, so that it does not push before
//! this command does, for a few minutes at a time; 5. pair; 6. push; 7. continue the schedule. After a failure the
//! configuration stays, and the error says which commands are left; the hold ends by itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sendshot_config::{Address, SenderConfig, When};
use sendshot_model::{PeerName, VolumeName};
use sendshot_proto::problem::Problem;
use sendshot_proto::v1::{ContinueRequest, PairCommand, PauseRequest};
use sendshot_sys::{filesystem, subvolume};

use super::file::{self, Daemon};
use super::questions::{Question, answer};
use crate::arguments::{PushArguments, SetupArguments};
use crate::client::{self, Sender};
use crate::outcome::{self, Outcome};
use crate::output::Output;
use crate::sender::{pair, push};

const DAEMON: Daemon = Daemon {
    unit: "sendshot-sender",
    socket: client::SENDER,
};

const CONFIG: &str = "/etc/sendshot/sender.toml";

/// How long the schedule waits for the pairing and the beginning of the first push, in seconds. The push itself keeps the
/// schedule from another one.
const HOLD_SECONDS: u64 = 5 * 60;

/// The answers.
struct Answers {
    path: PathBuf,
    volume: VolumeName,
    address: Address,
    receiver: PeerName,
    schedule: String,
}

pub async fn run(
    mut arguments: SetupArguments,
    socket: Option<PathBuf>,
    output: &Output,
) -> Outcome {
    let file = arguments.config.take().unwrap_or_else(|| CONFIG.into());
    file::check_absent(&file, DAEMON, socket.as_ref())?;
    let token = arguments.token.take();
    let answers = ask(arguments)?; // 1
    let token = match token {
        Some(token) => token,
        None => pair::ask(&answers.address.to_string(), "peer invite NAME")?,
    };
    let text = text(&answers);
    // What is written is accepted by the daemon.
    SenderConfig::parse(&file, &text)
        .map_err(|e| Problem::from_error(sendshot_proto::problem::Kind::Failed, &e))?;
    file::write_new(&file, &text, DAEMON)?; // 2
    output.note(&format!("written: {}", file.display()));
    let target = format!("{}:{}", answers.receiver, answers.volume);
    let target = target.as_str();
    let failed = |problem| left(problem, &answers, target);
    file::start(DAEMON, socket.as_ref(), output).map_err(failed)?; // 3
    let mut client = client::sender(socket.clone()).await.map_err(failed)?;
    let held = hold(&mut client, &answers).await; // 4
    held.map_err(failed)?;
    let paired = pair(&mut client, &answers, token, output).await; // 5
    paired.map_err(failed)?;
    let pushing = PushArguments {
        targets: vec![OsString::from(target)],
        parent: "auto".to_owned(),
        ..PushArguments::default()
    };
    let pushed = push::run(client.clone(), pushing, output).await; // 6
    let code = pushed.map_err(failed)?;
    let answer = client.r#continue(continued(&answers)).await;
    outcome::check(answer.map_err(client::failed)?.into_inner().problem)?; // 7
    match code == ExitCode::SUCCESS {
        true => output.note(&format!(
            "{target} is pushed {} from now on; `sendshotctl status` shows it, and `sendshotctl restore {target} PATH` brings a copy back",
            in_words(&answers.schedule)
        )),
        false => output.note(&format!(
            "the schedule pushes {target} from now on, {}; `sendshotctl push {target}` tries again at once",
            in_words(&answers.schedule)
        )),
    }
    Ok(code)
}

fn in_words(schedule: &str) -> String {
    match schedule.strip_prefix("every ") {
        Some(_) => schedule.to_owned(),
        None => format!("by `{schedule}`"),
    }
}

/// Adds the commands that are left to do.
fn left(problem: Problem, answers: &Answers, target: &str) -> Problem {
    let commands = format!(
        "`systemctl start sendshot-sender`, `sendshotctl pair {} --name {}`, `sendshotctl push {target}`",
        answers.address, answers.receiver
    );
    let remedy = match problem.remedy.as_str() {
        "" => format!("what is left, as far as it is not done: {commands}"),
        remedy => format!("{remedy}. What is left then: {commands}"),
    };
    problem.remedy(remedy)
}

fn ask(arguments: SetupArguments) -> Result<Answers, Problem> {
    let which = Question {
        text: "Which subvolume is to be replicated",
        usual: "",
        option: "--path",
    };
    let (path, volume) = answer(arguments.path, which, volume_at)?;
    let to = Question {
        text: "Which host holds the copies (HOST or HOST:PORT)",
        usual: "",
        option: "--to",
    };
    let name = arguments.name;
    let (address, receiver) = answer(arguments.to, to, |text| receiver_at(text, name.as_deref()))?;
    let when = Question {
        text: "When is it to be pushed (an interval, or five fields as for cron)",
        usual: "every 1h",
        option: "--schedule",
    };
    let schedule = answer(arguments.schedule, when, |text| {
        let parsed = text.parse::<When>();
        parsed.map(|_| text.to_owned()).map_err(|e| e.to_string())
    })?;
    Ok(Answers {
        path,
        volume,
        address,
        receiver,
        schedule,
    })
}

/// The subvolume at a path, and a name for it.
fn volume_at(text: &str) -> Result<(PathBuf, VolumeName), String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("`{text}` is not an absolute path"));
    }
    let canonical = path.canonicalize();
    let path = canonical.map_err(|e| format!("cannot open {text}: {e}"))?;
    if path.to_str().is_none() {
        return Err(format!(
            "{} is not UTF-8, and the configuration is a text: give the subvolume another name",
            path.display()
        ));
    }
    let dir = std::fs::File::open(&path).map_err(|e| format!("cannot open {text}: {e}"))?;
    if !filesystem::is_btrfs(&dir).unwrap_or(false) {
        return Err(format!("{text} is not on btrfs"));
    }
    if !subvolume::is_subvolume(&dir).unwrap_or(false) {
        return Err(format!(
            "{text} is a directory, not a subvolume; `btrfs subvolume list /` names them"
        ));
    }
    let name = path
        .file_name()
        .map_or("root".into(), |name| name.to_string_lossy());
    let name = VolumeName::parse(&name).or_else(|_| VolumeName::parse("volume"));
    Ok((path.clone(), name.map_err(|e| e.to_string())?))
}

fn receiver_at(text: &str, name: Option<&str>) -> Result<(Address, PeerName), String> {
    let address: Address = text
        .parse()
        .map_err(|e: sendshot_config::AddressError| e.to_string())?;
    let name = match name {
        Some(name) => PeerName::parse(name).map_err(|e| e.to_string())?,
        None => match address.default_name() {
            Some(name) => name,
            // An IP address.
            None => PeerName::parse("receiver").map_err(|e| e.to_string())?,
        },
    };
    Ok((address, name))
}

/// The configuration.
fn text(answers: &Answers) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "# Written by `sendshotctl setup`. All settings: sendshot-sender.toml(5).\n\
         # After a change: systemctl reload sendshot-sender\n\
         \n\
         # A volume; its name is that of its directory on the receiver.\n\
         [volumes.{name}]\n\
         path = {path}\n\
         \n\
         # The receivers it is pushed to, by the names they were paired under.\n\
         receivers = [{receiver}]\n\
         \n\
         # When it is pushed by itself. An unchanged volume costs nothing, and a run that was missed is made up for.\n\
         # Without this line it is pushed by `sendshotctl push {target}` only.\n\
         schedule = {schedule}\n\
         \n\
         # `sendshotctl check` and `status` warn if the newest copy is older.\n\
         max_age = \"3 days\"\n",
        name = quoted(answers.volume.as_str()),
        path = quoted(&answers.path.to_string_lossy()),
        receiver = quoted(answers.receiver.as_str()),
        target = format_args!("{}:{}", answers.receiver, answers.volume),
        schedule = quoted(&answers.schedule),
    )
}

async fn hold(client: &mut Sender, answers: &Answers) -> Result<(), Problem> {
    let request = PauseRequest {
        receiver: answers.receiver.to_string(),
        volume: answers.volume.as_str().as_bytes().to_vec(),
        seconds: HOLD_SECONDS,
    };
    let answer = client.pause(request).await.map_err(client::failed)?;
    outcome::check(answer.into_inner().problem)
}

fn continued(answers: &Answers) -> ContinueRequest {
    ContinueRequest {
        receiver: answers.receiver.to_string(),
        volume: answers.volume.as_str().as_bytes().to_vec(),
    }
}

async fn pair(
    client: &mut Sender,
    answers: &Answers,
    token: String,
    output: &Output,
) -> Result<(), Problem> {
    let command = PairCommand {
        address: answers.address.to_string(),
        name: answers.receiver.to_string(),
        token,
    };
    let answer = client.pair(command).await.map_err(client::failed)?;
    let answer = answer.into_inner();
    outcome::check(answer.problem)?;
    output.note(&format!(
        "paired with {}, which knows this host as `{}`",
        answer.name, answer.sender_name
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_is_written_is_accepted_whatever_the_names_are() {
        for (path, name) in [("/srv/photos", "photos"), ("/srv/a \"b\"\u{e4}", "a b")] {
            let answers = Answers {
                path: path.into(),
                volume: VolumeName::parse(name).unwrap(),
                address: "nas2.lan".parse().unwrap(),
                receiver: PeerName::parse("nas2").unwrap(),
                schedule: "every 1h".to_owned(),
            };
            let text = text(&answers);
            let config = SenderConfig::parse(Path::new("sender.toml"), &text).unwrap();
            let (_, volume) = config.volumes.first_key_value().unwrap();
            assert_eq!(volume.path, Path::new(path));
            assert!(volume.schedule.is_some());
        }
        assert!(volume_at("srv").unwrap_err().contains("absolute"));
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        std::fs::create_dir(&named).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&named, &link).unwrap();
        let refused = volume_at(link.to_str().unwrap()).unwrap_err();
        assert!(refused.contains("not UTF-8"), "{refused}");
        assert_eq!(
            receiver_at("192.0.2.7", None).unwrap().1.as_str(),
            "receiver"
        );
        assert_eq!(receiver_at("nas2.lan:99", None).unwrap().1.as_str(), "nas2");
    }
}
