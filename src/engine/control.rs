//! The control loop: one thread, outside the shards, that owns what is process-wide.
//!
//! It owns the configuration of what ships where and the marks. It may block, shards may not: it is
//! the only place that writes marks. A change is applied here first, then told to every shard; when
//! all have followed, and the marks of lanes that began are durable, the asker gets its answer.
//! One change at a time; others wait their turn.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use tracing::{error, info, warn};

use super::command::{self, Command, Effect, Recent, Stored};
use super::gap::DeleteGap;
use super::letters::{Letter, LetterBox};
use super::positions::{Positions, StoreFacts, Unknown};
use super::resolver::Resolver;
use super::trouble::{Trouble, Troubles};
use crate::config::{DcConfig, NamespaceConfig, XdrConfig};
use crate::host::{CheckpointStore, Mark, Marks, StoreError};
use crate::model::{DcIndex, Digest, Lut, NamespaceId, PARTITION_COUNT, ShardIndex, SrcId};
use longship_rt::metrics::LogLimit;

/// What the control loop is told.
#[derive(Debug)]
pub enum Notice {
    /// A port received a command that changes configuration.
    Command {
        /// The shard whose port it was.
        shard: ShardIndex,
        /// Comes back in the [`Order::Answer`].
        ticket: u64,
        /// What to do.
        command: Command,
    },
    /// A shard wants a host name resolved.
    Resolve {
        /// The shard.
        shard: ShardIndex,
        /// Comes back in the [`Order::Resolved`].
        ticket: u64,
        /// The name.
        host: String,
        /// Goes into each address.
        port: u16,
    },
    /// A shard gave changes up.
    Abandoned {
        /// The shard.
        shard: ShardIndex,
        /// The DC.
        dc: DcIndex,
        /// Each letter, with the slot that names its change on that shard.
        letters: Vec<(u32, Letter)>,
    },
    /// A port asks for the dead letters of its shard.
    Letters {
        /// The shard.
        shard: ShardIndex,
        /// Comes back in the [`Order::Letters`].
        ticket: u64,
        /// The DC.
        dc: String,
        /// The namespace.
        namespace: String,
        /// Only letters behind this digest.
        after: Option<Digest>,
        /// So many of them.
        count: usize,
    },
    /// What is wrong with a DC on a shard has changed.
    Troubles {
        /// The shard.
        shard: ShardIndex,
        /// The DC.
        dc: String,
        /// All that is wrong now.
        troubles: Vec<Trouble>,
    },
    /// Records with a dead letter have changed since, and need it no longer.
    LettersOutdated {
        /// The DC.
        dc: String,
        /// The namespace.
        namespace: String,
        /// Each record, and what the LUT of its letter is below.
        records: Vec<(Digest, Lut)>,
    },
    /// A shard has followed [`Order::Replay`].
    Replayed {
        /// The DC.
        dc: String,
        /// The namespace.
        namespace: String,
        /// What its lanes took up again.
        taken: Vec<Digest>,
    },
    /// Replayed letters have come to an end that nothing takes back.
    ReplaySettled {
        /// The DC.
        dc: String,
        /// The namespace.
        namespace: String,
        /// The records.
        letters: Vec<Digest>,
    },
    /// Replayed letters were given up before they had shipped: they can be replayed again.
    ReplayDropped {
        /// The DC.
        dc: String,
        /// The namespace.
        namespace: String,
        /// The records.
        letters: Vec<Digest>,
    },
    /// A shard has followed [`Order::Dc`] or [`Order::Namespace`].
    Followed {
        /// Which order.
        serial: u64,
        /// Positions of the lanes that began with it.
        marks: Vec<Mark>,
        /// What they cannot find again.
        gaps: Vec<DeleteGap>,
    },
    /// A shard's positions at a checkpoint.
    Marks {
        /// The shard.
        shard: ShardIndex,
        /// Every lane of the shard.
        marks: Vec<Mark>,
    },
    /// Stop the process.
    Stop,
    /// A shard takes no more requests and has answered all it took.
    Quiet,
    /// A shard has drained, flushed and closed.
    Stopped {
        /// The shard's last positions.
        marks: Vec<Mark>,
        /// Everything it had acknowledged is on its devices.
        durable: bool,
    },
}

