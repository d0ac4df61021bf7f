//! What ships where, as text and as plain structures: one table of items with unit, range, default
//! and whether it may change at run time. Pure.
//!
//! | file | what it does |
//! |---|---|
//! | `dc` | the plain structures everybody else sees, and every default |
//! | `table` | the items: name, range, field, sentence |
//! | `parse` | the `xdr` context of a file |
//! | `rules` | what items must be to each other |
//! | `live`, `show` | `set-config` and `get-config` |
//! | `names` | what to say about names that shipping once had |
//! | `error` | what is wrong, with place and remedy |
//! | `grammar` | what all of this is made of, for whoever has items of its own beside these |
//!
//! Strict by intent: an item that is unknown, out of range, of an older release or not built yet
//! stops the start with file, line, item and what would be right.
//!
#![doc = include_str!("items.md")]

mod dc;
mod error;
#[doc(hidden)]
pub mod grammar;
mod live;
mod names;
mod parse;
mod reference;
mod rules;
mod show;
mod table;

pub use crate::limits::{
    DC_COUNT_MAX, LIST_ENTRIES_MAX, NAME_BYTES_MAX, NAMESPACE_COUNT_MAX, SEED_COUNT_MAX,
};
pub use dc::{BinPolicy, DcConfig, DcNamespaceConfig, WritePolicy, XdrConfig};
pub use error::{ConfigError, ConfigErrors, ConfigNote, FileError, ItemError, Rule, RuleError};
pub(crate) use grammar::names::nearest as nearest_name;
pub use names::WORDS;
pub use parse::{Shipped, read_xdr};
pub use reference::write_sections;

/// Seconds written as an operator writes them: a number, with s, m, h or d behind it in either case.
/// `None` for anything else, and for more than can be counted.
pub fn read_seconds(text: &str) -> Option<u64> {
    grammar::kind::Unit::Seconds.read(text)
}
