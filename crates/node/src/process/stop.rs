//! The order to stop, from whoever gives it to everything that has to hear it, and how long a stop
//! may take.
//!
//! A stop keeps to `stop-deadline-ms`, whatever is slow. Clients that do not take their replies get
//! a part of that time. Shipping and flushing end together before it is over, and what is left then
//! is logged. A device that hangs may hold up any thread of the node. So whoever starts a stop
//! watches over it from another thread: [`Stopper::step`] tells how far it has come.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use longship::model::Tick;
use longship::shipper::{Shipping, Stop};

/// The least a stop is given: a log is flushed even if nothing more may be shipped.
const STOP_MS_MIN: u64 = 1000;
/// The most that clients get to take their last replies.
const CLIENTS_MS_MAX: u64 = 2000;
/// Kept back for what comes after the flush: the last positions, and ending threads.
const REST_MS_MAX: u64 = 500;

/// How far a node is from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Nothing is served yet, so there is nothing to lose.
    Starting,
    /// It takes requests, or is about to.
    Serving,
    /// It answers what it was asked.
    Answering,
    /// It ships and flushes what is left.
    Draining,
    /// A shard has ended; the last positions follow.
    Ending,
}

impl Step {
    const ALL: [Self; 5] =
        [Self::Starting, Self::Serving, Self::Answering, Self::Draining, Self::Ending];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Serving => "beginning to stop",
            Self::Answering => "answering the last requests",
            Self::Draining => "shipping and flushing what is left",
            Self::Ending => "storing the last positions",
        })
    }
}

/// Stops a node; clones stop the same one.
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

struct Shared {
    is_ordered: Arc<AtomicBool>,
    step: AtomicU8,
    shipping: Stop,
}

/// Where a node hears its orders; see [`crate::process::start::run`].
pub struct StopOrders {
    pub(crate) stopper: Stopper,
    pub(crate) shipping: Shipping,
}

/// For a node to come: what will stop it, and what it is started with.
pub fn stopper() -> (Stopper, StopOrders) {
    let (shipping, stop) = Shipping::new();
    let stopper = Stopper(Arc::new(Shared {
        is_ordered: Arc::default(),
        step: AtomicU8::new(Step::Starting as u8),
        shipping: stop,
    }));
    (stopper.clone(), StopOrders { stopper, shipping })
}

impl Stopper {
    /// Has the node stop, whatever it is doing. False when it has ended already.
    pub fn stop(&self) -> bool {
        self.0.is_ordered.store(true, Ordering::Relaxed);
        self.0.shipping.stop()
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_ordered(&self) -> bool {
        self.0.is_ordered.load(Ordering::Relaxed)
    }

    /// Set once [`Self::stop`] was called, for a thread that looks again and again.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.is_ordered)
    }

    /// How far the furthest part of the node is.
    pub fn step(&self) -> Step {
        Step::ALL[usize::from(self.0.step.load(Ordering::Relaxed))]
    }

    pub(crate) fn enter(&self, step: Step) {
        self.0.step.fetch_max(step as u8, Ordering::Relaxed);
    }
}

/// How long a stop may take, all in all, with that `stop-deadline-ms`.
pub fn stop_time(stop_deadline_ms: u32) -> Duration {
    Duration::from_millis(u64::from(stop_deadline_ms).max(STOP_MS_MIN))
}

/// The times a stop keeps to on each shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Clients have taken their last replies.
    pub(crate) clients: Tick,
    /// Nothing more is shipped.
    pub(crate) ship: Tick,
    /// Everything is on the device, and an index checkpoint beside it.
    pub(crate) flush: Tick,
}

impl Deadlines {
    /// Of a stop that begins now.
    pub(crate) fn new(now: Tick, stop_deadline_ms: u32) -> Self {
        let given_ms = u64::from(stop_deadline_ms);
        let all_ms = given_ms.max(STOP_MS_MIN);
        let end_ms = all_ms - REST_MS_MAX.min(all_ms / 10);
        Self {
            clients: now.plus_ms((given_ms / 4).min(CLIENTS_MS_MAX)),
            ship: now.plus_ms(given_ms.min(end_ms)),
            flush: now.plus_ms(end_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_stop_ends_before_the_whole() {
        for given_ms in [0, 1, 500, 1000, 5000, 10_000, 600_000] {
            let Deadlines { clients, ship, flush } = Deadlines::new(Tick(7), given_ms);
            let end = Tick(7).plus_ms(stop_time(given_ms).as_millis() as u64);
            assert!(clients <= ship && ship <= flush && flush < end, "{given_ms}");
            assert!(flush >= Tick(7).plus_ms(900), "a flush has time, whatever was given");
        }
        assert_eq!(Deadlines::new(Tick(7), 0).ship, Tick(7), "nothing is shipped without time");
    }

    #[test]
    fn the_unit_gives_a_stop_more_time_than_it_takes() {
        let unit = include_str!("../../../../tuning/longship.service");
        let given = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
        let given = Duration::from_secs(given.unwrap().parse().unwrap());
        let taken = stop_time(crate::config::ServiceConfig::default().stop_deadline_ms);
        assert!(given >= 2 * taken, "{given:?} of {taken:?}");
    }

    #[test]
    fn the_unit_needs_no_folder_that_nobody_made() {
        let unit = include_str!("../../../../tuning/longship.service");
        let needed = unit.lines().filter_map(|line| line.strip_prefix("ReadWritePaths="));
        let needed: Vec<_> = needed.flat_map(str::split_whitespace).collect();
        assert!(needed.iter().all(|path| path.starts_with('-')), "{needed:?} may not be there");
        assert!(unit.lines().any(|line| line == "StateDirectory=longship"));
    }

    #[test]
    fn steps_are_told_and_never_go_back() {
        let (stopper, orders) = stopper();
        assert_eq!(stopper.step(), Step::Starting);
        orders.stopper.enter(Step::Draining);
        orders.stopper.enter(Step::Answering);
        assert_eq!(stopper.step(), Step::Draining);
        assert!(!stopper.is_ordered() && stopper.stop() && orders.stopper.is_ordered());
        drop(orders);
        assert!(!stopper.stop(), "nobody is there to hear it");
    }
}