/// What a shard is told.
#[derive(Clone, Debug)]
pub enum Order {
    /// Make a DC be as configured; `None` deletes it.
    Dc {
        /// Given back in [`Notice::Followed`].
        serial: u64,
        /// The DC.
        dc: DcIndex,
        /// Its configuration, and this cluster's identity towards it.
        config: Option<(Arc<DcConfig>, SrcId)>,
        /// Where namespaces that begin with this order start; the others go on.
        starts: Vec<(NamespaceId, Start)>,
    },
    /// Make a namespace of this node be as configured.
    Namespace {
        /// Given back in [`Notice::Followed`].
        serial: u64,
        /// The namespace.
        namespace: NamespaceId,
        /// Its configuration.
        config: Arc<NamespaceConfig>,
    },
    /// This cluster's `src-id` changed.
    Identity(SrcId),
    /// The answer to a command.
    Answer {
        /// From [`Notice::Command`].
        ticket: u64,
        /// `ok`, with what the operator should know behind it, or why not.
        result: Result<String, String>,
    },
    /// The answer to [`Notice::Resolve`].
    Resolved {
        /// From the question.
        ticket: u64,
        /// What the system knows, or why not.
        addresses: Result<Vec<SocketAddr>, String>,
    },
    /// What came of [`Notice::Abandoned`].
    Buried {
        /// The DC.
        dc: DcIndex,
        /// Each change, and whether its letter is durable.
        slots: Vec<(u32, bool)>,
        /// Why some are not.
        refusal: Option<String>,
    },
    /// Letters that were kept before a DC or namespace was there.
    LettersKept {
        /// The DC.
        dc: DcIndex,
        /// The namespace.
        namespace: NamespaceId,
        /// Each record and the LUT of its change. Each shard picks those of its partitions.
        records: Arc<[(Digest, Lut)]>,
    },
    /// The answer to [`Notice::Letters`].
    Letters {
        /// From the question.
        ticket: u64,
        /// In order of their digests.
        letters: Vec<Letter>,
        /// How many there are behind them.
        more: usize,
    },
    /// Take up changes that were given up. Each shard picks those of its partitions.
    Replay {
        /// The DC.
        dc: DcIndex,
        /// The namespace.
        namespace: NamespaceId,
        /// What to take up.
        letters: Arc<[Letter]>,
    },
    /// Positions sent in the last [`Notice::Marks`] are durable.
    MarksStored,
    /// Every DC of the file is in place: take requests.
    Serve,
    /// Take no more requests, answer what was taken, and say so. Other shards may still hand over.
    Stop,
    /// No shard takes requests any more: ship what is left, flush, and say so.
    Finish,
}

/// Where the lanes of a namespace start.
#[derive(Clone, Debug)]
pub enum Start {
    /// With the next write.
    Now,
    /// Each lane at its LUT; `None` starts with the next write.
    At(Arc<[Option<Lut>]>),
    /// With the oldest record, since nobody knows what was shipped.
    Oldest,
}

/// Hands an order to a shard, waiting for room if need be. Called from several threads.
pub type Tell = Arc<dyn Fn(ShardIndex, Order) + Send + Sync>;

/// What starts the control loop.
pub struct ControlSeed {
    /// What ships where, from the configuration file.
    pub xdr: XdrConfig,
    /// The namespaces, from the configuration file, indexed by [`NamespaceId`].
    pub namespaces: Vec<NamespaceConfig>,
    /// Their stores, in the same order.
    pub stores: Vec<StoreFacts>,
    /// Where DCs whose positions are lost start, if the operator has said so; without a word
    /// everything ships again.
    pub lost_start: Option<Start>,
    /// Where marks are kept.
    pub store: Box<dyn CheckpointStore>,
    /// Where dead letters are kept.
    pub letters: PathBuf,
    /// The wall clock.
    pub wall: fn() -> Lut,
}

/// The answer to a command that was carried out.
const OK: &str = "ok";

/// Process-wide state and the loop over it.
pub struct Control {
    xdr: XdrConfig,
    /// The same as the file has it.
    file: XdrConfig,
    namespaces: Vec<Stored>,
    store: Box<dyn CheckpointStore>,
    letters: LetterBox,
    letters_log: LogLimit,
    troubles: Troubles,
    wall: fn() -> Lut,
    shard_count: usize,
    resolver: Resolver,
    tell: Tell,
    /// Index of each DC by name; an index is never used twice.
    indexes: BTreeMap<String, DcIndex>,
    index_next: u32,
    positions: Positions,
    lost_start: Option<Start>,
    serial: u64,
    current: Option<InProgress>,
    waiting: VecDeque<(ShardIndex, u64, Command)>,
    recent: Recent,
    /// Called once, when every shard is told to serve.
    on_serving: Option<Box<dyn FnOnce()>>,
    quiet_count: usize,
    stopped_count: usize,
    durable: bool,
}

/// A command that shards are still following.
struct InProgress {
    /// The asker and its command; `None` for what the start itself orders.
    asker: Option<(Asker, Command)>,
    serial: u64,
    awaited: usize,
    /// Marks changed and must be durable before the answer.
    marks_changed: bool,
    gaps: Vec<DeleteGap>,
}

/// The shard whose port a command came by, and its ticket there.
type Asker = (ShardIndex, u64);

