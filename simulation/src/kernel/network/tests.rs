//! The network, by what two hosts can tell of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_proto::network::{Listener as _, Network as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{HostId, Network, Plug, Watcher, Weather};
use crate::kernel::entropy::{self, stream};
use crate::kernel::host::Process;
use crate::kernel::time::{self, Moment, TICK};

struct Nobody;
impl Watcher for Nobody {}

const DIALLER: HostId = HostId(0);
const ACCEPTOR: HostId = HostId(1);

/// Two hosts, and what the second has heard.
struct Pair {
    network: Network,
    dialler: Process,
    acceptor: Option<Process>,
    now: Moment,
}

type Heard = Arc<Mutex<Vec<String>>>;

impl Pair {
    fn new() -> Pair {
        entropy::begin(1);
        time::begin();
        let network = Network::new(2, stream(1, "network"), Box::new(Nobody));
        Pair { network, dialler: Process::start("dialler"), acceptor: None, now: time::now() }
    }

    /// The second host accepts one connection and writes down what comes, and how it ends.
    fn listen(&mut self) -> Heard {
        let plug = self.network.plug_in(ACCEPTOR);
        let heard = Heard::default();
        let (process, notes) = (Process::start("acceptor"), Arc::clone(&heard));
        process.spawn(async move {
            let mut stream = plug.listen().accept().await.unwrap();
            let mut byte = [0];
            loop {
                let note = match stream.read(&mut byte).await {
                    Ok(0) => "end".to_owned(),
                    Ok(_) => byte[0].to_string(),
                    Err(error) => error.kind().to_string(),
                };
                let over = note.parse::<u8>().is_err();
                notes.lock().unwrap().push(note);
                if over {
                    return;
                }
            }
        });
        self.acceptor = Some(process);
        heard
    }

    fn dial(&self) -> Plug {
        self.network.plug_in(DIALLER)
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let next = self.now + TICK;
            self.network.deliver(self.now);
            self.dialler.run_until(self.now, next);
            if let Some(acceptor) = &mut self.acceptor {
                acceptor.run_until(self.now, next);
            }
            self.now = next;
            time::set(next);
        }
    }
}

/// Writes 0 to 9, one each ten milliseconds, and hangs up.
async fn count(plug: Plug) {
    let mut stream = plug.connect(&ACCEPTOR.address().to_string()).await.unwrap();
    for number in 0..10u8 {
        if stream.write_all(&[number]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn numbers(heard: &Heard) -> String {
    heard.lock().unwrap().join(" ")
}

const ALL: &str = "0 1 2 3 4 5 6 7 8 9 end";

#[test]
fn what_is_sent_arrives_in_order_however_the_wire_is() {
    let mut pair = Pair::new();
    pair.network.set_weather(Weather { delay: Duration::from_millis(1), jitter: Duration::from_millis(80), loss: 0.3 });
    let heard = pair.listen();
    pair.dialler.spawn(count(pair.dial()));
    pair.pass(Duration::from_secs(20));
    assert_eq!(numbers(&heard), ALL);
}

#[test]
fn what_meets_a_cut_waits_there_and_goes_on_when_it_is_mended() {
    let mut pair = Pair::new();
    let heard = pair.listen();
    pair.dialler.spawn(count(pair.dial()));
    pair.pass(Duration::from_millis(45));
    pair.network.cut((DIALLER, ACCEPTOR));
    pair.pass(Duration::from_secs(5));
    let before = numbers(&heard);
    assert!(before.starts_with("0 1") && !before.contains('9'), "{before}");
    pair.network.mend((DIALLER, ACCEPTOR));
    pair.pass(Duration::from_secs(1));
    assert_eq!(numbers(&heard), ALL);
}

#[test]
fn a_process_that_ends_resets_and_a_machine_without_power_is_silent() {
    for (power_cut, end) in [(false, "connection reset"), (true, "")] {
        let mut pair = Pair::new();
        let heard = pair.listen();
        pair.dialler.spawn(count(pair.dial()));
        pair.pass(Duration::from_millis(45));
        if power_cut {
            pair.network.power_off(DIALLER)
        } else {
            pair.network.end_process(DIALLER)
        }
        pair.dialler = Process::start("nothing");
        pair.pass(Duration::from_secs(1));
        let told = numbers(&heard);
        assert_eq!(told.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' '), end, "{told}");
    }
}

#[test]
fn nobody_answers_where_nobody_listens() {
    let mut pair = Pair::new();
    let refused = Arc::new(Mutex::new(None));
    let (plug, seen) = (pair.dial(), Arc::clone(&refused));
    pair.dialler.spawn(async move {
        let outcome = plug.connect(&ACCEPTOR.address().to_string()).await;
        *seen.lock().unwrap() = outcome.err().map(|error| error.kind());
    });
    pair.pass(Duration::from_millis(20));
    assert_eq!(*refused.lock().unwrap(), Some(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn for_a_paused_process_it_is_later_all_at_once() {
    let mut pair = Pair::new();
    let woken = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&woken);
    pair.dialler.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            seen.lock().unwrap().push(time::now().since_start().as_millis());
        }
    });
    pair.pass(Duration::from_millis(250));
    pair.dialler.pause();
    pair.pass(Duration::from_millis(1_000));
    assert_eq!(woken.lock().unwrap().len(), 2);
    pair.dialler.resume();
    pair.pass(Duration::from_millis(10));
    let woken = woken.lock().unwrap();
    assert!(woken.len() == 3 && woken[2] >= 1_250, "{woken:?}");
}
