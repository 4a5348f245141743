//! What the core's steps cost, each beside its floor.

use std::time::Duration;

use divan::{Bencher, black_box};

fn main() {
    // Long enough that a busy neighbour does not decide a median.
    divan::Divan::default().min_time(Duration::from_millis(300)).config_with_args().main();
}

/// Where a key lies on the ring. Floor: the same hash over the same bytes in one piece.
mod token {
    use super::*;
    use starling_core::token::Token;
    use xxhash_rust::xxh3::xxh3_64;

    #[divan::bench]
    fn of_a_key(bencher: Bencher) {
        let key = starling_benches::key(1);
        bencher.bench_local(|| Token::of(black_box(&key)));
    }

    #[divan::bench]
    fn of_a_key_floor(bencher: Bencher) {
        let key = starling_benches::key(1);
        let lengths = [0; 12];
        let bytes = [&lengths[..], b"default", key.bucket().as_str().as_bytes(), key.key()].concat();
        bencher.bench_local(|| xxh3_64(black_box(&bytes)));
    }
}

/// Two replicas' objects that share all siblings but one on each side. Floor: one clone of the merged object.
mod merge {
    use super::*;
    use starling_core::object::Object;

    const SIBLINGS: [u64; 3] = [1, 3, 10];

    fn two_sides(siblings: u64) -> (Object, Object) {
        let ours = starling_benches::object(0..siblings, 100);
        let theirs = starling_benches::object((0..siblings - 1).chain([siblings]), 100);
        (ours, theirs)
    }

    #[divan::bench(args = SIBLINGS)]
    fn siblings(bencher: Bencher, siblings: u64) {
        let (ours, theirs) = two_sides(siblings);
        bencher.with_inputs(|| ours.clone()).bench_local_refs(|ours| ours.merge(black_box(&theirs)));
    }

    #[divan::bench(args = SIBLINGS)]
    fn siblings_floor(bencher: Bencher, siblings: u64) {
        let (mut merged, theirs) = two_sides(siblings);
        merged.merge(&theirs);
        bencher.bench_local(|| black_box(&merged).clone());
    }
}

/// A write of 1 KiB over one sibling that its writer has read. Floor: the hash of the value, which finds a reused request
/// id, and a clone of the object.
mod coordinate {
    use super::*;
    use starling_benches::{LIMITS, bytes, minter, write, written};
    use starling_core::coordinate::{Write, coordinate};

    const SIZE: usize = 1024;

    #[divan::bench]
    fn one_write(bencher: Bencher) {
        let (object, mark) = written(1, bytes(SIZE));
        let next = Write { seen: object.seen(), ..write(2, bytes(SIZE)) };
        let minter = minter(1);
        bencher.with_inputs(|| (object.clone(), Some(mark), next.clone())).bench_local_values(
            |(mut object, mut mark, write)| {
                let done = coordinate(&mut object, &mut mark, write, &minter, &LIMITS);
                (object, mark, done.expect("within the limits"))
            },
        );
    }

    #[divan::bench]
    fn one_write_floor(bencher: Bencher) {
        let (object, _) = written(1, bytes(SIZE));
        let value = write(2, bytes(SIZE)).value;
        bencher.bench_local(|| (black_box(&value).hash(), black_box(&object).clone()));
    }
}

/// A causal context of one and of three histories, encoded and decoded. Floor: its checksum twice, and a copy.
mod context {
    use super::*;
    use starling_core::context::Context;
    use starling_core::ids::ClusterId;
    use starling_core::token::Token;
    use xxhash_rust::xxh3::xxh3_64;

    const HISTORIES: [u64; 2] = [1, 3];

    fn context(histories: u64) -> Context {
        let clock = starling_benches::object(0..histories, 1).clock().clone();
        Context::new(ClusterId(u64::MAX), Token::of(&starling_benches::key(1)), clock.into())
    }

    #[divan::bench(args = HISTORIES)]
    fn there_and_back(bencher: Bencher, histories: u64) {
        let context = context(histories);
        bencher.bench_local(|| Context::decode(&black_box(&context).encode()).expect("just encoded"));
    }

    #[divan::bench(args = HISTORIES)]
    fn there_and_back_floor(bencher: Bencher, histories: u64) {
        let bytes = context(histories).encode();
        bencher.bench_local(|| {
            let copy = black_box(&bytes).to_vec();
            (xxh3_64(black_box(&bytes)), xxh3_64(&copy), copy)
        });
    }
}

/// An object with one sibling. Floor: a copy of the encoded bytes.
mod codec {
    use super::*;
    use divan::counter::BytesCount;
    use starling_core::codec;
    use starling_core::object::Object;

    const SIZES: [usize; 3] = [100, 1 << 10, 64 << 10];

    #[divan::bench(args = SIZES)]
    fn encode(bencher: Bencher, size: usize) {
        let object = starling_benches::object([1], size);
        bencher.counter(BytesCount::new(size)).bench_local(|| codec::encode(black_box(&object)));
    }

    #[divan::bench(args = SIZES)]
    fn decode(bencher: Bencher, size: usize) {
        let bytes = codec::encode(&starling_benches::object([1], size));
        let decode = || codec::decode::<Object>(black_box(&bytes), 1 << 20, "an object").expect("just encoded");
        bencher.counter(BytesCount::new(size)).bench_local(decode);
    }

