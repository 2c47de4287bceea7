//! Tries every call with the key of one sender and the names and ids of another one. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeSet;
use std::fs;

use sendshot_adversary::hostile::World;
use sendshot_adversary::hostile::guest::Guest;
use sendshot_adversary::hostile::scene::Scene;
use sendshot_adversary::hostile::sender::{self, Answer, Then};
use sendshot_adversary::hostile::trick::Held;
use sendshot_harness::faults::link::{Link, Way};
use sendshot_harness::hosts::pairing::pair_at;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;
use sendshot_identity::SenderKey;
use sendshot_proto::v1::fetch_response::Message;
use sendshot_proto::v1::pairing_client::PairingClient;
use sendshot_proto::v1::receiver_control_client::ReceiverControlClient;
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_proto::v1::sender_control_client::SenderControlClient;
use sendshot_proto::v1::{
    AcceptClockRequest, Begin, CancelRequest, ChangeCopyRequest, ConfirmRequest, ContinueRequest,
    CopiesRequest, FailureCode, FetchRequest, ForeignRequest, ForgetFilesystemRequest,
    ForgetRequest, GrantRequest, GrantsRequest, HelloRequest, HistoryRequest, HoldVolumeRequest,
    InventoryRequest, InviteRequest, ListRequest, PairCommand, PairRequest, Parent, PauseRequest,
    PeersRequest, PruneCopiesRequest, PruneRequest, PushRequest, RecordRestoredRequest,
    RenewRequest, ResumePoint, RevokeRequest, RootsRequest, ShowConfigRequest, StatusRequest,
    VolumesRequest,
};
use sendshot_sys::subvolume::{self, Info};
use serde_json::Value;
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

/// The other sender's name at the receiver, and the name of its volume.
const THEM: &str = "nas3";
const THEIR_VOLUME: &str = "photos";

/// The files of the contract, which list all calls.
const CONTRACT: &str = concat!(
    include_str!("../../../proto/proto/sendshot/v1/replication.proto"),
    include_str!("../../../proto/proto/sendshot/v1/receiver_control.proto"),
    include_str!("../../../proto/proto/sendshot/v1/sender_control.proto"),
);

/// What is known about the other sender.
struct Them {
    id: Uuid,
    volume: Uuid,
    key: SenderKey,
    /// A copy of theirs.
    copy: Info,
}

impl Them {
    fn of(scene: &Scene) -> Self {
        let dir = scene.root().join(THEM).join(THEIR_VOLUME);
        let label: Value =
            serde_json::from_slice(&fs::read(dir.join(".sendshot-volume")).unwrap()).unwrap();
        let id = |name: &str| label[name].as_str().unwrap().parse().unwrap();
        let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
        let is_copy = |name: &fs::DirEntry| !name.file_name().to_string_lossy().starts_with('.');
        let copy = names.into_iter().find(is_copy).unwrap();
        Self {
            copy: subvolume::info(fs::File::open(copy.path()).unwrap()).unwrap(),
            id: id("sender"),
            volume: id("volume"),
            key: SenderKey::load_or_create(&scene.other.daemon.state_dir()).unwrap(),
        }
    }
}

/// Results by call and method.
#[derive(Default)]
struct Table {
    calls: BTreeSet<&'static str>,
    wrong: Vec<String>,
    said: Vec<String>,
}

impl Table {
    fn row(&mut self, call: &'static str, how: &str, outcome: (String, String), expected: &str) {
        let (outcome, said) = outcome;
        println!("{call:10} {how:50} {outcome:22} {said}");
        self.calls.insert(call);
        self.said.push(said);
        if outcome != expected {
            self.wrong
                .push(format!("{call}, {how}: {outcome}, not {expected}"));
        }
    }
}

fn status<T>(answer: Result<T, Status>) -> (String, String) {
    match answer {
        Ok(_) => ("answered".into(), String::new()),
        Err(status) => (format!("{:?}", status.code()), status.message().into()),
    }
}

fn pushed(answer: Answer) -> (String, String) {
    match answer {
        Answer::Committed(committed) => ("a copy of its own".into(), format!("{committed:?}")),
        Answer::Failure(failure) => (format!("{:?}", failure.code()), failure.message),
        Answer::Status(status) => (format!("{:?}", status.code()), status.message().into()),
        Answer::Nothing | Answer::Silence => (format!("{answer:?}"), String::new()),
    }
}

