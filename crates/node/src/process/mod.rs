//! The node as a process: from the configuration to serving, and down again.
//!
//! | file | what is there |
//! |---|---|
//! | `place` | which shard goes on which core |
//! | `descriptors` | what the limit of open files leaves to clients |
//! | `log_files` | what a log file must not be |
//! | `own_files` | where the node keeps things for itself |
//! | `home` | the work directory |
//! | `ground` | what a start needs besides its devices |
//! | `consent` | the operator's word for what a start does not do by itself |
//! | `start` | from all of that to serving |
//! | `opened` | what a start found in storage |
//! | `stop` | down again, all shards in step |
//! | `virtual_node` | the same in virtual time, for the simulator |

pub mod consent;
pub mod descriptors;
mod ground;
pub mod home;
pub mod log_files;
pub mod opened;
pub mod own_files;
pub mod place;
pub mod start;
pub mod stop;
#[cfg(feature = "sim")]
pub mod virtual_node;
