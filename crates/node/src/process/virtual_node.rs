//! A node as one process among others in virtual time: everything between its sockets and its devices
//! is what runs in the product, and so are its files. What it has on threads of their own is left out
//! (logs, the zeroing ahead of the log's head) or runs as a task: the control loop, new epochs.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use longship_rt::clock::Clock;
use longship_rt::disk_ring::Fault;
use longship_rt::event::Event;
use longship_rt::mailbox::mailbox;
use longship_rt::shard::{Queue, spawn};
use longship_rt::virtual_shard::Process;

use crate::config::Config;
use crate::process::opened::Opened;
use crate::process::start::{
    NodeError, Prepared, ShardParts, keep_refusals, run_shard, take_words,
};
use crate::process::stop::{Step, StopOrders, Stopper, stopper};

/// How often a start looks for its shards, and a node for its end.
const LOOK_US: u64 = 1000;
/// Between two epochs, as in the product.
const EPOCH_US: u64 = Duration::from_secs(300).as_micros() as u64;

/// A node that runs, or has ended.
pub struct VirtualNode {
    process: Process,
    stopper: Stopper,
    end: Rc<RefCell<Option<Result<(), NodeError>>>>,
    serves: Rc<Cell<bool>>,
}

impl VirtualNode {
    /// Starts one of so many shards at its configured address, on the virtual shard of this thread.
    pub fn start(config: Config, shard_count: u16) -> Self {
        let (stopper, orders) = stopper();
        let (end, serves): (Rc<RefCell<_>>, Rc<Cell<bool>>) = Default::default();
        let address: IpAddr = config.network.address;
        let (ended, serving) = (Rc::clone(&end), Rc::clone(&serves));
        let itself: Rc<Cell<Option<Process>>> = Rc::default();
        let own = Rc::clone(&itself);
        let process = Process::start(address, async move {
            let result = live(config, shard_count, orders, &serving).await;
            serving.set(false);
            *ended.borrow_mut() = Some(result);
            // What is left of its tasks ends with its threads.
            if let Some(process) = own.get() {
                process.kill();
            }
        });
        itself.set(Some(process));
        Self { process, stopper, end, serves }
    }

    /// Orders it to stop, whatever it is doing.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// It dies where it stands.
    pub fn kill(&self) {
        self.process.kill();
        self.serves.set(false);
    }

    /// It dies where it stands, since the power of its host fails.
    pub fn fail_power(&self) {
        self.process.fail_power();
        self.serves.set(false);
    }

    /// Has its devices do that from now on.
    pub fn break_devices(&self, faults: &[Fault]) {
        self.process.break_devices(faults);
    }

    /// Whether it takes requests.
    pub fn serves(&self) -> bool {
        self.serves.get()
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<Result<(), NodeError>> {
        self.end.borrow_mut().take()
    }
}

/// From its configuration to its end.
async fn live(
    config: Config,
    shard_count: u16,
    orders: StopOrders,
    serves: &Rc<Cell<bool>>,
) -> Result<(), NodeError> {
    let StopOrders { stopper, mut shipping } = orders;
    let Prepared { home, marks, bound, shared } = Prepared::from(config, shard_count, &stopper)?;
    let (started, starts) = mpsc::channel();
    let (mut give_up, pause) = (Vec::new(), Event::new());
    let nodes = (0..shard_count).map(|_| None);
    for parts in ShardParts::of_all(&shared, bound, nodes, &mut shipping)? {
        let (sender, told) = mailbox(1).map_err(NodeError::Mailbox)?;
        give_up.push(sender);
        spawn(Queue::Sockets, run_shard(parts, started.clone(), told));
    }
    let (mut found, mut waited) = (Opened::default(), shard_count);
    while waited > 0 {
        match starts.try_recv() {
            Ok(opened) => {
                found.add(&opened.inspect_err(|error| keep_refusals(&home, error))?);
                waited -= 1;
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) if stopper.is_ordered() => {
                give_up.iter().for_each(|shard| _ = shard.push(()));
                drop(started);
                // Each holds its sender until it has ended.
                while !matches!(starts.try_recv(), Err(TryRecvError::Disconnected)) {
                    pause.wait_until(Clock::real().now() + LOOK_US).await;
                }
                return Ok(());
            }
            Err(_) => _ = pause.wait_until(Clock::real().now() + LOOK_US).await,
        }
    }
    take_words(&home, &shared)?;
    let seed = shared.control_seed(&home, &found, marks);
    stopper.enter(Step::Serving);
    let (volumes, serving) = (shared.volumes.clone(), Rc::clone(serves));
    let on_serving = move || {
        serving.set(true);
        volumes.iter().for_each(|volume| volume.keeps_marks());
        spawn(Queue::Background, async move {
            let pause = Event::new();
            loop {
                pause.wait_until(Clock::real().now() + EPOCH_US).await;
                volumes.iter().for_each(|volume| volume.begin_epoch());
            }
        });
    };
    let is_durable = shipping.run_virtually(seed, on_serving).await?;
    if is_durable { Ok(()) } else { Err(NodeError::NotDurable) }
}
