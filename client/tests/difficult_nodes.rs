//! A client among nodes that speak the protocol, each in a manner of its own.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_client::{Bucket, Client, ClientError, ClientOptions};
use starling_core::change::Change;
use starling_core::clock::Clock;
use starling_core::ids::{ClusterId, DirectoryId, NodeId, Run};
use starling_core::layout::{FirstLayout, Layout, LayoutChecksum, Member};
use starling_core::name::{BucketName, NodeName, ObjectKey};
use starling_core::quorum::ReplicaCount;
use starling_core::ring::{Entry, Epoch};
use starling_core::settings::{Registers, Settings};
use starling_core::token::{Partition, PartitionCount};
use starling_proto::connection::{channel, drive};
use starling_proto::control::{
    ClusterView, Committed, ControlError, ControlService, FillingUp, Force, Forced, Init, NodeStatus, NotRegistered,
    PeerView, Plan, Registration, RepairScope, Repairing, Set, Tombstones, Transfers, Transition, VerifiedPage,
};
use starling_proto::data::{
    DataService, Get, Got, GotLasting, Keys, KeysPage, Location, Put, PutFor, RequestError, Written,
};
use starling_proto::hello::{self, Class, Features, Introduction, Welcome};
use starling_proto::{BUILD, CallContext};
use tarpc::server::Channel as _;
use tokio::net::{TcpListener, TcpStream};

const TIMEOUT: Duration = Duration::from_secs(3);
/// What a busy machine may add to a limit.
const SLACK: Duration = Duration::from_millis(700);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    /// It takes the connection, and does not say hello.
    IsFrozen,
    /// It takes the call, and does not answer.
    IsSilent,
    /// It cannot read its own copy of the key.
    IsDamaged,
    /// It finds the request itself at fault.
    Objects,
}

#[derive(Clone)]
struct Node {
    manner: Manner,
    view: Arc<ClusterView>,
}

impl Node {
    async fn respond<T>(&self, answer: T) -> Result<T, RequestError> {
        match self.manner {
            Manner::Answers => Ok(answer),
            Manner::IsFrozen | Manner::IsSilent => std::future::pending().await,
            Manner::IsDamaged => Err(RequestError::Internal("a record is damaged".to_owned())),
            Manner::Objects => Err(RequestError::Invalid("too many siblings".to_owned())),
        }
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _from)) = listener.accept().await {
            tokio::spawn(self.clone().greet(stream));
        }
    }

    async fn greet(self, mut stream: TcpStream) {
        if self.manner == Manner::IsFrozen {
            std::future::pending::<()>().await;
        }
        let class = hello::accept(&mut stream).await.unwrap().class;
        let run = Run { directory: DirectoryId(1), counter: 1, nonce: 1 };
        let node = Introduction { node: NodeId(1), name: self.view.seen_by.clone(), run };
        let (features, build) = (Features::default(), BUILD.to_owned());
        hello::answer(&mut stream, &Ok(Welcome { protocol: 1, cluster: None, node, features, build })).await.unwrap();
        match class {
            Class::Control => drive(channel(stream).execute(ControlService::serve(self))).await,
            _ => drive(channel(stream).execute(DataService::serve(self))).await,
        }
    }
}

impl DataService for Node {
    async fn get(self, _: CallContext, _: Get) -> Result<Got, RequestError> {
        let (siblings, context, clock, replicas) = (Vec::new(), None, Clock::default(), Vec::new());
        self.respond(Got { siblings, context, deleted: false, clock, quorum: None, replicas }).await
    }

    async fn put(self, _: CallContext, _: Put) -> Result<Written, RequestError> {
        self.respond(()).await?;
        Err(RequestError::NotServing("it keeps nothing".to_owned()))
    }

    async fn get_own(self, _: CallContext, _: ObjectKey) -> Result<Got, RequestError> {
        unreachable!("no test asks for it")
    }

    async fn keys(self, _: CallContext, _: Keys) -> Result<KeysPage, RequestError> {
        unreachable!("no test asks for it")
    }

    async fn buckets(self, _: CallContext) -> Result<Vec<BucketName>, RequestError> {
        unreachable!("no test asks for it")
    }

    async fn locate(self, _: CallContext, _: ObjectKey) -> Result<Location, RequestError> {
        unreachable!("no test asks for it")
    }

    async fn layout(self, _: CallContext) -> Result<Layout, RequestError> {
        Ok(self.view.layout.clone().unwrap())
    }

