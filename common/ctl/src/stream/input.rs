//! The input of a stream, and usage errors.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use sendshot_proto::problem::{Kind, Problem};
use sendshot_sys::pipe;

pub(super) fn usage(message: String) -> Problem {
    Problem::new(Kind::Usage, message)
}

pub(super) fn input(path: Option<&Path>) -> Result<Box<dyn Read + Send>, Problem> {
    let Some(path) = path else {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(usage("no stream: standard input is a terminal".into())
                .remedy("pipe a stream in, or name a file with -f"));
        }
        pipe::enlarge(&stdin);
        return Ok(Box::new(stdin));
    };
    let file =
        File::open(path).map_err(|e| usage(format!("cannot open {}: {e}", path.display())))?;
    Ok(Box::new(file))
}