fn calls_of_the_contract() -> BTreeSet<&'static str> {
    let lines = CONTRACT.lines().map(str::trim);
    let calls = lines.filter_map(|line| line.strip_prefix("rpc "));
    calls.map(|call| call.split('(').next().unwrap()).collect()
}

#[test]
fn a_stolen_key_gets_at_nothing_of_another_sender_by_any_call() {
    let mut scene = Scene::new();
    let them = Them::of(&scene);
    let mut table = Table::default();
    greet_and_ask(&scene, &them, &mut table);
    push(&mut scene, &them, &mut table);
    read_back(&mut scene, &mut table);
    take_their_identity(&scene, &them, &mut table);
    let outcome = receiver_control(&scene);
    for (call, outcome) in outcome {
        table.row(call, "over the network", outcome, "Unimplemented");
    }
    let outcome = sender_control(&scene);
    for (call, outcome) in outcome {
        table.row(call, "over the network", outcome, "Unimplemented");
    }

    assert_eq!(table.calls, calls_of_the_contract(), "a call was not tried");
    assert!(table.wrong.is_empty(), "{:#?}", table.wrong);
    for said in &table.said {
        let tells = said.contains(THEM) || said.contains(&them.id.to_string());
        assert!(!tells, "it tells of another sender: {said}");
    }
    // It may push under any valid name into its own directory.
    scene.look_but("a stolen key", |change| {
        change.contains("/backup/nas1/") || change.contains("/backup/nas1\" was")
    });
    assert_eq!(Them::of(&scene).id, them.id);
    let paired = scene.hosts.receiver.ctl(&["peer", "list"]).success();
    assert!(paired.stdout.contains(THEM), "{paired:?}");
    scene.other.push("nas2:photos");
    scene.end();
}

fn greet_and_ask(scene: &Scene, them: &Them, table: &mut Table) {
    let hello = |receiver_id: Vec<u8>| HelloRequest {
        version_min: 1,
        version_max: 1,
        receiver_id,
        ..HelloRequest::default()
    };
    let greet = |hello| {
        scene
            .hostile
            .call(async |channel| ReplicationClient::new(channel).hello(hello).await)
    };
    table.row(
        "Hello",
        "as itself",
        status(greet(hello(Vec::new()))),
        "answered",
    );
    let other = hello(them.id.as_bytes().to_vec());
    table.row(
        "Hello",
        "to another receiver",
        status(greet(other)),
        "FailedPrecondition",
    );

    let volume_id = them.volume.as_bytes().to_vec();
    for (how, name, transfer) in [
        (
            "their volume's id and name",
            THEIR_VOLUME.to_owned(),
            Vec::new(),
        ),
        (
            "and a transfer to be ended",
            THEIR_VOLUME.to_owned(),
            vec![7; 16],
        ),
        (
            "their volume as a path",
            format!("../{THEM}/{THEIR_VOLUME}"),
            Vec::new(),
        ),
        (
            "their volume below their name",
            format!("{THEM}/{THEIR_VOLUME}"),
            Vec::new(),
        ),
    ] {
        let plain = name == THEIR_VOLUME;
        let answer = scene.hostile.inventory(InventoryRequest {
            volume_id: volume_id.clone(),
            volume_name: name,
            transfer_id: transfer,
        });
        let outcome = match answer {
            Ok(held) if held.copies.is_empty() && held.partials.is_empty() => {
                ("nothing is held".into(), held.directory)
            }
            Ok(held) => ("it sees copies".into(), format!("{held:?}")),
            Err(e) => status::<()>(Err(e)),
        };
        let expected = if plain {
            "nothing is held"
        } else {
            "InvalidArgument"
        };
        table.row("Inventory", how, outcome, expected);
    }
    let confirmation = ConfirmRequest {
        volume_id: them.volume.as_bytes().to_vec(),
        volume_name: THEIR_VOLUME.to_owned(),
        uuid: them.copy.received_uuid.as_bytes().to_vec(),
        ctransid: them.copy.stransid,
        paused_until: 0,
    };
    let answer = scene
        .hostile
        .call(async |channel| ReplicationClient::new(channel).confirm(confirmation).await);
    let outcome = match answer {
        Ok(answer) if !answer.get_ref().held => ("nothing is held".into(), format!("{answer:?}")),
        Ok(answer) => ("it sees that a copy is held".into(), format!("{answer:?}")),
        Err(e) => status::<()>(Err(e)),
    };
    table.row(
        "Confirm",
        "their volume and copy",
        outcome,
        "nothing is held",
    );
}

