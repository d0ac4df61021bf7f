//! The shape of a configuration file: lines of words, and contexts in braces. Knows no item.
//!
//! A word may stand in quotes, single or double: what is between them is taken as it is, white
//! space, `#` and braces included. A comment may hold any bytes.

use std::borrow::Cow;

use crate::config::error::FileError;
use crate::limits::CONTEXT_DEPTH_MAX;

/// One item, or one context with what stands in its braces.
#[derive(Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Line of its name, from 1.
    pub line: u32,
    /// Name and values; empty for a context without a name, which has been reported.
    pub words: Vec<&'a str>,
    /// What stands in the braces; `None` for an item.
    pub body: Option<Vec<Node<'a>>>,
}

/// The text of a file's bytes, without a byte order mark. Bytes that are no UTF-8 and stand outside
/// comments are errors of their line.
pub fn decode(bytes: &[u8]) -> (Cow<'_, str>, Vec<(u32, FileError)>) {
    if is_utf16(bytes) {
        return (Cow::Borrowed(""), vec![(1, FileError::Utf16)]);
    }
    let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(bytes);
    if bytes.contains(&b'\r') && !bytes.contains(&b'\n') {
        return (Cow::Borrowed(""), vec![(1, FileError::LineEnds)]);
    }
    let mut errors = Vec::new();
    for (line, code) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let code = code.strip_suffix(b"\r").unwrap_or(code);
        let valid = code.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let unseen = valid.char_indices().find(|(_, c)| is_invisible(*c));
        let at = unseen.map_or(valid.len(), |(at, _)| at);
        let column = valid[..at].chars().count() as u32 + 1;
        let error = match (unseen, code.get(at)) {
            (Some((_, c)), _) => FileError::Invisible { code: c.into(), column },
            (None, Some(&byte)) => FileError::NotUtf8 { byte, column },
            (None, None) => continue,
        };
        if !Words::of(&valid[..at]).any(|word| word == Word::Comment) {
            errors.push((line, error));
        }
    }
    (String::from_utf8_lossy(bytes), errors)
}

/// By its mark, or since every other byte of what is mostly ASCII is zero.
fn is_utf16(bytes: &[u8]) -> bool {
    let is_marked = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    is_marked || bytes.iter().filter(|byte| **byte == 0).count() > bytes.len() / 3
}

/// Whether a character shows nothing and parts no words: controls, marks of direction and order, and
/// what takes no width.
fn is_invisible(c: char) -> bool {
    let takes_no_width = matches!(
        c,
        '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
    );
    takes_no_width || (c.is_control() && !c.is_whitespace())
}

/// Reads the whole text, whatever is wrong with it; errors come with their line.
///
/// Cost: one pass; allocates a node per item.
pub fn read(text: &str) -> (Vec<Node<'_>>, Vec<(u32, FileError)>) {
    let mut reader = Reader { open: Vec::new(), top: Vec::new(), errors: Vec::new() };
    for (line, code) in (1..).zip(text.lines()) {
        if !reader.line(line, code) {
            break;
        }
    }
    while let Some(node) = reader.open.pop() {
        // Too deep a file was cut off by us: its contexts are not the writer's fault.
        if !reader.errors.iter().any(|(_, error)| *error == FileError::TooDeep) {
            reader.errors.push((node.line, FileError::NotClosed));
        }
        reader.add(node);
    }
    (reader.top, reader.errors)
}

struct Reader<'a> {
    /// Contexts not closed yet, outermost first.
    open: Vec<Node<'a>>,
    top: Vec<Node<'a>>,
    errors: Vec<(u32, FileError)>,
}

impl<'a> Reader<'a> {
    /// Takes a line; false when reading must stop.
    fn line(&mut self, line: u32, code: &'a str) -> bool {
        let mut words = Vec::new();
        for word in Words::of(code) {
            match word {
                Word::Open if self.open.len() == CONTEXT_DEPTH_MAX => {
                    self.errors.push((line, FileError::TooDeep));
                    return false;
                }
                Word::Open => {
                    if words.is_empty() {
                        self.errors.push((line, FileError::NamelessContext));
                    }
                    let words = std::mem::take(&mut words);
                    self.open.push(Node { line, words, body: Some(Vec::new()) });
                }
                Word::Close => {
                    self.item(line, std::mem::take(&mut words));
                    match self.open.pop() {
                        Some(node) => self.add(node),
                        None => self.errors.push((line, FileError::StrayBrace)),
                    }
                }
                Word::Plain(word) => words.push(word),
                Word::Unclosed(word) => {
                    self.errors.push((line, FileError::QuoteNotClosed));
                    words.push(word);
                }
                Word::Comment => break,
            }
        }
        self.item(line, words);
        true
    }

    fn item(&mut self, line: u32, words: Vec<&'a str>) {
        if !words.is_empty() {
            self.add(Node { line, words, body: None });
        }
    }

    fn add(&mut self, node: Node<'a>) {
        let parent = self.open.last_mut().and_then(|node| node.body.as_mut());
        parent.unwrap_or(&mut self.top).push(node);
    }
}

