//! Real nodes, as processes of their own, driven over their sockets. One module per feature.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there and say so")]

mod backlog;
mod bad_input;
mod bench;
mod block_device;
mod command_line;
mod control;
mod crash_test;
mod descriptors;
mod devices;
mod documents;
mod faults;
mod fence;
mod holders;
mod logging;
mod python_client;
mod refusals;
mod restart;
mod rules;
mod rust_client;
mod shipping;
mod support;
mod topologies;
mod tuning;
mod verify;
