//! `get-config` of what is not shipping's: what the node was started with, and its namespaces as they
//! are now.

use longship::engine::ShardEngine;
use longship::host::Host;
use longship::info::{Admin, Answer};
use longship::wire::ResultCode;
use longship::wire::info::{Command, error};

use crate::config::{Config, LiveNamespaces};
use crate::server::Ask;

/// Answers for a shard: configuration, and through it everything about shipping.
pub struct NodeAdmin<H: Host> {
    shipping: Admin<H>,
    rules: LiveNamespaces,
    /// As started.
    config: Config,
}

impl<H: Host> NodeAdmin<H> {
    /// Of a shard of a node started with `config`, whose namespaces follow these rules now.
    pub fn new(engine: ShardEngine<H>, rules: LiveNamespaces, config: Config) -> Self {
        Self { shipping: Admin::new(engine), rules, config }
    }

    fn get_config(&self, command: &Command<'_>) -> String {
        match command.arg("context") {
            None | Some("service") => self.config.service.info_text(),
            Some("network") => self.config.network.info_text(),
            Some("security") => String::new(),
            Some("namespace") => {
                let name = command.arg("namespace").or(command.arg("id")).unwrap_or_default();
                self.rules.find(name).map_or_else(
                    || error(ResultCode::NAMESPACE, "namespace not found on node"),
                    |namespace| namespace.info_text(),
                )
            }
            Some(other) => error(ResultCode::PARAMETER, &format!("there is no context '{other}'")),
        }
    }
}

impl<H: Host> Ask for NodeAdmin<H> {
    fn ask(&self, command: &Command<'_>) -> Option<Answer> {
        let of_shipping = self.shipping.answer(command);
        of_shipping.or_else(|| {
            (command.name == "get-config").then(|| Answer::Now(self.get_config(command)))
        })
    }
}
