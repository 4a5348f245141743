//! The bytes on the wire, in `wire.golden`: every method, every variant, and an example of every type that travels.
//!
//! Nodes of two builds talk to each other during every upgrade, so what is on a line never changes: methods and variants
//! are appended, and a new one is sent only to a peer that knows it. A struct cannot grow at all, for its encoding has
//! neither names nor an end; a new method with a new struct takes its place.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::SinkExt as _;
use starling_core::change::Change;
use starling_core::choice::Ballot;
use starling_core::clock::{Clock, Dot};
use starling_core::coordinate::{ObjectLimits, Write, coordinate};
use starling_core::get::Standing;
use starling_core::ids::{Birth, ClusterId, DirectoryId, NodeId, RequestId, Run};
use starling_core::layout::{BucketRules, FirstLayout, Layout, LayoutChecksum, LayoutVersion, Member};
use starling_core::mark::{Minter, TrustedMarks};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::{Object, SiblingMode, Value};
use starling_core::quorum::{Level, Quorum, ReplicaCount, Tally};
use starling_core::reaping::{Round, RoundId, RoundsOver, Stage};
use starling_core::report::{Failure, Outcome, Refusal, Repair, ReplicaReport, Role};
use starling_core::ring::{Decree, Epoch, Phase, Ring};
use starling_core::settings::{Changes, Register, Registers, Settings, Version};
use starling_core::stamp::Stamp;
use starling_core::token::{Partition, PartitionCount, Token};
use starling_core::transition::{Lack, Progress};
use starling_core::tree::{Answer, Branch, Breadth, Fingerprint, Position, Sum};
use starling_core::wall::WallTime;
use starling_proto::connection::client_transport;
use starling_proto::control::{
    ClusterView, Committed, ControlError, ControlServiceRequest, ControlServiceResponse, Copying, FillingUp, Flaw,
    FlawKind, Force, Forced, HeldUp, HintsFor, Init, NodeStanding, NodeStatus, NotRegistered, PeerView, Plan,
    ReapingRound, Registration, RepairScope, Repairing, Set, Tombstones, Transfers, Transition, VerifiedPage,
};
use starling_proto::data::{
    DataServiceRequest, DataServiceResponse, Get, Got, GotLasting, Holding, Keys, KeysPage, LiveSibling, Location, Put,
    PutFor, ReplicaView, RequestError, Written,
};
use starling_proto::hello::{Class, Features, Hello, Introduction, NotWelcome, ProtocolRange, Welcome};
use starling_proto::peer::{
    Accept, Compare, Compared, Fetch, Fetched, List, ListReply, Offer, OfferReply, PeerError, PeerServiceRequest,
    PeerServiceResponse, Prepare, PullPage, PulledPage, Read, ReadReply, Reap, Store, StoreRead, VoteRefused,
};
use support::{Table, every};
use tarpc::{ClientMessage, Request, Response, ServerError};
use tokio::io::AsyncReadExt as _;

#[test]
fn what_is_sent_is_what_was_always_sent() {
    let mut table = Table::default();
    data(&mut table);
    peer(&mut table);
    control(&mut table);
    errors(&mut table);
    words(&mut table);
    hello(&mut table);
    envelope(&mut table);
    table.compare("wire.golden");
}

/// Four bytes of length, most significant first, then the message.
#[tokio::test]
async fn a_message_travels_in_a_frame() {
    let (near, mut far) = tokio::io::duplex(64);
    let mut transport = Box::pin(client_transport::<u8, u8>(near));
    let cancel = ClientMessage::Cancel { trace_context: tarpc::trace::Context::default(), request_id: 7 };
    transport.send(cancel).await.map_err(|_| "the stream is open").unwrap();
    drop(transport);
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.unwrap();
    let trace = [0; 16];
    assert_eq!(sent, [&[0, 0, 0, 20, 1][..], &trace, &[0, 1, 7]].concat());
}

