//! A change of what is shipped where, and its effect on the configuration: pure, total, the same
//! for every port it may come in by.
//!
//! `info` turns text into a [`Command`]; the control loop applies it here and tells the shards.
//! Applying the same command twice leaves what applying it once leaves: tools send it to every
//! node, and every shard is a node. What would be refused the second time is known from
//! [`Recent`].

use crate::config::{DcConfig, DcNamespaceConfig, ItemError, XdrConfig, nearest_name};
use crate::host::NamespaceSettings;
use crate::limits::COMMANDS_REMEMBERED_MAX;
use crate::model::{Lut, NamespaceId, ShardIndex};

/// Where a namespace newly attached to a DC starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewind {
    /// With the next write.
    Now,
    /// With what was written in the last so many seconds.
    Seconds(u64),
    /// With the oldest record.
    All,
}

impl Rewind {
    /// The first LUT to ship; `None` for "now", which each shard's version clock decides.
    pub(crate) fn start(self, wall: Lut) -> Option<Lut> {
        match self {
            Self::Now => None,
            Self::Seconds(seconds) => Some(wall.minus_ms(seconds.saturating_mul(1000))),
            Self::All => Some(Lut::ZERO),
        }
    }
}

/// A change of the `xdr` context, or of a namespace's own. Source: `docs/behaviour.md` section 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets an item of the context itself (`src-id`).
    Set {
        /// Name of the item.
        key: String,
        /// Its new value, as spelled in the command.
        value: String,
    },
    /// Creates a DC without seeds or namespaces.
    CreateDc {
        /// Name of the new DC.
        dc: String,
    },
    /// Deletes a DC with all its state.
    DeleteDc {
        /// Name of the DC.
        dc: String,
    },
    /// Stops shipping to a DC, or goes on from where it stopped. Its positions are kept.
    Pause {
        /// Name of the DC.
        dc: String,
        /// Pause, or resume.
        paused: bool,
    },
    /// Removes a seed; one is added by setting `node-address-port`.
    RemoveSeed {
        /// Name of the DC.
        dc: String,
        /// `HOST:PORT`.
        seed: String,
    },
    /// Starts shipping a namespace.
    AddNamespace {
        /// Name of the DC.
        dc: String,
        /// The namespace at the source.
        namespace: String,
        /// Where to start.
        rewind: Rewind,
    },
    /// Ships a namespace again from an earlier time on; its settings stay as they are.
    RewindNamespace {
        /// Name of the DC.
        dc: String,
        /// The namespace at the source.
        namespace: String,
        /// From when.
        rewind: Rewind,
    },
    /// Stops shipping a namespace and forgets its position.
    RemoveNamespace {
        /// Name of the DC.
        dc: String,
        /// The namespace at the source.
        namespace: String,
    },
    /// Gives the dead letters of a namespace another try.
    Replay {
        /// Name of the DC.
        dc: String,
        /// The namespace at the source.
        namespace: String,
    },
    /// Sets an item of a DC.
    SetDc {
        /// Name of the DC.
        dc: String,
        /// Name of the item.
        key: String,
        /// Its new value, as spelled in the command.
        value: String,
    },
    /// Sets an item of a namespace of this node; what there is to set, the host knows.
    SetNamespace {
        /// Name of the namespace.
        namespace: String,
        /// Name of the item.
        key: String,
        /// Its new value, as spelled in the command.
        value: String,
    },
    /// Sets an item of a namespace of a DC.
    SetDcNamespace {
        /// Name of the DC.
        dc: String,
        /// The namespace at the source.
        namespace: String,
        /// Name of the item.
        key: String,
        /// Its new value, as spelled in the command.
        value: String,
    },
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No such DC.
    #[error("no DC is named '{dc}'{}", meant(.nearest, "; get-config:context=xdr names them"))]
    UnknownDc {
        /// The name in the command.
        dc: String,
        /// The one that is spelled most like it.
        nearest: Option<String>,
    },
    /// The namespace is not configured on this node.
    #[error("this node has no namespace '{namespace}'{}", meant(.nearest, "; `namespaces` lists them"))]
    UnknownNamespace {
        /// The name in the command.
        namespace: String,
        /// The one that is spelled most like it.
        nearest: Option<String>,
    },
    /// The namespace is not attached to the DC.
    #[error("namespace '{namespace}' is not shipped to DC '{dc}'; action=add makes it so")]
    NotAttached {
        /// Name of the DC.
        dc: String,
        /// Name of the namespace at the source.
        namespace: String,
    },
    /// Rewinding a namespace that is being shipped.
    #[error("namespace '{namespace}' is already shipped to DC '{dc}': use action=rewind")]
    AlreadyAttached {
        /// Name of the DC.
        dc: String,
        /// Name of the namespace at the source.
        namespace: String,
    },
    /// Removing a seed that is none.
    #[error("'{seed}' is not a seed of DC '{dc}': it has {seeds}")]
    NotASeed {
        /// Name of the DC.
        dc: String,
        /// The seed in the command.
        seed: String,
        /// The seeds that the DC has, in words.
        seeds: String,
    },
    /// The item or its value is not acceptable.
    #[error("{item}: {source}")]
    Item {
        /// The item, DC or namespace at fault.
        item: String,
        /// What is wrong with the item or its value.
        source: ItemError,
    },
}

