//! Fuzzes the files that both sides keep to resume interrupted pushes, and the sender's decisions on them.
//!
//! An input: a byte for the kind of file (sender's marks, sender's record, receiver's record and checkpoint,
//! the sender's history and volumes), then its bytes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_model::PushId;
use sendshot_proto::chain::Chain;
use sendshot_proto::resume::Point;
use sendshot_receiver::store::partials;
use sendshot_sender::decide::expiry::{self, Limits};
use sendshot_sender::decide::resume::{self, Start};
use sendshot_sender::shared::last_pushes::LastPushes;
use sendshot_sender::state::journal;
use sendshot_sender::state::segment_log::{self, RecentSegments, SegmentLog};
use sendshot_sender::volume::ids::VolumeIds;
use sendshot_sys::filesystem::Space;
use tempfile::TempDir;

use crate::bytes::Bytes;
use sendshot_harness::blake3;

/// Directory of the files: in memory.
const MEMORY: &str = "/dev/shm";
/// Id of the push.
const PUSH: &str = "00000000-0000-4000-8000-000000000001";
/// Bytes of a mark, whose last eight are a checksum of the others.
const MARK: usize = 80;

/// Reads an input. Damage must be reported and never misread: accepted content must be writable and read back
/// equal.
///
/// # Panics
/// If that does not hold.
pub fn run(input: &[u8]) {
    let mut input = Bytes(input);
    let which = input.byte();
    let dir = TempDir::with_prefix_in("sendshot-test-", MEMORY).unwrap();
    match which % 6 {
        0 => marks(&dir, input.0.to_vec()),
        1 => marks(&dir, checked(input.0)),
        2 => sender_record(&dir, input.0),
        3 => receiver_record(&dir, input.0),
        4 => checkpoint(&dir, input),
        _ => lists(&dir, input.0),
    }
}

/// One file of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = |n: u8| format!("00000000-0000-4000-8000-00000000000{n}");
    let mark = |n: u8| [vec![n; 72], vec![0; 8]].concat();
    let journal = format!(
        r#"{{"version":1,"push":"{PUSH}","sender":"{}","volume":"{}","volume_name":"photos","receiver":"{}",
        "receiver_name":"nas2","state":"sending","taken_at":1790000000,
        "snapshot":{{"uuid":"{}","otransid":12}},"engine":"sendshot","transfer":{{"id":"{}",
        "stream_version":2,"parent":{{"push":"{}","uuid":"{}","ctransid":9}},"reason":"x"}}}}"#,
        id(2),
        id(3),
        id(4),
        id(5),
        id(6),
        id(7),
        id(8)
    );
    let partial = format!(
        r#"{{"version":1,"transfer":"{PUSH}","sender":"{}","sender_name":"nas1","volume":"{}",
        "volume_name":"photos","uuid":"{}","ctransid":7,"parent":["{}",5],"stream_version":2,"begun_at":1790000000}}"#,
        id(2),
        id(3),
        id(4),
        id(5)
    );
    let name = format!("{PUSH}-67108864-{}", "ab".repeat(32));
    let history = r#"{"nas2:photos":{"volume":"photos","receiver":"nas2","ended_at":1,"outcome":{"failed":"x"},
        "last_success":null}}"#;
    vec![
        [&[0][..], b"SSMARK1\n", &mark(1)].concat(),
        [&[1][..], &mark(1), &mark(2), &mark(3)].concat(),
        [&[2][..], journal.as_bytes()].concat(),
        [&[3][..], partial.as_bytes()].concat(),
        [&[4][..], name.as_bytes()].concat(),
        [&[5][..], history.as_bytes()].concat(),
        [&[5][..], b"[]"].concat(),
    ]
}

