//! Checks that the tests named by the documentation exist.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::Path;

#[test]
fn each_row_of_what_can_happen_names_a_test_that_is_there() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).to_owned();
    let page = fs::read_to_string(tests.join("../../docs/what-can-happen.md")).unwrap();
    let mut rows = 0;
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
    {
        let name = row
            .trim_end_matches([' ', '|'])
            .rsplit("| ")
            .next()
            .unwrap();
        let (module, test) = name.trim_matches('`').rsplit_once("::").unwrap();
        let file = format!("{}.rs", module.replace("::", "/"));
        let source = fs::read_to_string(tests.join(&file)).unwrap();
        let signature = format!("#[test]\nfn {test}()");
        assert!(source.contains(&signature), "{file} has no test {test}");
        rows += 1;
    }
    assert!(rows >= 40, "{rows} rows");
}