impl Control {
    /// Reads the marks and tells every shard about every configured DC. Fails when the marks cannot
    /// be read for a reason other than damage; damaged marks mean recovery from the oldest record,
    /// loudly.
    pub fn start(seed: ControlSeed, shard_count: usize, tell: Tell) -> Result<Self, StoreError> {
        let ControlSeed { xdr, namespaces, stores, lost_start, mut store, letters, wall } = seed;
        let marks = match store.load() {
            Ok(marks) => marks,
            Err(StoreError::Corrupt { path }) => {
                error!("the shipping marks in {} are unreadable", path.display());
                None
            }
            Err(error) => return Err(error),
        };
        let names = namespaces.iter().map(|namespace| namespace.name.clone());
        let stores: Vec<_> = names.zip(stores).collect();
        let positions = Positions::beside(&stores, marks);
        let mut control = Self {
            file: xdr.clone(),
            xdr,
            namespaces: namespaces.into_iter().map(Stored::from).collect(),
            store,
            letters: LetterBox::open(&letters),
            letters_log: LogLimit::every_s(10),
            troubles: Troubles::default(),
            wall,
            shard_count,
            resolver: Resolver::new(Arc::clone(&tell)),
            tell,
            indexes: BTreeMap::new(),
            index_next: 0,
            positions,
            lost_start,
            serial: 0,
            current: None,
            waiting: VecDeque::new(),
            recent: Recent::default(),
            on_serving: None,
            quiet_count: 0,
            stopped_count: 0,
            durable: true,
        };
        control.announce_configured();
        Ok(control)
    }

    /// Runs until every shard has stopped; the last marks are durable then. `on_serving` is called
    /// when the shards take requests: after every configured DC is in place, with durable marks.
    /// Says whether everything acknowledged is on the devices.
    pub fn run(
        mut self,
        notices: &mpsc::Receiver<Notice>,
        on_serving: impl FnOnce() + 'static,
    ) -> Result<bool, StoreError> {
        self.on_serving = Some(Box::new(on_serving));
        if self.current.is_none() {
            self.serve();
        }
        while self.stopped_count < self.shard_count {
            let Ok(notice) = notices.recv() else { break };
            match notice {
                Notice::Command { shard, ticket, command } => {
                    self.waiting.push_back((shard, ticket, command));
                }
                Notice::Resolve { shard, ticket, host, port } => {
                    self.resolver.ask(shard, ticket, host, port);
                }
                Notice::Abandoned { shard, dc, letters } => self.bury(shard, dc, letters),
                Notice::Letters { shard, ticket, dc, namespace, after, count } => {
                    self.show_letters((shard, ticket), &dc, &namespace, after, count);
                }
                // One may still be on its way when its DC is deleted.
                Notice::Troubles { shard, dc, troubles } if self.xdr.dc(&dc).is_some() => {
                    self.troubles.note(&dc, shard, troubles);
                }
                Notice::Troubles { .. } => {}
                Notice::LettersOutdated { dc, namespace, records } => {
                    self.letters.drop_outdated(&dc, &namespace, &records);
                }
                Notice::Replayed { dc, namespace, taken } => {
                    self.letters.letters_mut().set_replayed(&dc, &namespace, &taken, true);
                }
                Notice::ReplayDropped { dc, namespace, letters } => {
                    self.letters.letters_mut().set_replayed(&dc, &namespace, &letters, false);
                }
                Notice::ReplaySettled { dc, namespace, letters } => {
                    self.letters.drop_settled(&dc, &namespace, &letters);
                }
                Notice::Followed { serial, marks, gaps } => self.followed(serial, &marks, gaps),
                Notice::Marks { shard, marks } => self.checkpoint(shard, &marks),
                Notice::Stop => self.tell_all(&Order::Stop),
                Notice::Quiet => {
                    self.quiet_count += 1;
                    if self.quiet_count == self.shard_count {
                        self.tell_all(&Order::Finish);
                    }
                }
                Notice::Stopped { marks, durable } => {
                    if durable {
                        self.positions.merge(&marks);
                    }
                    self.stopped_count += 1;
                    self.durable &= durable;
                }
            }
            self.next_command();
        }
        if self.durable {
            self.store.store(&self.marks())?;
        }
        // Else a device was too slow or failed: positions of the last checkpoint stand, and the end
        // of the process does not wait for a disk once more.
        Ok(self.durable)
    }

    fn serve(&mut self) {
        self.tell_all(&Order::Serve);
        if let Some(on_serving) = self.on_serving.take() {
            on_serving();
        }
    }

    /// Every DC of the file, with the positions its marks give.
    fn announce_configured(&mut self) {
        for name in self.positions.orphans(&self.xdr) {
            let oldest = self.positions.oldest(&name).utc();
            warn!(
                "DC {name} has positions (the lowest is {oldest} UTC) but is not configured: kept, \
                 not used; a DC of that name in the configuration goes on from them"
            );
        }
        for index in 0..self.xdr.dcs.len() {
            let name = self.xdr.dcs[index].name.clone();
            let starts = self.starts_from_marks(&name);
            self.tell_dc(&name, starts);
        }
        let told = self.serial as usize;
        if told > 0 {
            let awaited = told * self.shard_count;
            let gaps = Vec::new();
            self.current =
                Some(InProgress { asker: None, serial: 0, awaited, marks_changed: true, gaps });
        } else {
            // From now on there are marks, and a DC that comes later is new and not lost.
            let _ = self.store_marks();
        }
    }

    fn starts_from_marks(&self, dc: &str) -> Vec<(NamespaceId, Start)> {
        let Some(config) = self.xdr.dcs.iter().find(|config| config.name == dc) else {
            return Vec::new();
        };
        let start_of = |namespace: &str| {
            let id = self.namespace_id(namespace)?;
            let start = match self.positions.lanes(dc, namespace) {
                Some(lanes) => Start::At(lanes.into()),
                None => self.start_without_marks(dc, namespace),
            };
            Some((id, start))
        };
        config.namespaces.iter().filter_map(|attached| start_of(&attached.name)).collect()
    }

