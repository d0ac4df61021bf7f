//! One item changed at run time, under the same table and rules as in a file.

use super::item::{Change, Item};
use super::names::{Vocabulary, find};
use crate::config::error::{ItemError, Rule, RuleError};

/// A broken rule and the item to point at.
pub type Broken<R> = (&'static str, R);

/// Sets one item of a context, if the result keeps the rules.
///
/// # Errors
/// Unknown item, value not allowed, an item that only the file may change, or a broken rule.
pub fn set_item<T: Clone, R: Rule>(
    vocabulary: Vocabulary,
    target: &mut T,
    table: &'static [Item<T>],
    key: &str,
    value: &str,
    rules: impl Fn(&T) -> Vec<Broken<R>>,
) -> Result<(), ItemError> {
    let (item, value) = find(vocabulary, table, &[], key, value)?;
    if let Change::Restart(reason) = item.change {
        return Err(ItemError::Static { reason });
    }
    let mut changed = target.clone();
    item.put(&mut changed, value)?;
    if let Some((broken, rule)) = rules(&changed).into_iter().next() {
        return Err(ItemError::breaks(item.name, broken, rule));
    }
    *target = changed;
    Ok(())
}

/// No rules.
pub fn no_rules<T>(_: &T) -> Vec<Broken<RuleError>> {
    Vec::new()
}

/// Whether one more of that name may join the others.
///
/// # Errors
/// There is one already, or `limit` others.
pub fn room_for<T>(
    name: &str,
    others: &[T],
    name_of: impl Fn(&T) -> &str,
    limit: usize,
) -> Result<(), RuleError> {
    if others.iter().any(|other| name_of(other) == name) {
        return Err(RuleError::Duplicate);
    }
    if others.len() >= limit { Err(RuleError::TooMany { limit }) } else { Ok(()) }
}
