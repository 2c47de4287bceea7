//! Answers retention questions, one line of JSON each, so that a model in another language can be compared with
//! `sendshot-retention`; see `check.py`.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use jiff::tz::TimeZone;
use sendshot_retention::{Copy, Hold, Policy, judge};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
struct Question {
    rule: String,
    protect: u64,
    timezone: String,
    now: i64,
    copies: Vec<AskedCopy>,
}

#[derive(Debug, Deserialize)]
struct AskedCopy {
    id: String,
    time: i64,
    certain: bool,
    #[serde(default)]
    previous: Option<i64>,
    holds: Vec<AskedHold>,
    leased: bool,
}

#[derive(Debug, Deserialize)]
struct AskedHold {
    until: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Answer {
    t: i64,
    keep: Vec<String>,
    go: Vec<String>,
}

fn answer(line: &str) -> anyhow::Result<Answer> {
    let question: Question = serde_json::from_str(line)?;
    let policy = Policy {
        rule: question.rule.parse()?,
        protect: Duration::from_secs(question.protect),
        timezone: TimeZone::get(&question.timezone)?,
    };
    let copies: Vec<Copy> = question.copies.iter().map(copy).collect();
    let judged = judge(&copies, &policy, question.now);
    let (mut keep, mut go) = (Vec::new(), Vec::new());
    for (copy, verdict) in question.copies.into_iter().zip(judged.verdicts) {
        match verdict.goes() {
            true => go.push(copy.id),
            false => keep.push(copy.id),
        }
    }
    let t = judged.t;
    Ok(Answer { t, keep, go })
}

fn copy(asked: &AskedCopy) -> Copy {
    let hold = |hold: &AskedHold| Hold { until: hold.until };
    Copy {
        time: asked.time,
        is_certain: asked.certain,
        previous: asked.previous,
        holds: asked.holds.iter().map(hold).collect(),
        is_leased: asked.leased,
    }
}

fn main() -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let said = match answer(&line?) {
            Ok(answer) => serde_json::to_string(&answer)?,
            Err(error) => serde_json::json!({ "error": error.to_string() }).to_string(),
        };
        writeln!(output, "{said}")?;
        output.flush()?;
    }
    Ok(())
}