/// A piece of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    /// As written, or what stood in quotes.
    Plain(&'a str),
    /// After a quote that is not closed on its line.
    Unclosed(&'a str),
    /// `{`
    Open,
    /// `}`
    Close,
    /// `#`: what follows has no meaning.
    Comment,
}

/// The pieces of a line: split at white space, around braces and before a comment, wherever they
/// stand. A quote inside a word is a character like others.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self { rest: line }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next()?;
        let (word, rest) = match first {
            '{' => (Word::Open, &rest[1..]),
            '}' => (Word::Close, &rest[1..]),
            '#' => (Word::Comment, ""),
            '"' | '\'' => match rest[1..].split_once(first) {
                Some((inner, rest)) => (Word::Plain(inner), rest),
                None => (Word::Unclosed(rest[1..].trim_end()), ""),
            },
            _ => {
                let is_end = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '#');
                let (word, rest) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
                (Word::Plain(word), rest)
            }
        };
        self.rest = rest;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints the tree on one line: `name value;` and `name { .. }`.
    fn show(nodes: &[Node<'_>]) -> String {
        let show_node = |node: &Node<'_>| match &node.body {
            None => format!("{}:{};", node.line, node.words.join(" ")),
            Some(body) => format!("{}:{}{{{}}}", node.line, node.words.join(" "), show(body)),
        };
        nodes.iter().map(show_node).collect()
    }

    #[test]
    fn items_contexts_and_comments_become_a_tree() {
        let check = |text, expected: &str| {
            let (nodes, errors) = read(text);
            assert_eq!((show(&nodes).as_str(), errors), (expected, vec![]), "{text}");
        };
        check("", "");
        check("# only a comment\n\n   \t\r\n", "");
        check("service {\n  a 1 # one\n}\n", "1:service{2:a 1;}");
        check("namespace test { a 1 }", "1:namespace test{1:a 1;}");
        check("a{b{c 1}d 2}\ne", "1:a{1:b{1:c 1;}1:d 2;}2:e;");
        check("x {}", "1:x{}");
        check("a \"b c\" 'd{#}' e'f # g", "1:a b c d{#} e'f;");
        check("a \"\"{}", "1:a {}");
    }

    #[test]
    fn a_quote_that_is_not_closed_is_an_error_of_its_line() {
        let (nodes, errors) = read("a 1\nb \"c d\ne 2");
        assert_eq!(show(&nodes), "1:a 1;2:b c d;3:e 2;");
        assert_eq!(errors, [(2, FileError::QuoteNotClosed)]);
    }

    #[test]
    fn bytes_of_other_encodings_matter_outside_comments_only() {
        let check = |bytes: &[u8], text: &str, expected: &[(u32, FileError)]| {
            let (got, errors) = decode(bytes);
            assert_eq!((got.as_ref(), errors.as_slice()), (text, expected), "{bytes:?}");
        };
        check(b"a 1\n", "a 1\n", &[]);
        check(b"\xEF\xBB\xBFa 1", "a 1", &[]);
        check(b"a 1 # f\xFCr\nb", "a 1 # f\u{FFFD}r\nb", &[]);
        let not_utf8 = |byte, column| FileError::NotUtf8 { byte, column };
        check(b"a\nb f\xFCr # x", "a\nb f\u{FFFD}r # x", &[(2, not_utf8(0xFC, 4))]);
        check(b"a \"#\xFC\"", "a \"#\u{FFFD}\"", &[(1, not_utf8(0xFC, 5))]);
        check(b"\xFF\xFEa\0", "", &[(1, FileError::Utf16)]);
        check(b"a\0b\0 \x001\0", "", &[(1, FileError::Utf16)]);
        check(b"a 1\rb 2\r", "", &[(1, FileError::LineEnds)]);
        let invisible = |code, column| FileError::Invisible { code, column };
        let twice_marked = b"\xEF\xBB\xBF\xEF\xBB\xBFa 1";
        check(twice_marked, "\u{FEFF}a 1", &[(1, invisible(0xFEFF, 1))]);
        let text = "a\nb\u{200B} 2 # \u{200B}\nc 3 # \u{200B}";
        check(text.as_bytes(), text, &[(2, invisible(0x200B, 2))]);
        check(b"port 1\0\n", "port 1\0\n", &[(1, invisible(0, 7))]);
    }

    #[test]
    fn brace_errors_name_their_line_and_reading_goes_on() {
        let check = |text: &str, tree: &str, expected: &[(u32, FileError)]| {
            let (nodes, errors) = read(text);
            assert_eq!((show(&nodes).as_str(), errors.as_slice()), (tree, expected), "{text}");
        };
        check("a 1\n}\nb 2", "1:a 1;3:b 2;", &[(2, FileError::StrayBrace)]);
        check("service\n{\n}", "1:service;2:{}", &[(2, FileError::NamelessContext)]);
        check(
            "a {\nb {\nc 1",
            "1:a{2:b{3:c 1;}}",
            &[(2, FileError::NotClosed), (1, FileError::NotClosed)],
        );
        let deep = "a {\n".repeat(100_000);
        assert_eq!(read(&deep).1, [(17, FileError::TooDeep)]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[a-c{}#\n ]{0,200}") {
            read(&text);
        }
    }
}