    async fn put_for(self, _: CallContext, _: PutFor) -> Result<Written, RequestError> {
        unreachable!("it does not say that it can")
    }

    async fn get_lasting(self, _: CallContext, _: Get) -> Result<GotLasting, RequestError> {
        unreachable!("it does not say that it can")
    }

    async fn get_own_lasting(self, _: CallContext, _: ObjectKey) -> Result<GotLasting, RequestError> {
        unreachable!("it does not say that it can")
    }

    async fn put_for_good(self, _: CallContext, _: Put) -> Result<Written, RequestError> {
        unreachable!("it does not say that it can")
    }
}

impl ControlService for Node {
    async fn status(self, _: CallContext) -> NodeStatus {
        unreachable!("no test asks for it")
    }

    async fn cluster(self, _: CallContext) -> ClusterView {
        ClusterView::clone(&self.view)
    }

    async fn init(self, _: CallContext, _: Init) -> Result<Layout, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn candidate(self, _: CallContext, _: ClusterId) -> Result<Member, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn adopt(self, _: CallContext, _: Layout) -> Result<LayoutChecksum, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn layout(self, _: CallContext) -> Option<Layout> {
        self.view.layout.clone()
    }

    async fn log(self, _: CallContext, _: Epoch) -> Result<Vec<Entry>, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn stage(self, _: CallContext, _: Vec<Change>) -> Result<Plan, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn unstage(self, _: CallContext) -> Result<Vec<Change>, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn plan(self, _: CallContext) -> Result<Option<Plan>, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn commit(self, _: CallContext, _: LayoutChecksum) -> Result<Committed, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn transition(self, _: CallContext) -> Result<Transition, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn transfers(self, _: CallContext) -> Transfers {
        unreachable!("no test asks for it")
    }

    async fn repair(self, _: CallContext, _: RepairScope) -> Result<u64, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn repairing(self, _: CallContext, _: u64) -> Option<Repairing> {
        unreachable!("no test asks for it")
    }

    async fn verify(self, _: CallContext, _: Partition) -> Result<VerifiedPage, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn register(self, _: CallContext, _: Registration) -> Result<NodeId, NotRegistered> {
        unreachable!("no test asks for it")
    }

    async fn filling(self, _: CallContext) -> FillingUp {
        unreachable!("no test asks for it")
    }

    async fn tombstones(self, _: CallContext) -> Result<Tombstones, ControlError> {
        unreachable!("no test asks for it")
    }

    async fn settings(self, _: CallContext) -> Settings {
        unreachable!("it does not say that it can")
    }

    async fn set(self, _: CallContext, _: Set) -> Result<Registers, ControlError> {
        unreachable!("it does not say that it can")
    }

    async fn force_plan(self, _: CallContext, _: BTreeSet<NodeName>) -> Result<Plan, ControlError> {
        unreachable!("it does not say that it can")
    }

    async fn force(self, _: CallContext, _: Force) -> Result<Forced, ControlError> {
        unreachable!("it does not say that it can")
    }
}

fn member(number: u64, address: String) -> Member {
    Member {
        node: NodeId(number),
        directory: DirectoryId(number),
        name: format!("n{number}").parse().unwrap(),
        zone: "z".parse().unwrap(),
        weight: 1,
        address,
    }
}

