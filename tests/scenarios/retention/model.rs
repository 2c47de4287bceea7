//! The crate and the real receiver keep what an independent model in Python keeps.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::until;
use serde_json::{Value, json};

use crate::retention::world::World;

/// Environment variable with the number of days for the real receiver; `make retention-month` sets it.
const DAYS: &str = "RETENTION_DAYS";

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../retention")
}

/// Runs a part of the check of the crate; `make retention` runs more of each.
fn check(arguments: &[&str]) {
    let seed = std::env::var("SEED").unwrap_or_else(|_| {
        let now = jiff::Timestamp::now().as_second();
        now.to_string()
    });
    println!("SEED={seed} {arguments:?}");
    let mut python = Command::new("python3");
    python.arg(models().join("check.py")).args(arguments);
    python.args(["--seed", &seed]);
    python.env("RETENTION_EVAL", binaries::path("retention-eval"));
    assert!(python.status().unwrap().success(), "SEED={seed}");
}

#[test]
fn random_questions_have_the_models_answers() {
    check(&["random", "--cases", "3000"]);
}

#[test]
fn a_year_of_pushes_is_thinned_as_the_model_says() {
    check(&["year"]);
}

#[test]
fn a_thiefs_junk_makes_nothing_go_early() {
    check(&["thief", "--histories", "300"]);
}

/// The model as a process that answers one question a line.
struct Model {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Model {
    fn new() -> Self {
        const LOOP: &str = "import sys, json, model\nfor line in sys.stdin:\n    \
                            print(json.dumps(model.evaluate(json.loads(line))), flush=True)\n";
        let mut python = Command::new("python3");
        python.args(["-c", LOOP]).env("PYTHONPATH", models());
        let mut child = python
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            to: child.stdin.take().unwrap(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn keep(&mut self, question: &Value) -> Vec<String> {
        writeln!(self.to, "{question}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let kept = answer["keep"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"));
        kept.iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A month for real with `make retention-month`; here some days of it, by the same code.
#[test]
fn hourly_pushes_leave_on_the_disk_what_the_model_keeps() {
    const RULE: &str = "6 hours hourly, 5 days daily, 2 weeks weekly";
    const PROTECT: i64 = 30 * 3600;
    let days: i64 = match std::env::var(DAYS) {
        Ok(days) => days.parse().unwrap(),
        Err(_) => 4,
    };
    let world = World::new(&format!("keep = '{RULE}'\nprotect = '30h'"));
    let mut model = Model::new();
    let mut alive: Vec<Value> = Vec::new();
    for day in 0..days {
        for hour in 0..24 {
            let name = world.push_at(&format!("+{}h", day * 24 + hour));
            let about = world.about(&name);
            let time: jiff::Timestamp = about["committed_at"].as_str().unwrap().parse().unwrap();
            let time = time.as_second();
            alive.push(
                json!({"id": name, "time": time, "certain": true, "holds": [], "leased": false}),
            );
            let question = json!({"rule": RULE, "protect": PROTECT, "timezone": "UTC", "now": time, "copies": alive});
            let kept = model.keep(&question);
            alive.retain(|copy| kept.iter().any(|name| copy["id"] == **name));
        }
        let mut expected: Vec<&str> = alive
            .iter()
            .map(|copy| copy["id"].as_str().unwrap())
            .collect();
        expected.sort_unstable();
        until::holds(
            &format!("day {day} has the model's {} copies", expected.len()),
            || world.names() == expected,
        );
    }
    println!("{} pushes, {} copies are left", days * 24, alive.len());
}
