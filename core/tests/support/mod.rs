//! What the core's integration tests share. Each of them is a program of its own and uses its part.
#![allow(dead_code)]

pub mod agenda;
pub mod choice_world;
pub mod flock;
pub mod get_world;
pub mod put_world;
pub mod reachable;
pub mod reap_world;
pub mod ring_world;
pub mod versions;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use starling_core::coordinate::ObjectLimits;
use starling_core::ids::NodeId;
use starling_core::object::Object;
use starling_core::preference::LayoutQuorum;
use starling_core::quorum::{Level, Quorum, ReplicaCount};
use starling_core::wall::WallTime;

/// When readers look, where it makes no difference or values are made to fit.
pub const NOW: WallTime = WallTime(1_000);
pub const UNLIMITED: ObjectLimits = ObjectLimits { siblings: usize::MAX, bytes: usize::MAX };

/// As many cases as a test can afford, the same at each run. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` override, for a
/// longer hunt.
pub fn cases(count: u32) -> Config {
    const UNSET: u32 = 256;
    let environment = Config::default();
    Config {
        cases: if environment.cases == UNSET { count } else { environment.cases },
        rng_seed: match environment.rng_seed {
            RngSeed::Random => RngSeed::Fixed(0x57a2_11e6),
            fixed @ RngSeed::Fixed(_) => fixed,
        },
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..environment
    }
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// `n3` in the stories is node 3.
pub fn name(node: NodeId) -> String {
    format!("n{}", node.0)
}

pub fn copies(count: usize) -> ReplicaCount {
    ReplicaCount::try_from(u8::try_from(count).expect("a small number")).expect("1 to 7 copies")
}

pub fn write_quorum(w: &str, pw: &str, primaries: usize) -> Quorum {
    Quorum::of_write(level(w), level(pw), copies(primaries)).expect("the test asks for what is possible")
}

pub fn read_quorum(r: &str, pr: &str, primaries: usize) -> Quorum {
    Quorum::of_read(level(r), level(pr), copies(primaries)).expect("the test asks for what is possible")
}

fn level(text: &str) -> Level {
    text.parse().expect("the test names a level")
}

/// One layout, or two that have some primaries in common, or none; together they have all of them.
pub fn layouts(primaries: usize) -> impl Strategy<Value = Vec<LayoutQuorum>> {
    let two = (1..=primaries).prop_flat_map(move |old| {
        let new = 0..=old.min(primaries - 1);
        new.prop_map(move |from| vec![(0, old), (from, primaries)])
    });
    let all = prop_oneof![1 => Just(vec![(0, primaries)]), 1 => two];
    all.prop_flat_map(|layouts| layouts.into_iter().map(|(from, until)| layout(from, until)).collect::<Vec<_>>())
}

/// With the primaries from one up to another.
fn layout(from: usize, until: usize) -> impl Strategy<Value = LayoutQuorum> {
    let all = until - from;
    (1..=all, 0..=all).prop_map(move |(w, pw)| LayoutQuorum {
        primaries: (from..until).map(|number| NodeId(number as u64)).collect(),
        quorum: Quorum::of_write(count(w), count(pw), copies(all)).expect("at most all"),
    })
}

fn count(count: usize) -> Level {
    Level::Count(u8::try_from(count).expect("a small number"))
}

/// Whether an object has all that another has.
pub fn includes(all: &Object, part: &Object) -> bool {
    all.clock().covers_all(part.clock())
}

/// Returns the text as an error unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
pub(crate) use ensure;
