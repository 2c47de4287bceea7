//! Fuzzes the register of volumes on a disk, which is untrusted.
//!
//! An input: the file's bytes.

use sendshot_sender::volume::register::Register;
use uuid::Uuid;

/// UUID of the disk's file system.
const FSID: Uuid = Uuid::from_u128(5);

/// Parses an input. Accepted volumes must be of the disk's own file system, host names free of control
/// characters, and the register must survive writing and parsing.
///
/// # Panics
/// If that does not hold.
pub fn run(input: &[u8]) {
    let Ok(register) = Register::parse(input, FSID) else {
        return;
    };
    let senders = std::cell::RefCell::new(Vec::new());
    let me = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let volumes = register.volumes_of(
        me,
        |sender| {
            senders.borrow_mut().push(sender);
            true
        },
        |_| true,
    );
    for (n, volume) in volumes.iter().enumerate() {
        assert_eq!(volume.fsid, Some(FSID));
        assert!(!volumes[..n].iter().any(|other| other.id == volume.id));
    }
    for name in senders
        .into_inner()
        .into_iter()
        .filter_map(|sender| register.host(sender))
    {
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
    let written = serde_json::to_vec(&register).unwrap();
    assert_eq!(Register::parse(&written, FSID).unwrap(), register);
}

/// Registers of this file system, of another one, and of a later version.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = |n: u8| format!("00000000-0000-4000-8000-00000000000{n}");
    let register = |version: u8, fsid: u8, naming: &str| {
        let (sender, volume, receiver, label) = (id(1), id(2), id(3), id(4));
        let fsid = format!("00000000-0000-0000-0000-00000000000{fsid}");
        format!(
            r#"{{"version":{version},"hosts":{{"{sender}":"nas1\u001b[31m"}},"volumes":[{{"sender":"{sender}",
            "id":"{volume}","naming":{naming},"subvolume":"{volume}","fsid":"{fsid}",
            "at":{{"{receiver}":"{label}"}}}}]}}"#
        )
        .into_bytes()
    };
    let configured = r#"{"configured":"photos"}"#;
    let by_path =
        r#"{"by_path":{"name":"srv-x","place":"00000000-0000-0000-0000-000000000005:srv/x"}}"#;
    vec![
        register(1, 5, configured),
        register(1, 5, by_path),
        register(1, 6, configured),
        register(2, 5, configured),
    ]
}
