//! Everything a shard answers: about itself, and about shipping.

use longship::engine::ShardEngine;
use longship::info::{Admin, Answer, write_rows};
use longship::wire::info::Command;

use crate::admin::info;
use crate::admin::report::Node;
use crate::server::{self, Ask, Asker, Traffic};
use crate::storage::store::Store;

/// Answers for a shard.
pub struct NodeAdmin {
    node: Node<ShardEngine<Store>>,
    shipping: Admin<Store>,
}

impl NodeAdmin {
    /// Of a shard that ships with `engine`.
    pub fn new(node: Node<ShardEngine<Store>>, engine: ShardEngine<Store>) -> Self {
        Self { node, shipping: Admin::new(engine) }
    }
}

impl Ask for NodeAdmin {
    /// What a node says about itself changes nothing.
    fn changes_state(&self, command: &Command<'_>) -> bool {
        Admin::<Store>::row(command).is_some_and(|row| row.changes_state(command))
    }

    fn ask(&self, command: &Command<'_>, asker: &Asker, traffic: &Traffic) -> Option<Answer> {
        let of_shipping = self.shipping.answer(command);
        of_shipping.or_else(|| self.node.answer(command, asker, traffic).map(Answer::Now))
    }
}

/// The page of commands, in Markdown.
pub fn page() -> String {
    let mut page = String::from(PREFACE);
    page.push_str("\n## Shipping\n\n");
    write_rows(&mut page, Admin::<Store>::TABLE);
    page.push_str("\n## The shard\n\n");
    write_rows(&mut page, Node::<ShardEngine<Store>>::TABLE);
    write_rows(&mut page, info::TABLE);
    page.push_str("\n## The connection\n\n");
    write_rows(&mut page, server::commands::TABLE);
    page
}

const PREFACE: &str = "\
# Info commands

`longship info COMMAND`, or a client's own tool, at the port of any shard. Figures are the shard's,
changes act on the whole process. Commands marked *changes* are taken from the node's own host and
from what `admin-allow` names. An answer that begins with `ERROR:` or `FAIL:` tells why not.
";

#[cfg(test)]
mod tests {
    use super::*;

    /// The page is checked in, where readers of the repository find it. On a change of a table, write
    /// the new text there: the test prints it.
    #[test]
    fn the_checked_in_page_is_the_tables() {
        let page = page();
        let checked_in = include_str!("commands.md");
        assert!(page == checked_in, "crates/node/src/admin/commands.md should be:\n{page}");
    }

    #[test]
    fn a_name_is_answered_in_one_place_but_for_the_items() {
        let mut names: Vec<&str> = Admin::<Store>::TABLE.iter().map(|row| row.name).collect();
        names.extend(Node::<ShardEngine<Store>>::TABLE.iter().map(|row| row.name));
        names.extend(info::TABLE.iter().map(|row| row.name));
        names.extend(server::commands::TABLE.iter().map(|row| row.name));
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert_eq!(twice, [["get-config", "get-config"]]);
    }

    #[test]
    fn what_changes_the_node_is_known_by_its_command() {
        let check = |line: &str, expected| {
            let command = Command::parse(line.as_bytes()).unwrap();
            let own = longship::info::find(server::commands::TABLE, command.name);
            let changes = own.is_some_and(|row| row.changes_state(&command))
                || Admin::<Store>::row(&command).is_some_and(|row| row.changes_state(&command));
            assert_eq!(changes, expected, "{line}");
        };
        check("set-config:context=xdr;dc=west;action=create", true);
        check("set-config", true);
        check("longship-hello:origin=1", true);
        check("longship-challenge", false);
        check("xdr-dead-letters:dc=west;namespace=demo", false);
        check("xdr-dead-letters:dc=west;namespace=demo;action=replay", true);
        check("get-config:context=xdr", false);
        check("statistics", false);
        check("no-such-command:action=x", false);
    }
}
