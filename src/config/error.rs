//! What is wrong with a configuration, in words an operator can act on.

use std::fmt;

/// Why an item was refused, in a file or at run time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// Nothing here has that name.
    #[error("unknown{}", DidYouMean(*.nearest))]
    Unknown {
        /// The known name that is spelled most like it.
        nearest: Option<&'static str>,
    },
    /// An item of another context.
    #[error("belongs to `{place}`, not here")]
    Elsewhere {
        /// The context, as the file nests it.
        place: &'static str,
    },
    /// A name of an older release, or of a thing this system does without.
    #[error("no longer an item: {hint}")]
    Old {
        /// What to write now.
        hint: &'static str,
    },
    /// The reference system has it, and to ignore it would not be safe.
    #[error("not supported: {reason}")]
    Without {
        /// What would be different, or what to do instead.
        reason: &'static str,
    },
    /// Known, and without a meaning here: nothing to set at run time.
    #[error("has no meaning here: {reason}")]
    NoMeaning {
        /// Why ignoring it is safe.
        reason: &'static str,
    },
    /// The reference system has it; this one does not do it yet.
    #[error("not supported yet{}", OnlyValue(*.only))]
    NotYet {
        /// The one value that says what is done today.
        only: Option<&'static str>,
    },
    /// The value is malformed or out of range.
    #[error("`{given}` is not allowed here: expected {allowed}{}", Instead(.instead))]
    Value {
        /// The value as given.
        given: String,
        /// The type, range and unit.
        allowed: String,
        /// What was probably meant, spelled right.
        instead: Option<String>,
    },
    /// One entry too many for a list.
    #[error("may be given {max} times at most")]
    Full {
        /// Entries the list may have.
        max: usize,
    },
    /// Too few or too many words on the line.
    #[error("takes {expected}{}", Instead(.instead))]
    Words {
        /// What the line must hold, in words.
        expected: String,
        /// What was probably meant, spelled right.
        instead: Option<String>,
    },
    /// Given a second time; the first stands.
    #[error("given twice, first in line {first_line}")]
    Twice {
        /// Line of the first.
        first_line: u32,
    },
    /// Not given, and there is no default.
    #[error("must be given")]
    Missing,
    /// An item written with braces.
    #[error("is an item with a value, not a context with braces")]
    NotAContext,
    /// A context written without braces.
    #[error("is a context: `{{` must follow on the same line")]
    NotAnItem,
    /// Changed only by file and restart.
    #[error("cannot be changed at run time, since {reason}: put it into the file and restart")]
    Static {
        /// Why.
        reason: &'static str,
    },
    /// Allowed by itself, but not together with the rest.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// Allowed by itself, but not together with another item.
    #[error("`{item}` {broken}")]
    Breaks {
        /// Name of the item that it breaks with.
        item: &'static str,
        /// The rule, said of that one.
        broken: Box<ItemError>,
    },
    /// A rule of a host, between items of its own.
    #[error("{problem}")]
    Host {
        /// In its words.
        problem: String,
    },
}

impl ItemError {
    /// A rule said of `item` is broken by what was to be put into another, or into that one.
    #[doc(hidden)]
    pub fn breaks(key: &str, item: &'static str, rule: impl Into<Self>) -> Self {
        let broken = rule.into();
        if key == item { broken } else { Self::Breaks { item, broken: Box::new(broken) } }
    }

    /// Too few or too many words.
    #[doc(hidden)]
    pub fn words(expected: impl Into<String>) -> Self {
        Self::Words { expected: expected.into(), instead: None }
    }
}

