//! Destination of log lines: the journal under systemd, standard error otherwise.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Variables with the log filter. Sendshot's own comes first, so that a line in a unit file affects nothing else.
const VARIABLES: [&str; 2] = ["SENDSHOT_LOG", "RUST_LOG"];

const DEFAULT: &str = "info";

/// Prefix of the log fields in the journal: `journalctl SENDSHOT_VOLUME=photos`.
const FIELD_PREFIX: &str = "SENDSHOT";

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter in the environment is invalid.
    #[error(
        "{variable}=`{value}` is not a log filter ({source}); write a level like `debug`, or `sendshot_sender=debug,info`"
    )]
    Filter {
        /// Name of the environment variable.
        variable: &'static str,
        /// Value of the variable.
        value: String,
        /// Error of the parser.
        source: ParseError,
    },
    /// The process already has a logger.
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the process, at the level of `SENDSHOT_LOG` or `RUST_LOG`, otherwise `info`.
///
/// # Errors
/// [`LoggingError`] if the environment's filter is invalid, or logging is already set up.
pub fn init() -> Result<(), LoggingError> {
    let registry = tracing_subscriber::registry().with(filter(env::var)?);
    let journal = if stderr_is_journal() {
        let layer = tracing_journald::layer().ok();
        layer.map(|layer| layer.with_field_prefix(Some(FIELD_PREFIX.to_owned())))
    } else {
        None
    };
    match journal {
        Some(journal) => registry.with(journal).try_init()?,
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal());
            registry.with(layer).try_init()?;
        }
    }
    Ok(())
}

fn filter(
    variable: impl Fn(&'static str) -> Result<String, VarError>,
) -> Result<EnvFilter, LoggingError> {
    let set = VARIABLES.into_iter().find_map(|name| {
        variable(name)
            .ok()
            .filter(|value| !value.is_empty())
            .map(|value| (name, value))
    });
    match set {
        None => Ok(EnvFilter::new(DEFAULT)),
        Some((variable, value)) => {
            EnvFilter::builder()
                .parse(&value)
                .map_err(|source| LoggingError::Filter {
                    variable,
                    value,
                    source,
                })
        }
    }
}

/// Whether standard error is the journal: systemd names its device and inode. The variable alone is not
/// sufficient, because processes with redirected output inherit it.
fn stderr_is_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(rustix::stdio::stderr()) else {
        return false;
    };
    env::var("JOURNAL_STREAM")
        .is_ok_and(|named| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(variables: &[(&str, &str)]) -> Result<String, LoggingError> {
        let lookup = |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found
                .map(|(_, value)| (*value).to_owned())
                .ok_or(VarError::NotPresent)
        };
        filter(lookup).map(|filter| filter.to_string())
    }

    #[test]
    fn our_variable_comes_first_and_info_last() {
        assert_eq!(given(&[]).unwrap(), "info");
        assert_eq!(given(&[("RUST_LOG", "debug")]).unwrap(), "debug");
        assert_eq!(
            given(&[("RUST_LOG", "debug"), ("SENDSHOT_LOG", "warn")]).unwrap(),
            "warn"
        );
        assert_eq!(
            given(&[("SENDSHOT_LOG", ""), ("RUST_LOG", "warn")]).unwrap(),
            "warn"
        );
    }

    #[test]
    fn a_wrong_filter_is_shown() {
        let error = given(&[("SENDSHOT_LOG", "x=loud")])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("SENDSHOT_LOG=`x=loud` is not a log filter"),
            "{error}"
        );
    }
}
