//! A file's tree of nodes to a [`Config`], with every error it holds.

use std::path::Path;

use super::error::{
    ConfigError, ConfigErrors, ConfigNote, FileError, ItemError, LoadError, RuleError,
};
use super::kind::{Kind, NameRule};
use super::rules::Broken;
use super::table::{self, Item};
use super::text::Node;
use super::value::{Field, NO_TLS_NAME, read_seed, show_seed};
use super::{
    Config, DC_COUNT_MAX, DcConfig, DcNamespaceConfig, LogLevel, LogSink, NAMESPACE_COUNT_MAX,
    NamespaceConfig, XdrConfig, log_modules, names, rules, text,
};

impl Config {
    /// Reads a configuration. `file` is only for the errors' words.
    ///
    /// # Errors
    /// Every error of the text, in line order.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        Self::parse_bytes(text.as_bytes(), file)
    }

    /// The same from the bytes of a file: a byte order mark is skipped, and comments may hold
    /// anything.
    ///
    /// # Errors
    /// As [`Self::parse`], and for bytes outside comments that are no UTF-8.
    pub fn parse_bytes(bytes: &[u8], file: &str) -> Result<Self, ConfigErrors> {
        let (text, mut syntax) = text::decode(bytes);
        let (nodes, more) = text::read(&text);
        syntax.extend(more);
        // A line that could not be read right says nothing true about its item.
        let is_garbled = |error: &FileError| {
            matches!(error, FileError::NotUtf8 { .. } | FileError::QuoteNotClosed)
        };
        let garbled = syntax.iter().filter(|(_, error)| is_garbled(error)).map(|(line, _)| *line);
        let is_utf16 = syntax.iter().any(|(_, error)| *error == FileError::Utf16);
        let mut reader = Reader { file, garbled: garbled.collect(), ..Reader::default() };
        let mut config = if is_utf16 { Self::default() } else { reader.config(&nodes) };
        reader.garbled.clear();
        for (line, error) in syntax {
            reader.push(line, "", String::new(), error);
        }
        reader.errors.sort_by_key(|error| error.line);
        reader.notes.sort_by_key(|note| note.line);
        config.notes = reader.notes;
        if reader.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(reader.errors)) }
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

/// Collects the errors and notes of a file on the way.
#[derive(Default)]
struct Reader<'f> {
    file: &'f str,
    /// Lines whose words are not what their writer meant.
    garbled: Vec<u32>,
    errors: Vec<ConfigError>,
    notes: Vec<ConfigNote>,
}

/// What was found in a context besides the values of its items.
struct Found<'n, 't> {
    /// Items given, with their lines.
    given: Vec<(&'static str, u32)>,
    /// Names on lines that were refused, and what they were probably meant to be.
    refused: Vec<&'t str>,
    /// Contexts inside, in the order given.
    contexts: Vec<&'n Node<'t>>,
}

impl Found<'_, '_> {
    fn line_of(&self, item: &str) -> Option<u32> {
        self.given.iter().find(|(name, _)| *name == item).map(|(_, line)| *line)
    }

    /// Whether nothing in the context was meant to be this item or context.
    fn lacks(&self, name: &str) -> bool {
        self.line_of(name).is_none()
            && !self.refused.contains(&name)
            && !self.contexts.iter().any(|node| node.words.first() == Some(&name))
    }
}

impl Reader<'_> {
    fn push(&mut self, line: u32, context: &str, item: String, error: FileError) {
        if self.garbled.contains(&line) {
            return;
        }
        let (file, context) = (self.file.to_owned(), context.to_owned());
        self.errors.push(ConfigError { file, line, context, item, error });
    }

    /// Blames a node.
    fn refuse(&mut self, context: &str, node: &Node<'_>, error: impl Into<ItemError>) {
        self.push(node.line, context, shown(node), FileError::Item(error.into()));
    }

    /// Blames an item of a context: where it was given, else where the context begins.
    fn refuse_broken(
        &mut self,
        context: &str,
        line: u32,
        found: &Found<'_, '_>,
        broken: Vec<Broken>,
    ) {
        let is_known =
            |rule: &RuleError| !rule.rests_on().iter().any(|item| found.refused.contains(item));
        for (item, rule) in broken.into_iter().filter(|(_, rule)| is_known(rule)) {
            let line = found.line_of(item).unwrap_or(line);
            self.push(line, context, item.to_owned(), ItemError::Rule(rule).into());
        }
    }

