//! Rows of the table of commands: from them commands are answered, whoever may change the node is
//! told apart, and the page of commands is written. Each room has rows for what it answers.

use std::fmt::Write;

use crate::wire::info::Command;

/// Whether a command changes the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only looks.
    Reads,
    /// It does.
    Changes,
    /// It does with this argument.
    ChangesWith(&'static str),
}

/// A command of the info protocol.
#[derive(Debug)]
pub struct Row<F> {
    /// What it is called.
    pub name: &'static str,
    /// What may stand behind the name.
    pub takes: &'static str,
    /// Whether it changes anything.
    pub effect: Effect,
    /// What is answered, in a few words.
    pub help: &'static str,
    /// What answers it.
    pub answer: F,
}

impl<F> Row<F> {
    /// A command that only looks.
    pub const fn reads(
        name: &'static str,
        takes: &'static str,
        help: &'static str,
        answer: F,
    ) -> Self {
        Self { name, takes, effect: Effect::Reads, help, answer }
    }

    /// A command that changes something, or does so with an argument.
    pub const fn changes(
        effect: Effect,
        name: &'static str,
        takes: &'static str,
        help: &'static str,
        answer: F,
    ) -> Self {
        Self { name, takes, effect, help, answer }
    }

    /// Whether such a command changes the node, so that not everybody may give it.
    pub fn changes_state(&self, command: &Command<'_>) -> bool {
        match self.effect {
            Effect::Reads => false,
            Effect::Changes => true,
            Effect::ChangesWith(key) => command.arg(key).is_some(),
        }
    }
}

/// The row of a command.
pub fn find<F>(table: &'static [Row<F>], name: &str) -> Option<&'static Row<F>> {
    table.iter().find(|row| row.name == name)
}

/// Writes a table's rows for people, in Markdown.
pub fn write_rows<F>(out: &mut String, table: &[Row<F>]) {
    for Row { name, takes, effect, help, .. } in table {
        let changes = match effect {
            Effect::Reads => String::new(),
            Effect::Changes => ", *changes*".to_owned(),
            Effect::ChangesWith(key) => format!(", *changes* with `{key}=`"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "- `{name}{takes}`{changes}: {help}");
    }
}
