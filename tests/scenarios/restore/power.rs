//! A reported restore survives a power cut, and nothing else does.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use sendshot_harness::compare::exact::{Reference, assert_same};
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;

#[test]
fn a_power_cut_after_the_report_brings_no_staging_back() {
    let sender = SenderHost::setup().power().volume("photos", "photos");
    let mut hosts = Paired::of(sender.start());
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 2, 8 << 20);
    hosts.sender.push("nas2:photos");
    let grant = ["peer", "grant", "nas1", "--for", "24h"];
    hosts.receiver.ctl(&grant).success();
    let target = hosts.sender.fs().join("new");
    for place in [target.to_str().unwrap(), "--in-place"] {
        // The snapshots to continue from are deleted after the report, if at all.
        let arguments = ["--checkpoint-bytes", "1048576", "nas2:photos", place];
        hosts.sender.restore(&arguments).success();
        hosts.sender.power_cut();
        hosts.sender.daemon.start();
        for dir in ["", ".sendshot"] {
            let staging = hosts.sender.fs().join(dir).join(".sendshot-staging");
            assert!(!staging.exists(), "{place}: {} is back", staging.display());
        }
    }
    let [photos, new] =
        [hosts.sender.photos(), target].map(|restored| Reference::of(hosts.sender.fs(), &restored));
    assert_same(photos.path(), new.path());
}
