//! What to say about a name that is not in the table: an old name, a later one, or a slip of the
//! pen.

use super::item::Item;
use crate::config::error::ItemError;

/// What one part of the configuration says of names that are not its items.
pub struct Words {
    /// Names of older releases, with what to write instead.
    pub old: &'static [(&'static str, &'static str)],
    /// Names the reference system knows, and why they cannot just be ignored.
    pub without: &'static [(&'static str, &'static str)],
    /// Names the reference system knows and that are safe to read over, and why.
    pub ignored: &'static [(&'static str, &'static str)],
    /// Names the reference system knows and that are not built yet.
    pub later: &'static [&'static str],
    /// Contexts, and whether they have an item of a name.
    pub homes: &'static [Home],
    /// The item and value that are meant by a name that is another one's.
    pub respell: for<'n, 'v> fn(&'n str, &'v str) -> (&'n str, &'v str),
}

/// A context, as the file nests it, and whether it has an item of a name.
pub type Home = (&'static str, fn(&str) -> bool);

/// All that is said of names, the parts in the order in which they are asked.
pub type Vocabulary = &'static [&'static Words];

/// Whether a table has an item of that name.
pub fn has<T>(table: &[Item<T>], name: &str) -> bool {
    table.iter().any(|item| item.name == name)
}

/// The item of that name in `table` and the value to give it, or what to tell about the name.
/// `contexts` are further names that would have been right in its place.
///
/// # Errors
/// What is wrong with the name.
pub fn find<'v, T>(
    vocabulary: Vocabulary,
    table: &'static [Item<T>],
    contexts: &[&'static str],
    name: &str,
    value: &'v str,
) -> Result<(&'static Item<T>, &'v str), ItemError> {
    let respell = |(name, value), words: &&Words| (words.respell)(name, value);
    let (spelled, value) = vocabulary.iter().fold((name, value), respell);
    match table.iter().find(|item| item.name == spelled) {
        Some(item) => Ok((item, value)),
        None => {
            let known = table.iter().map(|item| item.name).chain(contexts.iter().copied());
            Err(explain(vocabulary, name, known))
        }
    }
}

/// Why `name` is not among the `known`.
pub fn explain(
    vocabulary: Vocabulary,
    name: &str,
    known: impl Iterator<Item = &'static str>,
) -> ItemError {
    let said = |table: fn(&Words) -> &'static [(&'static str, &'static str)]| {
        let mut all = vocabulary.iter().flat_map(|words| table(words));
        all.find(|(other, _)| *other == name).map(|(_, text)| *text)
    };
    if let Some(hint) = said(|words| words.old) {
        return ItemError::Old { hint };
    }
    if let Some(reason) = said(|words| words.without) {
        return ItemError::Without { reason };
    }
    if let Some(reason) = said(|words| words.ignored) {
        return ItemError::NoMeaning { reason };
    }
    if vocabulary.iter().any(|words| words.later.contains(&name)) {
        return ItemError::NotYet { only: None };
    }
    let mut homes = vocabulary.iter().flat_map(|words| words.homes);
    if let Some((place, _)) = homes.find(|(_, has)| has(name)) {
        return ItemError::Elsewhere { place };
    }
    ItemError::Unknown { nearest: nearest(name, known) }
}

/// The known name with the fewest edits to `name`, if they are few enough to be a slip.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_COMPARED_MAX {
        return None;
    }
    let slips_max = 1 + name.len() / 4;
    known
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= slips_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Longer words are no slip of any name.
const NAME_COMPARED_MAX: usize = 64;

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_changes() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edits(a, b), expected, "{a} {b}");
            assert_eq!(edits(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn slips_find_their_name_and_strangers_find_none() {
        let known = ["hot-key-ms", "delay-ms", "forward", "period-ms"];
        for (name, expected) in [
            ("hot-kye-ms", Some("hot-key-ms")),
            ("hotkey-ms", Some("hot-key-ms")),
            ("forwrad", Some("forward")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known.into_iter()), None);
    }
}