fn data(table: &mut Table) {
    table.heading("data: requests");
    every!(table, DataServiceRequest {
        Get => DataServiceRequest::Get { request: get() },
        Put => DataServiceRequest::Put { request: put() },
        GetOwn => DataServiceRequest::GetOwn { key: key() },
        Keys => DataServiceRequest::Keys {
            request: Keys { bucket: bucket(), prefix: bytes("p"), after: Some(bytes("pa")), limit: 1000 },
        },
        Buckets => DataServiceRequest::Buckets {},
        Locate => DataServiceRequest::Locate { key: key() },
        Layout => DataServiceRequest::Layout {},
        PutFor => DataServiceRequest::PutFor { request: PutFor { put: put(), lifetime: Duration::from_millis(1_500) } },
        GetLasting => DataServiceRequest::GetLasting { request: get() },
        GetOwnLasting => DataServiceRequest::GetOwnLasting { key: key() },
        PutForGood => DataServiceRequest::PutForGood { request: put() },
    });
    table.heading("data: responses");
    every!(table, DataServiceResponse {
        Get => DataServiceResponse::Get(Ok(got())),
        Put => DataServiceResponse::Put(Ok(written())),
        GetOwn => DataServiceResponse::GetOwn(Ok(absent())),
        Keys => DataServiceResponse::Keys(Ok(KeysPage { keys: vec![bytes("pb"), bytes("pc")], next: Some(bytes("pc")) })),
        Buckets => DataServiceResponse::Buckets(Ok(vec![bucket()])),
        Locate => DataServiceResponse::Locate(Ok(location())),
        Layout => DataServiceResponse::Layout(Ok(layout())),
        PutFor => DataServiceResponse::PutFor(Ok(written())),
        GetLasting => DataServiceResponse::GetLasting(Ok(lasting(got()))),
        GetOwnLasting => DataServiceResponse::GetOwnLasting(Ok(lasting(absent()))),
        PutForGood => DataServiceResponse::PutForGood(Ok(written())),
    });
    table.row("Get, failed", &DataServiceResponse::Get(Err(RequestError::Refused(Refusal::Overloaded))));
}

fn peer(table: &mut Table) {
    let epoch = Epoch(1);
    table.heading("peer: requests");
    every!(table, PeerServiceRequest {
        Read => PeerServiceRequest::Read { request: Read { epoch, key: key() } },
        Store => PeerServiceRequest::Store {
            request: Store { epoch, key: key(), object: object(), role: fallback() },
        },
        Forward => PeerServiceRequest::Forward { request: put() },
        Offer => PeerServiceRequest::Offer { request: Offer { epoch, hints: vec![(key(), clock())] } },
        List => PeerServiceRequest::List { request: list() },
        Buckets => PeerServiceRequest::Buckets { epoch },
        Clock => PeerServiceRequest::Clock {},
        Prepare => PeerServiceRequest::Prepare { request: Prepare { epoch, ballot: ballot() } },
        Accept => PeerServiceRequest::Accept { request: Accept { epoch, ballot: ballot(), decree: decree() } },
        Progress => PeerServiceRequest::Progress {},
        Pull => PeerServiceRequest::Pull {
            request: PullPage { epoch, partition: Partition(300), after: Some(key()), bytes: 1000 },
        },
        Compare => PeerServiceRequest::Compare {
            request: Compare {
                epoch,
                branches: vec![Compared { branch: branch(), least: Breadth(2), sum: sum() }],
            },
        },
        Fetch => PeerServiceRequest::Fetch { request: Fetch { epoch, keys: vec![key()], bytes: 1000 } },
        StoreRead => PeerServiceRequest::StoreRead {
            request: StoreRead {
                store: Store { epoch, key: key(), object: object(), role: Role::Primary },
                over: RoundsOver(3),
            },
        },
        RoundsOver => PeerServiceRequest::RoundsOver { epoch },
        Reap => PeerServiceRequest::Reap { request: Reap::Ask(round()) },
    });
    table.heading("peer: responses");
    let reply = ReadReply { standing: Standing::Complete, object: Some(object()) };
    every!(table, PeerServiceResponse {
        Read => PeerServiceResponse::Read(Ok(reply)),
        Store => PeerServiceResponse::Store(Ok(())),
        Forward => PeerServiceResponse::Forward(Ok(written())),
        Offer => PeerServiceResponse::Offer(Ok(OfferReply { wanted: vec![true, false] })),
        List => PeerServiceResponse::List(Ok(ListReply { keys: vec![(bytes("pb"), object().outline())], more: true })),
        Buckets => PeerServiceResponse::Buckets(Ok(vec![bucket()])),
        Clock => PeerServiceResponse::Clock(1_700_000_000_000),
        Prepare => PeerServiceResponse::Prepare(Ok(Some((ballot(), decree())))),
        Accept => PeerServiceResponse::Accept(Ok(())),
        Progress => PeerServiceResponse::Progress(Ok(progress())),
        Pull => PeerServiceResponse::Pull(Ok(PulledPage { objects: bytes("page"), checksum: 7, next: Some(key()) })),
        Compare => PeerServiceResponse::Compare(Ok(vec![
            Answer::Same,
            Answer::Below(vec![sum()]),
            Answer::Keys([(key(), Fingerprint(9))].into()),
        ])),
        Fetch => PeerServiceResponse::Fetch(Ok(Fetched { objects: bytes("objects"), checksum: 7, looked_at: 2 })),
        StoreRead => PeerServiceResponse::StoreRead(Ok(())),
        RoundsOver => PeerServiceResponse::RoundsOver(Ok([(Partition(300), RoundsOver(3))].into())),
        Reap => PeerServiceResponse::Reap(Ok([key()].into())),
    });
    let (id, keys) = (round().id, std::collections::BTreeSet::from([key()]));
    table.heading("Reap");
    every!(table, Reap {
        Ask => Reap::Ask(round()),
        Mark => Reap::Mark { id, keys: keys.clone() },
        End => Reap::End { id, keys },
    });
    table.row("Read, failed", &PeerServiceResponse::Read(Err(PeerError::Unknown)));
}

