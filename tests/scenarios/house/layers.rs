//! Checks the imports: no file is in a loop, no room sees one above it, decisions do no I/O, and code that
//! deletes or uses generated types stays in its rooms.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

/// The files of a crate by module, such as `push::stages::still`; the root is the empty string.
type Sources = BTreeMap<String, String>;

/// The crates whose files must not be in a loop.
const CRATES: [&str; 18] = [
    "common/apply",
    "common/config",
    "common/ctl",
    "common/engine",
    "common/identity",
    "common/model",
    "common/retention",
    "common/service",
    "common/stream",
    "common/sys",
    "common/transfer",
    "proto",
    "receiver",
    "sender",
    "tests/adversary",
    "tests/fuzzing",
    "tests/harness",
    "tests/torture",
];

/// Rooms from the top down: each may import itself and those after it.
const SENDER: [&str; 14] = [
    "daemon",
    "check",
    "control",
    "schedule",
    "pushes",
    "problem",
    "push",
    "restore",
    "retained",
    "connection",
    "shared",
    "volume",
    "decide",
    "state",
];
const RECEIVER: [&str; 10] = [
    "daemon",
    "check",
    "control",
    "replication",
    "upkeep",
    "retention",
    "shared",
    "restore",
    "receive",
    "store",
];
const ENGINE: [&str; 4] = ["stream", "capture", "diff", "format"];

/// Paths that decisions must not name: they are functions of values.
const IMPURE: [&str; 8] = [
    "tokio",
    "rustix",
    "nix",
    "std::fs",
    "std::net",
    "std::process",
    "Timestamp::now",
    "Instant::now",
];

/// Rooms that delete snapshots, sendshots and what belongs to them.
const DELETES: [(&str, &[&str]); 3] = [
    ("sender", &["state"]),
    (
        "receiver",
        &["retention::delete", "store::captures", "store::partials"],
    ),
    (
        "common/apply",
        &["staging", "commit", "commands::nodes", "private_dir"],
    ),
];

/// Rooms that use the generated types of the wire and of the control sockets.
const SPEAKS: [(&str, &[&str]); 2] = [
    (
        "sender",
        &[
            "connection",
            "control",
            "daemon",
            "push::stages::negotiate",
            "push::stages::transfer",
        ],
    ),
    ("receiver", &["control", "daemon", "replication"]),
];

/// Rooms that make the messages for the user from errors, or pass them on.
const WORDS: [&str; 8] = [
    "check",
    "control",
    "pushes",
    "problem",
    "push::progress",
    "connection::own_daemon",
    "schedule::run",
    "restore::keeper",
];

fn read(krate: &str) -> Sources {
    let src = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(krate)
        .join("src");
    let (mut sources, mut dirs) = (Sources::new(), vec![src.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(&src)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('/', "::");
            match name.strip_suffix(".rs") {
                Some("main") => {}
                Some(file) if file.starts_with("bin::") => {}
                Some(file) if file.ends_with("_tests") => {}
                Some(file) => {
                    let module = if file == "lib" {
                        ""
                    } else {
                        file.trim_end_matches("::mod")
                    };
                    sources.insert(module.to_owned(), fs::read_to_string(&path).unwrap());
                }
                None => dirs.push(path),
            }
        }
    }
    sources
}

/// Collects the paths in a file, each path of a `use` separately; unit tests in the file do not count.
#[derive(Default)]
struct Paths {
    written: BTreeSet<String>,
    children: BTreeSet<String>,
}

impl Paths {
    fn of(text: &str) -> Self {
        let mut paths = Self::default();
        paths.visit_file(&syn::parse_file(text).unwrap());
        paths
    }

