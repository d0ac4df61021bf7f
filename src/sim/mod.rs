//! A world that tries to lose a record: the rules of [`ship`](crate::ship) between model clusters,
//! under virtual time. One `u64` decides workload, schedule and faults.
//!
//! The rules run as they are, and so do filter, encoder and parser. Around them stand models:
//! storage with blocks and a tail that a crash takes ([`store`]), its walks ([`walk`]), processes with clocks, tickets
//! and durable marks ([`site`]), connections that lose, delay and resurrect ([`link`]). What an
//! engine does is done one piece at a time in any order ([`work`]). Beside it a ledger is kept that
//! knows what is owed without asking the rules; the invariants of `design.md` section 4 are checked
//! against it at every step ([`oracle`]).
//!
//! A failing seed is made as short as it gets and tells the story of the key it lost ([`run`]).

pub mod apply;
pub mod faults;
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
pub mod work;
pub mod world;
pub mod writes;
