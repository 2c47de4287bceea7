//! Asks the user, on a terminal or by lines of standard input.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use sendshot_proto::problem::{Kind, Problem};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 8192;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What is asked, without a mark at its end.
    pub text: &'a str,
    /// The answer if the user gives none; empty if there must be one.
    pub usual: &'a str,
    /// The option that answers it.
    pub option: &'a str,
}

/// Returns the answer that an option has given, or asks until an answer is accepted. Without a terminal, an answer that is
/// not accepted is an error.
///
/// # Errors
/// If there is no answer, or it is not accepted.
pub fn answer<T>(
    given: Option<String>,
    question: Question<'_>,
    accept: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Problem> {
    let wrong = |why: String| {
        Problem::new(Kind::Usage, why).remedy(format!("give another {}", question.option))
    };
    if let Some(given) = given {
        return accept(given.trim()).map_err(wrong);
    }
    let is_asked = io::stdin().is_terminal();
    loop {
        let answer = ask(question)?;
        match accept(&answer) {
            Ok(accepted) => return Ok(accepted),
            Err(why) if is_asked => eprintln!("  {why}"),
            Err(why) => return Err(wrong(why)),
        }
    }
}

fn ask(question: Question<'_>) -> Result<String, Problem> {
    match question.usual {
        "" => eprint!("{}? ", question.text),
        usual => eprint!("{} [{usual}]? ", question.text),
    }
    io::stderr().flush()?;
    let mut line = String::new();
    let read = io::stdin().lock().take(MAX_ANSWER).read_line(&mut line)?;
    if !io::stdin().is_terminal() {
        eprintln!();
    }
    let answer = line.trim();
    match (answer, question.usual) {
        ("", "") if read > 0 && io::stdin().is_terminal() => ask(question),
        ("", "") => Err(
            Problem::new(Kind::Usage, format!("no answer to: {}?", question.text))
                .remedy(format!("answer it, or give {}", question.option)),
        ),
        ("", usual) => Ok(usual.to_owned()),
        (answer, _) => Ok(answer.to_owned()),
    }
}
