//! An item, which drives the reading of files, changes at run time, `get-config` and the printed
//! reference.

use super::kind::Kind;
use super::value::{Field, Refused};
use crate::config::error::ItemError;

/// One item of the context that `T` holds.
pub struct Item<T> {
    /// Spelling in files and in `set-config`.
    pub name: &'static str,
    /// Spelling in `get-config`.
    pub shown: &'static str,
    /// Range or form of the value.
    pub kind: Kind,
    /// Whether it may change at run time.
    pub change: Change,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// Where the value lives.
    pub access: Access<T>,
}

/// When an item may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At run time as well, by command.
    Live,
    /// By file and restart, for this reason.
    Restart(&'static str),
}

/// How to reach an item's value.
pub enum Access<T> {
    /// A field of `T`, by two functions that borrow it.
    Field {
        /// For reading.
        get: fn(&T) -> &dyn Field,
        /// For changing.
        get_mut: fn(&mut T) -> &mut dyn Field,
    },
    /// Known to the reference system, not built: this is the only value it can have.
    NotYet(&'static str),
}

impl<T> Item<T> {
    /// Changed only by file and restart, since all of the process is built on it.
    pub const fn fixed(
        name: &'static str,
        kind: Kind,
        access: Access<T>,
        about: &'static str,
    ) -> Self {
        let change = Change::Restart("the process is built on it");
        Self { name, shown: name, kind, change, about, access }
    }

    /// Changed at run time as well.
    pub const fn dynamic(
        name: &'static str,
        kind: Kind,
        access: Access<T>,
        about: &'static str,
    ) -> Self {
        Self { name, shown: name, kind, change: Change::Live, about, access }
    }

    /// Names added and removed one by one, at run time as well, and shown together.
    pub const fn list(
        name: &'static str,
        shown: &'static str,
        kind: Kind,
        access: Access<T>,
        about: &'static str,
    ) -> Self {
        Self { name, shown, kind, change: Change::Live, about, access }
    }

    /// Known, not built.
    pub const fn not_yet(name: &'static str, only: &'static str) -> Self {
        let access = Access::NotYet(only);
        Self { name, shown: name, kind: Kind::Plain, change: Change::Live, about: "", access }
    }

    /// Reads a value into `target`; lists take one more entry.
    ///
    /// # Errors
    /// The value is not allowed; `target` is as it was.
    pub fn put(&self, target: &mut T, text: &str) -> Result<(), ItemError> {
        match self.access {
            Access::NotYet(only) if text == only => Ok(()),
            Access::NotYet(only) => Err(ItemError::NotYet { only: Some(only) }),
            Access::Field { get_mut, .. } => {
                let field = get_mut(target);
                field.put(text, self.kind).map_err(|refused| match refused {
                    Refused::NotYet => ItemError::NotYet { only: None },
                    Refused::Without(reason) => ItemError::Without { reason },
                    Refused::Full(max) => ItemError::Full { max },
                    Refused::NotAllowed => ItemError::Value {
                        given: text.to_owned(),
                        allowed: field.allowed(self.kind),
                        instead: self.kind.respell(text),
                    },
                })
            }
        }
    }

    /// Takes an entry out of a list; false when it is no list or not in there.
    pub fn take(&self, target: &mut T, text: &str) -> bool {
        match self.access {
            Access::NotYet(_) => false,
            Access::Field { get_mut, .. } => get_mut(target).take(text),
        }
    }

    /// The value, as `get-config` shows it.
    pub fn show(&self, target: &T) -> String {
        match self.access {
            Access::NotYet(only) => only.to_owned(),
            Access::Field { get, .. } => get(target).show(),
        }
    }

    /// The field, unless the item is not built yet.
    pub fn field<'t>(&self, target: &'t T) -> Option<&'t dyn Field> {
        match self.access {
            Access::NotYet(_) => None,
            Access::Field { get, .. } => Some(get(target)),
        }
    }
}

/// Makes an item one that changes only by file and restart, for the reason given.
pub const fn because<T>(reason: &'static str, mut item: Item<T>) -> Item<T> {
    item.change = Change::Restart(reason);
    item
}
