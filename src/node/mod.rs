//! The server of the client protocol over storage, one port per shard.
//!
//! In the order of a request:
//!
//! | file | what happens there |
//! |---|---|
//! | `server` | what the connections of a shard share; the listener |
//! | `serve` | one connection: requests in, replies out, in order, one send per batch |
//! | `inbox` | the receive buffer, cut into frames |
//! | `line` | the requests of a connection that are waited for |
//! | `execute` | locate the record, decide, keep, submit, reply: one step |
//! | `apply` | what a request does to a record; pure |
//! | `operate` | its operations, one by one; pure |
//! | `turnstile` | a bound on bytes: who wants more than is left waits in line |
//! | `memory` | what all connections may hold together, and who is closed when it runs short |
//! | `handover` | requests for partitions of other shards |
//! | `guard` | who may change the node, and the record of who did |
//! | `hello` | the fence between an older and a newer connection of one shipper |
//! | `info`, `report`, `figures` | what the node says about itself |
//! | `start`, `place`, `descriptors`, `home`, `stop` | from the configuration to serving, and down again |
//! | `identity` | the key destinations know this node by |
//! | `consent` | the operator's word for what a start does not do by itself |

pub mod apply;
pub mod consent;
pub mod descriptors;
pub mod execute;
pub mod figures;
pub mod guard;
pub mod handover;
pub mod hello;
pub mod home;
mod identity;
pub mod inbox;
pub mod info;
pub mod line;
pub mod memory;
pub mod opened;
pub mod operate;
pub mod place;
pub mod report;
pub mod serve;
pub mod server;
pub mod start;
pub mod stop;
pub mod turnstile;

#[cfg(test)]
mod tests;
