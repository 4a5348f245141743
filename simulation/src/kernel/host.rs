//! A host: a machine that runs one process, in a runtime of its own, with a clock that can stand still.

use std::cell::RefCell;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::time::{self, Moment};

thread_local! {
    static RUNNING: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The name of the process that runs now, or ran last.
pub fn running() -> String {
    RUNNING.with_borrow(Clone::clone)
}

/// A process. Dropping it is kill -9, provided that the world was cut off before: no destructor can reach anything then.
pub struct Process {
    name: String,
    runtime: Option<Runtime>,
    paused: bool,
    /// How far it has been run.
    until: Moment,
}

impl Process {
    /// A process that begins now.
    pub fn start(name: impl Into<String>) -> Process {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
        Process { name: name.into(), runtime: Some(runtime), paused: false, until: time::now() }
    }

    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime().spawn(task)
    }

    /// As by SIGSTOP: nothing runs and no timer fires, while everybody else goes on.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// As by SIGCONT: all at once it is later.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Lets it do all that it has to do before `end`, timers included.
    pub fn run_until(&mut self, begin: Moment, end: Moment) {
        if self.paused {
            return;
        }
        let missed = Duration::from_nanos(begin.0.saturating_sub(self.until.0));
        self.until = end;
        RUNNING.with_borrow_mut(|running| running.clone_from(&self.name));
        time::in_host(|| {
            self.runtime().block_on(async {
                if !missed.is_zero() {
                    tokio::time::advance(missed).await;
                }
                tokio::time::sleep_until(time::instant(end)).await;
            });
        });
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        time::in_host(|| drop(self.runtime.take()));
    }
}