fn layout(members: Vec<Member>) -> Layout {
    Layout::first(FirstLayout {
        cluster: ClusterId(1),
        partitions: PartitionCount::try_from(8).unwrap(),
        replicas: ReplicaCount::DEFAULT,
        members,
        buckets: BTreeMap::new(),
    })
    .unwrap()
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn client(seed: String) -> Bucket {
    let options = ClientOptions { timeout: TIMEOUT };
    Client::connect_with([seed], options).await.unwrap().bucket("b").unwrap()
}

/// A bucket of a cluster whose nodes have these manners, in the order in which they are asked for the key `k`; and their
/// addresses in that order.
async fn among<const NODES: usize>(manners: [Manner; NODES]) -> (Bucket, Vec<String>) {
    let mut listeners = BTreeMap::new();
    let mut members = Vec::new();
    for number in 1..=NODES as u64 {
        let (listener, address) = listener().await;
        listeners.insert(NodeId(number), listener);
        members.push(member(number, address));
    }
    let layout = layout(members);
    let key = ObjectKey::new("b".parse().unwrap(), "k").unwrap();
    let list = layout.preference_list(&key);
    let order: Vec<NodeId> = list.primaries().iter().chain(list.fallbacks()).copied().collect();
    let addresses: Vec<String> = order.iter().map(|node| layout.member(*node).unwrap().address.clone()).collect();
    let view = ClusterView { seen_by: "n1".parse().unwrap(), layout: Some(layout), peers: Vec::new() };
    for (node, manner) in order.iter().zip(manners) {
        let node = (Node { manner, view: Arc::new(view.clone()) }, listeners.remove(node).unwrap());
        tokio::spawn(node.0.serve(node.1));
    }
    // A seed that is no member: the layout can be learnt whatever the members' manners are.
    let (listener, seed) = listener().await;
    tokio::spawn(Node { manner: Manner::Answers, view: Arc::new(view) }.serve(listener));
    (client(seed).await, addresses)
}

#[tokio::test]
async fn a_node_that_says_nothing_is_left_for_the_next() {
    for manner in [Manner::IsFrozen, Manner::IsSilent] {
        let (bucket, addresses) = among([manner, Manner::Answers]).await;
        let began = Instant::now();
        assert_eq!(bucket.get("k").await.unwrap().via(), addresses[1]);
        assert!(began.elapsed() < Duration::from_millis(750) + SLACK, "{manner:?}: {:?}", began.elapsed());
        let began = Instant::now();
        assert_eq!(bucket.get("k").await.unwrap().via(), addresses[1]);
        assert!(began.elapsed() < SLACK, "it is remembered: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_request_ends_by_its_deadline_wherever_the_time_goes() {
    for manner in [Manner::IsFrozen, Manner::IsSilent] {
        let (bucket, _) = among([manner, manner]).await;
        let (began, timeout) = (Instant::now(), Duration::from_millis(1_200));
        let error = bucket.get("k").timeout(timeout).await.unwrap_err();
        assert!(began.elapsed() < timeout + SLACK, "{manner:?}: {:?}", began.elapsed());
        match manner {
            Manner::IsFrozen => assert!(matches!(error, ClientError::Unavailable { .. }), "nothing was sent: {error}"),
            _ => assert!(matches!(error, ClientError::DeadlinePassed { .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_copy_does_not_keep_the_others_from_answering() {
    let (bucket, addresses) = among([Manner::IsDamaged, Manner::Answers]).await;
    assert_eq!(bucket.get("k").await.unwrap().via(), addresses[1]);
    let (bucket, _) = among([Manner::IsDamaged, Manner::IsDamaged]).await;
    assert!(matches!(bucket.get("k").await.unwrap_err(), ClientError::Internal { .. }));
}

#[tokio::test]
async fn an_objection_after_silence_does_not_say_that_nothing_was_written() {
    let (bucket, _) = among([Manner::Objects, Manner::Answers]).await;
    assert!(matches!(bucket.put("k", "v").await.unwrap_err(), ClientError::Invalid(_)));
    let (bucket, _) = among([Manner::IsSilent, Manner::Objects]).await;
    assert!(matches!(bucket.put("k", "v").await.unwrap_err(), ClientError::OutcomeUnknown { .. }));
}

/// The nodes here are of a build that knows of no expiry: they are read as before, and asked for none.
#[tokio::test]
async fn what_a_build_does_not_know_of_it_is_not_asked_for() {
    let (bucket, _) = among([Manner::Answers, Manner::Answers]).await;
    assert_eq!(bucket.get("k").await.unwrap().expires(0), None);
    let refused = bucket.put("k", "v").ttl(Duration::from_secs(1)).await.unwrap_err();
    let told = refused.to_string();
    assert!(!matches!(refused, ClientError::OutcomeUnknown { .. }) && told.contains("expire"), "{told}");
}

#[tokio::test]
async fn a_member_that_was_restarted_elsewhere_is_found_through_a_seed() {
    let (gone, old) = listener().await;
    drop(gone);
    let (listener, new) = listener().await;
    let layout = layout(vec![member(1, old)]);
    let peer = PeerView {
        name: "n1".parse().unwrap(),
        node: NodeId(1),
        zone: "z".parse().unwrap(),
        address: new.clone(),
        alive: true,
        standing: String::new(),
        cluster: Some(ClusterId(1)),
        layout: Some(layout.version()),
        build: BUILD.to_owned(),
        hints_for: Vec::new(),
    };
    let view = ClusterView { seen_by: "n1".parse().unwrap(), layout: Some(layout), peers: vec![peer] };
    tokio::spawn(Node { manner: Manner::Answers, view: Arc::new(view) }.serve(listener));
    let bucket = client(new.clone()).await;
    assert_eq!(bucket.get("k").await.unwrap().via(), new);
}