    /// Where a namespace of a DC starts that has no positions.
    fn start_without_marks(&self, dc: &str, namespace: &str) -> Start {
        let why = match self.positions.why_unknown(namespace) {
            Unknown::New => {
                info!("DC {dc} has never shipped namespace {namespace}: it starts now");
                return Start::Now;
            }
            Unknown::Lost => "are lost, and its store holds records",
            Unknown::OtherStore => "were made beside another store",
            Unknown::Outdated => "are not in the marks, which are of an earlier run (a copy?)",
        };
        let start = self.lost_start.clone();
        let (start, what) = match start {
            None => (Start::Oldest, "everything ships again, from the oldest record"),
            Some(start) => (start, "it starts where `longship accept` said"),
        };
        warn!("DC {dc}: the positions of namespace {namespace} {why}: {what}");
        start
    }

    /// Takes the next waiting command when none is under way.
    fn next_command(&mut self) {
        while self.current.is_none() {
            let Some((shard, ticket, command)) = self.waiting.pop_front() else { return };
            let (before, wall) = (self.xdr.clone(), (self.wall)());
            if command.moves_positions()
                && let Some(answer) = self.recent.brought_again(&command, wall, shard)
            {
                self.answer((shard, ticket), Ok(answer));
                continue;
            }
            match command::apply(&mut self.xdr, &mut self.namespaces, &self.file, &command) {
                Ok(Effect::Nothing) => self.answer((shard, ticket), Ok(OK.to_owned())),
                Ok(effect) => {
                    self.recent.note(&command, wall, OK, shard);
                    self.spread(&before, effect, ((shard, ticket), command));
                }
                Err(refusal) => {
                    let repeated = self.recent.repeated(&command, wall);
                    let answer = repeated.map(str::to_owned).ok_or_else(|| refusal.to_string());
                    self.answer((shard, ticket), answer);
                }
            }
        }
    }

    /// Tells the shards what a command changed.
    fn spread(&mut self, before: &XdrConfig, effect: Effect, asker: (Asker, Command)) {
        let mut marks_changed = false;
        let serial_before = self.serial;
        match effect {
            Effect::Nothing => {}
            Effect::Everything => {
                self.tell_all(&Order::Identity(SrcId(self.xdr.src_id)));
                for index in 0..self.xdr.dcs.len() {
                    let name = self.xdr.dcs[index].name.clone();
                    self.tell_dc(&name, Vec::new());
                }
            }
            Effect::Dc(dc) => {
                marks_changed = self.forget_detached(before, &dc);
                self.tell_dc(&dc, Vec::new());
            }
            Effect::Paused(dc) => {
                marks_changed = true;
                self.tell_dc(&dc, Vec::new());
            }
            Effect::Replay { dc, namespace } => self.replay(&dc, &namespace),
            Effect::Namespace(name) => self.tell_namespace(&name),
            Effect::DcGone(dc) => {
                self.positions.forget_dc(&dc);
                self.letters.drop_if(|letter| letter.dc == dc);
                self.troubles.forget(&dc);
                marks_changed = true;
                self.tell_gone(&dc);
            }
            Effect::Starts { dc, namespace, rewind } => {
                marks_changed = true;
                let start = match rewind.start((self.wall)()) {
                    None => Start::Now,
                    Some(lut) => Start::At(vec![Some(lut); PARTITION_COUNT].into()),
                };
                let starts = self.namespace_id(&namespace).map(|id| (id, start));
                self.tell_dc(&dc, starts.into_iter().collect());
            }
        }
        let told = (self.serial - serial_before) as usize;
        if told == 0 {
            return self.answer(asker.0, Ok(OK.to_owned()));
        }
        self.current = Some(InProgress {
            asker: Some(asker),
            serial: serial_before,
            awaited: told * self.shard_count,
            marks_changed,
            gaps: Vec::new(),
        });
    }

    /// Drops the positions of namespaces a DC no longer ships. Says whether there were any.
    fn forget_detached(&mut self, before: &XdrConfig, dc: &str) -> bool {
        let find = |xdr: &XdrConfig| xdr.dcs.iter().find(|config| config.name == dc).cloned();
        let (Some(old), Some(new)) = (find(before), find(&self.xdr)) else { return false };
        let gone = old
            .namespaces
            .iter()
            .filter(|was| !new.namespaces.iter().any(|is| is.name == was.name))
            .collect::<Vec<_>>();
        gone.iter().for_each(|was| self.positions.forget(dc, &was.name));
        !gone.is_empty()
    }

