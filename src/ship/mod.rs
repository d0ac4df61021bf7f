//! What ships, when, how, and what a reply means. Pure: plain data in, plain data out, `now` as an
//! argument; no I/O, no clock, no thread.
//!
//! One [`DcShard`] holds everything one shard knows about shipping to one DC. A change meets the
//! files in this order:
//!
//! | file | what happens there |
//! |---|---|
//! | `policy` | what a DC ships of a namespace, resolved from its configuration |
//! | `submit` | a change is taken: set and flag rules, echo, hot keys; queued or left to recovery |
//! | `queue`, `lane` | 25 bytes wait in the ring of their lane, in chunks of a pool with a bound |
//! | `namespaces` | which lanes a namespace has, and all that is kept of it |
//! | `schedule` | which change may ship now: namespaces in turn |
//! | `rounds`, `ready` | within a namespace: retries, lanes in turn, delay, throttle, windows |
//! | `shares` | what retries, queued changes and finds of recoveries get of it, and of a slow node |
//! | `held` | which lanes wait for their destination node, so that laps pass over them |
//! | `ahead` | of several changes of a record in a backlog one ships |
//! | `slots` | what is dispatched, and the one version of each digest that may be |
//! | `filter`, `encode`, `batch` | the record as read becomes one operation in an open batch |
//! | `verdict`, `settle`, `retry` | what a reply or fault means, and what is done about it |
//! | `detach` | what a namespace that goes leaves under way, and what holds it if it comes back |
//! | `recovery` | the gap between LST and queue becomes a walk request, its finds are queued |
//! | `peer` | what is known of the destination, and how long nothing ships to it |
//! | `durable` | what a restarted destination may have forgotten |
//! | `checkpoint` | the low-water mark of each lane that is safe to persist |
//! | `stats` | counters that add up |
//!
//! Who may call what: the writer's side calls [`DcShard::submit`]; the DC task calls
//! [`DcShard::dispatch`] and the recovery functions; service tasks call [`DcShard::sent`] and
//! [`DcShard::settle`]. All on one core.
//!
//! # Cost
//!
//! Per shipped record: a push and a pop of 25 bytes, one slot of one cache line, one insertion into
//! and one removal from the digest table, and nothing else: no allocation, no lock, no clock.

mod ahead;
#[cfg(any(test, feature = "sim"))]
mod audit;
mod batch;
mod bitmap;
mod checkpoint;
mod dc;
mod detach;
mod durable;
mod encode;
mod filter;
mod held;
mod horizon;
mod lane;
mod letters;
#[doc(hidden)]
pub mod mutation;
mod namespaces;
mod peer;
mod policy;
mod queue;
mod ready;
mod recovery;
mod refusals;
mod retry;
mod rounds;
mod schedule;
mod settle;
mod shares;
mod slots;
mod stats;
mod submit;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod timers;
mod verdict;

#[cfg(any(test, feature = "sim"))]
pub use audit::Queue;
pub use batch::{BATCH_BYTES, Batch};
pub use checkpoint::SweepStep;
pub use dc::{DcShard, Limits, Memory, Now, Start};
pub use encode::{Encoded, NoRoom, Target, encode};
pub use filter::{Judgement, judge};
pub use policy::{BinRule, Policy, SetRule};
pub use recovery::{RecoveryProgress, WalkDemand, WalkIndex, WalkRequest};
pub use retry::Parked;
pub use schedule::{Dispatch, Idle, Room, Routes};
pub use settle::{Abandoned, Cause, Outcome, Settled};
pub use stats::{CheckSum, Counters, Gauges, LimitedBy, Stats};
pub use submit::Admission;
pub use verdict::{Pace, Sent, Verdict, hints_at_stale_map, verdict};