fn checked(marks: &[u8]) -> Vec<u8> {
    let mut file = b"SSMARK1\n".to_vec();
    for mark in marks.chunks(MARK) {
        let mut mark = mark.to_vec();
        if let Some((said, check)) = mark.split_at_mut_checked(MARK - 8) {
            let whole = blake3(said);
            check.copy_from_slice(&whole[..check.len()]);
        }
        file.extend(mark);
    }
    file
}

fn push() -> PushId {
    PUSH.parse().unwrap()
}

fn marks(dir: &TempDir, bytes: Vec<u8>) {
    fs::write(dir.path().join(segment_log::file_name(push())), &bytes).unwrap();
    let open = || {
        SegmentLog::open(
            File::open(dir.path()).unwrap(),
            push(),
            RecentSegments::default(),
        )
        .unwrap()
    };
    let trail = open();
    let known = trail.known();
    assert!(known.len() <= bytes.len() / MARK);
    // A push resumes where both sides agree, and nowhere else.
    let offered: Vec<_> = known.iter().map(|waypoint| waypoint.point()).collect();
    match resume::choose(&known, &offered) {
        Start::At(at) => assert!(known.contains(&at)),
        Start::Beginning(why) => assert!(!why.reason().is_empty()),
    }
    let others = known.iter().map(|waypoint| Point {
        chain: Chain(blake3(&waypoint.chain.0)),
        ..waypoint.point()
    });
    let others: Vec<_> = others.collect();
    let start = resume::choose(&known, &others);
    assert!(matches!(start, Start::Beginning(_)), "{start:?}");
    // A restart keeps the marks up to its position.
    let from = known.get(known.len() / 2).copied();
    trail.restart(from, Default::default()).unwrap();
    let upto = from.map_or(0, |from| from.position.offset);
    let expected = known
        .iter()
        .filter(|waypoint| waypoint.position.offset <= upto);
    assert_eq!(open().known(), expected.copied().collect::<Vec<_>>());
}

fn sender_record(dir: &TempDir, bytes: &[u8]) {
    fs::write(dir.path().join(format!("{PUSH}.json")), bytes).unwrap();
    let pushes = File::open(dir.path()).unwrap();
    let records = journal::records(&pushes).unwrap();
    for record in &records {
        assert_eq!(record.push, push(), "a file of another name");
        let space = Space {
            free: 1,
            total: 100,
        };
        let limits = Limits {
            keep: Duration::from_secs(1),
            min_free: 5,
        };
        if let Some(over) = expiry::judge(record, Timestamp::now(), space, limits) {
            assert!(!over.reason().is_empty());
        }
        let _ = record.is_resumable();
        record.store(&pushes).unwrap();
    }
    assert_eq!(journal::records(&pushes).unwrap(), records);
}

fn receiver_record(dir: &TempDir, bytes: &[u8]) {
    fs::write(dir.path().join(format!("partial-{PUSH}.json")), bytes).unwrap();
    let area = File::open(dir.path()).unwrap();
    let found = partials::all(&area).unwrap();
    for partial in &found {
        let _ = partial.is_over(Timestamp::now(), Duration::from_secs(1));
        partials::note(&area, &partial.record).unwrap();
        let again = partials::all(&area).unwrap();
        assert_eq!(again[0].record, partial.record);
    }
}

/// A directory must never be taken for a checkpoint, whatever its name.
fn checkpoint(dir: &TempDir, input: Bytes<'_>) {
    let name = [b"checkpoint-", input.0].concat();
    let is_name = name.len() < 256 && !name.iter().any(|byte| [0, b'/'].contains(byte));
    if is_name {
        fs::create_dir(dir.path().join(OsStr::from_bytes(&name))).unwrap();
        assert!(
            partials::all(File::open(dir.path()).unwrap())
                .unwrap()
                .is_empty()
        );
    }
}

fn lists(dir: &TempDir, bytes: &[u8]) {
    for name in ["history.json", "volumes.json"] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    if let Ok(history) = LastPushes::load(dir.path()) {
        let _ = history.all();
    }
    let _ = VolumeIds::load(dir.path());
}