    fn followed(&mut self, serial: u64, marks: &[Mark], gaps: Vec<DeleteGap>) {
        self.positions.begin(marks);
        let Some(current) = self.current.as_mut().filter(|current| serial > current.serial) else {
            return;
        };
        gaps.into_iter().for_each(|gap| DeleteGap::join(&mut current.gaps, gap));
        current.awaited -= 1;
        if current.awaited > 0 {
            return;
        }
        let Some(InProgress { asker, marks_changed, gaps, .. }) = self.current.take() else {
            return;
        };
        self.warn_of(&gaps, asker.is_none());
        let result = if marks_changed { self.store_marks() } else { Ok(()) };
        let Some((asker, command)) = asker else { return self.serve() };
        let mut answer = OK.to_owned();
        for gap in gaps {
            answer = format!("{answer};deletes-may-be-missing={gap}");
            self.recent.note(&command, (self.wall)(), &answer, asker.0);
        }
        self.answer(asker, result.map(|()| answer));
    }

    /// Warns of the spans of time whose deletes may never reach a DC.
    fn warn_of(&self, gaps: &[DeleteGap], is_start: bool) {
        // Tombstones wait for every DC that is configured. So at the start only a DC that was not
        // configured, or whose marks are lost, can begin below tombstones that are gone.
        let unless = if is_start { ", unless the DC was configured all the while" } else { "" };
        for gap in gaps {
            let DeleteGap { dc, namespace, .. } = gap;
            let namespace = &self.namespaces[namespace.index()].now.name;
            warn!(
                "DC {dc}, namespace {namespace}: it begins before tombstones that are gone; \
                 deletes of {gap} (UTC) may be missing there{unless}"
            );
        }
    }

    fn checkpoint(&mut self, shard: ShardIndex, marks: &[Mark]) {
        self.positions.merge(marks);
        self.letters.forget_gone();
        if self.store_marks().is_ok() {
            self.tell(shard, Order::MarksStored);
        }
    }

    /// Keeps letters of changes that a shard gave up, and tells it which are durable.
    fn bury(&mut self, shard: ShardIndex, dc: DcIndex, letters: Vec<(u32, Letter)>) {
        if !self.indexes.values().any(|known| *known == dc) {
            // It was deleted meanwhile, and its letters with it.
            return;
        }
        let (slots, letters): (Vec<u32>, Vec<Letter>) = letters.into_iter().unzip();
        let first = letters.first().cloned();
        let namespaces: Vec<String> =
            letters.iter().map(|letter| letter.namespace.clone()).collect();
        let kept = self.letters.keep(letters);
        let refused = kept.iter().position(|kept| !kept);
        let refusal = first
            .as_ref()
            .zip(refused)
            .map(|(letter, refused)| self.letters.refusal(&letter.dc, &namespaces[refused]));
        if let Some(Letter { dc, namespace, digest, code, .. }) = first
            && let Some(held_back) = self.letters_log.pass((self.wall)().unix_ms() * 1000)
        {
            let (all, kept) = (kept.len(), kept.iter().filter(|kept| **kept).count());
            warn!(
                "DC {dc} gave up {all} changes of {namespace}, {kept} of them kept: see \
                 xdr-dead-letters; the first is {digest}, code {code} ({held_back} lines like this \
                 held back)"
            );
        }
        let slots = slots.into_iter().zip(kept).collect();
        self.tell(shard, Order::Buried { dc, slots, refusal });
    }

    fn show_letters(
        &self,
        (shard, ticket): Asker,
        dc: &str,
        namespace: &str,
        after: Option<Digest>,
        count: usize,
    ) {
        let of_shard =
            |letter: &&Letter| letter.digest.partition().shard(self.shard_count as u16) == shard;
        let mut found = self.letters.letters().after(dc, namespace, after).filter(of_shard);
        let letters: Vec<Letter> = found.by_ref().take(count).cloned().collect();
        let more = found.count();
        self.tell(shard, Order::Letters { ticket, letters, more });
    }

    /// Gives letters back to their lanes, but for those that are on their way already.
    fn replay(&mut self, dc: &str, namespace: &str) {
        let waiting = self.letters.letters().of(dc, namespace);
        let waiting = waiting.filter(|letter| !letter.is_replayed);
        let letters: Arc<[Letter]> = waiting.cloned().collect();
        let id = self.namespace_id(namespace);
        if let (Some(&dc), Some(namespace)) = (self.indexes.get(dc), id) {
            self.tell_all(&Order::Replay { dc, namespace, letters });
        }
    }

    fn store_marks(&mut self) -> Result<(), String> {
        let marks = self.marks();
        self.store.store(&marks).map_err(|error| {
            error!("{error}: shipping goes on; after a restart it resumes from the former marks");
            format!("applied, but its marks are not durable: {error}")
        })
    }

    fn marks(&self) -> Marks {
        let names = self.namespaces.iter().map(|namespace| namespace.now.name.clone());
        self.positions.to_marks(&names.collect::<Vec<_>>())
    }

    fn namespace_id(&self, name: &str) -> Option<NamespaceId> {
        let index = self.namespaces.iter().position(|known| known.now.name == name)?;
        Some(NamespaceId(u8::try_from(index).expect("config bounds namespaces to 32")))
    }