fn meant(nearest: &Option<String>, otherwise: &str) -> String {
    let otherwise = || otherwise.to_owned();
    nearest.as_ref().map_or_else(otherwise, |name| format!("; did you mean '{name}'?"))
}

impl CommandError {
    /// Nobody of the `known` DCs has that name.
    pub(crate) fn unknown_dc<'a>(dc: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let nearest = nearest_name(dc, known).map(str::to_owned);
        Self::UnknownDc { dc: dc.to_owned(), nearest }
    }

    /// Nobody of the `known` namespaces of this node has that name.
    pub(crate) fn unknown_namespace<'a>(
        namespace: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let nearest = nearest_name(namespace, known).map(str::to_owned);
        Self::UnknownNamespace { namespace: namespace.to_owned(), nearest }
    }
}

/// Names what an error is about.
trait About<T> {
    fn about(self, item: &str) -> Result<T, CommandError>;
}

impl<T> About<T> for Result<T, ItemError> {
    fn about(self, item: &str) -> Result<T, CommandError> {
        self.map_err(|source| CommandError::Item { item: item.to_owned(), source })
    }
}

/// What the shards must be told after a command was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The configuration already was that way.
    Nothing,
    /// Process-wide items changed: every DC is told again.
    Everything,
    /// This DC was created or changed.
    Dc(String),
    /// This DC was paused or resumed: its positions must be durable.
    Paused(String),
    /// Dead letters go back to their lanes.
    Replay { dc: String, namespace: String },
    /// This DC is gone.
    DcGone(String),
    /// An item of a namespace of this node changed.
    Namespace { namespace: NamespaceId, key: String, value: String },
    /// A namespace was attached or rewound and starts here.
    Starts { dc: String, namespace: String, rewind: Rewind },
}

/// How long a command that comes again is taken for the same one, sent to another port.
const REPEAT_MS: u64 = 10_000;
/// Tools bring a command, or a row of them, to one port after the other. So a command that moves or
/// drops positions is taken for the last one about its DC that another port brought, if it comes
/// within this time. One that comes later is meant: the destination may have been wiped meanwhile.
const FAN_OUT_MS: u64 = 2000;

/// Commands that made, ended or moved a DC, or a namespace or seed of one, in their order and with
/// their answers. Each is kept as long as another port may bring it again.
#[derive(Debug, Default)]
pub(crate) struct Recent(Vec<Done>);

/// A command that was carried out.
#[derive(Debug)]
struct Done {
    at: Lut,
    command: Command,
    answer: String,
    /// None has changed the same since.
    is_last: bool,
    /// The shards whose ports have brought it, and when the last of them did.
    ports: Vec<ShardIndex>,
    brought: Lut,
}

impl Recent {
    /// Remembers a command that changed something, and how it was answered.
    pub(crate) fn note(&mut self, command: &Command, wall: Lut, answer: &str, port: ShardIndex) {
        let Some((dc, part)) = command.subject() else { return };
        self.0.retain(|done| is_recent(done.at, wall));
        for Done { command: old, is_last, .. } in &mut self.0 {
            let is_replaced = old
                .subject()
                .is_some_and(|(of, within)| of == dc && (part == Part::Whole || within == part));
            *is_last &= !is_replaced;
        }
        if self.0.len() == COMMANDS_REMEMBERED_MAX {
            self.0.remove(0);
        }
        let (command, answer) = (command.clone(), answer.to_owned());
        let ports = vec![port];
        self.0.push(Done { at: wall, command, answer, is_last: true, ports, brought: wall });
    }