    /// Reads the items of a context into `target`, and sets aside the contexts named.
    fn items<'n, 't, T>(
        &mut self,
        context: &str,
        table: &'static [Item<T>],
        contexts: &[&'static str],
        target: &mut T,
        body: &'n [Node<'t>],
    ) -> Found<'n, 't> {
        let mut found = Found { given: Vec::new(), refused: Vec::new(), contexts: Vec::new() };
        for node in body {
            let Some(name) = node.words.first() else { continue };
            let read = if !contexts.contains(name) {
                read_item(table, contexts, target, node, &mut found.given)
            } else if node.body.is_some() {
                found.contexts.push(node);
                Ok(())
            } else {
                Err(ItemError::NotAnItem)
            };
            match read {
                Ok(()) => {}
                Err(ItemError::NoMeaning { reason }) => self.note(context, node, reason),
                Err(error) => {
                    found.refused.push(name);
                    if let ItemError::Unknown { nearest: Some(meant) } = error {
                        found.refused.push(meant);
                    }
                    self.refuse(context, node, error);
                }
            }
        }
        found
    }

    fn note(&mut self, context: &str, node: &Node<'_>, reason: &'static str) {
        let (file, context) = (self.file.to_owned(), context.to_owned());
        self.notes.push(ConfigNote { file, line: node.line, context, item: shown(node), reason });
    }

