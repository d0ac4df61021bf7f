//! The figures of one shard over the info protocol: `statistics`, `namespace/NS`, `sets`.

use crate::storage::sets::SetCounts;
use crate::storage::space::SpaceStats;
use longship::info::figure::info_text;
use longship::model::NamespaceId;
use longship::wire::info::{Command, escaped};
use longship_rt::clock::Clock;

use crate::admin::tables::{ONE, One, WHOLE, Whole};
use crate::server::Server;
use crate::service::execute::Submit;

impl<S: Submit> Server<S> {
    /// Answers a command about figures; `None` for every other.
    pub fn report(&self, command: &Command<'_>) -> Option<String> {
        match (command.name, command.path) {
            ("statistics", _) => Some(self.statistics()),
            ("namespace", name) => Some(
                self.namespace_id(name)
                    .map_or_else(|| "type=unknown".to_owned(), |id| self.namespace(id)),
            ),
            ("sets", path) => Some(self.sets(path)),
            _ => None,
        }
    }

    fn namespace_id(&self, name: &str) -> Option<NamespaceId> {
        let index = self.identity.namespaces.iter().position(|known| known == name)?;
        Some(NamespaceId(index as u8))
    }

    fn namespace_ids(&self) -> impl Iterator<Item = NamespaceId> {
        (0..self.identity.namespaces.len()).map(|index| NamespaceId(index as u8))
    }

    fn statistics(&self) -> String {
        let store = self.records.store().borrow();
        let total = |field: fn(&SpaceStats) -> u64| -> u64 {
            self.namespace_ids().map(|id| field(&store.stats(id))).sum()
        };
        let memory = self.connections.memory();
        let whole = Whole {
            shard_count: self.identity.shard_count().into(),
            cluster_key: self.identity.cluster_key(),
            principal: self.identity.principal(),
            uptime_s: Clock::real().now() / 1_000_000,
            connections: self.connections.count() as u64,
            connections_opened: self.connections.opened(),
            request_bytes: memory.inbox.in_use() as u64,
            reply_bytes: memory.replies.in_use() as u64,
            objects: total(|stats| stats.objects),
            tombstones: total(|stats| stats.tombstones),
            handed_over: self.desk.under_way() as u64,
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
