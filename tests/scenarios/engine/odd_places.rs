//! Clones, blocks and reservations at unusual offsets: unaligned ends, files that shrink and grow
//! across a block border, sources that move or are deleted, and identities that are not unique. Both
//! receivers must make a copy equal to the snapshot, in both versions of the stream.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sendshot_engine::diff::Version;
use sendshot_harness::compare::chain::Chain;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::trees::fill;
use sendshot_sys::subvolume;
use uuid::Uuid;

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

fn xfs_io(file: &Path, commands: &[String]) {
    let mut arguments: Vec<&OsStr> = Vec::new();
    for command in commands {
        arguments.extend(["-c".as_ref(), OsStr::new(command)]);
    }
    arguments.push(file.as_os_str());
    tool("xfs_io", &arguments);
}

fn reflink(source: &Path, range: &str) -> String {
    format!("reflink {} {range}", source.display())
}

fn copy(from: &Path, to: &Path) {
    let always = "--reflink=always".as_ref();
    tool("cp", &[always, from.as_os_str(), to.as_os_str()]);
}

fn without_checksums(path: &Path, bytes: &[u8]) -> File {
    let file = File::create_new(path).unwrap();
    tool("chattr", &["+C".as_ref(), path.as_os_str()]);
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn send(chain: &Chain) {
    chain.send().unwrap();
    chain.clean().unwrap();
}

struct Volume(PathBuf);

impl Volume {
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[test]
fn clones_follow_their_source_and_end_at_its_limits() {
    for version in VERSIONS {
        let chain = Chain::new(version).unwrap();
        let v = Volume(chain.volume());
        fill::file(v.at("source"), 1, 300_001);
        fill::file(v.at("grows"), 2, 5000);
        fill::file(v.at("tail"), 3, 70_000);
        fs::create_dir_all(v.at("a/b/c")).unwrap();
        fill::file(v.at("a/b/c/deep"), 5, 200_000);
        fs::hard_link(v.at("a/b/c/deep"), v.at("a/link")).unwrap();
        send(&chain);
        // An unaligned end in a longer and in a reserved file; the source is deleted.
        let source = v.at("source");
        copy(&source, &v.at("copy"));
        let reserved = "falloc -k 0 1m".to_owned();
        xfs_io(
            &v.at("grows"),
            &[reserved, reflink(&source, "0 8192 300001")],
        );
        let parts = [
            reflink(&source, "0 0 4096"),
            reflink(&source, "4096 65536 4096"),
        ];
        xfs_io(&v.at("tail"), &parts);
        fs::remove_file(&source).unwrap();
        // A file whose path in the parent differs from the current one.
        fs::rename(v.at("a/b/c"), v.at("c")).unwrap();
        fs::rename(v.at("a"), v.at("c/a")).unwrap();
        copy(&v.at("c/deep"), &v.at("c/a/b/again"));
        fs::remove_file(v.at("c/deep")).unwrap();
        send(&chain);
        // Within one file, forwards and backwards; a source that shrinks.
        let file = v.at("copy");
        xfs_io(
            &file,
            &[
                reflink(&file, "0 131072 131072"),
                reflink(&file, "262144 0 32768"),
            ],
        );
        xfs_io(&v.at("grows"), &["truncate 100000".to_owned()]);
        copy(&v.at("grows"), &v.at("of-grows"));
        xfs_io(
            &v.at("grows"),
            &["pwrite 0 100".to_owned(), "truncate 90001".to_owned()],
        );
        send(&chain);
        // Shared reservations, written to through both files.
        let reserve = ["falloc 0 1m".to_owned(), "pwrite 0 64k".to_owned()];
        File::create(v.at("p")).unwrap();
        xfs_io(&v.at("p"), &reserve);
        send(&chain);
        copy(&v.at("p"), &v.at("q"));
        xfs_io(&v.at("p"), &["pwrite -S 1 128k 64k".to_owned()]);
        let both = [
            "pwrite -S 2 128k 64k".to_owned(),
            "pwrite -S 3 32k 4k".to_owned(),
        ];
        xfs_io(&v.at("q"), &both);
        send(&chain);
        // All data moves on disk, then old content comes back from another file.
        let balance = [
            "balance".as_ref(),
            "start".as_ref(),
            "--full-balance".as_ref(),
        ];
        tool("btrfs", &[&balance[..], &[chain.fs().as_os_str()]].concat());
        copy(&v.at("p"), &v.at("copy"));
        send(&chain);
    }
}

#[test]
fn files_without_checksums_change_at_the_borders_of_blocks() {
    for version in VERSIONS {
        let chain = Chain::new(version).unwrap();
        let v = Volume(chain.volume());
        let file = without_checksums(&v.at("image"), &vec![7; 200_001]);
        send(&chain);
        file.write_all_at(b"x", 70_000).unwrap();
        file.set_len(150_000).unwrap();
        send(&chain);
        file.set_len(200_001).unwrap();
        send(&chain);
        // The same bytes again, and a hole as large as a block.
        file.write_all_at(&[7; 4096], 0).unwrap();
        xfs_io(&v.at("image"), &["fpunch 65536 65536".to_owned()]);
        send(&chain);
        file.write_all_at(&[7; 65536], 65536).unwrap();
        file.set_len(131_072).unwrap();
        send(&chain);
        // A clone of the file, while the original changes.
        without_checksums(&v.at("clone"), b"");
        xfs_io(&v.at("clone"), &[reflink(&v.at("image"), "")]);
        file.write_all_at(b"zz", 4000).unwrap();
        fs::rename(v.at("clone"), v.at("renamed")).unwrap();
        send(&chain);
    }
}

/// All snapshots of a volume that has a received UUID have the same one: a clone command could not tell
/// which of them it means.
#[test]
fn nothing_is_cloned_from_a_parent_of_the_same_identity() {
    for version in VERSIONS {
        let chain = Chain::new(version).unwrap();
        let v = Volume(chain.volume());
        fill::file(v.at("old"), 1, 400_000);
        fill::file(v.at("gone"), 3, 400_000);
        let volume = File::open(chain.volume()).unwrap();
        subvolume::set_received(&volume, Uuid::from_u128(0x77), 5).unwrap();
        send(&chain);
        copy(&v.at("old"), &v.at("new"));
        copy(&v.at("gone"), &v.at("kept"));
        let old = OpenOptions::new().write(true).open(v.at("old")).unwrap();
        old.write_all_at(&vec![9; 400_000], 0).unwrap();
        fs::remove_file(v.at("gone")).unwrap();
        send(&chain);
    }
}
