//! A receiver on an open port: a revoked sender is cut off at once, and thousands of foreign connections
//! keep no paired sender out.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::pairing::{Linked, Paired};
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_identity::{Authority, Refusal, connect, pairing_client_config};
use sendshot_model::ReceiverId;
use serde_json::Value;
use tonic::{Code, Status};

/// Number of connections that are opened and send nothing.
const SILENT: usize = 2000;

/// Longest wait for an immediate effect.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Raises the descriptor limit of this process for its many connections.
fn many_descriptors() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: hard,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn silent(to: SocketAddr) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap();
    (0..SILENT).map(connect).collect()
}

/// Connections that complete the handshake without a certificate, and then send nothing.
struct Strangers(Child);

impl Strangers {
    fn to(address: SocketAddr) -> Self {
        let program = "import socket, ssl, sys, time\n\
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n\
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n\
            context.set_alpn_protocols(['h2'])\n\
            open = []\n\
            for _ in range(300):\n    \
                s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n    \
                open.append(context.wrap_socket(s))\n\
            print('open', flush=True)\n\
            time.sleep(600)";
        let mut child = Command::new("python3")
            .args([
                "-c",
                program,
                &address.ip().to_string(),
                &address.port().to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "open\n");
        Self(child)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes an unpaired client's call that announces a message of 4 MiB, prefix included, and sends only a
/// few of its bytes; returns the receiver's answer.
async fn begun(hosts: &Paired, call: &str) -> Status {
    let receiver = &hosts.receiver;
    let (id, now) = (ReceiverId::generate(), Timestamp::now());
    let authority = Authority::load_or_create(&receiver.daemon.state_dir(), id, now).unwrap();
    let config = pairing_client_config(authority.fingerprint()).unwrap();
    let (host, port) = (
        receiver.address().ip().to_string(),
        receiver.address().port(),
    );
    let stream = connect(&host, port, config, AT_ONCE).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://receiver.sendshot/sendshot.v1.{call}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut client = client.ready().await.unwrap();
    let (answer, mut message) = client.send_request(request, false).unwrap();
    let mut head = vec![0];
    head.extend(((4 << 20) - 5_u32).to_be_bytes());
    head.extend([0; 1000]);
    // The receiver may have answered already, before any of the message.
    let _ = message.send_data(head.into(), false);
    let answer = tokio::time::timeout(AT_ONCE, answer).await;
    let answer = answer.unwrap_or_else(|_| panic!("{call}: it waits for the rest"));
    connection.abort();
    Status::from_header_map(answer.unwrap().headers()).unwrap()
}

/// Returns the median of three full pushes, in seconds.
fn timed(hosts: &Paired) -> f64 {
    let mut all: Vec<f64> = (0..3)
        .map(|_| {
            let began = Instant::now();
            hosts.sender.push_with("nas2:photos", &["--parent", "none"]);
            began.elapsed().as_secs_f64()
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[1]
}

#[test]
fn silent_connections_do_not_slow_a_paired_sender() {
    many_descriptors();
    let hosts = Paired::new();
    fill::file(hosts.sender.photos().join("big"), 1, 64 << 20);
    let alone = timed(&hosts);
    let silent = silent(hosts.receiver.address());
    let strangers = Strangers::to(hosts.receiver.address());
    let attacked = timed(&hosts);
    println!(
        "alone {alone:.2} s, under attack {attacked:.2} s: {:.2}",
        attacked / alone
    );
    assert!(
        attacked <= 2.0 * alone,
        "alone {alone} s, under attack {attacked} s"
    );
    drop((silent, strangers));
    fs::write(hosts.sender.photos().join("new"), "new").unwrap();
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert!(
        hosts.receiver.daemon.peak_memory() < 192 << 20,
        "{} bytes were held at most",
        hosts.receiver.daemon.peak_memory()
    );
}

#[test]
fn of_a_strangers_message_no_more_is_held_than_pairing_needs() {
    let hosts = Paired::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for call in ["Hello", "Inventory", "Renew", "Transfer"] {
        let call = format!("Replication/{call}");
        let refused = runtime.block_on(begun(&hosts, &call));
        assert_eq!(refused.code(), Code::Unauthenticated, "{call}: {refused}");
        assert_eq!(refused.message(), Refusal::NoCertificate.to_string());
    }
    let refused = runtime.block_on(begun(&hosts, "Pairing/Pair"));
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

#[test]
fn revoking_a_sender_ends_its_push_within_a_second() {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, 40 << 20);
    hosts.link.set(Way::Up, Rule::Slow(2 << 20));
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("data is sent", || {
        hosts.link.bytes(Way::Up) > before + (2 << 20)
    });
    let began = Instant::now();
    hosts.receiver.ctl(&["peer", "revoke", "nas1"]).success();
    until::holds("its push has ended", || {
        let partials = hosts
            .receiver
            .ctl(&["copy", "list", "--partials", "--json"]);
        partials.success().jsons().is_empty()
    });
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    hosts.link.mend();
    let output = push.finish();
    assert_ne!(output.code, 0, "{output:?}");
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["revoked"]);
    let copies = hosts
        .receiver
        .ctl(&["copy", "list", "--json"])
        .success()
        .jsons();
    let uuids: Vec<&Value> = copies.iter().map(|copy| &copy["uuid"]).collect();
    assert_eq!(uuids, [&first["uuid"]]);
}
