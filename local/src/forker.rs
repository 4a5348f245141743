//! The one thread of this process that forks nodes and probes ports.
//!
//! Two things need it. A fork copies every open descriptor, for as long as it takes the child to reach its program: a
//! socket that another thread has bound only to see whether the port is free would stay bound meanwhile, and the node
//! that was meant to have the port would not get it. And a child that is to die with this process is told by the kernel
//! when the *thread* that forked it ends (prctl(2), PR_SET_PDEATHSIG), which for a runtime's blocking thread is soon.

use std::sync::LazyLock;
use std::sync::mpsc::{self, Sender};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Unbounded in name only: each caller waits for its answer, so it holds at most one job per thread.
static FORKER: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    let work_off = move || queue.iter().for_each(|job| job());
    thread::Builder::new()
        .name("forker".to_owned())
        .spawn(work_off)
        .expect("a process that starts nodes has a thread left");
    jobs
});

/// Does `work` on the forker's thread and waits for it. Jobs are short and must not panic.
pub(crate) fn on_forker<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (reply, answer) = mpsc::sync_channel(1);
    let job = move || reply.send(work()).expect("the caller waits for the answer");
    FORKER.send(Box::new(job)).expect("the forker lives as long as the process");
    answer.recv().expect("jobs of the forker do not panic")
}
