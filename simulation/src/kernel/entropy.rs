//! Where all randomness comes from: streams that grow out of the seed.
//!
//! What the operating system would give (births, ids, jitter, hash keys, the choices of gossip) comes from one stream that
//! everything draws from. What the simulation decides itself has a stream for each purpose, so that a run with fewer
//! faults still has the same network and the same clients.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

/// Portable: a seed means the same run in every later build.
pub type Stream = Xoshiro256PlusPlus;

/// Of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

static SYSTEM: AtomicU64 = AtomicU64::new(0);

/// Begins the stream of the operating system.
pub fn begin(seed: u64) {
    SYSTEM.store(mix(seed ^ GAMMA), Ordering::SeqCst);
}

/// A stream for one purpose.
pub fn stream(seed: u64, purpose: &str) -> Stream {
    Stream::seed_from_u64(mix(seed) ^ xxhash_rust::xxh3::xxh3_64(purpose.as_bytes()))
}

/// The next eight bytes that the operating system gives.
pub(super) fn system() -> u64 {
    mix(SYSTEM.fetch_add(GAMMA, Ordering::SeqCst))
}

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
