//! A file's tree of nodes to a configuration, with every error it holds.

use super::item::Item;
use super::kind::{Kind, NameRule};
use super::names::{Vocabulary, find};
use super::set::Broken;
use super::text::{self, Node};
use super::value::{Field, NO_TLS_NAME, PATH, read_seed, show_seed};
use crate::config::error::{ConfigError, ConfigErrors, ConfigNote, FileError, ItemError, Rule};

/// Reads the bytes of a file with `read`: a byte order mark is skipped, and comments may hold
/// anything. `file` is only for the words of errors.
///
/// # Errors
/// Every error of the text, in line order.
pub fn read_file<T: Default>(
    bytes: &[u8],
    file: &str,
    vocabulary: Vocabulary,
    read: impl FnOnce(&mut Reader<'_>, &[Node<'_>]) -> T,
) -> Result<(T, Vec<ConfigNote>), ConfigErrors> {
    let (text, mut syntax) = text::decode(bytes);
    let (nodes, more) = text::read(&text);
    syntax.extend(more);
    // A line that could not be read right says nothing true about its item.
    let is_garbled = |error: &FileError| {
        use FileError::{Invisible, NotUtf8, QuoteNotClosed};
        matches!(error, NotUtf8 { .. } | Invisible { .. } | QuoteNotClosed)
    };
    let garbled = syntax.iter().filter(|(_, error)| is_garbled(error)).map(|(line, _)| *line);
    let is_unread = |error: &FileError| matches!(error, FileError::Utf16 | FileError::LineEnds);
    let is_unread = syntax.iter().any(|(_, error)| is_unread(error));
    let (errors, notes) = (Vec::new(), Vec::new());
    let mut reader = Reader { file, vocabulary, garbled: garbled.collect(), errors, notes };
    let config = if is_unread { T::default() } else { read(&mut reader, &nodes) };
    reader.garbled.clear();
    for (line, error) in syntax {
        reader.push(line, "", String::new(), error);
    }
    reader.errors.sort_by_key(|error| error.line);
    reader.notes.sort_by_key(|note| note.line);
    let Reader { errors, notes, .. } = reader;
    if errors.is_empty() { Ok((config, notes)) } else { Err(ConfigErrors(errors)) }
}

/// Collects the errors and notes of a file on the way.
pub struct Reader<'f> {
    file: &'f str,
    vocabulary: Vocabulary,
    /// Lines whose words are not what their writer meant.
    garbled: Vec<u32>,
    errors: Vec<ConfigError>,
    notes: Vec<ConfigNote>,
}

/// What was found in a context besides the values of its items.
pub struct Found<'n, 't> {
    /// Items given, with their lines.
    pub given: Vec<(&'static str, u32)>,
    /// Names on lines that were refused, and what they were probably meant to be.
    pub refused: Vec<&'t str>,
    /// Contexts inside, in the order given.
    pub contexts: Vec<&'n Node<'t>>,
}

impl Found<'_, '_> {
    /// The line of an item that was given.
    pub fn line_of(&self, item: &str) -> Option<u32> {
        self.given.iter().find(|(name, _)| *name == item).map(|(_, line)| *line)
    }

    /// Whether nothing in the context was meant to be this item or context.
    pub fn lacks(&self, name: &str) -> bool {
        self.line_of(name).is_none()
            && !self.refused.contains(&name)
            && !self.contexts.iter().any(|node| node.words.first() == Some(&name))
    }
}

impl Reader<'_> {
    /// Notes what is wrong with a line that could be read.
    pub fn push(&mut self, line: u32, context: &str, item: String, error: FileError) {
        if self.garbled.contains(&line) {
            return;
        }
        let (file, context) = (self.file.to_owned(), context.to_owned());
        self.errors.push(ConfigError { file, line, context, item, error });
    }

    /// Blames a node.
    pub fn refuse(&mut self, context: &str, node: &Node<'_>, error: impl Into<ItemError>) {
        self.push(node.line, context, shown(node), FileError::Item(error.into()));
    }

    /// Blames an item of a context: where it was given, else where the context begins.
    pub fn refuse_broken<R: Rule>(
        &mut self,
        context: &str,
        line: u32,
        found: &Found<'_, '_>,
        broken: Vec<Broken<R>>,
    ) {
        let is_known = |rule: &R| !rule.rests_on().iter().any(|item| found.refused.contains(item));
        for (item, rule) in broken.into_iter().filter(|(_, rule)| is_known(rule)) {
            let line = found.line_of(item).unwrap_or(line);
            self.push(line, context, item.to_owned(), FileError::Item(rule.into()));
        }
    }

