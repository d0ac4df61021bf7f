//! A node's file.

use std::path::{Path, PathBuf};

use longship::config::grammar::kind::NameRule;
use longship::config::grammar::names;
use longship::config::grammar::reader::{Found, Reader, quoted, read_file};
use longship::config::grammar::set::room_for;
use longship::config::grammar::text::Node;
use longship::config::{
    ConfigErrors, ItemError, NAMESPACE_COUNT_MAX, RuleError, Shipped, read_xdr,
};

use super::names::VOCABULARY;
use super::{Config, LogLevel, LogSink, NamespaceConfig, log_modules, rules, table};

impl Config {
    /// Reads a configuration. `file` is only for the errors' words.
    ///
    /// # Errors
    /// Every error of the text, in line order.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        Self::parse_bytes(text.as_bytes(), file)
    }

    /// Reads a configuration from the bytes of a file: a byte order mark is skipped, and comments
    /// may hold any bytes.
    ///
    /// # Errors
    /// As [`Self::parse`], and for bytes outside comments that are no UTF-8.
    pub fn parse_bytes(bytes: &[u8], file: &str) -> Result<Self, ConfigErrors> {
        let (config, notes) = read_file(bytes, file, VOCABULARY, read)?;
        Ok(Self { notes, ..config })
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or holds errors.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path)
            .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Ok(Self::parse_bytes(&bytes, &path.display().to_string())?)
    }
}

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// Path of the configuration file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file was read and refused.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

fn read(reader: &mut Reader<'_>, nodes: &[Node<'_>]) -> Config {
    const CONTEXTS: &[&str] = &["service", "network", "logging", "namespace", "xdr"];
    let mut config = Config::default();
    let top = reader.items("", &[], CONTEXTS, &mut (), nodes);
    let mut firsts: Vec<(&str, u32)> = Vec::new();
    let mut namespace_lines = Vec::new();
    let mut shipped = Vec::new();
    let lacks = ["service", "namespace"].map(|name| (name, top.lacks(name)));
    let mut namespace_names = Vec::new();
    for node in top.contexts {
        let (name, body) = (node.words[0], node.body.as_deref().unwrap_or_default());
        if name == "namespace" {
            namespace_names.extend(node.words.get(1).copied());
            if let Some(namespace) = read_namespace(reader, node, body, &config.namespaces) {
                namespace_lines.push(node.line);
                config.namespaces.push(namespace);
            }
            continue;
        }
        if let Some((_, first_line)) = firsts.iter().find(|(first, _)| *first == name) {
            reader.refuse("", node, ItemError::Twice { first_line: *first_line });
            continue;
        }
        firsts.push((name, node.line));
        reader.no_name("", node);
        match name {
            "service" => read_service(reader, node, body, &mut config),
            "network" => read_network(reader, body, &mut config),
            "logging" => read_logging(reader, body, &mut config),
            _ => shipped = read_xdr(reader, body, &mut config.xdr),
        }
    }
    for (name, _) in lacks.iter().filter(|(_, lacks)| *lacks) {
        reader.push(1, "", (*name).to_owned(), ItemError::Missing.into());
    }
    for Shipped { line, context, name } in &shipped {
        if !namespace_names.contains(&name.as_str()) {
            let item = format!("namespace {name}");
            reader.push(*line, context, item, ItemError::from(RuleError::NoSuchNamespace).into());
        }
    }
    check_whole(reader, &config, &firsts, &namespace_lines);
    config
}

/// What only the whole can tell.
fn check_whole(
    reader: &mut Reader<'_>,
    config: &Config,
    firsts: &[(&str, u32)],
    namespace_lines: &[u32],
) {
    let line_of = |context| firsts.iter().find(|(name, _)| *name == context).map(|found| found.1);
    for (item, rule) in rules::ports(&config.network, config.service.shards) {
        let line = line_of("network").unwrap_or(1);
        reader.push(line, "network/service", item.to_owned(), ItemError::from(rule).into());
    }
    for (name, (item, rule)) in rules::shared_storage(config) {
        let index = config.namespaces.iter().position(|namespace| namespace.name == name);
        let line = index.and_then(|index| namespace_lines.get(index)).copied().unwrap_or(1);
        let context = format!("namespace {name}");
        reader.push(line, &context, item.to_owned(), ItemError::from(rule).into());
    }
}

