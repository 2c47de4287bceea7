//! Where the programs under test are.

use std::env;
use std::path::PathBuf;

/// Names another directory, such as that of the release build.
pub const BIN_DIR: &str = "SENDSHOT_BIN_DIR";

/// The path of one of the programs: beside the directory that cargo put this test in, unless
/// [`BIN_DIR`] names another.
///
/// # Panics
/// If it has not been built.
pub fn path(name: &str) -> PathBuf {
    let program = dir().join(name);
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --workspace --bins`, or `make test`",
        program.display()
    );
    program
}

fn dir() -> PathBuf {
    if let Some(dir) = env::var_os(BIN_DIR) {
        // Cargo runs tests in their package's directory, `make` is run in that above.
        let dir = PathBuf::from(dir);
        let above = PathBuf::from("..").join(&dir);
        let found = [dir.clone(), above].into_iter().find(|d| d.is_dir());
        let dir = found.unwrap_or_else(|| panic!("{BIN_DIR}: no directory {}", dir.display()));
        return std::path::absolute(dir).unwrap();
    }
    let mut dir = env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir
}