fn push(scene: &mut Scene, them: &Them, table: &mut Table) {
    const CALL: &str = "Transfer";
    let theirs = scene.world().other_sender;
    let their_volume = *them.volume.as_bytes();
    let mut attempt = |how: &str, change: &dyn Fn(&mut World, &mut Begin), expected: &str| {
        let mut world = scene.world();
        let mut begin = sender::begin(&world, their_volume, THEIR_VOLUME);
        change(&mut world, &mut begin);
        let stream = world.whole(&[]);
        let answer = scene
            .hostile
            .push(sender::whole(begin, &stream), Then::Wait);
        table.row(CALL, how, pushed(answer), expected);
    };
    attempt(
        "their volume's id and name",
        &|_, _| (),
        "a copy of its own",
    );
    attempt(
        "on their copy as parent",
        &|_, begin| {
            begin.parent = Some(Parent {
                uuid: theirs.uuid.as_bytes().to_vec(),
                ctransid: theirs.ctransid,
            });
        },
        &format!("{:?}", FailureCode::ParentGone),
    );
    attempt(
        "their volume as a path",
        &|_, begin| begin.volume_name = format!("../{THEM}/{THEIR_VOLUME}"),
        "InvalidArgument",
    );
    attempt(
        "their volume below their name",
        &|_, begin| begin.volume_name = format!("{THEM}/{THEIR_VOLUME}"),
        "InvalidArgument",
    );
    attempt(
        "a transfer of theirs to be resumed",
        &|_, begin| {
            begin.resumable = true;
            begin.resume_at = Some(ResumePoint {
                offset: 1000,
                chain: vec![7; 32],
            });
        },
        &format!("{:?}", FailureCode::ResumeImpossible),
    );
}

/// Asks for copies with the stolen key, which has no grant, and with a temporary key for the sender's own volume.
fn read_back(scene: &mut Scene, table: &mut Table) {
    let (own, theirs) = (scene.world().other_volume, scene.world().other_sender);
    let name_of = |sender: &str| {
        let entries = fs::read_dir(scene.root().join(sender).join(THEIR_VOLUME)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).min().unwrap()
    };
    let request = |held: Held, volume: &str, sender: &str| FetchRequest {
        volume: volume.to_owned(),
        uuid: held.uuid.as_bytes().to_vec(),
        ctransid: held.ctransid,
        name: name_of(sender),
        stream_version: 2,
        ..FetchRequest::default()
    };
    let as_path = format!("../{THEM}/{THEIR_VOLUME}");
    let below = format!("{THEM}/{THEIR_VOLUME}");
    let not_permitted = format!("{:?}", FailureCode::NotPermitted);
    let not_found = format!("{:?}", FailureCode::NotFound);
    let attempts = [
        ("its own copy", request(own, THEIR_VOLUME, "nas1")),
        (
            "their copy's id and name",
            request(theirs, THEIR_VOLUME, THEM),
        ),
        ("their volume as a path", request(theirs, &as_path, THEM)),
        (
            "their volume below their name",
            request(theirs, &below, THEM),
        ),
    ];
    let stolen = [
        &*not_permitted,
        &not_permitted,
        "InvalidArgument",
        "InvalidArgument",
    ];
    for ((how, request), expected) in attempts.clone().into_iter().zip(stolen) {
        let outcome = scene
            .hostile
            .call(async |channel| fetched(channel, request).await);
        table.row("Fetch", how, outcome, expected);
    }
    for (how, name) in [("all", ""), ("their volume as a path", &*as_path)] {
        let expected = if name.is_empty() {
            "no copy of theirs"
        } else {
            "InvalidArgument"
        };
        let outcome = scene
            .hostile
            .call(async |channel| listed(channel, name, theirs).await);
        table.row("Volumes", how, outcome, expected);
    }

    let receiver = &scene.hosts.receiver;
    let guest = Guest::of(receiver);
    let token = receiver.invite(&["nas1", "--restore", "--volume", THEIR_VOLUME]);
    let channel = guest.connect(&guest.redeem(&token).unwrap());
    let temporary = [
        "bytes of a copy",
        &*not_found,
        "InvalidArgument",
        "InvalidArgument",
    ];
    for ((how, request), expected) in attempts.into_iter().zip(temporary) {
        let outcome = guest.call(fetched(channel.clone(), request));
        let how = format!("{how}, temporary key");
        table.row("Fetch", &how, outcome, expected);
    }
    let outcome = guest.call(listed(channel, "", theirs));
    table.row(
        "Volumes",
        "all, temporary key",
        outcome,
        "no copy of theirs",
    );
}

