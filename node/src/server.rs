//! Accepting connections: the hello, the decision who may come in, and the service the connection is for.

use std::sync::Arc;
use std::time::Duration;

use starling_core::ids::{ClusterId, NodeId, RunVerdict};
use starling_core::layout::MAX_MEMBERS;
use starling_core::ring::Membership;
use starling_proto::BUILD;
use starling_proto::connection::{channel, drive};
use starling_proto::control::{ControlService, NodeStanding};
use starling_proto::data::DataService;
use starling_proto::hello::{self, Class, Features, Hello, HelloError, Introduction, NotWelcome, PROTOCOLS, Welcome};
use starling_proto::network::{ByteStream, Listener};
use starling_proto::peer::PeerService;
use tarpc::server::Channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Api;
use crate::control::Control;
use crate::node::Node;
use crate::replica::Replica;

/// A stranger has this long to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Strangers who have not said hello yet; one more is shown out at once.
const MOST_STRANGERS: usize = 256;
/// Two for each other member: no crowd of clients keeps a peer out.
const MOST_PEERS: usize = 2 * MAX_MEMBERS;
/// Nor an operator.
const MOST_CONTROLS: usize = 64;

/// Room for connections, by what they are for.
struct Room {
    strangers: Arc<Semaphore>,
    data: Arc<Semaphore>,
    peers: Arc<Semaphore>,
    control: Arc<Semaphore>,
}

impl Room {
    fn new(data: usize) -> Room {
        let of = |count| Arc::new(Semaphore::new(count));
        Room { strangers: of(MOST_STRANGERS), data: of(data), peers: of(MOST_PEERS), control: of(MOST_CONTROLS) }
    }

    fn take(&self, class: Class) -> Option<OwnedSemaphorePermit> {
        let room = match class {
            Class::Data => &self.data,
            Class::Peer | Class::Bulk => &self.peers,
            Class::Control => &self.control,
        };
        Arc::clone(room).try_acquire_owned().ok()
    }
}

/// Accepts until the node stops.
pub async fn accept_connections(node: Arc<Node>, mut listener: Box<dyn Listener>) {
    let room = Arc::new(Room::new(node.config.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = node.stopping.cancelled() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: give those that end a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(stranger) = Arc::clone(&room.strangers).try_acquire_owned() else { continue };
        let (serving, room) = (Arc::clone(&node), Arc::clone(&room));
        node.spawn(async move {
            tokio::select! {
                () = serve(&serving, stream, &room, stranger) => {}
                () = serving.stopping.cancelled() => {}
            }
        });
    }
}

/// Serves one connection until it ends.
async fn serve(node: &Arc<Node>, mut stream: impl ByteStream, room: &Room, stranger: OwnedSemaphorePermit) {
    let greeted = tokio::time::timeout(HELLO_LIMIT, greet(node, &mut stream, room)).await;
    // Held for as long as the connection stands.
    let Guest { class, from, cluster, place: _place } = match greeted {
        Ok(Ok(Some(welcome))) => welcome,
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "a hello failed"),
    };
    drop(stranger);
    match class {
        Class::Data => drive(channel(stream).execute(Api::new(node).serve())).await,
        Class::Peer | Class::Bulk => {
            let (Some(from), Some(cluster)) = (from, cluster) else { return };
            tokio::select! {
                () = drive(channel(stream).execute(Replica::new(node, from, cluster).serve())) => {}
                () = node.goes_by_another_id_than(cluster) => {}
            }
        }
        Class::Control => drive(channel(stream).execute(Control::new(node).serve())).await,
    }
}

/// Who is welcome.
struct Guest {
    class: Class,
    /// If it is a node.
    from: Option<NodeId>,
    /// What it goes by, if it knows of a cluster.
    cluster: Option<ClusterId>,
    place: OwnedSemaphorePermit,
}

