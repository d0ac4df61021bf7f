//! Rows of the table of commands: from them commands are answered, whoever may change the node is
//! told apart, and the page of commands is written. Each room has rows for what it answers.

use std::fmt::Write;

use super::set_config::Arguments;
use crate::config::nearest_name;
use crate::wire::ResultCode;
use crate::wire::info::{Command, error, pairs};

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

    /// Names of the arguments that `takes` tells of.
    fn arguments(&self) -> impl Iterator<Item = &'static str> + Clone + use<F> {
        let parts = self.takes.split(|c| "[]:;|".contains(c));
        parts.filter_map(|part| Some(part.split_once('=')?.0))
    }

    /// The answer to an argument that the command does not take, or that is given twice: what it
    /// means would otherwise be dropped in silence. Commands without arguments have none looked at,
    /// since clients send some to such of them; of those that set any item they are looked at later.
    pub fn refusal(&self, command: &Command<'_>) -> Option<String> {
        let mut known = self.arguments();
        if known.clone().next().is_none() || known.any(|name| name == ANY_ITEM) {
            return None;
        }
        let refusal = |text: &str| Some(error(ResultCode::PARAMETER, text));
        let arguments: Vec<(&str, &str)> = pairs(command.args).collect();
        if let Err(problem) = Arguments::new(&arguments) {
            return refusal(&problem.to_string());
        }
        let is_unknown = |name: &&str| !self.arguments().any(|known| known == *name);
        let unknown = arguments.into_iter().map(|(name, _)| name).find(is_unknown)?;
        let nearest = nearest_name(unknown, self.arguments());
        let meant = nearest.map(|name| format!("; did you mean '{name}='?")).unwrap_or_default();
        refusal(&format!("'{unknown}' does not belong to {}{meant}", self.name))
    }
}

/// Stands for the name of an item to be set.
const ANY_ITEM: &str = "ITEM";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_a_command_does_not_take_is_refused_by_its_row() {
        let takes = ":context=xdr|all[;dc=D[;id=N|namespace=N]]";
        let row = Row::reads("get-figures", takes, "", ());
        let bare = Row::reads("status", "", "", ());
        let any = Row::reads("set-config", ":context=xdr;ITEM=VALUE", "", ());
        let check = |row: &Row<()>, line: &str, expected: Option<&str>| {
            let command = Command::parse(line.as_bytes()).unwrap();
            let refused = row.refusal(&command);
            let expected = expected.map(|text| format!("ERROR:4:{text}"));
            assert_eq!(refused, expected, "{line}");
        };
        check(&row, "get-figures", None);
        check(&row, "get-figures:context=xdr;dc=west;namespace=test", None);
        check(&row, "get-figures:context=xdr;id=test;", None);
        let slip = "'namspace' does not belong to get-figures; did you mean 'namespace='?";
        check(&row, "get-figures:context=xdr;dc=west;namspace=test", Some(slip));
        check(&row, "get-figures:x", Some("'x' does not belong to get-figures"));
        check(&row, "get-figures:dc=a;dc=b", Some("'dc=' is given twice"));
        check(&bare, "status:size=1", None);
        check(&any, "set-config:anything=1", None);
    }
}
