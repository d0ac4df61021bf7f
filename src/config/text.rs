//! The shape of a configuration file: lines of words, and contexts in braces. Knows no item.

use super::error::FileError;

/// One item, or one context with what stands in its braces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    /// Line of its name, from 1.
    pub(super) line: u32,
    /// Name and values; empty for a context without a name, which has been reported.
    pub(super) words: Vec<&'a str>,
    /// What stands in the braces; `None` for an item.
    pub(super) body: Option<Vec<Node<'a>>>,
}

/// Contexts inside contexts at most; the deepest real one has five.
const DEPTH_MAX: usize = 16;

/// Reads the whole text, whatever is wrong with it; errors come with their line.
///
/// Cost: one pass; allocates a node per item.
pub(super) fn read(text: &str) -> (Vec<Node<'_>>, Vec<(u32, FileError)>) {
    let mut reader = Reader { open: Vec::new(), top: Vec::new(), errors: Vec::new() };
    for (line, code) in (1..).zip(text.lines()) {
        let code = code.split('#').next().unwrap_or_default();
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
        for word in words_and_braces(code) {
            match word {
                "{" if self.open.len() == DEPTH_MAX => {
                    self.errors.push((line, FileError::TooDeep));
                    return false;
                }
                "{" => {
                    if words.is_empty() {
                        self.errors.push((line, FileError::NamelessContext));
                    }
                    let words = std::mem::take(&mut words);
                    self.open.push(Node { line, words, body: Some(Vec::new()) });
                }
                "}" => {
                    self.item(line, std::mem::take(&mut words));
                    match self.open.pop() {
                        Some(node) => self.add(node),
                        None => self.errors.push((line, FileError::StrayBrace)),
                    }
                }
                _ => words.push(word),
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

/// Splits at white space, and around braces wherever they stand.
fn words_and_braces(code: &str) -> impl Iterator<Item = &str> {
    code.split_whitespace().flat_map(|word| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let length = match first {
                '{' | '}' => 1,
                _ => rest.find(['{', '}']).unwrap_or(rest.len()),
            };
            let (head, tail) = rest.split_at(length);
            rest = tail;
            Some(head)
        })
    })
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