/// The acceptor's side of the hello. Returns who comes in; none if it was refused.
async fn greet(node: &Node, stream: &mut impl ByteStream, room: &Room) -> Result<Option<Guest>, HelloError> {
    let hello = hello::accept(stream).await?;
    let place = room.take(hello.class).ok_or(NotWelcome::Busy);
    let admitted = match (place, refusal(node, &hello).await) {
        (_, Some(refusal)) | (Err(refusal), None) => Err(refusal),
        (Ok(place), None) => Ok(place),
    };
    let place = match admitted {
        Ok(place) => place,
        Err(refusal) => {
            tracing::debug!(%refusal, class = ?hello.class, "refused a connection");
            hello::answer(stream, &Err(refusal)).await?;
            return Ok(None);
        }
    };
    let welcome = Welcome {
        protocol: PROTOCOLS.common(hello.protocols).unwrap_or(PROTOCOLS.newest),
        cluster: node.store.cluster(),
        node: node.introduction(),
        features: Features::ALL,
        build: BUILD.to_owned(),
    };
    hello::answer(stream, &Ok(welcome)).await?;
    let from = hello.from.map(|from| from.node);
    Ok(Some(Guest { class: hello.class, from, cluster: hello.cluster, place }))
}

async fn refusal(node: &Node, hello: &Hello) -> Option<NotWelcome> {
    if PROTOCOLS.common(hello.protocols).is_none() {
        return Some(NotWelcome::Protocol(PROTOCOLS));
    }
    let (ring, ours) = (node.store.ring(), node.store.cluster());
    let goes_or_went_by = |cluster| ring.as_ref().is_some_and(|ring| ring.goes_or_went_by(cluster));
    match hello.class {
        // Whoever administers or uses a node is told by the calls themselves what it can do.
        Class::Control => None,
        Class::Data | Class::Peer | Class::Bulk if node.draining.is_cancelled() => Some(NotWelcome::Stopping),
        Class::Data => {
            let is_ours = hello.cluster.is_none_or(|theirs| ours.is_none() || goes_or_went_by(theirs));
            (!is_ours).then_some(NotWelcome::OtherCluster(ours))
        }
        // It does not know yet by what this cluster goes now.
        Class::Peer | Class::Bulk if hello.cluster != ours && hello.cluster.is_some_and(goes_or_went_by) => {
            Some(NotWelcome::NotAMember)
        }
        Class::Peer | Class::Bulk if ours.is_none() || hello.cluster != ours => {
            // Or this node does not know by what it goes.
            if let (Some(ring), Some(from)) = (&ring, &hello.from)
                && ring.is_member(from.node)
            {
                node.suspect(from.node);
            }
            Some(NotWelcome::OtherCluster(ours))
        }
        Class::Peer | Class::Bulk => match &hello.from {
            Some(from) => peer_refusal(node, from).await,
            None => Some(NotWelcome::NotAMember),
        },
    }
}

/// A peer has to be the member that the layout names, in a run that is not behind what this node remembers of it. A run
/// that is welcome has been recorded durably before this returns (R3).
async fn peer_refusal(node: &Node, from: &Introduction) -> Option<NotWelcome> {
    if matches!(node.standing(), NodeStanding::Excluded(_) | NodeStanding::Failed(_)) {
        return Some(NotWelcome::Retired);
    }
    match node.store.ring()?.membership_of(from.node, from.run.directory) {
        // Whoever has left brings home what it holds.
        Membership::Member | Membership::Left => {}
        Membership::Removed | Membership::OtherDirectory(_) | Membership::Stranger => {
            return Some(NotWelcome::NotAMember);
        }
    }
    let run = from.run;
    match node.read_store(move |store| store.meet(&run)).await {
        Ok(RunVerdict::Newer | RunVerdict::Known) => None,
        Ok(RunVerdict::OldCopy) => {
            tracing::warn!(peer = %from.node, name = %from.name, "refused a peer that runs on an old copy of its directory");
            Some(NotWelcome::OldCopy { remembered: node.store.remembered(run.directory).unwrap_or(run) })
        }
        Err(_) => Some(NotWelcome::Retired),
    }
}
