//! What the node says about itself.
//!
//! | file | what is there |
//! |---|---|
//! | `config` | what it was started with |
//! | `settings` | items of namespaces that are changed while it runs |
//! | `info` | the info commands of a server of the client protocol |
//! | `report` | what stands in their answers about this shard |
//! | `figures` | counts of requests and records, as operators know them by name |

pub mod config;
pub mod figures;
pub mod info;
pub mod report;
pub mod settings;