/// Fetches a copy; what comes of it.
async fn fetched(channel: Channel, request: FetchRequest) -> (String, String) {
    let answer = ReplicationClient::new(channel).fetch(request).await;
    let mut answers = match answer {
        Ok(answers) => answers.into_inner(),
        Err(e) => return status::<()>(Err(e)),
    };
    loop {
        match answers.message().await.map(|answer| answer?.message) {
            Ok(Some(Message::Started(_))) => {}
            Ok(Some(Message::Segment(_) | Message::End(_))) => {
                return ("bytes of a copy".into(), String::new());
            }
            Ok(Some(Message::Failure(failure))) => {
                return (format!("{:?}", failure.code()), failure.message);
            }
            Ok(None) => return ("nothing".into(), String::new()),
            Err(e) => return status::<()>(Err(e)),
        }
    }
}

/// Lists copies.
async fn listed(channel: Channel, name: &str, theirs: Held) -> (String, String) {
    let name = name.to_owned();
    let answer = ReplicationClient::new(channel)
        .volumes(VolumesRequest { name })
        .await;
    let mut answers = match answer {
        Ok(answers) => answers.into_inner(),
        Err(e) => return status::<()>(Err(e)),
    };
    let mut said = String::new();
    loop {
        match answers.message().await {
            Ok(Some(part)) => said += &format!("{part:?}"),
            Ok(None) => break,
            Err(e) => return status::<()>(Err(e)),
        }
    }
    let id = format!("{:?}", theirs.uuid.as_bytes().to_vec());
    match said.contains(&id) {
        true => ("it sees copies".into(), said),
        false => ("no copy of theirs".into(), said),
    }
}

/// The sender's own key, without a grant: the link carries a refusal and nothing of the copy.
#[test]
fn a_stolen_key_without_a_grant_gets_no_byte_of_a_copy() {
    /// Most bytes of the handshake, the list of copies and the refusal.
    const REFUSAL: u64 = 16 << 10;
    const BIG: u64 = 8 << 20;
    let (sender, receiver) = (SenderHost::new(), ReceiverHost::new());
    let link = Link::to(receiver.address());
    pair_at(&sender, &receiver, "nas2", link.address());
    fill::file(sender.photos().join("big"), 1, BIG as usize);
    sender.push("nas2:photos");
    let target = sender.fs().join("new");
    let beside = target.to_str().unwrap();
    let came = |code, arguments: &[&str]| {
        let before = link.bytes(Way::Down);
        let output = sender.restore(&[&["nas2:photos"], arguments].concat());
        assert_eq!(output.code, code, "{output:?}");
        link.bytes(Way::Down) - before
    };
    for arguments in [&[beside][..], &["--in-place"]] {
        let bytes = came(4, arguments);
        assert!(bytes < REFUSAL, "{arguments:?}: {bytes} bytes came");
    }
    let other = ["peer", "grant", "nas1", "--volume", "music", "--for", "24h"];
    receiver.ctl(&other).success();
    let bytes = came(4, &[beside]);
    assert!(
        bytes < REFUSAL,
        "by a grant of another volume, {bytes} bytes came"
    );
    assert!(!target.exists());
    let grant = [
        "peer", "grant", "nas1", "--volume", "photos", "--for", "24h",
    ];
    receiver.ctl(&grant).success();
    let bytes = came(0, &[beside]);
    assert!(bytes > BIG, "a restore is not counted: {bytes} bytes");
}

