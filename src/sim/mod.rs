//! A world that tries to lose a record: the rules of [`ship`](crate::ship) between model clusters,
//! under virtual time. One `u64` decides workload, schedule and faults.
//!
//! The engine runs as it is: rules, filter, encoder, batches, every step of
//! [`DcEngine`](crate::engine::DcEngine), the pipeline of each connection, and the control loop with
//! its dead letters, in any order and portion ([`work`], [`control`], [`letters`]). Around it stand
//! models: storage with blocks and a tail that a crash takes ([`store`], [`walk`]) behind the
//! product's contract with a host ([`host`]), processes with
//! clocks, tickets and durable marks ([`site`]), and a destination behind connections that lose,
//! delay and resurrect ([`wire`], [`apply`]). Beside it a ledger is kept that knows what is owed
//! from what the host showed and what went over the wire, without asking the rules; the invariants
//! (`docs/design.md`, D10) are checked against it at every step ([`oracle`]).
//!
//! A failing seed is made as short as it gets and tells the story of the key it lost ([`run`]).

pub mod apply;
pub mod control;
pub mod faults;
pub mod host;
pub mod keys;
pub mod letters;
pub mod link;
pub mod op;
pub mod oracle;
pub mod plan;
pub mod report;
pub mod rng;
pub mod run;
pub mod site;
pub mod store;
pub mod trace;
pub mod walk;
pub mod wire;
pub mod work;
pub mod world;
pub mod writes;
