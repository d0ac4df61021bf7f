//! What one shard answers about itself: who it is, its figures (`statistics`, `namespace/NS`,
//! `sets`), and what it was told (`get-config`).

use std::rc::Rc;

use longship::info::figure::info_text;
use longship::info::{Row, find};
use longship::model::NamespaceId;
use longship::wire::ResultCode;
use longship::wire::info::{Command, error, escaped};
use longship_rt::clock::Clock;

use crate::admin::info::NodeIdentity;
use crate::admin::tables::{ONE, One, WHOLE, Whole};
use crate::config::Config;
use crate::server::{Asker, Traffic};
use crate::service::execute::{Records, Submit};
use crate::storage::sets::SetCounts;
use crate::storage::space::SpaceStats;

/// A command about the shard.
type NodeRow<S> = Row<fn(&Node<S>, &Command<'_>, &Traffic) -> String>;

/// One shard as a node of its cluster.
pub struct Node<S> {
    identity: NodeIdentity,
    records: Rc<Records<S>>,
    /// As started.
    config: Config,
}

impl<S: Submit> Node<S> {
    /// Of a shard with these records, of a process started with `config`.
    pub fn new(identity: NodeIdentity, records: Rc<Records<S>>, config: Config) -> Self {
        Self { identity, records, config }
    }

    /// What is asked besides who it is.
    pub(super) const TABLE: &'static [NodeRow<S>] = &[
        Row::reads(
            "get-config",
            "[:context=service|network|security|namespace[;id=N|namespace=N]]",
            "every item of the process, or of a namespace as it is now",
            |node, command, _| node.get_config(command),
        ),
        Row::reads("namespace", "/N", "figures of a namespace", |node, command, _| {
            let id = node.namespace_id(command.path);
            id.map_or_else(|| "type=unknown".to_owned(), |id| node.namespace(id))
        }),
        Row::reads("sets", "[/N[/SET]]", "the sets there are, with their figures", {
            |node, command, _| node.sets(command.path)
        }),
        Row::reads("statistics", "", "figures of the shard", |node, _, traffic| {
            node.statistics(traffic)
        }),
    ];

    /// Answers a command about the shard; `None` for every other.
    pub fn answer(
        &self,
        command: &Command<'_>,
        asker: &Asker,
        traffic: &Traffic,
    ) -> Option<String> {
        self.identity.answer(command, asker).or_else(|| {
            let row = find(Self::TABLE, command.name)?;
            let refusal = row.refusal(command);
            Some(refusal.unwrap_or_else(|| (row.answer)(self, command, traffic)))
        })
    }

    fn get_config(&self, command: &Command<'_>) -> String {
        match command.arg("context") {
            None | Some("service") => self.config.service.info_text(),
            Some("network") => self.config.network.info_text(),
            Some("security") => String::new(),
            Some("namespace") => {
                let name = command.arg("namespace").or(command.arg("id")).unwrap_or_default();
                self.namespace_id(name).map_or_else(
                    || error(ResultCode::NAMESPACE, "namespace not found on node"),
                    |id| self.records.rules(id).info_text(),
                )
            }
            Some(other) => error(ResultCode::PARAMETER, &format!("there is no context '{other}'")),
        }
    }

    fn namespace_id(&self, name: &str) -> Option<NamespaceId> {
        let index = self.identity.namespaces.iter().position(|known| known == name)?;
        Some(NamespaceId(index as u8))
    }

    fn namespace_ids(&self) -> impl Iterator<Item = NamespaceId> {
        (0..self.identity.namespaces.len()).map(|index| NamespaceId(index as u8))
    }

    fn statistics(&self, traffic: &Traffic) -> String {
        let store = self.records.store().borrow();
        let total = |field: fn(&SpaceStats) -> u64| -> u64 {
            self.namespace_ids().map(|id| field(&store.stats(id))).sum()
        };
        let whole = Whole {
            shard_count: self.identity.shard_count().into(),
            cluster_key: self.identity.cluster_key(),
            principal: self.identity.principal(),
            uptime_s: Clock::real().now() / 1_000_000,
            connections: traffic.connections,
            connections_opened: traffic.connections_opened,
            request_bytes: traffic.request_bytes,
            reply_bytes: traffic.reply_bytes,
            objects: total(|stats| stats.objects),
            tombstones: total(|stats| stats.tombstones),
            handed_over: traffic.handed_over,
        };
        info_text(WHOLE, &whole)
    }

    fn namespace(&self, id: NamespaceId) -> String {
        let one = One {
            shard_count: self.identity.shard_count().into(),
            stats: self.records.store().borrow().stats(id),
            rules: self.records.rules(id).clone(),
            figures: self.records.figures(id).clone(),
        };
        info_text(ONE, &one)
    }

    /// `sets`, `sets/NS` and `sets/NS/SET`.
    fn sets(&self, path: &str) -> String {
        let (namespace, set) = path.split_once('/').unwrap_or((path, ""));
        let store = self.records.store().borrow();
        let all = self.namespace_ids().zip(&self.identity.namespaces);
        let chosen = all.filter(|(_, name)| namespace.is_empty() || namespace == *name);
        chosen
            .flat_map(|(id, name)| store.sets(id).map(move |(set, counts)| (name, set, counts)))
            .filter(|(_, name, _)| !name.is_empty())
            .filter(|(_, name, _)| set.is_empty() || set == *name || set == escaped(name))
            .map(|(namespace, set, counts)| set_line(namespace, set, &counts))
            .collect()
    }
}

fn set_line(namespace: &str, set: &str, counts: &SetCounts) -> String {
    let SetCounts { objects, tombstones, bytes } = counts;
    let set = escaped(set);
    format!(
        "ns={namespace}:set={set}:objects={objects}:tombstones={tombstones}:\
         data_used_bytes={bytes}:truncate_lut=0:sindexes=0:stop-writes-count=0:\
         stop-writes-size=0:disable-eviction=false:enable-index=false;"
    )
}
