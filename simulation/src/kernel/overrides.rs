//! The two system calls that would let the real world in, replaced for this program.
//!
//! The linker prefers these definitions to libc's. Everything that asks for the time or for random bytes comes through
//! here: the standard library, tokio, tarpc's deadlines, chitchat, hash maps. Before the simulation begins they do what
//! libc does.

use std::time::Duration;

use super::{entropy, time};

/// clock_gettime(2).
///
/// # Safety
/// `into` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> libc::c_int {
    let at_start = match clock {
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            time::MONOTONIC_AT_START
        }
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => time::REALTIME_AT_START,
        _ => Duration::ZERO,
    };
    if at_start.is_zero() || !time::is_simulated() {
        // SAFETY: the system call that libc's function makes, with the same arguments.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) } as libc::c_int;
    }
    let now = at_start + time::now().since_start();
    let now = libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: now.subsec_nanos().into() };
    // SAFETY: the caller's promise.
    unsafe { into.write(now) };
    0
}

/// getrandom(2).
///
/// # Safety
/// `into` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(into: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if !time::is_simulated() {
        // SAFETY: the system call that libc's function makes, with the same arguments.
        return unsafe { libc::syscall(libc::SYS_getrandom, into, length, flags) } as libc::ssize_t;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&entropy::system().to_le_bytes()[..chunk.len()]);
    }
    length as libc::ssize_t
}
