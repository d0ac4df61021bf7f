//! Changes at run time: one item, DC, namespace or seed at a time, under the same table and rules
//! as the file. A refused change changes nothing.

use super::error::{ItemError, RuleError};
use super::grammar::item::Item;
use super::grammar::kind::NameRule;
use super::grammar::names::find;
use super::grammar::set::{self, Broken, no_rules, room_for};
use super::grammar::value::show_seed;
use super::names::VOCABULARY;
use super::{
    DC_COUNT_MAX, DcConfig, DcNamespaceConfig, NAMESPACE_COUNT_MAX, XdrConfig, rules, table,
};

fn set_item<T: Clone>(
    target: &mut T,
    table: &'static [Item<T>],
    key: &str,
    value: &str,
    rules: impl Fn(&T) -> Vec<Broken<RuleError>>,
) -> Result<(), ItemError> {
    set::set_item(VOCABULARY, target, table, key, value, rules)
}

impl XdrConfig {
    /// Sets an item at run time.
    ///
    /// # Errors
    /// Unknown item, value not allowed, or an item that only the file may change.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ItemError> {
        set_item(self, table::XDR, key, value, no_rules)
    }

    /// The DC of that name, if there is one.
    pub fn dc(&self, name: &str) -> Option<&DcConfig> {
        self.dcs.iter().find(|dc| dc.name == name)
    }

    /// Adds a DC with every item at its default.
    ///
    /// # Errors
    /// The name is not allowed or taken, or there are [`DC_COUNT_MAX`] already.
    pub fn create_dc(&mut self, name: &str) -> Result<&mut DcConfig, ItemError> {
        NameRule::Dc.check(name)?;
        room_for(name, &self.dcs, |dc| &dc.name, DC_COUNT_MAX)?;
        self.dcs.push(DcConfig::named(name));
        let last = self.dcs.len() - 1;
        Ok(&mut self.dcs[last])
    }

    /// Takes a DC out, with all its settings.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn delete_dc(&mut self, name: &str) -> Result<DcConfig, ItemError> {
        let found = self.dcs.iter().position(|dc| dc.name == name);
        Ok(self.dcs.remove(found.ok_or(RuleError::NoSuchDc)?))
    }
}

impl DcConfig {
    /// Sets an item at run time; `node-address-port` (`HOST:PORT`) adds a seed.
    ///
    /// # Errors
    /// As [`XdrConfig::set`].
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ItemError> {
        set_item(self, table::DC, key, value, no_rules)
    }

    /// Removes a seed given as `HOST:PORT`; false when it is not one.
    pub fn remove_seed(&mut self, seed: &str) -> bool {
        let item = table::DC.iter().find(|item| item.name == "node-address-port");
        item.is_some_and(|item| item.take(self, seed))
    }

    /// Its seeds, for people.
    pub fn seeds_text(&self) -> String {
        let seeds = self.seeds.iter().map(|(host, port)| show_seed(host, port));
        let seeds: Vec<String> = seeds.collect();
        if seeds.is_empty() { "none".to_owned() } else { seeds.join(", ") }
    }

    /// How the namespace is shipped, if it is.
    pub fn namespace(&self, name: &str) -> Option<&DcNamespaceConfig> {
        self.namespaces.iter().find(|namespace| namespace.name == name)
    }

    /// How the namespace is shipped, if it is.
    pub fn namespace_mut(&mut self, name: &str) -> Option<&mut DcNamespaceConfig> {
        self.namespaces.iter_mut().find(|namespace| namespace.name == name)
    }

    /// Begins shipping a namespace, with every item at its default. Whether the node has such a
    /// namespace is the caller's to check.
    ///
    /// # Errors
    /// The name is not allowed, or shipped already, or there are [`NAMESPACE_COUNT_MAX`].
    pub fn add_namespace(&mut self, name: &str) -> Result<&mut DcNamespaceConfig, ItemError> {
        NameRule::Namespace.check(name)?;
        room_for(name, &self.namespaces, |namespace| &namespace.name, NAMESPACE_COUNT_MAX)?;
        self.namespaces.push(DcNamespaceConfig::named(name));
        let last = self.namespaces.len() - 1;
        Ok(&mut self.namespaces[last])
    }

    /// Takes a namespace out, with all its settings.
    ///
    /// # Errors
    /// The DC does not ship it.
    pub fn remove_namespace(&mut self, name: &str) -> Result<DcNamespaceConfig, ItemError> {
        let found = self.namespaces.iter().position(|namespace| namespace.name == name);
        Ok(self.namespaces.remove(found.ok_or(RuleError::NoSuchNamespace)?))
    }
}

