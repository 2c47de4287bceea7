//! Location of the programs under test.

use std::env;
use std::path::PathBuf;

/// Environment variable that names another directory, such as that of the release build.
pub const BIN_DIR: &str = "SENDSHOT_BIN_DIR";

/// Path of a program: in the parent of the directory that cargo put this test in, unless
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
        // Cargo runs tests in the directory of their package, `make` runs in the parent of that.
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