    fn tell_dc(&mut self, name: &str, starts: Vec<(NamespaceId, Start)>) {
        let Some(config) = self.xdr.dcs.iter().find(|config| config.name == name) else { return };
        let config = config.clone();
        let dc = self.index_of(name);
        let attached = config.namespaces.iter();
        let attached =
            attached.filter_map(|ns| Some((self.namespace_id(&ns.name)?, ns.name.clone())));
        self.positions.bind(dc, name, &attached.collect::<Vec<_>>());
        let config = Some((Arc::new(config), SrcId(self.xdr.src_id)));
        self.serial += 1;
        self.tell_all(&Order::Dc { serial: self.serial, dc, config, starts });
        self.tell_letters(name, dc);
    }

    /// Tells the shards of a DC's letters.
    fn tell_letters(&self, name: &str, dc: DcIndex) {
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let letters = self.letters.letters().of(name, &namespace.now.name);
            let records: Arc<[_]> = letters.map(|letter| (letter.digest, letter.lut)).collect();
            if !records.is_empty() {
                let namespace = NamespaceId(index as u8);
                self.tell_all(&Order::LettersKept { dc, namespace, records });
            }
        }
    }

    fn tell_namespace(&mut self, name: &str) {
        let Some(namespace) = self.namespace_id(name) else { return };
        let config = Arc::new(self.namespaces[namespace.index()].now.clone());
        self.serial += 1;
        self.tell_all(&Order::Namespace { serial: self.serial, namespace, config });
    }

    fn tell_gone(&mut self, name: &str) {
        let Some(dc) = self.indexes.remove(name) else { return };
        self.positions.bind(dc, name, &[]);
        self.serial += 1;
        self.tell_all(&Order::Dc { serial: self.serial, dc, config: None, starts: Vec::new() });
    }

    fn index_of(&mut self, name: &str) -> DcIndex {
        if let Some(&index) = self.indexes.get(name) {
            return index;
        }
        let index = DcIndex(self.index_next);
        self.index_next += 1;
        self.indexes.insert(name.to_owned(), index);
        index
    }

    fn answer(&self, (shard, ticket): Asker, result: Result<String, String>) {
        self.tell(shard, Order::Answer { ticket, result });
    }

    fn tell_all(&self, order: &Order) {
        for index in 0..self.shard_count {
            self.tell(ShardIndex(index as u16), order.clone());
        }
    }

    fn tell(&self, shard: ShardIndex, order: Order) {
        (self.tell)(shard, order);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::command::Rewind;
    use super::*;
    use crate::config::DcNamespaceConfig;
    use crate::host::StoreRun;
    use crate::model::{LaneId, PartitionId};

    const STORE: StoreFacts = StoreFacts { id: 11, is_empty: false, run: 2, last_run: 1 };

    /// Keeps every set of marks it was given, in the order they became durable.
    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<Vec<Marks>>>);

    impl CheckpointStore for Shelf {
        fn load(&mut self) -> Result<Option<Marks>, StoreError> {
            Ok(self.0.lock().unwrap().last().cloned())
        }

        fn store(&mut self, marks: &Marks) -> Result<(), StoreError> {
            self.0.lock().unwrap().push(marks.clone());
            Ok(())
        }
    }

    struct World {
        control: Control,
        orders: Vec<mpsc::Receiver<Order>>,
        shelf: Shelf,
        /// Of its letters.
        _folder: tempfile::TempDir,
    }

    impl World {
        fn new(xdr: XdrConfig, shelf: Shelf) -> Self {
            let (senders, orders): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel()).unzip();
            let senders = Mutex::new(senders);
            let tell = move |shard: ShardIndex, order| {
                senders.lock().unwrap()[usize::from(shard.0)].send(order).unwrap();
            };
            let namespaces = vec![NamespaceConfig::named("demo")];
            let store = Box::new(shelf.clone());
            let wall = || Lut::from_ms(9000);
            let folder = tempfile::tempdir().unwrap();
            let letters = folder.path().join("letters");
            let stores = vec![STORE];
            let lost_start = None;
            let seed = ControlSeed { xdr, namespaces, stores, lost_start, store, letters, wall };
            let control = Control::start(seed, 2, Arc::new(tell)).unwrap();
            Self { control, orders, shelf, _folder: folder }
        }

        /// With the DC "west" made and "demo" attached, both shards standing at 100.
        fn attached() -> Self {
            let mut world = Self::new(XdrConfig::default(), Shelf::default());
            for (command, lst) in
                [(Command::CreateDc { dc: "west".to_owned() }, 0), (attach(), 100)]
            {
                world.command(command);
                (0..2).for_each(|shard| world.follow(shard, lst));
                world.orders(0);
            }
            world
        }

        fn orders(&self, shard: usize) -> Vec<Order> {
            self.orders[shard].try_iter().collect()
        }

        fn command(&mut self, command: Command) {
            self.control.waiting.push_back((ShardIndex(0), 7, command));
            self.control.next_command();
        }

        /// Shard `shard` follows its one order, its lane of that partition standing at `lst`.
        fn follow(&mut self, shard: usize, lst: u64) {
            let orders = self.orders(shard);
            let [Order::Dc { serial, dc, config: Some(_), starts }] = orders.as_slice() else {
                panic!("{orders:?}");
            };
            let lane = LaneId {
                dc: *dc,
                namespace: NamespaceId(0),
                partition: PartitionId::new(shard as u16),
            };
            let marks = vec![Mark { lane, lst: Lut::from_ms(lst) }];
            let marks = if starts.is_empty() { Vec::new() } else { marks };
            self.control.followed(*serial, &marks, Vec::new());
        }
    }

    fn attach() -> Command {
        let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
        Command::AddNamespace { dc, namespace, rewind: Rewind::Now }
    }

    #[test]
    fn ok_comes_after_every_shard_has_followed_and_marks_are_durable() {
        let mut world = World::new(XdrConfig::default(), Shelf::default());
        world.command(Command::CreateDc { dc: "west".to_owned() });
        world.follow(0, 0);
        assert!(world.orders(0).is_empty(), "shard 1 has not followed");
        world.follow(1, 0);
        assert!(matches!(&world.orders(0)[..], [Order::Answer { ticket: 7, result: Ok(_) }]));

        world.command(attach());
        world.follow(0, 100);
        assert!(world.shelf.0.lock().unwrap().last().unwrap().lanes.is_empty());
        world.follow(1, 200);
        assert!(matches!(&world.orders(0)[..], [Order::Answer { ticket: 7, result: Ok(_) }]));
        let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
        assert_eq!((stored.dcs, stored.namespaces), (vec!["west".into()], vec!["demo".into()]));
        let positions: Vec<u64> = stored.lanes.iter().map(|mark| mark.lst.ms()).collect();
        assert_eq!(positions, [100, 200]);
    }

    #[test]
    fn a_restart_begins_at_the_marks_and_what_was_never_seen_begins_now() {
        let shelf = Shelf::default();
        let lane =
            LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(5) };
        let marks = Marks {
            dcs: vec!["west".to_owned()],
            namespaces: vec!["demo".to_owned()],
            stores: vec![StoreRun { id: STORE.id, run: 1 }],
            lanes: vec![Mark { lane, lst: Lut::from_ms(77) }],
        };
        shelf.0.lock().unwrap().push(marks);
        let mut xdr = XdrConfig::default();
        for name in ["new", "west"] {
            let dc = xdr.create_dc(name).unwrap();
            dc.namespaces.push(DcNamespaceConfig::named("demo"));
        }
        let world = World::new(xdr, shelf);
        let orders = world.orders(1);
        let starts = |order: &Order| match order {
            Order::Dc { starts, .. } => starts[0].1.clone(),
            other => panic!("{other:?}"),
        };
        assert!(matches!(starts(&orders[0]), Start::Now));
        let Start::At(lanes) = starts(&orders[1]) else { panic!("marks were there") };
        assert_eq!((lanes[5], lanes[6]), (Some(Lut::from_ms(77)), None));
    }

    #[test]
    fn without_marks_beside_a_store_that_holds_records_everything_ships_again() {
        let mut xdr = XdrConfig::default();
        xdr.create_dc("west").unwrap().namespaces.push(DcNamespaceConfig::named("demo"));
        let world = World::new(xdr, Shelf::default());
        let orders = world.orders(0);
        let [Order::Dc { starts, .. }] = orders.as_slice() else { panic!("{orders:?}") };
        assert!(matches!(starts[0].1, Start::Oldest));
    }

    #[test]
    fn a_node_without_dcs_leaves_marks_that_say_so() {
        let world = World::new(XdrConfig::default(), Shelf::default());
        let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
        assert_eq!(
            (stored.stores, stored.lanes),
            (vec![StoreRun { id: STORE.id, run: STORE.run }], vec![])
        );
    }

    #[test]
    fn every_port_is_told_of_which_time_deletes_may_be_missing() {
        let mut world = World::new(XdrConfig::default(), Shelf::default());
        world.command(Command::CreateDc { dc: "west".to_owned() });
        (0..2).for_each(|shard| world.follow(shard, 0));
        (0..2).for_each(|shard| drop(world.orders(shard)));
        let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
        let rewind = Command::AddNamespace { dc, namespace, rewind: Rewind::Seconds(3) };
        world.command(rewind.clone());
        for to in [7000, 8000] {
            let (from, to) = (Lut::from_ms(6000), Lut::from_ms(to));
            let gap = DeleteGap { dc: "west".to_owned(), namespace: NamespaceId(0), from, to };
            world.control.followed(2, &[], vec![gap]);
        }
        world.command(rewind);
        let orders = world.orders(0);
        let answers = orders.into_iter().filter_map(|order| match order {
            Order::Answer { result, .. } => Some(result.unwrap()),
            _ => None,
        });
        let span = "2010-01-01T00h00m06.000s..2010-01-01T00h00m08.000s";
        let expected = format!("ok;deletes-may-be-missing={span}");
        assert_eq!(answers.collect::<Vec<_>>(), [expected.clone(), expected]);
    }

    #[test]
    fn a_rewind_sent_to_every_port_is_done_once() {
        let mut world = World::attached();
        world.command(attach());
        assert!(matches!(&world.orders(0)[..], [Order::Answer { result: Ok(_), .. }]));
        let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
        let rewind = Rewind::Seconds(3);
        world.command(Command::AddNamespace { dc, namespace, rewind });
        assert!(matches!(&world.orders(0)[..], [Order::Answer { result: Err(_), .. }]));
    }

    #[test]
    fn a_rewind_that_comes_by_one_port_twice_is_done_twice() {
        let mut world = World::attached();
        let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
        let rewind = Command::RewindNamespace { dc, namespace, rewind: Rewind::All };
        for _ in 0..2 {
            world.command(rewind.clone());
            (0..2).for_each(|shard| world.follow(shard, 0));
            assert!(matches!(&world.orders(0)[..], [Order::Answer { result: Ok(_), .. }]));
        }
        world.control.waiting.push_back((ShardIndex(1), 8, rewind));
        world.control.next_command();
        assert!(matches!(&world.orders(1)[..], [Order::Answer { ticket: 8, result: Ok(_) }]));
    }

    #[test]
    fn what_a_deleted_dc_gave_up_leaves_no_letter_for_the_next_of_its_name() {
        let mut world = World::attached();
        let old = world.control.index_of("west");
        let digest = Digest([7; 20]);
        let letter = Letter {
            dc: "west".to_owned(),
            namespace: "demo".to_owned(),
            set: String::new(),
            key: Vec::new(),
            digest,
            lut: Lut::from_ms(50),
            code: 13,
            at: Lut::from_ms(60),
            is_replayed: false,
        };
        world.command(Command::DeleteDc { dc: "west".to_owned() });
        for command in [Command::CreateDc { dc: "west".to_owned() }, attach()] {
            world.orders(0);
            world.orders(1);
            world.control.current = None;
            world.command(command);
        }
        // It was on its way while the DC was deleted.
        world.control.bury(ShardIndex(0), old, vec![(3, letter.clone())]);
        assert_eq!(world.control.letters.letters().of("west", "demo").count(), 0);
        let new = world.control.index_of("west");
        world.control.bury(ShardIndex(0), new, vec![(3, letter)]);
        assert_eq!(world.control.letters.letters().of("west", "demo").count(), 1);
    }

    #[test]
    fn no_dc_is_ever_taken_for_another_however_many_were_made_and_deleted() {
        let mut world = World::attached();
        let west = world.control.index_of("west");
        for _ in 0..=u16::MAX {
            let passing = world.control.index_of("passing");
            assert_ne!(passing, west);
            world.control.indexes.remove("passing");
        }
    }

    #[test]
    fn the_positions_of_a_paused_dc_are_durable_before_the_answer() {
        let mut world = World::attached();
        world.command(Command::Pause { dc: "west".to_owned(), paused: true });
        let stored = world.shelf.0.lock().unwrap().len();
        world.follow(0, 300);
        assert_eq!(world.shelf.0.lock().unwrap().len(), stored);
        world.follow(1, 300);
        assert_eq!(world.shelf.0.lock().unwrap().len(), stored + 1);
        let orders = world.orders(0);
        assert!(matches!(orders.last(), Some(Order::Answer { result: Ok(_), .. })), "{orders:?}");
    }

    #[test]
    fn a_position_moves_on_only_with_a_checkpoint() {
        let mut world = World::attached();
        world.command(Command::Pause { dc: "west".to_owned(), paused: true });
        (0..2).for_each(|shard| world.follow(shard, 300));
        let positions = |world: &World| -> Vec<u64> {
            let stored = world.shelf.0.lock().unwrap().last().cloned().unwrap();
            stored.lanes.iter().map(|mark| mark.lst.ms()).collect()
        };
        assert_eq!(positions(&world), [100, 100], "what it relies on may not be on the device");
        let lane =
            LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(0) };
        world.control.checkpoint(ShardIndex(0), &[Mark { lane, lst: Lut::from_ms(300) }]);
        assert_eq!(positions(&world), [300, 100]);
    }

    #[test]
    fn a_stop_that_a_device_was_too_slow_for_waits_for_no_disk_again() {
        let check = |durable: [bool; 2], stored_at_end: usize| {
            let World { control, shelf, orders, _folder } = World::attached();
            let stored = shelf.0.lock().unwrap().len();
            let (notices, inbox) = mpsc::channel();
            for durable in durable {
                notices.send(Notice::Stopped { marks: Vec::new(), durable }).unwrap();
            }
            assert_eq!(control.run(&inbox, || {}).unwrap(), durable == [true, true]);
            drop(orders);
            assert_eq!(shelf.0.lock().unwrap().len() - stored, stored_at_end, "{durable:?}");
        };
        check([true, true], 1);
        check([true, false], 0);
        check([false, true], 0);
    }

    #[test]
    fn a_detached_namespace_leaves_no_position_behind() {
        let mut world = World::attached();
        let (dc, namespace) = ("west".to_owned(), "demo".to_owned());
        world.command(Command::RemoveNamespace { dc, namespace });
        // A checkpoint that was under way meanwhile.
        let lane =
            LaneId { dc: DcIndex(0), namespace: NamespaceId(0), partition: PartitionId::new(0) };
        world.control.checkpoint(ShardIndex(0), &[Mark { lane, lst: Lut::from_ms(300) }]);
        assert!(world.shelf.0.lock().unwrap().last().unwrap().lanes.is_empty());
    }
}