    /// More is known of what the last such command has done.
    pub(crate) fn reword(&mut self, command: &Command, answer: &str) {
        if let Some(done) = self.0.iter_mut().rfind(|done| done.command == *command) {
            answer.clone_into(&mut done.answer);
        }
    }

    /// The answer to a command that only repeats the last one about its subject.
    pub(crate) fn repeated(&self, command: &Command, wall: Lut) -> Option<&str> {
        let is_it =
            |done: &&Done| done.is_last && done.command == *command && is_recent(done.at, wall);
        self.0.iter().find(is_it).map(|done| done.answer.as_str())
    }

    /// The answer to a command that another port has brought just now and `port` has not, whatever
    /// that other port brought after it. A command that one port brings twice is meant twice.
    pub(crate) fn brought_again(
        &mut self,
        command: &Command,
        wall: Lut,
        port: ShardIndex,
    ) -> Option<String> {
        let (dc, _) = command.subject()?;
        let of_dc = |done: &&Done| done.command.subject().is_some_and(|(of, _)| of == dc);
        let last = self.0.iter().filter(of_dc).map(|done| done.brought).max()?;
        if wall.ms().saturating_sub(last.ms()) > FAN_OUT_MS {
            return None;
        }
        let is_it = |done: &&mut Done| done.command == *command && !done.ports.contains(&port);
        let done = self.0.iter_mut().find(is_it)?;
        done.ports.push(port);
        done.brought = wall;
        Some(done.answer.clone())
    }
}

fn is_recent(at: Lut, wall: Lut) -> bool {
    wall.ms().saturating_sub(at.ms()) <= REPEAT_MS
}

/// What of a DC a command makes, ends or moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Whole,
    Namespace(&'a str),
    Seed(&'a str),
}

impl Command {
    /// What is made, ended or moved: a DC, or a part of it.
    fn subject(&self) -> Option<(&str, Part<'_>)> {
        match self {
            Self::CreateDc { dc } | Self::DeleteDc { dc } => Some((dc, Part::Whole)),
            Self::AddNamespace { dc, namespace, .. }
            | Self::RewindNamespace { dc, namespace, .. }
            | Self::RemoveNamespace { dc, namespace } => Some((dc, Part::Namespace(namespace))),
            Self::SetDc { dc, key, value: seed } if key == SEED => Some((dc, Part::Seed(seed))),
            Self::RemoveSeed { dc, seed } => Some((dc, Part::Seed(seed))),
            _ => None,
        }
    }

    /// Whether doing it a second time, when all that came behind it is done, would do more than doing
    /// it once.
    pub(crate) const fn moves_positions(&self) -> bool {
        matches!(
            self,
            Self::RewindNamespace { .. } | Self::RemoveNamespace { .. } | Self::DeleteDc { .. }
        )
    }
}

/// The item that seeds are added by.
pub(crate) const SEED: &str = "node-address-port";

/// The namespaces of this node.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Their names, indexed by [`NamespaceId`].
    pub(crate) names: Vec<String>,
    /// Their own items.
    pub(crate) settings: Box<dyn NamespaceSettings>,
}

impl Namespaces {
    /// The one of that name.
    pub(crate) fn find(&self, name: &str) -> Option<NamespaceId> {
        let found = self.names.iter().position(|known| known == name);
        found.map(|index| NamespaceId(index as u8))
    }

    fn unknown(&self, name: &str) -> CommandError {
        CommandError::unknown_namespace(name, self.names.iter().map(String::as_str))
    }

    /// A name that is no item of shipping's may be one that the host knows.
    fn explained(&self, error: CommandError) -> CommandError {
        match error {
            CommandError::Item {
                item,
                source: source @ (ItemError::Unknown { .. } | ItemError::Elsewhere { .. }),
            } => {
                let source = self.settings.explain(&item).unwrap_or(source);
                CommandError::Item { item, source }
            }
            other => other,
        }
    }

