//! What the node says about itself.
//!
//! | file | what is there |
//! |---|---|
//! | `config` | what it was started with |
//! | `settings` | items of namespaces that are changed while it runs |
//! | `info` | the info commands of a server of the client protocol |
//! | `report` | those that ask for figures |
//! | `tables` | the figures: name, kind, unit, meaning |
//! | `figures` | what is counted of requests |

pub mod config;
pub mod figures;
pub mod info;
pub mod report;
pub mod settings;
mod tables;
