//! Joins rules, host and destinations on each shard; where loops run forever.
//!
//! `ship` decides, this module does: it owns the tasks, drives the sockets of `dest`, reads through
//! the host, and hands `now` down. In the order of a record:
//!
//! | file | what happens there |
//! |---|---|
//! | `shard` | all DCs of one shard: fan-out of a change, and their tasks |
//! | `follow` | what a shard does about the control loop's orders |
//! | `dc` | one DC as tasks and control loop have it: its engine, and who wakes whom |
//! | `tasks` | the three loops of a DC: when to do a step, and nothing else |
//! | `steps` | the steps, over any host and destination: settle, dispatch, read, encode, send, walk |
//! | `drain` | what a stop still waits for |
//! | `batch_memory` | memory of batches, shared out to DCs |
//! | `checkpoint` | positions on their way to the marks file, and the tombstones that may go |
//! | `lag` | sampled time from submission to acknowledgement |
//! | `letters` | the list of changes that were given up |
//! | `ticker` | the lines about shipping in the log |
//! | `command`, `control` | changes of configuration: the order of their steps; the thread that does them and owns the marks |
//! | `files` | whether the file system of the work directory answers |
//! | `gap` | spans of which deletes may be missing after a start from the past |
//! | `holders` | who took what was shipped, and what is missing there |
//! | `resolver` | host names to addresses |
//! | `positions` | the last known position of every lane, by name |

mod batch_memory;
mod checkpoint;
mod command;
mod control;
mod dc;
mod drain;
mod files;
mod follow;
mod gap;
mod holders;
mod lag;
mod letters;
mod positions;
mod resolver;
mod shard;
mod steps;
mod tasks;
#[cfg(test)]
mod testing;
mod ticker;
mod trouble;

pub use crate::dest::SourceId;
pub use command::{Command, CommandError, Rewind};
pub use control::{
    After, Asker, Burial, Control, ControlLoop, ControlSeed, ControlStart, Left, Notice, Order,
    Remark, Step, Tell,
};
pub use files::FileWait;
pub use follow::{Dcs, Follower, FollowerSeed, Hold, LastWords, Phase, Piece};
pub use gap::DeleteGap;
pub use letters::{Leaving, Letter, LetterBox, LetterFile, LetterState};
pub use positions::{Beginning, StoreFacts};
pub use shard::{EngineSeed, ShardEngine};
pub use steps::{
    Budget, DcEngine, DcReport, DcSeed, Decided, Look, NamespaceReport, Next, Served, Shipper,
    Shippers,
};
pub use trouble::Trouble;