fn control(table: &mut Table) {
    table.heading("control: requests");
    every!(table, ControlServiceRequest {
        Status => ControlServiceRequest::Status {},
        Cluster => ControlServiceRequest::Cluster {},
        Init => ControlServiceRequest::Init { request: init() },
        Candidate => ControlServiceRequest::Candidate { cluster: ClusterId(9) },
        Adopt => ControlServiceRequest::Adopt { layout: layout() },
        Layout => ControlServiceRequest::Layout {},
        Log => ControlServiceRequest::Log { after: Epoch(1) },
        Stage => ControlServiceRequest::Stage { changes: vec![change()] },
        Unstage => ControlServiceRequest::Unstage {},
        Plan => ControlServiceRequest::Plan {},
        Commit => ControlServiceRequest::Commit { plan: LayoutChecksum(0x0102_0304_0506_0708) },
        Transition => ControlServiceRequest::Transition {},
        Transfers => ControlServiceRequest::Transfers {},
        Repair => ControlServiceRequest::Repair { scope: RepairScope { bucket: None, partition: Some(Partition(300)) } },
        Repairing => ControlServiceRequest::Repairing { number: 7 },
        Verify => ControlServiceRequest::Verify { from: Partition(300) },
        Register => ControlServiceRequest::Register { request: registration() },
        Filling => ControlServiceRequest::Filling {},
        Tombstones => ControlServiceRequest::Tombstones {},
        Settings => ControlServiceRequest::Settings {},
        Set => ControlServiceRequest::Set { request: Set { bucket: bucket(), changes: changes() } },
        ForcePlan => ControlServiceRequest::ForcePlan { dead: ["n4".parse().unwrap()].into() },
        Force => ControlServiceRequest::Force { request: Force { dead: ["n4".parse().unwrap()].into(), cluster: ClusterId(9) } },
    });
    table.heading("control: responses");
    every!(table, ControlServiceResponse {
        Status => ControlServiceResponse::Status(status()),
        Cluster => ControlServiceResponse::Cluster(cluster()),
        Init => ControlServiceResponse::Init(Ok(layout())),
        Candidate => ControlServiceResponse::Candidate(Ok(member())),
        Adopt => ControlServiceResponse::Adopt(Ok(LayoutChecksum(0x0102_0304_0506_0708))),
        Layout => ControlServiceResponse::Layout(None),
        Log => ControlServiceResponse::Log(Ok(vec![Ring::first_entry(layout())])),
        Stage => ControlServiceResponse::Stage(Ok(plan())),
        Unstage => ControlServiceResponse::Unstage(Ok(vec![change()])),
        Plan => ControlServiceResponse::Plan(Ok(Some(plan()))),
        Commit => ControlServiceResponse::Commit(Ok(Committed::Chosen(LayoutVersion(2)))),
        Transition => ControlServiceResponse::Transition(Ok(transition())),
        Transfers => ControlServiceResponse::Transfers(transfers()),
        Repair => ControlServiceResponse::Repair(Ok(7)),
        Repairing => ControlServiceResponse::Repairing(Some(Repairing {
            compared: 1,
            all: 2,
            differences: 3,
            failed: [(NodeId(4), text())].into(),
            is_over: true,
        })),
        Verify => ControlServiceResponse::Verify(Ok(VerifiedPage {
            next: Some(Partition(300)),
            partitions: 1,
            records: 2,
            bytes: 3,
            flaws: vec![
                flaw(Some(key()), FlawKind::Unreadable(text())),
                flaw(None, FlawKind::WrongLeaf),
                flaw(None, FlawKind::LeafWithoutRecord),
                flaw(None, FlawKind::WrongSum),
                flaw(None, FlawKind::Misplaced),
            ],
        })),
        Register => ControlServiceResponse::Register(Ok(NodeId(4))),
        Filling => ControlServiceResponse::Filling(FillingUp {
            partitions: 1,
            left: [(NodeId(4), 2)].into(),
            stalled: [(NodeId(4), text())].into(),
        }),
        Tombstones => ControlServiceResponse::Tombstones(Ok(Tombstones {
            pending: 5,
            more: true,
            due: 4,
            oldest: Some(Duration::from_secs(3)),
            held_up: Some(HeldUp::Leavers(vec!["n4".parse().unwrap()])),
            rounds: vec![ReapingRound {
                partition: Partition(300),
                number: 2,
                stage: Stage::Marking,
                keys: 1,
                since: Duration::from_secs(1),
                waits_for: [(NodeId(4), Some(text()))].into(),
            }],
            reaped: 6,
        })),
        Settings => ControlServiceResponse::Settings(Settings::from_parts([(bucket(), registers())])),
        Set => ControlServiceResponse::Set(Ok(registers())),
        ForcePlan => ControlServiceResponse::ForcePlan(Ok(plan())),
        Force => ControlServiceResponse::Force(Ok(Forced { version: LayoutVersion(2), cluster: ClusterId(9) })),
    });
    table.heading("HeldUp");
    every!(table, HeldUp {
        RingChanges => HeldUp::RingChanges,
        Leavers => HeldUp::Leavers(vec!["n4".parse().unwrap()]),
        Filling => HeldUp::Filling(3),
        Clock => HeldUp::Clock,
    });
    table.heading("Stage");
    every!(table, Stage {
        Asking => Stage::Asking,
        Marking => Stage::Marking,
        Ending => Stage::Ending,
        Over => Stage::Over,
    });
    table.row("Init, failed", &ControlServiceResponse::Init(Err(ControlError::Incomplete("n2".to_owned()))));
}

