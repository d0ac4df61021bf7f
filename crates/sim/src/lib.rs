//! A world that tries to lose a record: the rules of [`ship`](longship::ship) between model clusters,
//! under virtual time. One `u64` decides workload, schedule and faults.
//!
//! The engine runs as it is: rules, filter, encoder, batches, every step of
//! [`DcEngine`](longship::engine::DcEngine), the pipeline of each connection, and the control loop with
//! its dead letters, in any order and portion ([`work`], [`control`], [`letters`]). Around it stand
//! models: storage with blocks and a tail that a crash takes ([`store`], [`walk`]) behind the
//! product's contract with a host ([`host`]), processes with
//! clocks, tickets and durable marks ([`site`]), and a destination behind connections that lose,
//! delay and resurrect ([`wire`], [`apply`]). Beside it a ledger is kept that knows what is owed
//! from what the host showed and what went over the wire, without asking the rules; the invariants
//! (`docs/design.md`, D10) are checked against it at every step ([`oracle`]).
//!
//! A failing seed is made as short as it gets and tells the story of the key it lost ([`run`]).

mod apply;
mod contest;
mod control;
mod faults;
mod host;
mod keys;
mod letters;
mod link;
mod nodes;
mod op;
mod oracle;
mod order;
mod plan;
mod report;
mod rng;
mod run;
mod site;
mod store;
mod trace;
mod turns;
mod waits;
mod walk;
mod wire;
mod work;
mod world;
mod writes;

pub use nodes::{NodesFault, NodesOutcome};
pub use plan::{Fault, Plan};
pub use report::{
    MUTATION_SEEDS, NODES_MUTATION_SEEDS, Report, Score, Seeds, mutations, run_all_nodes, score,
};
pub use run::{Failure, Outcome, shrink, story};
pub use trace::Watch;
pub use world::Tally;
