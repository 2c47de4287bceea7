//! Many copies cost a run little.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use sendshot_sys::subvolume::{self, Access};
use uuid::Uuid;

use crate::retention::world::World;

const VOLUMES: usize = 200;
const COPIES: usize = 50;

/// 10,000 copies.
#[test]
fn a_run_that_deletes_nothing_is_quick_and_writes_nothing() {
    let mut world = World::new("keep = '24 hours hourly, 12 months monthly'\nprotect = '400 days'");
    world.push();
    let label = fs::read_to_string(world.dir().join(".sendshot-volume")).unwrap();
    let id = serde_json::from_str::<serde_json::Value>(&label).unwrap()["volume"]
        .as_str()
        .unwrap()
        .to_owned();
    world.hosts.receiver.daemon.stop();
    let root = world.hosts.receiver.root();
    let template = root.join("template");
    sendshot_harness::disks::streams::create(&template).unwrap();
    subvolume::set_received(File::open(&template).unwrap(), Uuid::new_v4(), 7).unwrap();
    for volume in 0..VOLUMES {
        let dir = root.join(format!("nas1/volume-{volume}"));
        fs::create_dir(&dir).unwrap();
        let own = label.replace(&id, &Uuid::new_v4().to_string());
        fs::write(dir.join(".sendshot-volume"), own).unwrap();
        let fd = File::open(&dir).unwrap();
        for copy in 0..COPIES {
            let name = format!("202611{:02}T{:02}0000Z", 1 + copy / 24, copy % 24);
            let source = File::open(&template).unwrap();
            subvolume::snapshot(&source, &fd, name.as_ref(), Access::ReadOnly).unwrap();
        }
    }
    sendshot_harness::disks::streams::delete(&template).unwrap();
    let mark = root.join(".sendshot-root");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, text.replace("true", "false")).unwrap();
    world.hosts.receiver.daemon.start();
    // The first run notes the rule in each ledger.
    let is_noted = |dir: std::path::PathBuf| {
        let text = fs::read_to_string(dir.join(".sendshot-copies")).unwrap();
        !text.contains("\"run\": null") && !text.contains("\"run\":null")
    };
    sendshot_harness::hosts::until::holds("the first run is over", || {
        let mut dirs = fs::read_dir(root.join("nas1")).unwrap();
        dirs.all(|dir| is_noted(dir.unwrap().path()))
    });
    let device = sendshot_harness::disks::mount::devices(world.hosts.receiver.fs())[0].clone();
    let stat = format!(
        "/sys/block/{}/stat",
        device.file_name().unwrap().to_str().unwrap()
    );
    let writes = || -> u64 {
        let text = fs::read_to_string(&stat).unwrap();
        text.split_whitespace().nth(4).unwrap().parse().unwrap()
    };
    // The deleted template is freed in the background.
    let fs_path = &world.hosts.receiver.fs().to_owned();
    let wait = ["subvolume".as_ref(), "sync".as_ref(), fs_path.as_os_str()];
    sendshot_harness::hosts::command::tool("btrfs", &wait);
    let sync = || rustix::fs::syncfs(File::open(fs_path).unwrap()).unwrap();
    // The first reading after a change updates the times of access.
    world.prune(&["--yes"]);
    sync();
    let (before, began) = (writes(), Instant::now());
    let said = world.prune(&["--yes"]);
    let time = began.elapsed();
    println!(
        "a run over {} copies in {VOLUMES} volumes: {time:?}",
        VOLUMES * COPIES
    );
    assert!(said.is_empty(), "{:?}", &said[..1]);
    assert!(time < Duration::from_secs(2), "it took {time:?}");
    sync();
    assert_eq!(writes(), before, "the run wrote to the disk");
}