/// A rule that joins several items.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A skipped write's entry could already be consumed.
    #[error("must not be above `hot-key-ms`, which is {hot_key_ms}")]
    DelayOverHotKey {
        /// Value of `hot-key-ms`.
        hot_key_ms: u32,
    },
    /// One name, two contrary lists.
    #[error("`{name}` is also in `{other}`")]
    InBothLists {
        /// Name of the bin or set.
        name: String,
        /// Item that has it as well.
        other: &'static str,
    },
    /// A DC ships a namespace that is not there.
    #[error("there is no namespace of that name here")]
    NoSuchNamespace,
    /// There is no DC of that name.
    #[error("there is no DC of that name")]
    NoSuchDc,
    /// The list has an entry of this name already.
    #[error("there is one of that name already")]
    Duplicate,
    /// One more than can be kept.
    #[error("there can be {limit} at most")]
    TooMany {
        /// How many there can be.
        limit: usize,
    },
}

/// What items must be to each other.
pub trait Rule: Into<ItemError> {
    /// The items whose values it compares: where one of them was refused, nothing can be said.
    fn rests_on(&self) -> &'static [&'static str];
}

impl Rule for RuleError {
    fn rests_on(&self) -> &'static [&'static str] {
        match self {
            Self::DelayOverHotKey { .. } => &["delay-ms", "hot-key-ms"],
            _ => &[],
        }
    }
}

struct DidYouMean(Option<&'static str>);

impl fmt::Display for DidYouMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

struct Instead<'a>(&'a Option<String>);

impl fmt::Display for Instead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, "; write `{text}`"),
            None => Ok(()),
        }
    }
}

struct OnlyValue(Option<&'static str>);

impl fmt::Display for OnlyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, ": only `{value}` is"),
            None => Ok(()),
        }
    }
}

/// One error of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as named by the caller.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// Where in the tree, like `xdr/dc east/namespace orders`; empty at the top.
    pub context: String,
    /// The item or context at fault, with its value; empty when braces are.
    pub item: String,
    /// What is wrong with it.
    pub error: FileError,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, context, item, error } = self;
        write!(f, "{file}:{line}: ")?;
        if !context.is_empty() {
            write!(f, "{context}: ")?;
        }
        if !item.is_empty() {
            write!(f, "`{item}`: ")?;
        }
        error.fmt(f)
    }
}

/// An item that was read over: it has no meaning here, and ignoring it is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigNote {
    /// The file, as named by the caller.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// Where in the tree; empty at the top.
    pub context: String,
    /// The item or context, as written.
    pub item: String,
    /// Why it is ignored.
    pub reason: &'static str,
}

impl fmt::Display for ConfigNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, context, item, reason } = self;
        let colon = if context.is_empty() { "" } else { ": " };
        write!(f, "{file}:{line}: {context}{colon}`{item}`: ignored: {reason}")
    }
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// An item or the rules between items.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// A `{` with no name before it on its line.
    #[error("`{{` without a context name before it on the same line")]
    NamelessContext,
    /// A `}` with no open context.
    #[error("`}}` without a context to close")]
    StrayBrace,
    /// A `{` that is never closed.
    #[error("this context is not closed with `}}`")]
    NotClosed,
    /// A quote without its other end.
    #[error("the quote is not closed on this line")]
    QuoteNotClosed,
    /// A byte that belongs to another encoding, outside a comment.
    #[error("not UTF-8: byte {byte:02x} at column {column}; save the file as UTF-8")]
    NotUtf8 {
        /// The byte, outside ASCII and no UTF-8.
        byte: u8,
        /// Where it stands in its line, in characters from 1.
        column: u32,
    },
    /// A character outside comments that nobody sees.
    #[error(
        "the invisible character U+{:04X} is at column {column}: remove it, and write that part anew",
        *code
    )]
    Invisible {
        /// The character's Unicode number.
        code: u32,
        /// Where it stands in its line, in characters from 1.
        column: u32,
    },
    /// No line ends in a way that is known here.
    #[error("its lines end with a carriage return alone; save it with LF or CRLF")]
    LineEnds,
    /// Every character takes two bytes.
    #[error("the file is UTF-16; save it as UTF-8")]
    Utf16,
    /// Deeper than any context goes; the rest of the file was not read.
    #[error("contexts nested too deep; the rest of the file was not read")]
    TooDeep,
}

/// All errors of a file, in line order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}
