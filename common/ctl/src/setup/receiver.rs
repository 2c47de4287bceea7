//! Sets up a host that holds copies.
//!
//! Steps: 1. ask; 2. make the directory of the copies; 3. write the configuration; 4. start the daemon; 5. invite the sender.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sendshot_config::ReceiverConfig;
use sendshot_model::PeerName;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_sys::filesystem;

use super::file::{self, Daemon};
use super::questions::{Question, answer};
use crate::arguments::SetupArguments;
use crate::client;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::receiver::peers::{self, Purpose};

const DAEMON: Daemon = Daemon {
    unit: "sendshot-receiver",
    socket: client::RECEIVER,
};

const CONFIG: &str = "/etc/sendshot/receiver.toml";

/// Mode of a new directory for copies: what users may read of a copy is theirs to read only through root.
const ROOT_MODE: u32 = 0o700;

/// The answers.
struct Answers {
    root: PathBuf,
    sender: PeerName,
    keep: String,
    /// Where the daemon listens, if not at the usual address.
    listen: Option<String>,
}

pub async fn run(
    mut arguments: SetupArguments,
    socket: Option<PathBuf>,
    output: &Output,
) -> Outcome {
    let file = arguments.config.take().unwrap_or_else(|| CONFIG.into());
    file::check_absent(&file, DAEMON, socket.as_ref())?;
    let answers = ask(arguments)?; // 1
    let text = text(&answers);
    ReceiverConfig::parse(&file, &text).map_err(|e| Problem::from_error(Kind::Usage, &e))?;
    make(&answers.root)?; // 2
    file::write_new(&file, &text, DAEMON)?; // 3
    output.note(&format!("written: {}", file.display()));
    let sender = answers.sender.to_string();
    let left = |problem: Problem| {
        let remedy = format!(
            "{}{}what is left: `systemctl start sendshot-receiver`, `sendshotctl peer invite {sender}`",
            problem.remedy,
            if problem.remedy.is_empty() { "" } else { "; " }
        );
        problem.remedy(remedy)
    };
    file::start(DAEMON, socket.as_ref(), output).map_err(left)?; // 4
    let client = client::receiver(socket).await.map_err(left)?;
    output.note(&format!(
        "on {sender} now: `sendshotctl setup`, with this token. Its first push is the last step."
    ));
    peers::invite(client, sender.clone(), Purpose::New, output).await // 5
}

fn ask(arguments: SetupArguments) -> Result<Answers, Problem> {
    let place = Question {
        text: "In which directory, on btrfs, are the copies to lie",
        usual: "/srv/backup",
        option: "--root",
    };
    let root = answer(arguments.root, place, root_at)?;
    let from = Question {
        text: "Which host pushes to it (its name here)",
        usual: "",
        option: "--from",
    };
    let sender = answer(arguments.from, from, |text| {
        PeerName::parse(text).map_err(|e| e.to_string())
    })?;
    let which = Question {
        text: "Which copies are to be kept (a rule, or `all`)",
        usual: "24 hours hourly, 30 days daily, 12 months monthly",
        option: "--keep",
    };
    let keep = answer(arguments.keep, which, |text| {
        let parsed = text.parse::<sendshot_retention::Rule>();
        parsed.map(|_| text.to_owned()).map_err(|e| e.to_string())
    })?;
    Ok(Answers {
        root,
        sender,
        keep,
        listen: arguments.listen,
    })
}

/// A directory on btrfs, or one that can be made there.
fn root_at(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("`{text}` is not an absolute path"));
    }
    let existing = match path.exists() {
        true => path,
        false => path.parent().unwrap_or(path),
    };
    let dir = std::fs::File::open(existing);
    let dir = dir.map_err(|e| format!("cannot open {}: {e}", existing.display()))?;
    match filesystem::is_btrfs(&dir) {
        Ok(true) => Ok(path.to_owned()),
        _ => Err(format!("{} is not on btrfs", existing.display())),
    }
}

fn make(root: &Path) -> Result<(), Problem> {
    if root.is_dir() {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new().mode(ROOT_MODE).create(root);
    made.map_err(|e| Problem::local_io(&format!("make {}", root.display()), &e))
}

/// The configuration.
fn text(answers: &Answers) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let listen = match &answers.listen {
        None => "# listen = \"[::]:7117\"".to_owned(),
        Some(listen) => format!("listen = {}", quoted(listen)),
    };
    format!(
        "# Written by `sendshotctl setup`. All settings: sendshot-receiver.toml(5).\n\
         # After a change: systemctl reload sendshot-receiver\n\
         \n\
         # Where it listens; by default at all addresses.\n\
         {listen}\n\
         \n\
         # The directory of the copies.\n\
         root = {root}\n\
         \n\
         [senders.{sender}]\n\
         # Which copies of this sender are kept. No copy that is younger than `protect` is deleted, and the first deletion asks:\n\
         # `sendshotctl copy prune --dry-run` shows it, `--confirm` confirms it.\n\
         keep = {keep}\n\
         protect = \"14 days\"\n\
         # Silence is an alarm: `sendshotctl check` warns if nothing was heard of a volume for so long.\n\
         max_age = \"3 days\"\n",
        root = quoted(&answers.root.to_string_lossy()),
        sender = quoted(answers.sender.as_str()),
        keep = quoted(&answers.keep),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_accepted() {
        for listen in [None, Some("127.0.0.1:99".to_owned())] {
            let answers = Answers {
                root: "/srv/b \"x\"".into(),
                sender: PeerName::parse("nas1").unwrap(),
                keep: "30 days daily".to_owned(),
                listen,
            };
            let config =
                ReceiverConfig::parse(Path::new("receiver.toml"), &text(&answers)).unwrap();
            assert_eq!(config.root, answers.root);
            assert_eq!(config.senders.len(), 1);
        }
        assert!(root_at("/proc/x").unwrap_err().contains("not on btrfs"));
    }
}
