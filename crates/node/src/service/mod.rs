//! What requests about records do.
//!
//! | file | what happens there |
//! |---|---|
//! | `execute` | locate the record, decide, keep, submit, reply: one step |
//! | `apply` | what a request does to a record; pure |
//! | `operate` | its operations, one by one; pure |

pub mod apply;
pub mod execute;
pub mod operate;