impl DcNamespaceConfig {
    /// Sets an item at run time. The list items add one name; a bin or set leaves the contrary list
    /// by that.
    ///
    /// # Errors
    /// As [`XdrConfig::set`], or a rule between items that the result would break.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ItemError> {
        let contrary = match key {
            "ship-bin" => "ignore-bin",
            "ignore-bin" => "ship-bin",
            "ship-set" | "enable-set" => "ignore-set",
            "ignore-set" => "ship-set",
            _ => return set_item(self, table::DC_NAMESPACE, key, value, rules::dc_namespace),
        };
        let mut changed = self.clone();
        changed.remove(contrary, value);
        set_item(&mut changed, table::DC_NAMESPACE, key, value, rules::dc_namespace)?;
        *self = changed;
        Ok(())
    }

    /// Takes a name out of a list item; false when it is not in there.
    pub fn remove(&mut self, key: &str, value: &str) -> bool {
        let found = find(VOCABULARY, table::DC_NAMESPACE, &[], key, value);
        found.is_ok_and(|(item, value)| item.take(self, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LIST_ENTRIES_MAX, SEED_COUNT_MAX};

    #[test]
    fn items_are_set_under_the_rules_of_the_file() {
        let mut config = DcNamespaceConfig::named("test");
        for (key, value, expected) in [
            ("delay-ms", "50", None),
            ("hot-key-ms", "20", Some("`delay-ms` must not be above `hot-key-ms`, which is 20")),
            ("hot-key-ms", "50", None),
            (
                "max-throughput",
                "150",
                Some("`150` is not allowed here: expected a multiple of 100"),
            ),
            ("max-throughput", "0", None),
            ("transaction-queue-limit", "1000", Some("expected a power of two, 1024..1048576")),
            ("bin-policy", "no-bins", Some("not supported yet")),
            ("ship-only-specified-bins", "true", None),
            ("enable-compression", "true", Some("not supported yet: only `false` is")),
            ("max-ship-throughput", "1", Some("write `max-throughput`")),
            ("forwrad", "true", Some("unknown; did you mean `forward`?")),
            ("remote-namespace", "other", None),
        ] {
            let before = config.clone();
            let outcome = config.set(key, value);
            match (expected, &outcome) {
                (None, Ok(())) => {}
                (Some(text), Err(error)) => {
                    assert!(error.to_string().contains(text), "{key} {value}: {error}");
                    assert_eq!(config, before, "{key} {value}");
                }
                _ => panic!("{key} {value}: {outcome:?}"),
            }
        }
        assert_eq!((config.delay_ms, config.hot_key_ms, config.max_throughput), (50, 50, 0));
        assert_eq!(config.bin_policy, crate::config::BinPolicy::OnlySpecified);
        assert_eq!(config.remote_namespace.as_deref(), Some("other"));
    }

    #[test]
    fn a_name_is_in_one_of_two_contrary_lists() {
        let mut config = DcNamespaceConfig::named("test");
        config.set("ship-bin", "a").unwrap();
        config.set("ship-bin", "b").unwrap();
        config.set("ship-bin", "b").unwrap();
        config.set("ignore-bin", "a").unwrap();
        assert_eq!(
            (config.shipped_bins.join(","), config.ignored_bins.join(",")),
            ("b".into(), "a".into())
        );
        assert!(config.remove("ship-bin", "b") && !config.remove("ship-bin", "b"));
        config.set("enable-set", "s").unwrap();
        config.set("ignore-set", "s").unwrap();
        assert_eq!((config.shipped_sets.len(), config.ignored_sets.join(",")), (0, "s".into()));
        assert!(!config.remove("forward", "false"));
    }

    #[test]
    fn dcs_come_and_go_within_their_bound() {
        let mut xdr = XdrConfig::default();
        assert!(xdr.create_dc("null").is_err() && xdr.create_dc("a b").is_err());
        for index in 0..DC_COUNT_MAX {
            xdr.create_dc(&format!("dc{index}")).unwrap();
        }
        assert_eq!(xdr.create_dc("dc0"), Err(RuleError::Duplicate.into()));
        assert_eq!(xdr.create_dc("one-more"), Err(RuleError::TooMany { limit: 64 }.into()));
        assert_eq!(xdr.delete_dc("dc5").map(|dc| dc.name), Ok("dc5".to_owned()));
        assert_eq!(xdr.delete_dc("dc5"), Err(RuleError::NoSuchDc.into()));
        let dc = xdr.create_dc("dc5").unwrap();
        dc.set("node-address-port", "[::1]:3000").unwrap();
        dc.set("node-address-port", "h:3000").unwrap();
        assert!(dc.remove_seed("[::1]:3000") && !dc.remove_seed("nonsense"));
        assert_eq!(dc.seeds, [("h".to_owned(), 3000)]);
        dc.add_namespace("test").unwrap().set("forward", "true").unwrap();
        assert_eq!(dc.add_namespace("test"), Err(RuleError::Duplicate.into()));
        assert!(dc.namespace("test").is_some_and(|namespace| namespace.forward));
        assert!(dc.remove_namespace("test").is_ok() && dc.remove_namespace("test").is_err());
    }

    #[test]
    fn seeds_and_lists_have_bounds_and_what_is_there_may_be_said_again() {
        let mut xdr = XdrConfig::default();
        let dc = xdr.create_dc("west").unwrap();
        let seeds = (0..SEED_COUNT_MAX).map(|n| format!("h{n}:3000"));
        seeds.for_each(|seed| dc.set("node-address-port", &seed).unwrap());
        assert!(dc.set("node-address-port", "one-more:3000").is_err());
        assert_eq!(dc.seeds.len(), SEED_COUNT_MAX);
        let namespace = dc.add_namespace("test").unwrap();
        for item in ["ignore-bin", "ignore-set"] {
            let names = (0..LIST_ENTRIES_MAX).map(|n| format!("b{n}"));
            names.for_each(|name| namespace.set(item, &name).unwrap());
            assert!(namespace.set(item, "one-more").is_err(), "{item}");
            assert!(namespace.set(item, "b0").is_ok(), "{item}");
        }
    }
}
