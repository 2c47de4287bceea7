//! Inode flags and the compression property in copies made by the sendshot engine's streams: a file has in
//! the copy what it has at the source, whatever its directory had before.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use sendshot_engine::diff::Version;
use sendshot_harness::compare::chain::{Chain, Sent};
use sendshot_harness::compare::inode_flags;
use sendshot_harness::compare::tree;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::trees::fill;
use sendshot_stream::{Item, Parser, dump};

fn chain() -> Chain {
    Chain::new(Version::V2).unwrap()
}

fn chattr(flags: &str, path: &Path) {
    tool("chattr", &[flags.as_ref(), path.as_os_str()]);
}

/// Sets flags as `chattr` does, but leaves the compression property unchanged.
fn set_attributes(flags: &str, path: &Path) {
    let command = format!("chattr {flags}");
    tool(
        "xfs_io",
        &[
            "-r".as_ref(),
            "-c".as_ref(),
            command.as_ref(),
            path.as_os_str(),
        ],
    );
}

fn compress(path: &Path, algorithm: &str) {
    rustix::fs::setxattr(
        path,
        "btrfs.compression",
        algorithm.as_bytes(),
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
}

/// Sends a round, and compares the flags of the snapshot with those of the copy by `sendshot-apply`.
#[track_caller]
fn send(chain: &Chain) -> Sent {
    chain.send_and(same_flags).unwrap()
}

fn same_flags(sent: &Sent) -> Result<()> {
    let differences = inode_flags::compare(&sent.snapshot, &sent.ours)?;
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

/// Returns the commands of a stream as `stream dump` shows them, with single spaces.
fn commands(stream: &[u8]) -> Vec<String> {
    let (mut parser, mut input, mut lines) = (Parser::new(), stream, Vec::new());
    while let Some(located) = parser.next(&mut input).unwrap() {
        if let Item::Command(command) = located.item {
            let line = dump::line(&command).to_string();
            lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

fn truncate(path: &Path) {
    let options = OpenOptions::new().write(true).truncate(true).open(path);
    drop(options.unwrap());
}

#[test]
fn new_files_below_a_cleared_flag_are_plain() {
    for flag in ["C", "m"] {
        let chain = chain();
        let top = chain.volume().join("top");
        fs::create_dir_all(top.join("old")).unwrap();
        chattr(&format!("+{flag}"), &top);
        chattr(&format!("+{flag}"), &top.join("old"));
        send(&chain);
        chattr(&format!("-{flag}"), &top);
        chattr(&format!("-{flag}"), &top.join("old"));
        for dir in ["new/deep/deeper", "old/new/deep"] {
            fs::create_dir_all(top.join(dir)).unwrap();
            fill::file(top.join(dir).join("file"), 1, 50_000);
            fill::file(top.join(dir).parent().unwrap().join("file"), 2, 50_000);
        }
        // A directory that is moved there, and its content, keep their flags.
        fs::create_dir(chain.volume().join("moved")).unwrap();
        fs::rename(chain.volume().join("moved"), top.join("new/moved")).unwrap();
        fill::file(top.join("new/moved/file"), 3, 50_000);
        let sent = send(&chain);
        // The stream clears the flag explicitly, for a receiver that inherits it.
        let commands = commands(&sent.stream);
        for dir in ["./top/new", "./top/old/new"] {
            let made = format!("mkdir {dir}");
            let at = commands.iter().position(|line| *line == made);
            let next = &commands[at.unwrap() + 1];
            assert!(next.starts_with(&format!("fileattr {dir} ")), "{next}");
        }
        for deep in ["new/deep/deeper/file", "old/new/deep/file"] {
            assert_eq!(inode_flags::all(&top.join(deep)).unwrap(), "");
        }
    }
}

#[test]
fn files_below_a_new_flagged_directory_keep_their_flags() {
    let chain = chain();
    let top = chain.volume().join("top");
    fs::create_dir(&top).unwrap();
    chattr("+C", &top);
    send(&chain);
    // Everything inherits the flag except one file with `m`, and one with a compression property.
    fs::create_dir_all(top.join("nocow/deep")).unwrap();
    fill::file(top.join("nocow/deep/file"), 1, 50_000);
    chattr("-C", &top);
    fs::create_dir_all(top.join("plain/marked/deep")).unwrap();
    chattr("+C", &top.join("plain/marked"));
    fill::file(top.join("plain/marked/file"), 1, 50_000);
    fill::file(top.join("plain/marked/deep/file"), 1, 50_000);
    File::create(top.join("not")).unwrap();
    chattr("+m", &top.join("not"));
    File::create(top.join("zstd")).unwrap();
    compress(&top.join("zstd"), "zstd:5");
    send(&chain);
}

#[test]
fn an_immutable_file_keeps_its_compression_property() {
    let chain = chain();
    let volume = chain.volume();
    let at = |name: &str| volume.join(name);
    for (name, flag, algorithm) in [
        ("immutable", "+i", "zstd"),
        ("append", "+a", "lzo"),
        ("no-dump", "+dA", "zstd:9"),
        ("sync", "+s", "lzo"),
        ("off", "+i", "none"),
    ] {
        let dir = format!("{name}-dir");
        fill::file(at(name), 1, 50_000);
        fs::create_dir(at(&dir)).unwrap();
        for name in [name, &dir] {
            compress(&at(name), algorithm);
            set_attributes(flag, &at(name));
            let mut value = [0; 16];
            let len = rustix::fs::getxattr(at(name), "btrfs.compression", &mut value[..]).unwrap();
            assert_eq!(&value[..len], algorithm.as_bytes(), "this proves nothing");
        }
    }
    fs::create_dir(at("synchronous")).unwrap();
    chattr("+D", &at("synchronous"));
    compress(&at("synchronous"), "zstd");
    send(&chain);
    // Changed while the flag was off, and while it was on.
    set_attributes("-i", &at("immutable"));
    fill::file(at("immutable"), 2, 60_000);
    set_attributes("+i", &at("immutable"));
    let append = OpenOptions::new().append(true).open(at("append"));
    append.unwrap().write_all(b"more").unwrap();
    set_attributes("-d", &at("no-dump"));
    set_attributes("-i", &at("off-dir"));
    fill::file(at("off-dir/file"), 2, 60_000);
    set_attributes("+i", &at("off-dir"));
    chattr("-D", &at("synchronous"));
    compress(&at("synchronous"), "lzo");
    send(&chain);
    for name in ["immutable", "append", "off"] {
        for name in [name.to_owned(), format!("{name}-dir")] {
            set_attributes("-ia", &at(&name));
        }
    }
}

#[test]
fn a_flag_outlives_the_property_that_brought_it() {
    let chain = chain();
    let volume = chain.volume();
    let at = |name: &str| volume.join(name);
    for name in ["off", "on", "plain"] {
        for name in [name.to_owned(), format!("{name}-dir")] {
            match name.ends_with("-dir") {
                true => fs::create_dir(at(&name)).unwrap(),
                false => fill::file(at(&name), 1, 5000),
            }
        }
    }
    for name in ["off", "off-dir"] {
        compress(&at(name), "none");
    }
    for name in ["on", "on-dir"] {
        compress(&at(name), "lzo");
    }
    send(&chain);
    for name in ["off", "off-dir", "on", "on-dir", "plain", "plain-dir"] {
        // Sets the flag, and so removes the property.
        chattr("-c", &at(name));
        chattr("+m", &at(name));
        assert_eq!(inode_flags::all(&at(name)).unwrap(), "m");
    }
    send(&chain);
    for name in ["off", "off-dir"] {
        compress(&at(name), "zstd");
    }
    for name in ["on", "on-dir"] {
        compress(&at(name), "no");
    }
    for name in ["plain", "plain-dir"] {
        chattr("-m", &at(name));
    }
    send(&chain);
    for name in ["off", "off-dir", "on", "on-dir"] {
        // Does the same as `btrfs property set FILE compression ''`.
        rustix::fs::removexattr(at(name), "btrfs.compression").unwrap();
        assert_eq!(inode_flags::all(&at(name)).unwrap(), "");
    }
    send(&chain);
}

#[test]
fn a_file_emptied_to_change_a_flag_has_it_in_the_copy() {
    let chain = chain();
    let (one, other) = (chain.volume().join("one"), chain.volume().join("other"));
    fill::file(&one, 1, 200_000);
    File::create(&other).unwrap();
    chattr("+C", &other);
    fill::file(&other, 2, 200_000);
    fs::hard_link(&one, chain.volume().join("link")).unwrap();
    send(&chain);
    for (path, flag) in [(&one, "+C"), (&other, "-C")] {
        truncate(path);
        chattr(flag, path);
        fill::file(path, 3, 150_000);
    }
    send(&chain);
    // Unchanged files are not sent again.
    fill::file(chain.volume().join("third"), 4, 10_000);
    let sent = send(&chain);
    assert!(sent.stream.len() < 30_000, "{}", sent.stream.len());
}

#[test]
fn a_source_without_checksums_adds_no_attribute() {
    for mount in ["nodatasum", "nodatacow"] {
        let chain = Chain::with(Version::V2, &[], mount, "").unwrap();
        let top = chain.volume().join("top");
        fs::create_dir(&top).unwrap();
        chattr("+c", &top);
        fs::create_dir(top.join("below")).unwrap();
        fill::file(top.join("file"), 1, 50_000);
        fill::file(top.join("below/file"), 1, 50_000);
        let flags = inode_flags::all(&top.join("file")).unwrap();
        assert!(flags.contains('c'), "this proves nothing: {flags}");
        chain
            .send_and(|sent| {
                same_flags(sent)?;
                for name in ["top/file", "top/below/file"] {
                    let flags = inode_flags::all(&sent.ours.join(name))?;
                    ensure!(!flags.contains('c'), "{name}: {flags}");
                }
                // Stock receive sets no flags, so this checks only the copy by `sendshot-apply`.
                let differences = tree::compare(&sent.snapshot, &sent.ours)?;
                ensure!(differences.is_empty(), "{}", differences.join("\n"));
                Ok(())
            })
            .unwrap();
        // The same must hold for later changes.
        fill::file(top.join("file"), 2, 60_000);
        fill::file(top.join("below/new"), 2, 60_000);
        send(&chain);
    }
}