    fn expand(&mut self, before: &str, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                self.expand(&format!("{before}{}::", path.ident), &path.tree)
            }
            syn::UseTree::Name(name) => {
                self.written.insert(format!("{before}{}", name.ident));
            }
            syn::UseTree::Rename(name) => {
                self.written.insert(format!("{before}{}", name.ident));
            }
            syn::UseTree::Glob(_) => {
                self.written
                    .insert(before.trim_end_matches("::").to_owned());
            }
            syn::UseTree::Group(group) => group
                .items
                .iter()
                .for_each(|tree| self.expand(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("cfg"));
        if item.content.is_none() && !is_test {
            self.children.insert(item.ident.to_string());
        } else if !is_test {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.expand("", &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        self.written.insert(segments.collect::<Vec<_>>().join("::"));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let text = item.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c));
        self.written
            .extend(words.filter(|word| word.contains("::")).map(str::to_owned));
        visit::visit_macro(self, item);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// Returns the other files of its crate that a file names.
fn imports(sources: &Sources, module: &str, paths: &Paths) -> BTreeSet<String> {
    let own: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let resolve = |path: &String| -> Option<String> {
        let mut parts = path.split("::").peekable();
        let mut at: Vec<&str> = match parts.peek().copied()? {
            "crate" => Vec::new(),
            "self" | "super" => own.clone(),
            child if paths.children.contains(child) => own.clone(),
            _ => return None,
        };
        while let Some(part) = parts.next_if(|part| ["crate", "self", "super"].contains(part)) {
            if part == "super" {
                at.pop();
            }
        }
        for part in parts {
            at.push(part);
            if !sources.contains_key(&at.join("::")) {
                at.pop();
                break;
            }
        }
        Some(at.join("::"))
    };
    let found = paths.written.iter().filter_map(resolve);
    found
        .filter(|found| found != module && sources.contains_key(found))
        .collect()
}

fn graph(sources: &Sources) -> BTreeMap<String, BTreeSet<String>> {
    let edges = |(module, text): (&String, &String)| {
        let paths = Paths::of(text);
        (module.clone(), imports(sources, module, &paths))
    };
    sources.iter().map(edges).collect()
}

/// Finds files in a loop: repeatedly removes those that import no remaining file.
fn loops(sources: &Sources) -> Vec<String> {
    let mut left = graph(sources);
    loop {
        let free: Vec<String> = left
            .iter()
            .filter(|(_, to)| to.is_empty())
            .map(|(m, _)| m.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|module, _| !free.contains(module));
        left.values_mut()
            .for_each(|to| to.retain(|module| !free.contains(module)));
    }
    // Removes files that only lead into a loop.
    while let Some(outside) = left
        .keys()
        .find(|m| !left.values().any(|to| to.contains(*m)))
        .cloned()
    {
        left.remove(&outside);
    }
    left.into_keys().collect()
}

fn is_in(module: &str, rooms: &[&str]) -> bool {
    rooms
        .iter()
        .any(|room| module == *room || module.starts_with(&format!("{room}::")))
}

fn upwards(sources: &Sources, rooms: &[&str]) -> Vec<String> {
    let floor = |module: &str| rooms.iter().position(|room| is_in(module, &[room]));
    let mut found = Vec::new();
    for (from, imports) in graph(sources) {
        for to in imports {
            // The root of a crate only exports.
            if from.is_empty() {
                continue;
            }
            let floors = (
                floor(&from).unwrap_or_else(|| panic!("no room has {from}")),
                floor(&to),
            );
            if floors.1.is_none_or(|to| to < floors.0) {
                found.push(format!("{from} imports {to}"));
            }
        }
    }
    found
}

/// Lists the files outside some rooms that contain a path of a kind.
fn outside(sources: &Sources, rooms: &[&str], is_kind: impl Fn(&str) -> bool) -> Vec<String> {
    let writes = |text: &str| Paths::of(text).written.iter().any(|path| is_kind(path));
    let found = sources
        .iter()
        .filter(|(module, text)| !is_in(module, rooms) && writes(text));
    found.map(|(module, _)| module.clone()).collect()
}

fn ends_with(path: &str, end: &str) -> bool {
    path == end || path.ends_with(&format!("::{end}"))
}

fn is_deleting(path: &str) -> bool {
    ["subvolume::destroy", "durable::remove_at", "unlinkat"]
        .iter()
        .any(|end| ends_with(path, end))
}

fn is_generated(path: &str) -> bool {
    path.split("::").any(|part| part == "v1")
}

fn is_word(path: &str) -> bool {
    ends_with(path, "problem::Problem")
}

fn impure(sources: &Sources) -> Vec<String> {
    let names = |path: &str| {
        let within = format!("::{path}::");
        IMPURE
            .iter()
            .any(|name| within.contains(&format!("::{name}::")))
    };
    let decide = sources
        .iter()
        .filter(|(module, _)| is_in(module, &["decide"]));
    outside(
        &decide.map(|(m, t)| (m.clone(), t.clone())).collect(),
        &[],
        names,
    )
}

/// Lists the imports of decisions from the room that does I/O, except the values that it records.
fn reading(sources: &Sources) -> Vec<String> {
    let decisions = graph(sources).into_iter();
    let decisions = decisions.filter(|(from, _)| is_in(from, &["decide"]));
    let imports = decisions.flat_map(|(from, to)| to.into_iter().map(move |to| (from.clone(), to)));
    imports
        .filter(|(_, to)| is_in(to, &["state"]) && to != "state::record")
        .map(|(from, to)| format!("{from} imports {to}"))
        .collect()
}

#[test]
fn no_file_is_in_a_loop_of_imports() {
    for krate in CRATES {
        assert_eq!(loops(&read(krate)), [""; 0], "{krate}");
    }
}

#[test]
fn no_room_sees_one_above_it() {
    for (krate, rooms) in [
        ("sender", &SENDER[..]),
        ("receiver", &RECEIVER),
        ("common/engine", &ENGINE),
    ] {
        assert_eq!(upwards(&read(krate), rooms), [""; 0], "{krate}");
    }
}

#[test]
fn decisions_touch_nothing() {
    let sources = read("sender");
    assert_eq!(impure(&sources), [""; 0]);
    assert_eq!(reading(&sources), [""; 0]);
}

#[test]
fn only_one_room_deletes() {
    for (krate, rooms) in DELETES {
        assert_eq!(
            outside(&read(krate), rooms, is_deleting),
            [""; 0],
            "{krate}"
        );
    }
}

#[test]
fn only_the_edges_speak_generated_types() {
    for (krate, rooms) in SPEAKS {
        assert_eq!(
            outside(&read(krate), rooms, is_generated),
            [""; 0],
            "{krate}"
        );
    }
}

#[test]
fn words_for_the_user_are_made_in_one_room() {
    assert_eq!(outside(&read("sender"), &WORDS, is_word), [""; 0]);
}

#[test]
fn each_rule_fails_for_one_line_in_the_wrong_place() {
    let with = |module: &str, line: &str| {
        let mut sources = read("sender");
        sources.get_mut(module).unwrap().push_str(line);
        sources
    };
    let found = loops(&with("state::record", "use crate::state::journal;"));
    assert_eq!(found, ["state::journal", "state::record"]);
    let found = upwards(
        &with(
            "state::segment_log",
            "use crate::push::{self, request::Request};",
        ),
        &SENDER,
    );
    assert_eq!(
        found,
        [
            "state::segment_log imports push",
            "state::segment_log imports push::request"
        ]
    );
    let found = upwards(
        &with(
            "volume::label",
            "fn f() { super::super::control::serve(); }",
        ),
        &SENDER,
    );
    assert_eq!(found, ["volume::label imports control"]);
    for line in [
        "use tokio::sync::mpsc;",
        "fn f() { std::fs::read(\"x\").ok(); }",
        "fn f() { jiff::Timestamp::now(); }",
    ] {
        assert_eq!(
            impure(&with("decide::retention", line)),
            ["decide::retention"],
            "{line}"
        );
    }
    let found = reading(&with("decide::resume", "use crate::state::journal;"));
    assert_eq!(found, ["decide::resume imports state::journal"]);
    let sources = with("retained::prune", "fn f() { durable::remove_at(a, b); }");
    assert_eq!(
        outside(&sources, DELETES[0].1, is_deleting),
        ["retained::prune"]
    );
    let sources = with("decide::parent", "use sendshot_proto::v1::KeptSnapshot;");
    assert!(outside(&sources, SPEAKS[0].1, is_generated).contains(&"decide::parent".to_owned()));
    let sources = with(
        "retained::forget",
        "use sendshot_proto::problem::{Kind, Problem};",
    );
    assert_eq!(outside(&sources, &WORDS, is_word), ["retained::forget"]);
}
