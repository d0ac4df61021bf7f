//! The modules that a `context` line of a log sink may name, and whose lines they stand for.
//!
//! Names are the reference system's, so that its files keep their meaning, and our own folders'.

/// Every module that has no line of its own.
pub const ANY: &str = "any";

/// What each name stands for: beginnings of Rust module paths, as log lines carry them.
const MODULES: &[(&str, &[&str])] = &[
    (
        "as",
        &[
            "longship_node::process::start",
            "longship_node::process::home",
            "longship_node::process::place",
        ],
    ),
    ("audit", &["longship_node::server::guard"]),
    (
        "config",
        &["longship_node::config", "longship::info::set_config", "longship::engine::control"],
    ),
    ("dest", &["longship::dest"]),
    ("drv_ssd", &["longship_node::storage"]),
    ("engine", &["longship::engine"]),
    ("hardware", &["longship_rt::topology", "longship_rt::placement"]),
    ("index", &["longship_node::storage::index"]),
    ("info", &["longship::info", "longship_node::admin::info"]),
    ("info-command", &["longship::info", "longship_node::admin::info"]),
    ("namespace", &["longship_node::storage"]),
    ("node", &["longship_node"]),
    ("nsup", &["longship_node::storage::expire", "longship_node::storage::raid"]),
    ("os", &["longship_rt"]),
    ("proto", &["longship_node::server::serve"]),
    ("rt", &["longship_rt"]),
    ("rw", &["longship_node::service::execute", "longship_node::service::apply"]),
    ("service", &["longship_node::server", "longship_node::server::serve"]),
    ("ship", &["longship::ship"]),
    ("socket", &["longship_rt::net"]),
    ("storage", &["longship_node::storage"]),
    ("xdr", &["longship::engine", "longship::ship", "longship::dest"]),
    ("xdr-client", &["longship::dest"]),
];

/// Modules of the reference system that have nothing to say here: a line about one is accepted and
/// changes nothing.
const SILENT: &[&str] = &[
    "aggr",
    "alloc",
    "appeal",
    "arenax",
    "batch",
    "batch-sub",
    "bin",
    "clustering",
    "drv-mem",
    "drv_pmem",
    "exchange",
    "exp",
    "fabric",
    "flat",
    "geo",
    "hb",
    "health",
    "hlc",
    "key-busy",
    "masking",
    "migrate",
    "misc",
    "mrt-audit",
    "mrt-monitor",
    "msg",
    "particle",
    "partition",
    "proxy",
    "proxy-divert",
    "query",
    "record",
    "roster",
    "rw-client",
    "secrets",
    "security",
    "service-list",
    "sindex",
    "skew",
    "smd",
    "ticker",
    "tls",
    "truncate",
    "tsvc",
    "udf",
    "vault",
    "vmapx",
    "xmem",
];

/// The targets of the log lines that the module `name` stands for: beginnings of `tracing` targets.
/// `None` for a name nobody knows; empty for [`ANY`] and for modules that say nothing here.
pub fn log_targets(name: &str) -> Option<Vec<String>> {
    if name == ANY || SILENT.contains(&name) {
        return Some(Vec::new());
    }
    let (_, modules) = MODULES.iter().find(|(known, _)| *known == name)?;
    Some(modules.iter().map(|module| (*module).to_owned()).collect())
}

/// Every name that [`log_targets`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let modules = MODULES.iter().map(|(name, _)| *name);
    std::iter::once(ANY).chain(modules).chain(SILENT.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_known_once() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
        assert!(all.iter().all(|name| log_targets(name).is_some()));
        assert_eq!(log_targets("xdrr"), None);
    }

    #[test]
    fn every_module_named_is_one_of_ours() {
        for (name, modules) in MODULES {
            for module in *modules {
                let path = match module.split_once("::").unwrap_or((module, "lib")) {
                    ("longship", path) => format!("../../src/{path}"),
                    (package, path) => {
                        let (_, package) = package.split_once('_').unwrap();
                        format!("../{package}/src/{path}")
                    }
                };
                let path = format!("{}/{}", env!("CARGO_MANIFEST_DIR"), path.replace("::", "/"));
                let is_there = [format!("{path}.rs"), format!("{path}/mod.rs")];
                let is_there = is_there.iter().any(|path| std::path::Path::new(path).exists());
                assert!(is_there, "{name}: there is no module {module}");
            }
        }
    }
}
