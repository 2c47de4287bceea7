//! What `status` says on the receiver.

use std::fs;

use sendshot_sys::subvolume::{Access, set_access};
use serde_json::{Value, json};

use crate::retention::world::{SHORT, World};

fn status(world: &World) -> Value {
    let status = world.hosts.receiver.ctl(&["--json", "status"]);
    let mut all = status.success().jsons();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn copies_that_no_rule_may_delete_are_counted_by_reason() {
    let mut world = World::new("keep = 'all'");
    let all = world.push_daily(5);
    let before = status(&world);
    assert_eq!(before["daemon"], "receiver");
    let photos = &before["volumes"][0];
    assert_eq!(
        (&photos["sender"], &photos["volume"]),
        (&json!("nas1"), &json!("photos"))
    );
    assert_eq!(photos["copies"], 5);
    assert_eq!(photos["newest"], all[4].as_str());
    assert!(photos["age_seconds"].is_u64(), "{photos}");
    assert_eq!(photos["undeletable"], json!([]));
    assert!(before["disk"]["free_bytes"].as_u64() > Some(0), "{before}");
    assert_eq!(before["disk_problem"], Value::Null);

    let held = format!("nas1/photos/{}", all[0]);
    world.hosts.receiver.ctl(&["copy", "hold", &held]).success();
    let writable = world.dir().join(&all[1]);
    set_access(fs::File::open(&writable).unwrap(), Access::ReadWrite).unwrap();
    world.configure(SHORT);
    world
        .hosts
        .receiver
        .daemon
        .may_log("no copy of nas1/photos is deleted");
    let after = status(&world);
    let photos = &after["volumes"][0];
    assert_eq!(
        photos["undeletable"],
        json!([
            {"count": 1, "reason": "writable"},
            {"count": 1, "reason": "held"},
        ])
    );
    let text = world.hosts.receiver.ctl(&["status"]).success().stdout;
    assert!(
        text.contains("no rule deletes 1 writable, 1 held"),
        "{text}"
    );
}

#[test]
fn a_lost_ledger_and_an_absent_disk_are_said() {
    let world = World::new("keep = 'all'");
    world.push_daily(2);
    fs::remove_file(world.dir().join(".sendshot-copies")).unwrap();
    let after = status(&world);
    let photos = &after["volumes"][0];
    assert!(photos["trouble"].is_string(), "{photos}");
    assert_eq!(
        photos["undeletable"],
        json!([{"count": 2, "reason": "of a volume without a ledger"}])
    );
    world.hosts.receiver.daemon.may_log("");
    let root = world.hosts.receiver.root();
    fs::rename(&root, root.with_extension("away")).unwrap();
    let away = status(&world);
    assert!(away["disk_problem"].is_string(), "{away}");
    assert_eq!(away["volumes"], Value::Null);
    fs::rename(root.with_extension("away"), &root).unwrap();
    let back = status(&world);
    assert_eq!(back["disk_problem"], Value::Null);
}
