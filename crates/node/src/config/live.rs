//! Namespaces changed at run time: one item at a time, under the same table and rules as the file. A
//! refused change changes nothing.

use std::cell::{Ref, RefCell};
use std::rc::Rc;

use longship::config::ItemError;
use longship::config::grammar::set::{no_rules, set_item};
use longship::model::NamespaceId;

use super::names::VOCABULARY;
use super::{NamespaceConfig, rules, table};

/// A namespace as it is now, and as it was started.
#[derive(Clone, Debug)]
pub struct LiveNamespace {
    now: NamespaceConfig,
    started: NamespaceConfig,
}

impl From<NamespaceConfig> for LiveNamespace {
    fn from(started: NamespaceConfig) -> Self {
        Self { now: started.clone(), started }
    }
}

impl LiveNamespace {
    /// Sets an item; those of the storage engine may have `storage-engine.` in front. False if it was
    /// so before.
    ///
    /// # Errors
    /// Unknown item, value not allowed, an item that only the file may change, or a rule between
    /// items, or towards the start, that the result would break.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, ItemError> {
        let before = self.now.clone();
        self.now.set(key, value, &self.started)?;
        Ok(self.now != before)
    }
}

/// The namespaces of one shard, with their items as they are now. Clones are the same.
#[derive(Clone, Debug)]
pub struct LiveNamespaces(Rc<[RefCell<LiveNamespace>]>);

impl LiveNamespaces {
    /// As they were started, in order of their ids.
    pub fn new(namespaces: &[NamespaceConfig]) -> Self {
        let live = namespaces.iter().cloned().map(LiveNamespace::from);
        Self(live.map(RefCell::new).collect())
    }

    /// Their names, in order of their ids.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|live| live.borrow().now.name.clone()).collect()
    }

    /// One of them.
    #[inline]
    pub fn get(&self, namespace: NamespaceId) -> Ref<'_, NamespaceConfig> {
        Ref::map(self.0[namespace.index()].borrow(), |live| &live.now)
    }

    /// The namespace of that name, as it is now.
    pub fn find(&self, name: &str) -> Option<Ref<'_, NamespaceConfig>> {
        let ids = (0..self.0.len()).map(|index| NamespaceId(index as u8));
        ids.map(|id| self.get(id)).find(|namespace| namespace.name == name)
    }

    /// Sets an item, as [`LiveNamespace::set`] does.
    ///
    /// # Errors
    /// As of [`LiveNamespace::set`].
    pub fn set(&self, namespace: NamespaceId, key: &str, value: &str) -> Result<bool, ItemError> {
        self.0[namespace.index()].borrow_mut().set(key, value)
    }
}

impl NamespaceConfig {
    fn set(&mut self, key: &str, value: &str, started: &Self) -> Result<(), ItemError> {
        let mut changed = self.clone();
        let storage = key.strip_prefix("storage-engine.");
        let own = match storage {
            None => set_item(VOCABULARY, &mut changed, table::NAMESPACE, key, value, no_rules),
            Some(_) => Err(ItemError::Unknown { nearest: None }),
        };
        match own {
            Ok(()) => {}
            // The storage's items are set without naming it, too.
            Err(missing @ (ItemError::Unknown { .. } | ItemError::Elsewhere { .. })) => {
                let key = storage.unwrap_or(key);
                let set = set_item(
                    VOCABULARY,
                    &mut changed.storage,
                    table::STORAGE,
                    key,
                    value,
                    no_rules,
                );
                set.map_err(|error| match error {
                    ItemError::Unknown { nearest: None } => missing,
                    other => other,
                })?;
            }
            Err(error) => return Err(error),
        }
        let broken = rules::namespace(&changed).into_iter();
        match broken.chain(rules::since_start(&changed, started)).next() {
            Some((item, rule)) => Err(ItemError::breaks(storage.unwrap_or(key), item, rule)),
            None => {
                *self = changed;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_change_within_what_they_were_started_with() {
        let mut started = NamespaceConfig::named("test");
        started.storage.files = vec!["/a".into()];
        started.storage.filesize = 1 << 30;
        let mut config = started.clone();
        for (key, value, expected) in [
            ("default-ttl", "60", Some("needs a `nsup-period` above 0")),
            ("nsup-period", "2m", None),
            ("default-ttl", "60", None),
            ("nsup-period", "0", Some("`default-ttl` needs a `nsup-period` above 0")),
            ("stop-writes-used-pct", "5", None),
            ("storage-engine.defrag-lwm-pct", "60", None),
            ("defrag-lwm-pct", "100", Some("expected 1..99 percent")),
            ("post-write-cache", "1M", None),
            ("post-write-cache", "256M", None),
            ("post-write-cache", "257M", Some("above 268435456, its value at the start: its mem")),
            ("max-write-cache", "65M", Some("its memory was set aside then")),
            ("flush-max-ms", "1001", Some("shippers were told then how much a crash may cost")),
            ("max-record-size", "2M", Some("must not be above `write-block-size`")),
            ("write-block-size", "2M", Some("since the devices are formatted with it: put it")),
            ("commit-to-device", "true", Some("cannot be changed at run time, since what is on")),
            ("file", "/b", Some("since storage is laid out when it is opened")),
            ("replication-factor", "1", Some("a node holds one copy of each partition")),
            ("defrag-sleep", "5", Some("has no meaning here: storage finds its own pace")),
            ("post-write-queue", "5", Some("see `post-write-cache`")),
            ("defualt-ttl", "5", Some("did you mean `default-ttl`?")),
            ("flush-mx-ms", "5", Some("did you mean `flush-max-ms`?")),
            ("storage-engine.default-ttl", "5", Some("belongs to `namespace N`, not here")),
            ("forward", "true", Some("belongs to `xdr/dc D/namespace N`, not here")),
            ("banana", "5", Some("unknown")),
        ] {
            let before = config.clone();
            let outcome = config.set(key, value, &started);
            match (expected, &outcome) {
                (None, Ok(())) => {}
                (Some(text), Err(error)) => {
                    assert!(error.to_string().contains(text), "{key} {value}: {error}");
                    assert_eq!(config, before, "{key} {value}");
                }
                _ => panic!("{key} {value}: {outcome:?}"),
            }
        }
        let storage = &config.storage;
        assert_eq!((config.default_ttl_s, config.nsup_period_s), (60, 120));
        assert_eq!((storage.stop_writes_used_pct, storage.defrag_lwm_pct), (5, 60));
    }

    #[test]
    fn items_of_the_file_alone_ask_for_a_restart() {
        let mut service = super::super::ServiceConfig::default();
        let mut set = |key| set_item(VOCABULARY, &mut service, table::SERVICE, key, "4", no_rules);
        assert!(matches!(set("shards"), Err(ItemError::Static { .. })));
        assert_eq!(set("shard"), Err(ItemError::Unknown { nearest: Some("shards") }));
    }
}