fn errors(table: &mut Table) {
    let (counted, replicas) = (Tally { primaries: 1, fallbacks: 0 }, vec![report()]);
    table.heading("RequestError");
    every!(table, RequestError {
        Invalid => RequestError::Invalid(text()),
        Refused => RequestError::Refused(Refusal::DiskFull),
        NotServing => RequestError::NotServing(text()),
        ReadQuorumNotMet => RequestError::ReadQuorumNotMet { quorum: quorum(), counted, replicas: replicas.clone() },
        WriteOutcomeUnknown => RequestError::WriteOutcomeUnknown { quorum: quorum(), acknowledged: counted, replicas },
        Incomplete => RequestError::Incomplete(text()),
        Internal => RequestError::Internal(text()),
    });
    table.heading("PeerError");
    every!(table, PeerError {
        Refused => PeerError::Refused(Refusal::DiskFull),
        Unknown => PeerError::Unknown,
        Internal => PeerError::Internal(text()),
    });
    table.heading("ControlError");
    every!(table, ControlError {
        Invalid => ControlError::Invalid(text()),
        AlreadyMember => ControlError::AlreadyMember(ClusterId(9)),
        Incomplete => ControlError::Incomplete(text()),
        Internal => ControlError::Internal(text()),
        Waiting => ControlError::Waiting(text()),
    });
    table.heading("NotRegistered");
    every!(table, NotRegistered {
        NoMember => NotRegistered::NoMember("n1".parse().unwrap()),
        Alive => NotRegistered::Alive("n1".parse().unwrap()),
        Retired => NotRegistered::Retired(DirectoryId(2)),
        Unavailable => NotRegistered::Unavailable(text()),
    });
    table.heading("VoteRefused");
    every!(table, VoteRefused {
        Overtaken => VoteRefused::Overtaken(ballot()),
        OtherEpoch => VoteRefused::OtherEpoch(Epoch(3)),
        NoAcceptor => VoteRefused::NoAcceptor,
        Invalid => VoteRefused::Invalid(text()),
        Unavailable => VoteRefused::Unavailable(text()),
    });
    table.heading("Refusal");
    every!(table, Refusal {
        Overloaded => Refusal::Overloaded,
        DiskFull => Refusal::DiskFull,
        HintsFull => Refusal::HintsFull,
        Stopping => Refusal::Stopping,
        StorageFailed => Refusal::StorageFailed,
        NotAMember => Refusal::NotAMember,
        OtherLayout => Refusal::OtherLayout,
        DeadlinePassed => Refusal::DeadlinePassed,
        TooLarge => Refusal::TooLarge,
        ClockDrift => Refusal::ClockDrift,
        Damaged => Refusal::Damaged,
        Filling => Refusal::Filling,
        Reaped => Refusal::Reaped,
        BeingReaped => Refusal::BeingReaped,
    });
    table.heading("Failure");
    every!(table, Failure {
        Unreachable => Failure::Unreachable,
        NoAnswer => Failure::NoAnswer,
        Disconnected => Failure::Disconnected,
        Refused => Failure::Refused(Refusal::TooLarge),
        SyncFailed => Failure::SyncFailed,
    });
}