fn take_their_identity(scene: &Scene, them: &Them, table: &mut Table) {
    let renew = |signing_request| {
        let request = RenewRequest { signing_request };
        scene
            .hostile
            .call(async |channel| ReplicationClient::new(channel).renew(request).await)
    };
    let theirs = them.key.csr().unwrap();
    table.row(
        "Renew",
        "of their key",
        status(renew(theirs.clone())),
        "InvalidArgument",
    );
    table.row(
        "Renew",
        "of no key",
        status(renew(vec![0; 300])),
        "InvalidArgument",
    );
    for (how, secret, expected) in [
        (
            "as them, with a guessed token",
            vec![7; 16],
            "PermissionDenied",
        ),
        ("as them, without a token", Vec::new(), "InvalidArgument"),
    ] {
        let request = PairRequest {
            secret,
            sender_id: them.id.as_bytes().to_vec(),
            signing_request: theirs.clone(),
            restore: false,
        };
        let answer = scene
            .hostile
            .call(async |channel| PairingClient::new(channel).pair(request).await);
        table.row("Pair", how, status(answer), expected);
    }
}

/// Calls that root and its group may make at the receiver, over the control socket only.
fn receiver_control(scene: &Scene) -> Vec<(&'static str, (String, String))> {
    let name = THEM.to_owned();
    scene.hostile.call(async |channel| {
        let mut control = ReceiverControlClient::new(channel);
        let copies = CopiesRequest {
            sender: name.clone(),
            volume: THEIR_VOLUME.to_owned(),
        };
        let roots = RootsRequest::default();
        let invite = InviteRequest {
            name: name.clone(),
            replace: true,
            ..InviteRequest::default()
        };
        let grant = GrantRequest {
            name: name.clone(),
            seconds: 60,
            ..GrantRequest::default()
        };
        let revoke = RevokeRequest {
            name,
            restore: false,
        };
        vec![
            ("Invite", status(control.invite(invite).await)),
            ("Peers", status(control.peers(PeersRequest {}).await)),
            ("Revoke", status(control.revoke(revoke).await)),
            ("Grant", status(control.grant(grant).await)),
            ("Grants", status(control.grants(GrantsRequest {}).await)),
            ("Copies", status(control.copies(copies.clone()).await)),
            ("Partials", status(control.partials(copies).await)),
            (
                "PruneCopies",
                status(control.prune_copies(PruneCopiesRequest::default()).await),
            ),
            (
                "ChangeCopy",
                status(control.change_copy(ChangeCopyRequest::default()).await),
            ),
            (
                "ShowConfig",
                status(control.show_config(ShowConfigRequest {}).await),
            ),
            (
                "AcceptClock",
                status(control.accept_clock(AcceptClockRequest::default()).await),
            ),
            (
                "History",
                status(control.history(HistoryRequest::default()).await),
            ),
            ("Roots", status(control.roots(roots.clone()).await)),
            ("AddRoot", status(control.add_root(roots.clone()).await)),
            (
                "RemoveRoot",
                status(control.remove_root(roots.clone()).await),
            ),
            ("TakeOverRoot", status(control.take_over_root(roots).await)),
        ]
    })
}

/// Calls that root and its group may make at the sender, over the control socket only.
fn sender_control(scene: &Scene) -> Vec<(&'static str, (String, String))> {
    scene.hostile.call(async |channel| {
        let mut control = SenderControlClient::new(channel);
        vec![
            ("Push", status(control.push(PushRequest::default()).await)),
            ("Plan", status(control.plan(PushRequest::default()).await)),
            (
                "Cancel",
                status(control.cancel(CancelRequest::default()).await),
            ),
            (
                "ShowConfig",
                status(control.show_config(ShowConfigRequest {}).await),
            ),
            (
                "Pause",
                status(control.pause(PauseRequest::default()).await),
            ),
            (
                "Continue",
                status(control.r#continue(ContinueRequest::default()).await),
            ),
            ("List", status(control.list(ListRequest::default()).await)),
            (
                "Prune",
                status(control.prune(PruneRequest::default()).await),
            ),
            (
                "Forget",
                status(control.forget(ForgetRequest::default()).await),
            ),
            (
                "Foreign",
                status(control.foreign(ForeignRequest::default()).await),
            ),
            (
                "ForgetFilesystem",
                status(
                    control
                        .forget_filesystem(ForgetFilesystemRequest::default())
                        .await,
                ),
            ),
            (
                "HoldVolume",
                status(control.hold_volume(HoldVolumeRequest::default()).await),
            ),
            (
                "RecordRestored",
                status(
                    control
                        .record_restored(RecordRestoredRequest::default())
                        .await,
                ),
            ),
            ("Status", status(control.status(StatusRequest {}).await)),
            (
                "History",
                status(control.history(HistoryRequest::default()).await),
            ),
            ("Pair", status(control.pair(PairCommand::default()).await)),
        ]
    })
}
