//! Exercises whole nodes from outside, through the client protocol: what the `longship` command runs
//! besides a node.
//!
//! [`load`] writes what a seed says (`content`) through a plain client (`client`), [`verify`] reads
//! it back, [`info`] asks. A `stage` holds nodes as processes of their own, and takes them away
//! again: [`demo`] ships between two of them, [`crash_test`] kills one, [`mod@bench`] measures.
//! [`report`] is how their results look.

pub mod bench;
pub mod crash_test;
pub mod demo;
pub mod info;
pub mod load;
pub mod report;
pub mod verify;

mod client;
mod content;
mod cores;
mod node_text;
mod shipping;
mod stage;
#[cfg(test)]
mod standin;