    #[divan::bench(args = SIZES)]
    fn floor(bencher: Bencher, size: usize) {
        let bytes = codec::encode(&starling_benches::object([1], size));
        bencher.counter(BytesCount::new(size)).bench_local(|| black_box(&bytes).clone());
    }
}

/// Who holds a key, and who may stand in. Floor: a clone of the list.
mod preference_list {
    use super::*;

    const MEMBERS: [u64; 2] = [5, 100];

    #[divan::bench(args = MEMBERS)]
    fn members(bencher: Bencher, members: u64) {
        let (layout, key) = (starling_benches::layout(members), starling_benches::key(1));
        bencher.bench_local(|| layout.preference_list(black_box(&key)));
    }

    #[divan::bench(args = MEMBERS)]
    fn members_floor(bencher: Bencher, members: u64) {
        let list = starling_benches::layout(members).preference_list(&starling_benches::key(1));
        bencher.bench_local(|| black_box(&list).clone());
    }
}

/// The first layout of a cluster, 256 partitions. Floor: a clone of it.
mod first_layout {
    use super::*;
    use starling_benches::{first_layout, layout};
    use starling_core::layout::Layout;

    const MEMBERS: [u64; 2] = [5, 100];

    #[divan::bench(args = MEMBERS, sample_count = 20, max_time = 5)]
    fn members(bencher: Bencher, members: u64) {
        bencher.with_inputs(|| first_layout(members)).bench_local_values(Layout::first);
    }

    #[divan::bench(args = MEMBERS, sample_count = 20)]
    fn members_floor(bencher: Bencher, members: u64) {
        let layout = layout(members);
        bencher.bench_local(|| black_box(&layout).clone());
    }
}

/// The layout after it, when one more joins. Floor: a clone of the one before. The largest is what the design aims at: under
/// two seconds for 1,000 nodes and 16,384 partitions.
mod next_layout {
    use super::*;
    use starling_benches::first_layout;
    use starling_core::layout::{FirstLayout, Layout, NextLayout};
    use starling_core::token::PartitionCount;

    /// Members, partitions.
    const SIZES: [(u64, u32); 2] = [(5, 256), (1000, 16_384)];

    fn before((members, partitions): (u64, u32)) -> Layout {
        let partitions = PartitionCount::try_from(partitions).expect("a power of two");
        Layout::first(FirstLayout { partitions, ..first_layout(members) }).expect("the members differ")
    }

    #[divan::bench(args = SIZES, sample_count = 5, sample_size = 1, max_time = 20)]
    fn one_joins(bencher: Bencher, size: (u64, u32)) {
        let layout = before(size);
        let FirstLayout { replicas, members, buckets, .. } = first_layout(size.0 + 1);
        let next = NextLayout { replicas, members, buckets };
        bencher.with_inputs(|| next.clone()).bench_local_values(|next| layout.successor(next));
    }

    #[divan::bench(args = SIZES, sample_count = 20)]
    fn one_joins_floor(bencher: Bencher, size: (u64, u32)) {
        let layout = before(size);
        bencher.bench_local(|| black_box(&layout).clone());
    }
}

/// A write's machine among three primaries that all answer, from its plan to its end. Floor: a clone of the plan.
mod put {
    use super::*;
    use starling_core::ids::NodeId;
    use starling_core::preference::LayoutQuorum;
    use starling_core::put::{Action, Candidate, Event, Plan, Put};
    use starling_core::quorum::{Level, Quorum, ReplicaCount};
    use starling_core::report::Role;

    fn plan() -> Plan {
        let slow_after = Duration::from_millis(20);
        let candidate = |node| Candidate { node, believed_down: false, slow_after };
        let list = starling_benches::layout(5).preference_list(&starling_benches::key(1));
        let (primaries, fallbacks) = list.candidates(candidate);
        Plan {
            coordinator: list.primaries()[0],
            primaries,
            fallbacks,
            quorums: vec![LayoutQuorum {
                primaries: list.primaries().to_vec(),
                quorum: Quorum::of_write(Level::Default, Level::Default, ReplicaCount::DEFAULT).expect("it can be met"),
            }],
            deadline: Duration::from_secs(1),
            give_up_after: Duration::from_secs(5),
        }
    }

    fn asked(actions: &[Action]) -> impl Iterator<Item = NodeId> {
        actions.iter().filter_map(|action| match action {
            Action::Store { to, role: Role::Primary } => Some(*to),
            Action::Store { role: Role::Fallback { .. }, .. } | Action::Coordinate | Action::Answer(_) => None,
        })
    }

    #[divan::bench]
    fn start_to_done(bencher: Bencher) {
        let plan = plan();
        let at = Duration::from_millis;
        bencher.bench_local(|| {
            let (mut put, _) = Put::start(black_box(&plan).clone());
            let sent = put.step(at(1), Event::Coordinated);
            for (node, now) in asked(&sent).zip(2..) {
                black_box(put.step(at(now), Event::Stored { by: node }));
                black_box(put.next_wake(at(now)));
            }
            assert!(put.is_done());
        });
    }

    #[divan::bench]
    fn start_to_done_floor(bencher: Bencher) {
        let plan = plan();
        bencher.bench_local(|| black_box(&plan).clone());
    }
}
