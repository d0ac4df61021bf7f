//! A small storage server that Aerospike clients talk to, and that ships with [`longship`].
//!
//! Requests come in at [`server`], which knows connections and frames; [`service`] is what they ask
//! for, records; [`storage`] keeps those; [`admin`] is what the node says about itself, [`config`] what
//! it is told, and [`process`] its way from there to serving, and down again. One port, one server,
//! one store per shard.

pub mod admin;
pub mod config;
mod limits;
pub mod process;
pub mod server;
pub mod service;
pub mod storage;