/// The enums that are parts of messages.
fn words(table: &mut Table) {
    table.heading("Outcome");
    every!(table, Outcome {
        Pending => Outcome::Pending,
        Stored => Outcome::Stored,
        Found => Outcome::Found { siblings: 2 },
        NotFound => Outcome::NotFound,
        Failed => Outcome::Failed(Failure::NoAnswer),
    });
    table.heading("Role");
    every!(table, Role { Primary => Role::Primary, Fallback => fallback() });
    table.heading("Repair");
    every!(table, Repair {
        NotNeeded => Repair::NotNeeded,
        Sent => Repair::Sent,
        Done => Repair::Done,
        Failed => Repair::Failed(Failure::Disconnected),
    });
    table.heading("Level");
    every!(table, Level {
        Count => Level::Count(2),
        One => Level::One,
        Quorum => Level::Quorum,
        All => Level::All,
        Default => Level::Default,
    });
    table.heading("Value");
    every!(table, Value {
        Live => Value::Live(bytes("v")),
        Tombstone => Value::Tombstone,
        Expiring => Value::Expiring { bytes: bytes("v"), until: WallTime(1_780_000_000_000) },
    });
    table.heading("SiblingMode");
    every!(table, SiblingMode { Keep => SiblingMode::Keep, LastWriteWins => SiblingMode::LastWriteWins });
    table.heading("Standing");
    every!(table, Standing { Complete => Standing::Complete, Filling => Standing::Filling });
    table.heading("Holding");
    every!(table, Holding {
        Nothing => Holding::Nothing,
        Copy => Holding::Copy { clock: clock(), siblings: 1 },
        Unknown => Holding::Unknown(text()),
    });
    table.heading("NodeStanding");
    every!(table, NodeStanding {
        Uninitialised => NodeStanding::Uninitialised,
        Serving => NodeStanding::Serving,
        Excluded => NodeStanding::Excluded(text()),
        Failed => NodeStanding::Failed(text()),
        Stopping => NodeStanding::Stopping,
        Left => NodeStanding::Left,
    });
    table.heading("Committed");
    every!(table, Committed {
        Chosen => Committed::Chosen(LayoutVersion(2)),
        Other => Committed::Other { epoch: Epoch(3) },
    });
    table.heading("Phase");
    every!(table, Phase { Settled => Phase::Settled, Dual => Phase::Dual, Switch => Phase::Switch });
    table.heading("Lack");
    every!(table, Lack {
        NoAnswer => Lack::NoAnswer,
        OtherDirectory => Lack::OtherDirectory,
        NotAdopted => Lack::NotAdopted,
        NotCopied => Lack::NotCopied,
    });
}

