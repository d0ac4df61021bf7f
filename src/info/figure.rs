//! What the figures of a table are: name, kind, unit and meaning in one place, whatever they are
//! printed as.

use std::fmt::Write as _;

/// How a figure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows, from the start of the process or of what it is about.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Words, or a number that says nothing by its size.
    Text,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nothing: a ratio, a flag, words.
    None,
    /// Pieces of whatever the name says.
    Count,
    /// Bytes.
    Bytes,
    /// Pieces in a second.
    PerSecond,
    /// Hundredths.
    Percent,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

/// What a figure is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number of its unit.
    Number(u64),
    /// Whether it is so.
    Flag(bool),
    /// Words.
    Text(String),
    /// An estimate that cannot be made now.
    Unknown,
    /// Not a figure of this one.
    Absent,
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<u64>> for Value {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::Unknown, Self::Number)
    }
}

/// A figure of a `T`.
pub struct Figure<T> {
    /// As the info protocol, exporters and tools know it.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// What it says, for people.
    pub help: &'static str,
    /// What it is now.
    pub value: fn(&T) -> Value,
}

impl<T> Figure<T> {
    /// One that grows.
    pub const fn counter(
        name: &'static str,
        unit: Unit,
        help: &'static str,
        value: fn(&T) -> Value,
    ) -> Self {
        Self { name, kind: Kind::Counter, unit, help, value }
    }

    /// One that goes up and down.
    pub const fn gauge(
        name: &'static str,
        unit: Unit,
        help: &'static str,
        value: fn(&T) -> Value,
    ) -> Self {
        Self { name, kind: Kind::Gauge, unit, help, value }
    }

    /// One of words.
    pub const fn text(name: &'static str, help: &'static str, value: fn(&T) -> Value) -> Self {
        Self { name, kind: Kind::Text, unit: Unit::None, help, value }
    }
}

/// The figures of a table as the info protocol has them: `name=value;name=value`.
pub fn info_text<T>(table: &[Figure<T>], of: &T) -> String {
    let mut text = String::with_capacity(24 * table.len());
    for figure in table {
        let separator = if text.is_empty() { "" } else { ";" };
        let name = figure.name;
        // Writing to a String does not fail.
        let _ = match (figure.value)(of) {
            Value::Absent => Ok(()),
            Value::Number(number) => write!(text, "{separator}{name}={number}"),
            Value::Flag(flag) => write!(text, "{separator}{name}={flag}"),
            Value::Text(words) => {
                write!(text, "{separator}{name}={}", words.replace([';', '='], ","))
            }
            Value::Unknown => write!(text, "{separator}{name}=unknown"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_prints_what_there_is_and_words_cannot_forge_figures() {
        let table: [Figure<u64>; 5] = [
            Figure::counter("n", Unit::Count, "", |n| (*n).into()),
            Figure::gauge("absent", Unit::None, "", |_| Value::Absent),
            Figure::gauge("left_s", Unit::S, "", |_| None.into()),
            Figure::gauge("is", Unit::None, "", |n| (*n > 0).into()),
            Figure::text("why", "", |_| "a=b;success=9".into()),
        ];
        assert_eq!(info_text(&table, &7), "n=7;left_s=unknown;is=true;why=a,b,success,9");
    }
}