fn read_service(reader: &mut Reader<'_>, node: &Node<'_>, body: &[Node<'_>], config: &mut Config) {
    let found = reader.items("service", table::SERVICE, &[], &mut config.service, body);
    if found.lacks("work-directory") {
        let item = "work-directory".to_owned();
        reader.push(node.line, "service", item, ItemError::Missing.into());
    }
}

fn read_network(reader: &mut Reader<'_>, body: &[Node<'_>], config: &mut Config) {
    let found = reader.items("network", &[], &["service"], &mut (), body);
    for (index, node) in found.contexts.iter().enumerate() {
        reader.no_name("network", node);
        if index > 0 {
            let first_line = found.contexts[0].line;
            reader.refuse("network", node, ItemError::Twice { first_line });
            continue;
        }
        let body = node.body.as_deref().unwrap_or_default();
        let table = table::NETWORK_SERVICE;
        reader.items("network/service", table, &[], &mut config.network, body);
    }
}

fn read_logging(reader: &mut Reader<'_>, body: &[Node<'_>], config: &mut Config) {
    let found = reader.items("logging", &[], &["file", "console"], &mut (), body);
    for node in found.contexts {
        let file = match node.words[..] {
            ["console"] => None,
            ["file", path] => Some(path.into()),
            _ => {
                let expected = "`file PATH {` or `console {`".to_owned();
                let instead = match node.words[..] {
                    ["file", _, _, ..] => Some(format!("file {} {{", quoted(&node.words[1..]))),
                    _ => None,
                };
                reader.refuse("logging", node, ItemError::Words { expected, instead });
                continue;
            }
        };
        let context = format!("logging/{}", node.words.join(" "));
        let mut contexts = Vec::new();
        for line in node.body.as_deref().unwrap_or_default() {
            match read_log_context(line) {
                Ok(entry) => contexts.push(entry),
                Err(error) => reader.refuse(&context, line, error),
            }
        }
        config.logging.sinks.push(LogSink { file, contexts });
    }
}

fn read_namespace(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    body: &[Node<'_>],
    others: &[NamespaceConfig],
) -> Option<NamespaceConfig> {
    let name = reader.name_of("", node, NameRule::Namespace)?;
    // One that is refused is read all the same, for what else is wrong with it.
    let room = room_for(name, others, |other| &other.name, NAMESPACE_COUNT_MAX);
    let is_one_more = room.map_err(|error| reader.refuse("", node, error)).is_ok();
    let context = format!("namespace {name}");
    let mut config = NamespaceConfig::named(name);
    let mut found =
        reader.items(&context, table::NAMESPACE, &["storage-engine"], &mut config, body);
    let mut engine_refused = false;
    for engine in std::mem::take(&mut found.contexts) {
        let known = std::iter::once("storage-engine device");
        let error = match (&engine.words[1..], found.line_of("storage-engine")) {
            (["device"], None) => {
                found.given.push(("storage-engine", engine.line));
                let inner = read_storage(reader, &context, engine, &mut config);
                found.given.extend(inner.given);
                found.refused.extend(inner.refused);
                continue;
            }
            (["device"], Some(first_line)) => ItemError::Twice { first_line },
            _ => names::explain(VOCABULARY, &engine.words.join(" "), known),
        };
        engine_refused = true;
        reader.refuse(&context, engine, error);
    }
    if found.line_of("max-record-size").is_none() {
        config.max_record_size = config.max_record_size.min(config.storage.write_block_size);
    }
    if !engine_refused {
        reader.refuse_broken(&context, node.line, &found, rules::namespace(&config));
    }
    is_one_more.then_some(config)
}

fn read_storage<'n, 't>(
    reader: &mut Reader<'_>,
    context: &str,
    node: &'n Node<'t>,
    config: &mut NamespaceConfig,
) -> Found<'n, 't> {
    let context = format!("{context}/storage-engine device");
    let body = node.body.as_deref().unwrap_or_default();
    reader.items(&context, table::STORAGE, &[], &mut config.storage, body)
}

/// `context NAME LEVEL`.
fn read_log_context(node: &Node<'_>) -> Result<(String, LogLevel), ItemError> {
    let ["context", name, level] = node.words[..] else {
        return Err(match node.words.first() {
            Some(&"context") => ItemError::words("a module (or `any`) and a level"),
            other => names::explain(VOCABULARY, other.unwrap_or(&""), std::iter::once("context")),
        });
    };
    if log_modules::log_targets(name).is_none() {
        return Err(names::explain(VOCABULARY, name, log_modules::names()));
    }
    let level_of = LogLevel::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(level));
    let Some(&(_, level)) = level_of else {
        let allowed = LogLevel::WORDS.map(|(word, _)| word).join(" | ");
        let instead = LogLevel::meant(level).map(str::to_owned);
        return Err(ItemError::Value { given: level.to_owned(), allowed, instead });
    };
    Ok((name.to_owned(), level))
}