    /// The name after a context's keyword, if it is one.
    fn name_of<'t>(&mut self, context: &str, node: &Node<'t>, rule: NameRule) -> Option<&'t str> {
        let checked = match node.words[..] {
            [_, name] => rule.check(name).map(|()| name),
            _ => Err(ItemError::words("one name before the `{`")),
        };
        checked.map_err(|error| self.refuse(context, node, error)).ok()
    }

    /// Refuses words between a nameless context's keyword and its brace.
    fn no_name(&mut self, context: &str, node: &Node<'_>) {
        if node.words.len() > 1 {
            self.refuse(context, node, ItemError::words("no name before the `{`"));
        }
    }

    fn config(&mut self, nodes: &[Node<'_>]) -> Config {
        const CONTEXTS: &[&str] = &["service", "network", "logging", "namespace", "xdr"];
        let mut config = Config::default();
        let top = self.items("", &[], CONTEXTS, &mut (), nodes);
        let mut firsts: Vec<(&str, u32)> = Vec::new();
        let mut namespace_lines = Vec::new();
        let mut shipped = Vec::new();
        let lacks = ["service", "namespace"].map(|name| (name, top.lacks(name)));
        let mut namespace_names = Vec::new();
        for node in top.contexts {
            let (name, body) = (node.words[0], node.body.as_deref().unwrap_or_default());
            if name == "namespace" {
                namespace_names.extend(node.words.get(1).copied());
                if let Some(namespace) = self.namespace(node, body, &config.namespaces) {
                    namespace_lines.push(node.line);
                    config.namespaces.push(namespace);
                }
                continue;
            }
            if let Some((_, first_line)) = firsts.iter().find(|(first, _)| *first == name) {
                self.refuse("", node, ItemError::Twice { first_line: *first_line });
                continue;
            }
            firsts.push((name, node.line));
            self.no_name("", node);
            match name {
                "service" => self.service(node, body, &mut config),
                "network" => self.network(body, &mut config),
                "logging" => self.logging(body, &mut config),
                _ => shipped = self.xdr(body, &mut config.xdr),
            }
        }
        for (name, _) in lacks.iter().filter(|(_, lacks)| *lacks) {
            self.push(1, "", (*name).to_owned(), ItemError::Missing.into());
        }
        for Shipped { line, context, name } in &shipped {
            if !namespace_names.contains(&name.as_str()) {
                let item = format!("namespace {name}");
                self.push(*line, context, item, ItemError::from(RuleError::NoSuchNamespace).into());
            }
        }
        self.whole(&config, &firsts, &namespace_lines);
        config
    }

    /// What only the whole can tell.
    fn whole(&mut self, config: &Config, firsts: &[(&str, u32)], namespace_lines: &[u32]) {
        let line_of =
            |context| firsts.iter().find(|(name, _)| *name == context).map(|found| found.1);
        for (item, rule) in rules::ports(&config.network, config.service.shards) {
            let line = line_of("network").unwrap_or(1);
            self.push(line, "network/service", item.to_owned(), ItemError::Rule(rule).into());
        }
        for (name, (item, rule)) in rules::shared_storage(config) {
            let index = config.namespaces.iter().position(|namespace| namespace.name == name);
            let line = index.and_then(|index| namespace_lines.get(index)).copied().unwrap_or(1);
            let context = format!("namespace {name}");
            self.push(line, &context, item.to_owned(), ItemError::Rule(rule).into());
        }
    }

    fn service(&mut self, node: &Node<'_>, body: &[Node<'_>], config: &mut Config) {
        let found = self.items("service", table::SERVICE, &[], &mut config.service, body);
        if found.lacks("work-directory") {
            let item = "work-directory".to_owned();
            self.push(node.line, "service", item, ItemError::Missing.into());
        }
    }

    fn network(&mut self, body: &[Node<'_>], config: &mut Config) {
        let found = self.items("network", &[], &["service"], &mut (), body);
        for (index, node) in found.contexts.iter().enumerate() {
            self.no_name("network", node);
            if index > 0 {
                let first_line = found.contexts[0].line;
                self.refuse("network", node, ItemError::Twice { first_line });
                continue;
            }
            let body = node.body.as_deref().unwrap_or_default();
            let table = table::NETWORK_SERVICE;
            self.items("network/service", table, &[], &mut config.network, body);
        }
    }

    fn logging(&mut self, body: &[Node<'_>], config: &mut Config) {
        let found = self.items("logging", &[], &["file", "console"], &mut (), body);
        for node in found.contexts {
            let file = match node.words[..] {
                ["console"] => None,
                ["file", path] => Some(path.into()),
                _ => {
                    let expected = "`file PATH {` or `console {`";
                    self.refuse("logging", node, ItemError::words(expected));
                    continue;
                }
            };
            let context = format!("logging/{}", node.words.join(" "));
            let mut contexts = Vec::new();
            for line in node.body.as_deref().unwrap_or_default() {
                match read_log_context(line) {
                    Ok(entry) => contexts.push(entry),
                    Err(error) => self.refuse(&context, line, error),
                }
            }
            config.logging.sinks.push(LogSink { file, contexts });
        }
    }

    fn namespace(
        &mut self,
        node: &Node<'_>,
        body: &[Node<'_>],
        others: &[NamespaceConfig],
    ) -> Option<NamespaceConfig> {
        let name = self.name_of("", node, NameRule::Namespace)?;
        if let Err(error) = room_for(name, others, |other| &other.name, NAMESPACE_COUNT_MAX) {
            self.refuse("", node, error);
        }
        let context = format!("namespace {name}");
        let mut config = NamespaceConfig::named(name);
        let mut found =
            self.items(&context, table::NAMESPACE, &["storage-engine"], &mut config, body);
        let mut engine_refused = false;
        for engine in std::mem::take(&mut found.contexts) {
            let known = std::iter::once("storage-engine device");
            let error = match (&engine.words[1..], found.line_of("storage-engine")) {
                (["device"], None) => {
                    found.given.push(("storage-engine", engine.line));
                    let inner = self.storage(&context, engine, &mut config);
                    found.given.extend(inner.given);
                    found.refused.extend(inner.refused);
                    continue;
                }
                (["device"], Some(first_line)) => ItemError::Twice { first_line },
                _ => names::explain(&engine.words.join(" "), known),
            };
            engine_refused = true;
            self.refuse(&context, engine, error);
        }
        if found.line_of("max-record-size").is_none() {
            config.max_record_size = config.max_record_size.min(config.storage.write_block_size);
        }
        if !engine_refused {
            self.refuse_broken(&context, node.line, &found, rules::namespace(&config));
        }
        Some(config)
    }

    fn storage<'n, 't>(
        &mut self,
        context: &str,
        node: &'n Node<'t>,
        config: &mut NamespaceConfig,
    ) -> Found<'n, 't> {
        let context = format!("{context}/storage-engine device");
        let body = node.body.as_deref().unwrap_or_default();
        self.items(&context, table::STORAGE, &[], &mut config.storage, body)
    }

    fn xdr(&mut self, body: &[Node<'_>], config: &mut XdrConfig) -> Vec<Shipped> {
        let found = self.items("xdr", table::XDR, &["dc"], config, body);
        let mut shipped = Vec::new();
        for node in found.contexts {
            if let Some(dc) = self.dc(node, &config.dcs, &mut shipped) {
                config.dcs.push(dc);
            }
        }
        shipped
    }

    fn dc(
        &mut self,
        node: &Node<'_>,
        others: &[DcConfig],
        shipped: &mut Vec<Shipped>,
    ) -> Option<DcConfig> {
        let name = self.name_of("xdr", node, NameRule::Dc)?;
        if let Err(error) = room_for(name, others, |other| &other.name, DC_COUNT_MAX) {
            self.refuse("xdr", node, error);
        }
        let context = format!("xdr/dc {name}");
        let mut config = DcConfig::named(name);
        let body = node.body.as_deref().unwrap_or_default();
        let found = self.items(&context, table::DC, &["namespace"], &mut config, body);
        for node in found.contexts {
            if let Some(namespace) = self.dc_namespace(&context, node, &config.namespaces) {
                let (context, name) = (context.clone(), namespace.name.clone());
                shipped.push(Shipped { line: node.line, context, name });
                config.namespaces.push(namespace);
            }
        }
        Some(config)
    }

    fn dc_namespace(
        &mut self,
        context: &str,
        node: &Node<'_>,
        others: &[DcNamespaceConfig],
    ) -> Option<DcNamespaceConfig> {
        let name = self.name_of(context, node, NameRule::Namespace)?;
        if let Err(error) = room_for(name, others, |other| &other.name, NAMESPACE_COUNT_MAX) {
            self.refuse(context, node, error);
        }
        let context = format!("{context}/namespace {name}");
        let mut config = DcNamespaceConfig::named(name);
        let body = node.body.as_deref().unwrap_or_default();
        let found = self.items(&context, table::DC_NAMESPACE, &[], &mut config, body);
        self.refuse_broken(&context, node.line, &found, rules::dc_namespace(&config));
        Some(config)
    }
}

/// Characters of a refused line that its message repeats.
const ITEM_CHARS_SHOWN: usize = 80;

/// A namespace that a DC ships, and where the file says so.
struct Shipped {
    line: u32,
    context: String,
    name: String,
}

/// Whether one more of that name may join the others.
pub(super) fn room_for<T>(
    name: &str,
    others: &[T],
    name_of: impl Fn(&T) -> &str,
    limit: usize,
) -> Result<(), RuleError> {
    if others.iter().any(|other| name_of(other) == name) {
        return Err(RuleError::Duplicate);
    }
    if others.len() >= limit { Err(RuleError::TooMany { limit }) } else { Ok(()) }
}

fn read_item<T>(
    table: &'static [Item<T>],
    contexts: &[&'static str],
    target: &mut T,
    node: &Node<'_>,
    given: &mut Vec<(&'static str, u32)>,
) -> Result<(), ItemError> {
    let (name, values) = node.words.split_first().unwrap_or((&"", &[]));
    let first_value = values.first().copied().unwrap_or_default();
    let (item, value) = names::find(table, contexts, name, first_value)?;
    if node.body.is_some() {
        return Err(ItemError::NotAContext);
    }
    let field = item.field(target);
    let seed;
    let value = match (item.kind, values) {
        (Kind::HostPort, [host, port]) => {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            seed = show_seed(bare.unwrap_or(host), port);
            seed.as_str()
        }
        (Kind::HostPort, [_, _, _tls_name]) => {
            return Err(ItemError::Without { reason: NO_TLS_NAME });
        }
        (Kind::HostPort, _) | (_, [] | [_, _, ..]) => {
            let allowed = field.map_or_else(|| "one value".to_owned(), |f| f.allowed(item.kind));
            if matches!((item.name, values), ("device", [_, _])) {
                return Err(ItemError::words("one device: shadow devices are not supported"));
            }
            let instead = match (item.kind, values) {
                (Kind::HostPort, [one]) => {
                    read_seed(one).map(|(host, port)| format!("{host} {port}"))
                }
                // A line ends an item, whatever other formats do.
                (_, [one, ";"]) => Some((*one).to_owned()),
                _ => item.kind.respell(&values.concat()),
            };
            return Err(ItemError::Words { expected: allowed, instead });
        }
        (_, [_]) => value,
    };
    let is_list = field.is_some_and(Field::is_list);
    match given.iter().find(|(name, _)| *name == item.name) {
        Some(&(_, first_line)) if !is_list => return Err(ItemError::Twice { first_line }),
        _ => given.push((item.name, node.line)),
    }
    item.put(target, value)
}

/// A line as messages repeat it.
fn shown(node: &Node<'_>) -> String {
    node.words.join(" ").chars().take(ITEM_CHARS_SHOWN).collect()
}

/// `context NAME LEVEL`.
fn read_log_context(node: &Node<'_>) -> Result<(String, LogLevel), ItemError> {
    let ["context", name, level] = node.words[..] else {
        return Err(match node.words.first() {
            Some(&"context") => ItemError::words("a module (or `any`) and a level"),
            other => names::explain(other.unwrap_or(&""), std::iter::once("context")),
        });
    };
    if log_modules::log_targets(name).is_none() {
        return Err(names::explain(name, log_modules::names()));
    }
    let mut read = LogLevel::Info;
    match read.put(level, Kind::Plain) {
        Ok(()) => Ok((name.to_owned(), read)),
        Err(_) => {
            let (given, allowed) = (level.to_owned(), read.allowed(Kind::Plain));
            Err(ItemError::Value { given, allowed, instead: None })
        }
    }
}