/// Frozen for good, unlike everything above.
fn hello(table: &mut Table) {
    let protocols = ProtocolRange { oldest: 1, newest: 2 };
    let run = Run { directory: DirectoryId(2), counter: 3, nonce: 4 };
    let node = Introduction { node: NodeId(1), name: "n1".parse().unwrap(), run };
    table.heading("hello");
    let (cluster, features) = (Some(ClusterId(9)), Features(5));
    let hello =
        Hello { class: Class::Bulk, protocols, cluster, from: Some(node.clone()), features, build: "b".to_owned() };
    table.row("Hello", &hello);
    let welcome = Welcome { protocol: 1, cluster, node, features, build: "b".to_owned() };
    table.row("Reply, welcome", &Ok::<Welcome, NotWelcome>(welcome));
    table.row("Reply, not welcome", &Err::<Welcome, NotWelcome>(NotWelcome::Busy));
    table.heading("Class");
    every!(table, Class {
        Data => Class::Data,
        Peer => Class::Peer,
        Bulk => Class::Bulk,
        Control => Class::Control,
    });
    table.heading("NotWelcome");
    every!(table, NotWelcome {
        Protocol => NotWelcome::Protocol(protocols),
        OtherCluster => NotWelcome::OtherCluster(Some(ClusterId(9))),
        NotAMember => NotWelcome::NotAMember,
        OldCopy => NotWelcome::OldCopy { remembered: run },
        Retired => NotWelcome::Retired,
        Busy => NotWelcome::Busy,
        Stopping => NotWelcome::Stopping,
    });
}

/// tarpc's own part of a message. An update of tarpc must not change it either.
fn envelope(table: &mut Table) {
    let mut context = tarpc::context::current();
    context.trace_context = tarpc::trace::Context::default();
    // It travels as what is left of it: nothing.
    context.deadline = Instant::now();
    let trace_context = context.trace_context;
    table.heading("tarpc");
    let message = DataServiceRequest::Buckets {};
    table.row("Request", &ClientMessage::Request(Request { context, id: 7, message }));
    table.row("Cancel", &ClientMessage::<DataServiceRequest>::Cancel { trace_context, request_id: 7 });
    let message = Ok(PeerServiceResponse::Clock(1));
    table.row("Response", &Response { request_id: 7, message });
    // The kind does not arrive: tarpc 0.38 writes a signed number and reads an unsigned one, so that what was a full
    // channel (`WouldBlock`) is read as something else. Nobody may depend on it.
    let overloaded = ServerError::new(std::io::ErrorKind::WouldBlock, text());
    table.one_way("Response, error", &Response::<PeerServiceResponse> { request_id: 7, message: Err(overloaded) });
}

fn get() -> Get {
    Get { key: key(), r: Level::Count(2), pr: Level::Default, wait_for_repair: true }
}

fn put() -> Put {
    Put {
        key: key(),
        value: Value::Live(bytes("value")),
        context: Some(bytes("context")),
        request: RequestId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        w: Level::All,
        pw: Level::One,
        r: Level::Quorum,
    }
}

