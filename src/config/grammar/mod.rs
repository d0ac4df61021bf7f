//! What a configuration is made of, whatever it is about: contexts, items, their values, and how what
//! is wrong with them is told. Knows no item; shipping's are in `config/table.rs`, and whoever embeds
//! shipping in a server with a file of its own has a table beside it, as `crates/node` does.
//!
//! | file | what it does |
//! |---|---|
//! | `text` | a file to a tree |
//! | `item`, `kind`, `value` | an item; ranges, units and names; reading and showing a value of each type |
//! | `names` | what to say about a name that is not in a table |
//! | `reader` | the tree to structures, with all errors |
//! | `set`, `show` | a change at run time; answers to `get-config`, and the page of items |

pub mod item;
pub mod kind;
pub mod names;
pub mod reader;
pub mod set;
pub mod show;
pub mod text;
pub mod value;