    fn set(&mut self, name: &str, key: &str, value: &str) -> Result<Effect, CommandError> {
        let namespace = self.find(name).ok_or_else(|| self.unknown(name))?;
        let changed = self.settings.set(namespace, key, value).about(key)?;
        let (key, value) = (key.to_owned(), value.to_owned());
        Ok(if changed { Effect::Namespace { namespace, key, value } } else { Effect::Nothing })
    }
}

/// Applies `command` to `xdr` or one of the `namespaces`. What is attached anew begins with the
/// settings that `file` has for it. On an error nothing has changed.
pub(crate) fn apply(
    xdr: &mut XdrConfig,
    namespaces: &mut Namespaces,
    file: &XdrConfig,
    command: &Command,
) -> Result<Effect, CommandError> {
    change(xdr, namespaces, file, command).map_err(|error| namespaces.explained(error))
}

fn change(
    xdr: &mut XdrConfig,
    namespaces: &mut Namespaces,
    file: &XdrConfig,
    command: &Command,
) -> Result<Effect, CommandError> {
    match command {
        Command::SetNamespace { namespace, key, value } => namespaces.set(namespace, key, value),
        Command::Set { key, value } => {
            let before = xdr.src_id;
            xdr.set(key, value).about(key)?;
            Ok(if xdr.src_id == before { Effect::Nothing } else { Effect::Everything })
        }
        Command::CreateDc { dc } => create(xdr, dc),
        Command::DeleteDc { dc } => {
            find(xdr, dc)?;
            xdr.delete_dc(dc).about("dc")?;
            Ok(Effect::DcGone(dc.clone()))
        }
        Command::Pause { dc, paused } => {
            let config = find(xdr, dc)?;
            let was = std::mem::replace(&mut config.paused, *paused);
            Ok(if was == *paused { Effect::Nothing } else { Effect::Paused(dc.clone()) })
        }
        Command::RemoveSeed { dc, seed } => edit(xdr, dc, |config| {
            if config.remove_seed(seed) {
                return Ok(());
            }
            let seeds = config.seeds_text();
            Err(CommandError::NotASeed { dc: dc.clone(), seed: seed.clone(), seeds })
        }),
        Command::AddNamespace { dc, namespace, rewind } => {
            let settings = file.dc(dc).and_then(|dc| dc.namespace(namespace));
            attach(xdr, namespaces, (dc, namespace, *rewind), settings)
        }
        Command::RewindNamespace { dc, namespace, rewind } => {
            find(xdr, dc)?.namespace(namespace).ok_or_else(|| not_attached(dc, namespace))?;
            let (dc, namespace) = (dc.clone(), namespace.clone());
            Ok(Effect::Starts { dc, namespace, rewind: *rewind })
        }
        Command::RemoveNamespace { dc, namespace } => edit(xdr, dc, |config| {
            config.remove_namespace(namespace).map_err(|_| not_attached(dc, namespace))?;
            Ok(())
        }),
        Command::Replay { dc, namespace } => {
            find(xdr, dc)?.namespace(namespace).ok_or_else(|| not_attached(dc, namespace))?;
            Ok(Effect::Replay { dc: dc.clone(), namespace: namespace.clone() })
        }
        Command::SetDc { dc, key, value } => {
            edit(xdr, dc, |config| config.set(key, value).about(key))
        }
        Command::SetDcNamespace { dc, namespace, key, value } => edit(xdr, dc, |config| {
            let attached = config.namespace_mut(namespace);
            attached.ok_or_else(|| not_attached(dc, namespace))?.set(key, value).about(key)
        }),
    }
}

fn not_attached(dc: &str, namespace: &str) -> CommandError {
    CommandError::NotAttached { dc: dc.to_owned(), namespace: namespace.to_owned() }
}

fn create(xdr: &mut XdrConfig, dc: &str) -> Result<Effect, CommandError> {
    if xdr.dc(dc).is_some() {
        return Ok(Effect::Nothing);
    }
    xdr.create_dc(dc).about("dc")?;
    Ok(Effect::Dc(dc.to_owned()))
}