fn lasting(got: Got) -> GotLasting {
    let until = got.siblings.iter().map(|_| Some(WallTime(1_780_000_000_000))).collect();
    GotLasting { got, until }
}

fn got() -> Got {
    let sibling = LiveSibling { value: bytes("value"), dot: dot(), stamp: Stamp::from_millis(1_700_000_000_000) };
    Got {
        siblings: vec![sibling],
        context: Some(bytes("context")),
        deleted: false,
        clock: clock(),
        quorum: Some(quorum()),
        replicas: vec![report()],
    }
}

fn absent() -> Got {
    Got {
        siblings: Vec::new(),
        context: None,
        deleted: true,
        clock: Clock::default(),
        quorum: None,
        replicas: Vec::new(),
    }
}

fn written() -> Written {
    Written {
        siblings: 1,
        context: Some(bytes("context")),
        repeated: true,
        quorum: quorum(),
        acknowledged: Tally { primaries: 2, fallbacks: 1 },
        replicas: vec![report()],
    }
}

fn location() -> Location {
    let holds = Holding::Copy { clock: clock(), siblings: 1 };
    Location {
        token: Token(0x0102_0304_0506_0708),
        preference: layout().preference_list(&key()),
        mode: SiblingMode::LastWriteWins,
        replicas: vec![ReplicaView { node: NodeId(1), alive: true, holds }],
    }
}

fn list() -> List {
    List {
        epoch: Epoch(1),
        bucket: bucket(),
        partitions: vec![Partition(3), Partition(300)],
        prefix: bytes("p"),
        after: None,
        limit: 100,
    }
}

fn ballot() -> Ballot {
    Ballot { round: 3, proposer: NodeId(4), nonce: 5 }
}

fn round() -> Round {
    let id = RoundId { epoch: Epoch(2), partition: Partition(300), number: 4 };
    Round { id, tombstones: [(key(), object())].into() }
}

fn decree() -> Decree {
    Decree::Switch(LayoutVersion(2))
}

fn progress() -> Progress {
    Progress { directory: DirectoryId(1), adopted: Epoch(2), copied: Some(LayoutVersion(3)) }
}

fn branch() -> Branch {
    Branch::around(Partition(300), 2, Position(0xabcd_0000_0000_0000))
}

fn sum() -> Sum {
    Sum { keys: 3, hash: 0x0102_0304 << 96 }
}

fn change() -> Change {
    Change::Leave("n1".parse().unwrap())
}

fn changes() -> Changes {
    [("r".to_owned(), Some("one".to_owned())), ("ttl".to_owned(), None)].into()
}

fn registers() -> Registers {
    let version = Version { at: WallTime(1_700_000_000_000), by: DirectoryId(5) };
    let register = |text: Option<String>| Register { version, text };
    changes().into_iter().map(|(name, text)| (name, register(text))).collect()
}

fn plan() -> Plan {
    Plan { changes: vec![change()], before: layout(), after: layout(), dead: [NodeId(9)].into() }
}

fn transition() -> Transition {
    Transition {
        epoch: Epoch(2),
        phase: Phase::Dual,
        read: LayoutVersion(1),
        newest: LayoutVersion(2),
        waiting: [(NodeId(3), Lack::NotCopied)].into(),
        pulled: (4, 5),
        held: 6,
    }
}

fn flaw(key: Option<ObjectKey>, kind: FlawKind) -> Flaw {
    Flaw { partition: Partition(4), key, kind }
}

fn transfers() -> Transfers {
    let copying = Copying {
        done: 4,
        all: 5,
        lasting: Duration::from_millis(1500),
        finished: 3,
        keys: 6,
        bytes: 7,
        stalled: [(NodeId(2), text())].into(),
    };
    Transfers { epoch: Some(Epoch(2)), copying: Some(copying), held: 8, most_bytes_a_second: 9 }
}

fn init() -> Init {
    Init {
        members: vec!["n1".parse().unwrap()],
        weights: [("n1".parse().unwrap(), 2)].into(),
        partitions: PartitionCount::try_from(8).unwrap(),
        replicas: ReplicaCount::DEFAULT,
        buckets: rules(),
    }
}

