//! Rules that join several items, checked after a file is read and after each change at run time.

use super::DcNamespaceConfig;
use super::error::RuleError;
use super::grammar::set::Broken;

/// The rules inside one namespace of a DC.
pub(super) fn dc_namespace(config: &DcNamespaceConfig) -> Vec<Broken<RuleError>> {
    let mut broken = Vec::new();
    let DcNamespaceConfig { delay_ms, hot_key_ms, .. } = *config;
    if delay_ms > hot_key_ms {
        broken.push(("delay-ms", RuleError::DelayOverHotKey { hot_key_ms }));
    }
    let mut disjoint = |list: &[String], item, opposite: &[String], other| {
        for name in list.iter().filter(|name| opposite.contains(name)) {
            broken.push((item, RuleError::InBothLists { name: name.clone(), other }));
        }
    };
    disjoint(&config.shipped_bins, "ship-bin", &config.ignored_bins, "ignore-bin");
    disjoint(&config.shipped_sets, "ship-set", &config.ignored_sets, "ignore-set");
    broken
}