fn attach(
    xdr: &mut XdrConfig,
    namespaces: &Namespaces,
    (dc, namespace, rewind): (&str, &str, Rewind),
    settings: Option<&DcNamespaceConfig>,
) -> Result<Effect, CommandError> {
    namespaces.find(namespace).ok_or_else(|| namespaces.unknown(namespace))?;
    let config = find(xdr, dc)?;
    if config.namespace(namespace).is_some() {
        return match rewind {
            Rewind::Now => Ok(Effect::Nothing),
            Rewind::Seconds(_) | Rewind::All => Err(CommandError::AlreadyAttached {
                dc: dc.to_owned(),
                namespace: namespace.to_owned(),
            }),
        };
    }
    let attached = config.add_namespace(namespace).about("namespace")?;
    if let Some(settings) = settings {
        *attached = settings.clone();
    }
    Ok(Effect::Starts { dc: dc.to_owned(), namespace: namespace.to_owned(), rewind })
}

/// Edits a copy of one DC's configuration and keeps it when the edit succeeds.
fn edit(
    xdr: &mut XdrConfig,
    dc: &str,
    change: impl FnOnce(&mut DcConfig) -> Result<(), CommandError>,
) -> Result<Effect, CommandError> {
    let config = find(xdr, dc)?;
    let mut edited = config.clone();
    change(&mut edited)?;
    if edited == *config {
        return Ok(Effect::Nothing);
    }
    *config = edited;
    Ok(Effect::Dc(dc.to_owned()))
}

