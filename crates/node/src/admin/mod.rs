//! What the node says about itself.
//!
//! | file | what is there |
//! |---|---|
//! | `answers` | all info commands, and the page of them |
//! | `settings` | items of namespaces that are changed while it runs |
//! | `info` | those that ask who it is |
//! | `report` | those that ask for figures and for what it was told |
//! | `tables` | the figures: name, kind, unit, meaning |
//! | `figures` | what is counted of requests |

pub mod answers;
pub mod figures;
pub mod info;
pub mod report;
pub mod settings;
mod tables;