fn status() -> NodeStatus {
    NodeStatus {
        name: "n1".parse().unwrap(),
        node: NodeId(1),
        run: Run { directory: DirectoryId(2), counter: 3, nonce: 4 },
        zone: "z1".parse().unwrap(),
        address: "n1:7400".to_owned(),
        standing: NodeStanding::Serving,
        cluster: Some(ClusterId(9)),
        layout: Some(LayoutVersion(1)),
        build: "b".to_owned(),
        uptime: Duration::new(5, 6),
        partitions: 8,
        disk_used_bytes: 1000,
        disk_free_bytes: Some(100_000),
        resident_bytes: None,
        hints: vec![HintsFor { target: NodeId(2), count: 3 }],
        connected: vec![NodeId(2)],
        counters: [("puts".to_owned(), 4)].into(),
    }
}

fn cluster() -> ClusterView {
    let peer = PeerView {
        name: "n1".parse().unwrap(),
        node: NodeId(1),
        zone: "z1".parse().unwrap(),
        address: "n1:7400".to_owned(),
        alive: true,
        standing: "serving".to_owned(),
        cluster: Some(ClusterId(9)),
        layout: Some(LayoutVersion(1)),
        build: "b".to_owned(),
        hints_for: vec![NodeId(2)],
    };
    ClusterView { seen_by: "n2".parse().unwrap(), layout: Some(layout()), peers: vec![peer] }
}

fn layout() -> Layout {
    Layout::first(FirstLayout {
        cluster: ClusterId(9),
        partitions: PartitionCount::try_from(8).unwrap(),
        replicas: ReplicaCount::DEFAULT,
        members: vec![member()],
        buckets: rules(),
    })
    .unwrap()
}

fn registration() -> Registration {
    let name = "n1".parse().unwrap();
    Registration { name, directory: DirectoryId(2), in_place_of: Some(DirectoryId(3)) }
}

fn member() -> Member {
    Member {
        node: NodeId(1),
        directory: DirectoryId(2),
        name: "n1".parse().unwrap(),
        zone: "z1".parse().unwrap(),
        weight: 3,
        address: "n1:7400".to_owned(),
    }
}

fn rules() -> BTreeMap<BucketName, BucketRules> {
    let rules = BucketRules { replicas: Some(ReplicaCount::try_from(2).unwrap()), mode: SiblingMode::LastWriteWins };
    [(bucket(), rules)].into()
}

/// An object with a sibling, and with the trace of the one it superseded.
fn object() -> Object {
    let minter = Minter { directory: DirectoryId(2), run: 1, trusted: TrustedMarks::OfThisRun };
    let limits = ObjectLimits { siblings: 9, bytes: 99 };
    let (mut object, mut mark) = (Object::default(), None);
    for (request, value) in [(1, Value::Live(bytes("old"))), (2, Value::Live(bytes("value")))] {
        let write = Write {
            value,
            seen: object.seen(),
            request: RequestId(request),
            mode: SiblingMode::Keep,
            wall: Stamp::from_millis(1_700_000_000_000),
            fresh_birth: Birth(3),
        };
        coordinate(&mut object, &mut mark, write, &minter, &limits).unwrap();
    }
    object
}

fn clock() -> Clock {
    object().clock().clone()
}

fn dot() -> Dot {
    object().siblings().first().unwrap().dot
}

fn report() -> ReplicaReport {
    ReplicaReport {
        node: NodeId(1),
        role: fallback(),
        hedge: true,
        outcome: Outcome::Found { siblings: 2 },
        took: Duration::new(1, 500),
        repair: Repair::Sent,
    }
}

fn fallback() -> Role {
    Role::Fallback { stands_in_for: NodeId(7) }
}

fn quorum() -> Quorum {
    Quorum::of_write(Level::Count(2), Level::Count(1), ReplicaCount::DEFAULT).unwrap()
}

fn key() -> ObjectKey {
    ObjectKey::new(bucket(), "key").unwrap()
}

fn bucket() -> BucketName {
    "carts".parse().unwrap()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn text() -> String {
    "why".to_owned()
}