fn find<'x>(xdr: &'x mut XdrConfig, dc: &str) -> Result<&'x mut DcConfig, CommandError> {
    let Some(index) = xdr.dcs.iter().position(|known| known.name == dc) else {
        let known = xdr.dcs.iter().map(|known| known.name.as_str());
        return Err(CommandError::unknown_dc(dc, known));
    };
    Ok(&mut xdr.dcs[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has an item `size`, which is never "0".
    #[derive(Debug)]
    struct Size(String);

    impl NamespaceSettings for Size {
        fn set(&mut self, _: NamespaceId, key: &str, value: &str) -> Result<bool, ItemError> {
            match (key, value) {
                ("size", "0") => Err(ItemError::Host { problem: "needs some".to_owned() }),
                ("size", value) => Ok(std::mem::replace(&mut self.0, value.to_owned()) != value),
                _ => Err(ItemError::Unknown { nearest: Some("size") }),
            }
        }

        fn explain(&self, key: &str) -> Option<ItemError> {
            (key == "size").then_some(ItemError::Elsewhere { place: "namespace N" })
        }
    }

    fn namespaces() -> Namespaces {
        Namespaces { names: vec!["demo".to_owned()], settings: Box::new(Size("1".to_owned())) }
    }

    fn run(xdr: &mut XdrConfig, command: Command) -> Result<Effect, CommandError> {
        apply(xdr, &mut namespaces(), &XdrConfig::default(), &command)
    }

    fn create(dc: &str) -> Command {
        Command::CreateDc { dc: dc.to_owned() }
    }

    fn add(dc: &str, namespace: &str, rewind: Rewind) -> Command {
        Command::AddNamespace { dc: dc.to_owned(), namespace: namespace.to_owned(), rewind }
    }

    fn rewind_of(dc: &str, namespace: &str) -> Command {
        let (dc, namespace) = (dc.to_owned(), namespace.to_owned());
        Command::RewindNamespace { dc, namespace, rewind: Rewind::All }
    }

    fn seed(dc: &str, seed: &str) -> Command {
        Command::SetDc { dc: dc.to_owned(), key: SEED.to_owned(), value: seed.to_owned() }
    }

    fn unseed(dc: &str, seed: &str) -> Command {
        Command::RemoveSeed { dc: dc.to_owned(), seed: seed.to_owned() }
    }

    #[test]
    fn a_rewind_keeps_the_settings_and_an_attachment_takes_those_of_the_file() {
        let mut file = XdrConfig::default();
        let dc = file.create_dc("west").unwrap();
        dc.add_namespace("demo").unwrap().set("ignore-set", "tmp").unwrap();
        let mut xdr = file.clone();
        let mut run = |command| {
            let effect = apply(&mut xdr, &mut namespaces(), &file, &command);
            (effect, xdr.clone())
        };
        let starts = |rewind| {
            let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
            Ok(Effect::Starts { dc, namespace, rewind })
        };
        assert_eq!(run(rewind_of("west", "demo")), (starts(Rewind::All), file.clone()));
        let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
        assert!(run(Command::RemoveNamespace { dc, namespace }).0.is_ok());
        assert_eq!(run(add("west", "demo", Rewind::Now)), (starts(Rewind::Now), file.clone()));
    }

    #[test]
    fn a_dc_is_built_step_by_step_and_every_step_may_come_twice() {
        let mut xdr = XdrConfig::default();
        assert_eq!(run(&mut xdr, create("west")), Ok(Effect::Dc("west".to_owned())));
        assert_eq!(run(&mut xdr, create("west")), Ok(Effect::Nothing));
        let seed = seed("west", "10.0.0.1:3000");
        assert_eq!(run(&mut xdr, seed.clone()), Ok(Effect::Dc("west".to_owned())));
        assert_eq!(run(&mut xdr, seed), Ok(Effect::Nothing));
        let attached = run(&mut xdr, add("west", "demo", Rewind::All));
        assert!(matches!(attached, Ok(Effect::Starts { rewind: Rewind::All, .. })));
        assert_eq!(run(&mut xdr, add("west", "demo", Rewind::Now)), Ok(Effect::Nothing));
        assert_eq!(xdr.dcs[0].seeds, [("10.0.0.1".to_owned(), 3000)]);
        assert_eq!(xdr.dcs[0].namespaces.len(), 1);
    }

    #[test]
    fn refusals_name_what_is_wrong_and_change_nothing() {
        let mut xdr = XdrConfig::default();
        run(&mut xdr, create("west")).unwrap();
        run(&mut xdr, add("west", "demo", Rewind::Now)).unwrap();
        let before = xdr.clone();
        let cases = [
            (add("north", "demo", Rewind::Now), "no DC is named 'north'; get-config:context=xdr"),
            (add("wset", "demo", Rewind::Now), "no DC is named 'wset'; did you mean 'west'?"),
            (add("west", "other", Rewind::Now), "this node has no namespace 'other'; `namespaces`"),
            (add("west", "dmeo", Rewind::Now), "no namespace 'dmeo'; did you mean 'demo'?"),
            (create(""), "dc: `` is not allowed here: expected 1..31 characters"),
            (add("west", "demo", Rewind::Seconds(5)), "use action=rewind"),
            (rewind_of("west", "other"), "'other' is not shipped to DC 'west'"),
            (unseed("west", "h:1"), "'h:1' is not a seed of DC 'west': it has none"),
            (
                Command::SetDcNamespace {
                    dc: "west".to_owned(),
                    namespace: "demo".to_owned(),
                    key: "max-throughput".to_owned(),
                    value: "150".to_owned(),
                },
                "100",
            ),
        ];
        let item_of_dc = |key: &str| Command::SetDc {
            dc: "west".to_owned(),
            key: key.to_owned(),
            value: "1".to_owned(),
        };
        let items = [
            (item_of_dc("size"), "size: belongs to `namespace N`, not here"),
            (item_of_dc("forward"), "forward: belongs to `xdr/dc D/namespace N`, not here"),
            (item_of_dc("peroid-ms"), "did you mean `period-ms`?"),
        ];
        for (command, expected) in cases.into_iter().chain(items) {
            let error = run(&mut xdr, command).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(xdr, before);
        }
    }

    #[test]
    fn items_of_a_namespace_are_the_hosts_to_judge() {
        let mut namespaces = namespaces();
        let mut set = |namespace: &str, key: &str, value: &str| {
            namespaces.set(namespace, key, value).map_err(|error| error.to_string())
        };
        let (key, value) = ("size".to_owned(), "2".to_owned());
        let changed = Effect::Namespace { namespace: NamespaceId(0), key, value };
        assert_eq!(set("demo", "size", "2"), Ok(changed));
        assert_eq!(set("demo", "size", "2"), Ok(Effect::Nothing));
        let refused = |result: Result<Effect, String>, expected: &str| {
            let text = result.unwrap_err();
            assert!(text.contains(expected), "{text}");
        };
        refused(set("demo", "size", "0"), "size: needs some");
        refused(set("demo", "sise", "2"), "did you mean `size`?");
        refused(set("dmeo", "size", "2"), "did you mean 'demo'?");
    }

    #[test]
    fn a_pause_may_come_twice_and_is_kept_with_the_dc() {
        let mut xdr = XdrConfig::default();
        run(&mut xdr, create("west")).unwrap();
        let pause = |paused| Command::Pause { dc: "west".to_owned(), paused };
        assert_eq!(run(&mut xdr, pause(false)), Ok(Effect::Nothing));
        assert_eq!(run(&mut xdr, pause(true)), Ok(Effect::Paused("west".to_owned())));
        assert_eq!(run(&mut xdr, pause(true)), Ok(Effect::Nothing));
        assert!(xdr.dcs[0].paused);
        assert_eq!(run(&mut xdr, pause(false)), Ok(Effect::Paused("west".to_owned())));
    }

    #[test]
    fn a_command_repeats_the_last_one_of_its_place_and_no_other() {
        let remove =
            || Command::RemoveNamespace { dc: "west".to_owned(), namespace: "demo".to_owned() };
        let delete = || Command::DeleteDc { dc: "west".to_owned() };
        let rewind = || add("west", "demo", Rewind::All);
        let check = |known: &[Command], command: Command, seconds: u64, expected: bool| {
            let mut recent = Recent::default();
            let port = ShardIndex(0);
            known.iter().for_each(|known| recent.note(known, Lut::from_ms(50_000), "ok", port));
            let wall = Lut::from_ms(50_000 + seconds * 1000);
            let answer = expected.then_some("ok");
            assert_eq!(recent.repeated(&command, wall), answer, "{known:?} {command:?}");
        };
        check(&[], rewind(), 0, false);
        check(&[create("west"), rewind()], rewind(), 9, true);
        check(&[create("west"), rewind()], rewind(), 11, false);
        check(&[rewind()], add("west", "demo", Rewind::Seconds(5)), 0, false);
        check(&[rewind(), remove()], remove(), 0, true);
        check(&[rewind(), remove(), add("west", "demo", Rewind::Now)], rewind(), 0, false);
        check(&[rewind(), create("east")], rewind(), 0, true);
        check(&[rewind(), delete()], delete(), 0, true);
        check(&[rewind(), delete(), create("west")], rewind(), 0, false);
        let moved = || rewind_of("west", "demo");
        check(&[moved()], moved(), 9, true);
        check(&[moved(), rewind()], moved(), 0, false);
        check(&[unseed("west", "h:1")], unseed("west", "h:1"), 0, true);
        check(&[unseed("west", "h:1"), seed("west", "h:1")], unseed("west", "h:1"), 0, false);
        check(&[unseed("west", "h:1"), rewind()], unseed("west", "h:1"), 0, true);
    }

    #[test]
    fn a_rewind_comes_once_by_each_port_and_again_by_one_that_had_it() {
        let rewind = rewind_of("west", "demo");
        let mut recent = Recent::default();
        recent.note(&rewind, Lut::from_ms(50_000), "ok", ShardIndex(1));
        let mut comes = |port, s: u64| {
            recent.brought_again(&rewind, Lut::from_ms(50_000 + s * 1000), ShardIndex(port))
        };
        assert_eq!(comes(0, 0), Some("ok".to_owned()));
        assert_eq!(comes(2, 2), Some("ok".to_owned()), "a tool goes from port to port");
        assert_eq!(comes(3, 4), Some("ok".to_owned()));
        assert_eq!(
            (comes(0, 4), comes(1, 4)),
            (None, None),
            "the destination was wiped in between"
        );
        assert_eq!(comes(4, 7), None, "somebody else says so later");
    }

    #[test]
    fn a_rewind_counts_back_from_the_wall_clock() {
        let wall = Lut::from_ms(10_000);
        assert_eq!(Rewind::Now.start(wall), None);
        assert_eq!(Rewind::Seconds(4).start(wall), Some(Lut::from_ms(6_000)));
        assert_eq!(Rewind::Seconds(40).start(wall), Some(Lut::ZERO));
        assert_eq!(Rewind::All.start(wall), Some(Lut::ZERO));
    }
}