    /// Reads the items of a context into `target`, and sets aside the contexts named.
    pub fn items<'n, 't, T>(
        &mut self,
        context: &str,
        table: &'static [Item<T>],
        contexts: &[&'static str],
        target: &mut T,
        body: &'n [Node<'t>],
    ) -> Found<'n, 't> {
        let mut found = Found { given: Vec::new(), refused: Vec::new(), contexts: Vec::new() };
        for node in body {
            let Some(name) = node.words.first() else { continue };
            let read = if !contexts.contains(name) {
                read_item(self.vocabulary, (table, contexts), target, node, &mut found.given)
            } else if node.body.is_some() {
                found.contexts.push(node);
                Ok(())
            } else {
                Err(ItemError::NotAnItem)
            };
            match read {
                Ok(()) => {}
                Err(ItemError::NoMeaning { reason }) => self.note(context, node, reason),
                Err(error) => {
                    found.refused.push(name);
                    if let ItemError::Unknown { nearest: Some(meant) } = error {
                        found.refused.push(meant);
                    }
                    self.refuse(context, node, error);
                }
            }
        }
        found
    }

    fn note(&mut self, context: &str, node: &Node<'_>, reason: &'static str) {
        let (file, context) = (self.file.to_owned(), context.to_owned());
        self.notes.push(ConfigNote { file, line: node.line, context, item: shown(node), reason });
    }

    /// The name after a context's keyword, if it is one.
    pub fn name_of<'t>(
        &mut self,
        context: &str,
        node: &Node<'t>,
        rule: NameRule,
    ) -> Option<&'t str> {
        let checked = match node.words[..] {
            [_, name] => rule.check(name).map(|()| name),
            _ => Err(ItemError::words("one name before the `{`")),
        };
        checked.map_err(|error| self.refuse(context, node, error)).ok()
    }

    /// Refuses words between a nameless context's keyword and its brace.
    pub fn no_name(&mut self, context: &str, node: &Node<'_>) {
        if node.words.len() > 1 {
            self.refuse(context, node, ItemError::words("no name before the `{`"));
        }
    }
}

/// Characters of a refused line that its message repeats.
const ITEM_CHARS_SHOWN: usize = 80;

fn read_item<T>(
    vocabulary: Vocabulary,
    (table, contexts): (&'static [Item<T>], &[&'static str]),
    target: &mut T,
    node: &Node<'_>,
    given: &mut Vec<(&'static str, u32)>,
) -> Result<(), ItemError> {
    let (name, values) = node.words.split_first().unwrap_or((&"", &[]));
    let first_value = values.first().copied().unwrap_or_default();
    let (item, value) = find(vocabulary, table, contexts, name, first_value)?;
    if node.body.is_some() {
        return Err(ItemError::NotAContext);
    }
    let field = item.field(target);
    let seed;
    let value = match (item.kind, values) {
        (Kind::HostPort, [host, port]) => {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            seed = show_seed(bare.unwrap_or(host), port);
            seed.as_str()
        }
        (Kind::HostPort, [_, _, _tls_name]) => {
            return Err(ItemError::Without { reason: NO_TLS_NAME });
        }
        (Kind::HostPort, _) | (_, [] | [_, _, ..]) => {
            let allowed = field.map_or_else(|| "one value".to_owned(), |f| f.allowed(item.kind));
            if let (Kind::Single(expected), [_, _]) = (item.kind, values) {
                return Err(ItemError::words(expected));
            }
            let instead = match (item.kind, values) {
                (Kind::HostPort, [one]) => {
                    read_seed(one).map(|(host, port)| format!("{host} {port}"))
                }
                // A line ends an item, whatever other formats do.
                (_, [one, ";"]) => Some((*one).to_owned()),
                (_, [_, _, ..]) if allowed == PATH => Some(quoted(values)),
                _ => item.kind.respell(&values.concat()),
            };
            return Err(ItemError::Words { expected: allowed, instead });
        }
        (_, [_]) => value,
    };
    let is_list = field.is_some_and(Field::is_list);
    match given.iter().find(|(name, _)| *name == item.name) {
        Some(&(_, first_line)) if !is_list => return Err(ItemError::Twice { first_line }),
        _ => given.push((item.name, node.line)),
    }
    item.put(target, value)
}

/// Words that were meant to be one.
pub fn quoted(words: &[&str]) -> String {
    format!("\"{}\"", words.join(" "))
}

/// A line as messages repeat it.
fn shown(node: &Node<'_>) -> String {
    node.words.join(" ").chars().take(ITEM_CHARS_SHOWN).collect()
}
