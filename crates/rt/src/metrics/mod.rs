//! Per-core counters and histograms: one writer each, merged only when somebody looks; and
//! the bounds on the log ([`LogLimit`], [`Alarm`]).
//!
//! All cells are plain (`Cell<u64>`): they belong to one shard, are written through a shared
//! reference, and cost what the addition costs. None is `Sync`, so that two cores cannot write one
//! cell by mistake. Whoever wants a figure of the whole process asks each shard for its
//! values ([`Counter::value`], [`Histogram::snapshot`]), which can be sent, and adds them up.

mod cell;
mod histogram;
mod limit;

pub use cell::Counter;
pub use histogram::{Histogram, HistogramSnapshot};
pub use limit::{Alarm, LogBudget, LogLimit};
