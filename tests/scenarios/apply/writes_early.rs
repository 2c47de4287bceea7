//! Large files are written to disk and removed from memory while the rest of them comes: a failure of that is not forgotten
//! before the commit.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use sendshot_apply::commit::flush;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::trees::fill;
use sendshot_sys::filesystem::{forget_pages, start_write_back};

use crate::push::full_and_failing::fill_with_data;

/// Failures that are made; `make write-early` makes more.
fn rounds() -> u64 {
    std::env::var("WRITE_EARLY").map_or(3, |text| text.parse().unwrap())
}

/// A btrfs whose image lies on a file system that is smaller than the image: in the end its disk takes no more.
fn small_disk() -> (LoopFs, LoopFs) {
    let outer = LoopFs::made_by(Command::new("mkfs.ext4").arg("-F"), 150 << 20, "").unwrap();
    let mut mkfs = Command::new("mkfs.btrfs");
    let disk = LoopFs::made_in(outer.path(), &mut mkfs, 1 << 30, "").unwrap();
    (outer, disk)
}

#[test]
fn a_disk_that_failed_in_between_fails_the_flush_although_it_works_again() {
    let len = 16 << 20;
    for round in 0..rounds() {
        let (outer, disk) = small_disk();
        // As staging is: opened before anything is written.
        let [root, of_another] = [(); 2].map(|()| File::open(disk.path()).unwrap());
        let path = disk.path().join("file");
        let content = fill::noise(round, len);
        let file = File::options()
            .create_new(true)
            .write(true)
            .open(&path)
            .unwrap();
        (&file).write_all(&content).unwrap();
        let filler = fill_with_data(outer.path());
        // The kernel may say here already that it failed.
        let started = start_write_back(&file, 0, len as u64);
        std::thread::sleep(Duration::from_millis(300));
        forget_pages(&file, 0, None);
        fs::remove_file(outer.path().join("filler-rest")).unwrap();
        fs::remove_file(filler).unwrap();
        rustix::fs::syncfs(File::open(outer.path()).unwrap()).unwrap();

        // The flush of another transfer learns of it first, and must not take it from this one's.
        let _ = flush(&of_another);
        let flushed = flush(&root);
        assert!(
            started.is_err() || flushed.is_err(),
            "round {round}: what never reached the disk was forgotten"
        );
        // It was really lost.
        drop((file, root));
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        let read = fs::read(&path);
        assert!(
            read.is_err() || read.unwrap() != content,
            "round {round}: the disk has not failed"
        );
    }
}
