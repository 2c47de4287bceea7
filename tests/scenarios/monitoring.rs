//! The metrics, read by a real Prometheus: every alert of the shipped rules begins and ends, and every query of the shipped
//! dashboard has an answer.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use data_encoding::BASE64;
use jiff::{SignedDuration, Timestamp};
use sendshot_config::ReceiverEntry;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::damage::Damage;
use sendshot_harness::hosts::clock::Clock;
use sendshot_harness::hosts::kernel_clock::KernelClock;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::{address, command, until};
use sendshot_model::PeerName;
use serde_json::Value;
use tempfile::TempDir;

/// Days by which the hosts are in the past when they pair.
const PAST_DAYS: i64 = 60;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tool(name: &str) -> PathBuf {
    let unpacked = project().join("target/tools/usr/bin").join(name);
    match unpacked.exists() {
        true => unpacked,
        false => PathBuf::from("/usr/bin").join(name),
    }
}

/// A Prometheus that reads both daemons every second, with the shipped alerts, which need not hold for a time.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Prometheus {
    fn start(daemons: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shipped = project().join("deploy/monitoring/alerts.yml");
        let rules = fs::read_to_string(shipped).unwrap();
        let rules: Vec<&str> = rules
            .lines()
            .filter(|line| !line.trim_start().starts_with("for: "))
            .collect();
        let rules = rules.join("\n").replace("offset 1d", "offset 15s");
        fs::write(dir.path().join("alerts.yml"), rules).unwrap();
        let targets: Vec<String> = daemons.iter().map(ToString::to_string).collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yml]\n\
             scrape_configs:\n  - job_name: sendshot\n    static_configs: [{{ targets: {targets:?} }}]\n"
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        command::tool(
            tool("promtool").to_str().unwrap(),
            &["check", "config", file.to_str().unwrap()],
        );
        let address = address::own();
        let child = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            _dir: dir,
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let mut connection = TcpStream::connect(self.address).ok()?;
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\n\r\n");
        connection.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// Names of the alerts that fire.
    fn alerts(&self) -> BTreeSet<String> {
        let answer = self.get("alerts").unwrap_or_default();
        let all = answer["data"]["alerts"].as_array().cloned();
        let firing = all
            .into_iter()
            .flatten()
            .filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Series that answer a query now.
    fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        let answer = self
            .get(&format!("query?query={encoded}"))
            .unwrap_or_default();
        assert_ne!(answer["status"], "error", "{expression}: {answer}");
        answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    #[track_caller]
    fn fires_exactly(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        let mut last = BTreeSet::new();
        let end = std::time::Instant::now() + until::PATIENCE;
        while last != expected {
            assert!(
                std::time::Instant::now() < end,
                "expected {expected:?}; not: {:?}, besides: {:?}",
                expected.difference(&last).collect::<Vec<_>>(),
                last.difference(&expected).collect::<Vec<_>>()
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
            last = self.alerts();
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of all shipped alerts.
fn shipped() -> BTreeSet<String> {
    let rules = fs::read_to_string(project().join("deploy/monitoring/alerts.yml")).unwrap();
    rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect()
}

/// The queries of the shipped dashboard.
fn queries() -> Vec<String> {
    let dashboard = fs::read_to_string(project().join("deploy/monitoring/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default())
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

fn nas2() -> PeerName {
    PeerName::parse("nas2").unwrap()
}

struct World {
    hosts: Paired,
    kernel: KernelClock,
    metrics: [SocketAddr; 2],
}

impl World {
    /// Hosts that paired and pushed long ago.
    fn long_ago() -> Self {
        let (here, there) = (Clock::new(), Clock::new());
        let setup = SenderHost::setup()
            .volume("photos", "photos")
            .volume("mail", "mail")
            .volume("broken", "broken")
            .volume("ahead", "ahead");
        let mut sender = setup.make();
        let mut receiver = ReceiverHost::setup().keys("clock = 'trusted'").make();
        let set = |days: i64| {
            here.set(&format!("{:+}d", -days));
            there.set(&format!("{:+}d", -days));
        };
        set(PAST_DAYS + 3);
        here.give(&mut sender.daemon);
        there.give(&mut receiver.daemon);
        sender.daemon.start();
        receiver.daemon.start();
        let hosts = Paired::between(sender, receiver);
        for day in (0..=3).rev() {
            set(PAST_DAYS + day);
            fs::write(hosts.sender.photos().join("a"), day.to_string()).unwrap();
            hosts.sender.push("nas2:photos");
        }
        hosts.sender.push("nas2:mail");
        hosts.sender.push("nas2:broken");
        // One day in the future.
        set(-1);
        hosts.sender.push("nas2:ahead");
        set(0);
        // The receiver has the machine's own clock from now on, and no time daemon.
        let mut hosts = hosts;
        let kernel = KernelClock::new();
        hosts.receiver.daemon.stop();
        kernel.of(&mut hosts.receiver.daemon);
        hosts.receiver.daemon.start();
        let world = Self {
            hosts,
            kernel,
            metrics: [address::own(), address::own()],
        };
        world.hosts.receiver.daemon.may_log("clock");
        world
    }

    /// Has the sender's certificate end in ten days, by changing the time in it; returns it as it was.
    fn age_certificate(&self) -> ReceiverEntry {
        let good = self.pairing();
        let mut entry = good.clone();
        let encoded: String = entry
            .client_certificate
            .lines()
            .filter(|line| !line.starts_with("---"))
            .collect();
        let mut certificate = BASE64.decode(encoded.as_bytes()).unwrap();
        // A time of ASN.1: its tag, its length, and text. The first one is the beginning.
        let is_time = |at: &usize| certificate[*at..].starts_with(&[0x17, 13]);
        let end = (0..certificate.len()).filter(is_time).nth(1).unwrap() + 2;
        let soon = Timestamp::now() + SignedDuration::from_hours(10 * 24);
        let soon = soon.strftime("%y%m%d%H%M%SZ").to_string();
        certificate[end..end + 13].copy_from_slice(soon.as_bytes());
        entry.client_certificate = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            BASE64.encode(&certificate)
        );
        self.set_pairing(&entry);
        good
    }

    fn pairing(&self) -> ReceiverEntry {
        let file = self.hosts.sender.receiver_file("nas2");
        let found = sendshot_config::load_one(file.parent().unwrap(), &nas2());
        found.unwrap().unwrap()
    }

    fn set_pairing(&self, entry: &ReceiverEntry) {
        let file = self.hosts.sender.receiver_file("nas2");
        sendshot_config::store(file.parent().unwrap(), &nas2(), entry).unwrap();
    }

    fn configure_sender(&self) {
        let sender = &self.hosts.sender;
        let mut text = format!("retry_for = '0s'\nmetrics = '{}'\n", self.metrics[0]);
        for name in ["photos", "mail", "broken", "ahead", "new", "absent"] {
            let path = sender.fs().join(name);
            text += &format!("[volumes.{name}]\npath = {path:?}\nreceivers = ['nas2']\n");
        }
        fs::write(sender.config(), text).unwrap();
        sender.daemon.reload("configuration reloaded");
    }

    fn configure_receiver(&self, keys: &str) {
        let receiver = &self.hosts.receiver;
        let (listen, root, metrics) = (receiver.address(), receiver.root(), self.metrics[1]);
        let text = format!(
            "listen = '{listen}'\nroot = {root:?}\nmetrics = '{metrics}'\n{keys}\n\
             [senders.nas1]\nkeep = '1 day daily'\nprotect = '0s'\n"
        );
        fs::write(receiver.config(), text).unwrap();
        receiver.daemon.reload("configuration reloaded");
    }
}

#[test]
fn every_alert_begins_and_ends_and_every_query_has_an_answer() {
    command::tool(
        tool("promtool").to_str().unwrap(),
        &[
            "check",
            "rules",
            project()
                .join("deploy/monitoring/alerts.yml")
                .to_str()
                .unwrap(),
        ],
    );
    let mut world = World::long_ago();
    let hosts = &mut world.hosts;
    streams::create(&hosts.sender.fs().join("new")).unwrap();
    let ledger = hosts.receiver.root().join("nas1/mail/.sendshot-copies");
    let good_ledger = fs::read(&ledger).unwrap();
    fs::write(&ledger, "damaged").unwrap();
    hosts.receiver.daemon.may_log("is deleted");
    hosts.receiver.daemon.may_log("ledger");
    hosts
        .receiver
        .daemon
        .may_log("cannot look at the copies of nas1/broken");
    let broken = hosts.receiver.root().join("nas1/broken/.sendshot-copies");
    // Spaces make it longer than what is stored beside the inode.
    let mut content = fs::read(&broken).unwrap();
    content.resize(8192, b' ');
    fs::write(&broken, &content).unwrap();
    let damage = Damage::of(hosts.receiver.fs(), &broken, &content);
    world.configure_sender();
    world.configure_receiver("min_free = '100%'");
    let hosts = &mut world.hosts;
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(1, &["min_free"]);
    hosts
        .sender
        .ctl(&["pause", "nas2:photos", "--for", "2h"])
        .success();
    hosts
        .sender
        .restore(&["--drill", "nas2:photos"])
        .fails(4, &["sendshotctl peer grant nas1"]);
    let certificate = world.age_certificate();
    let prometheus = Prometheus::start(&world.metrics);
    let on_sender = [
        "SendshotCertificateExpires",
        "SendshotCopyTooOld",
        "SendshotDrillFailed",
        "SendshotNeverPushed",
        "SendshotPaused",
        "SendshotPushFailing",
        "SendshotVolumeUnusable",
    ];
    let on_receiver = [
        "SendshotClock",
        "SendshotDiskFull",
        "SendshotRetentionAsks",
        "SendshotRetentionStopped",
        "SendshotSilent",
        "SendshotVolumesUnreadable",
    ];
    let on_both = ["SendshotTimeInFuture"];
    prometheus.fires_exactly(&[&on_sender[..], &on_receiver, &on_both].concat());
    let mut fired: BTreeSet<String> = prometheus.alerts();

    // The disk is taken away, and comes back.
    let hosts = &mut world.hosts;
    let (root, away) = (hosts.receiver.root(), hosts.receiver.fs().join("away"));
    fs::rename(&root, &away).unwrap();
    prometheus.fires_exactly(&[&on_sender[..], &["SendshotDiskUnreadable"], &on_both].concat());
    fired.extend(prometheus.alerts());
    fs::rename(&away, &root).unwrap();

    // Everything is mended, with what the alerts and `status` name.
    world.configure_receiver("min_free = '0 B'");
    world.kernel.say(true);
    let hosts = &mut world.hosts;
    hosts
        .receiver
        .ctl(&["copy", "retime", "--clock", "--yes"])
        .success();
    prometheus.fires_exactly(
        &[
            &on_sender[..],
            &[
                "SendshotRetentionAsks",
                "SendshotRetentionStopped",
                "SendshotSilent",
                "SendshotTimeInFuture",
                "SendshotVolumesUnreadable",
            ],
        ]
        .concat(),
    );
    fired.extend(prometheus.alerts());
    world.set_pairing(&certificate);
    let hosts = &mut world.hosts;
    fs::write(&ledger, good_ledger).unwrap();
    damage.restore();
    let list = hosts
        .receiver
        .ctl(&["--json", "copy", "list"])
        .success()
        .jsons();
    let ahead = list.iter().find(|copy| copy["volume"] == "ahead").unwrap();
    let ahead = format!("nas1/ahead/{}", ahead["name"].as_str().unwrap());
    hosts
        .receiver
        .ctl(&["copy", "delete", &ahead, "--break-chain", "--yes"])
        .success();
    hosts
        .receiver
        .ctl(&["copy", "prune", "--confirm", "--yes"])
        .success();
    streams::create(&hosts.sender.fs().join("absent")).unwrap();
    hosts.receiver.grant("nas1");
    for volume in ["photos", "mail", "broken", "ahead", "new", "absent"] {
        hosts.sender.push(&format!("nas2:{volume}"));
    }
    hosts.sender.ctl(&["continue"]).success();
    hosts.sender.restore(&["--drill", "nas2:photos"]).success();
    prometheus.fires_exactly(&[]);

    // What a receiver's rules never do.
    let list = hosts
        .receiver
        .ctl(&["--json", "copy", "list"])
        .success()
        .jsons();
    for copy in list.iter().filter(|copy| copy["volume"] == "mail") {
        let name = format!("nas1/mail/{}", copy["name"].as_str().unwrap());
        hosts
            .receiver
            .ctl(&["copy", "delete", &name, "--break-chain", "--yes"])
            .success();
    }
    prometheus.fires_exactly(&["SendshotCopiesVanished", "SendshotSilent"]);
    fired.extend(prometheus.alerts());
    hosts.sender.push("nas2:mail");
    prometheus.fires_exactly(&[]);

    hosts.sender.daemon.stop();
    prometheus.fires_exactly(&["SendshotDown"]);
    fired.extend(prometheus.alerts());
    hosts.sender.daemon.start();
    prometheus.fires_exactly(&[]);
    assert_eq!(fired, shipped(), "alerts that were never seen to fire");

    // A push since the start, so that every counter has a value.
    hosts.sender.push("nas2:mail");
    for query in queries() {
        until::holds(&format!("{query} has an answer"), || {
            !prometheus.query(&query).is_empty()
        });
    }
    for daemon in [&hosts.sender.daemon, &hosts.receiver.daemon] {
        assert!(daemon.peak_memory() <= 64 << 20, "{}", daemon.peak_memory());
    }
}

#[test]
fn metrics_are_off_by_default_and_stay_on_this_host() {
    let hosts = Paired::new();
    assert!(!hosts.sender.daemon.log().contains("/metrics"));
    for wrong in ["0.0.0.0:7118", "192.0.2.1:7118", "127.0.0.1:0", "localhost"] {
        let config = hosts.sender.config();
        fs::write(&config, format!("metrics = '{wrong}'\n")).unwrap();
        let mut check = Command::new(sendshot_harness::hosts::binaries::path("sendshot-sender"));
        check.arg("--config").arg(&config).arg("--check");
        command::run(&mut check).fails(1, &["`metrics`", wrong, "127.0.0.1:7118"]);
    }
}

#[test]
fn a_summary_is_one_page_for_mail() {
    let hosts = Paired::new();
    fs::write(hosts.sender.photos().join("a"), "1").unwrap();
    hosts.sender.push("nas2:photos");
    hosts.sender.push("nas2:photos");
    let mail = ["summary", "--mail-to", "root"];
    let sent = hosts.sender.ctl(&mail).success().stdout;
    let (head, page) = sent.split_once("\n\n").unwrap();
    assert!(
        head.starts_with("To: root\nSubject: Sendshot on "),
        "{head}"
    );
    assert!(head.contains(": OK\n"), "{head}");
    let line = page.lines().find(|line| line.contains("nas2:photos"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[1..3], ["2", "0"], "{page}");
    let received = hosts.receiver.ctl(&["--json", "summary"]).success().json();
    let volume = &received["daemons"][0]["volumes"][0];
    assert_eq!(volume["done"], 2, "{received}");
    assert_eq!(volume["copies"], 2, "{received}");
    assert_eq!(received["state"], "OK");
}
