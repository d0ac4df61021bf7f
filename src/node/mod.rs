//! The server of the client protocol over storage, one port per shard.
//!
//! A request is cut out of its connection's buffer ([`inbox`]), its record located in the index,
//! what it does decided ([`apply`], [`operate`]), the outcome stored and the change submitted in the
//! same step, and the reply joins the others of its batch: one send per batch. What is decided is
//! pure and knows neither sockets nor storage.

pub mod apply;
pub mod hello;
pub mod inbox;
pub mod info;
pub mod operate;
