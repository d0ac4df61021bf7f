//! What is process-wide: the configuration of what ships where, the marks, and the order of steps
//! in which they change.
//!
//! [`Control`] decides: a command, or what a shard tells, gives [`Step`]s, and whoever runs it does
//! them in their order. A change is applied here first, then told to every shard; when all have
//! followed, and the marks of lanes that began are durable, the asker gets its answer. One change at
//! a time; others wait their turn.
//!
//! [`ControlLoop`] does the steps, in the product on one thread outside the shards. It may block,
//! shards may not: it is the only place that writes marks and dead letters. The simulator has it hear
//! one notice at a time.

mod messages;
mod remark;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(super) use messages::UNSTORED;
pub use messages::{Burial, Left, Notice, Order};
pub use remark::Remark;
pub use run::{ControlLoop, ControlSeed, Tell};

use super::command::{self, Command, Effect, Namespaces, Recent, Rewind};
use super::gap::DeleteGap;
use super::holders::Holders;
use super::positions::{Beginning, Positions, StoreFacts, Unknown};
use crate::config::{DcConfig, XdrConfig};
use crate::host::{Mark, Marks, NamespaceSettings};
use crate::model::{DcIndex, Lut, NamespaceId, PARTITION_COUNT, ShardIndex, SrcId};
use crate::ship::mutation::{Mutation, planted};
use crate::wire::hello::NamespaceStore;

/// Something for whoever runs [`Control`] to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Give a shard an order.
    Tell(ShardIndex, Order),
    /// Give every shard an order.
    TellAll(Order),
    /// Tell every shard of the letters that are kept of a DC.
    TellLetters {
        /// Index of the DC.
        dc: DcIndex,
        /// Its name, by which letters are kept.
        name: String,
    },
    /// Give the letters of a DC and namespace back to their lanes.
    Replay {
        /// Of the order.
        serial: u64,
        /// Index of the DC.
        dc: DcIndex,
        /// Its name, by which letters are kept.
        name: String,
        /// Namespace at the source, whose letters are replayed.
        namespace: NamespaceId,
    },
    /// Forget what else is known of a DC: it was deleted.
    ForgetDc(String),
    /// Make marks durable, then tell how that went with [`Control::stored`].
    Store(Marks, After),
    /// Give every shard [`Order::Serve`].
    Serve,
    /// Tell the operator.
    Remark(Remark),
}

/// What comes after marks were stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Nothing,
    /// Every shard gets [`Order::Serve`].
    Serve,
    /// A namespace of a DC begins, or the command is refused.
    Attach(Box<Attachment>),
    /// The asker gets this answer.
    Answer(Asker, String),
    /// The shard learns whether its checkpoint of that round is durable.
    Checkpoint(ShardIndex, u64),
    /// The process has stored its last marks and ends.
    End,
}

/// A namespace that a command attaches to a DC, of which no shard knows before marks do: a restart
/// would take it for new otherwise, and what was written meanwhile would never ship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    asker: Asker,
    command: Command,
    dc: String,
    namespace: String,
    rewind: Rewind,
    /// What ships where without it.
    before: XdrConfig,
    /// Positions that are left of an earlier attachment.
    former: Option<Box<[Option<Lut>]>>,
}

/// The shard whose port a command came by, and its ticket there.
pub type Asker = (ShardIndex, u64);

/// What [`Control`] starts with.
#[derive(Debug)]
pub struct ControlStart {
    /// The `xdr` context as it is now.
    pub xdr: XdrConfig,
    /// The `xdr` context as the configuration file has it: settings of what is attached later.
    pub file: XdrConfig,
    /// Names of the namespaces, indexed by [`NamespaceId`].
    pub namespaces: Vec<String>,
    /// The namespaces' own items, which the host judges.
    pub settings: Box<dyn NamespaceSettings>,
    /// Their stores, in the same order.
    pub stores: Vec<StoreFacts>,
    /// Where DCs whose positions are lost start, if the operator has said so.
    pub lost_start: Option<Beginning>,
    /// The marks there are, if they can be read.
    pub marks: Option<Marks>,
    /// Their dead letters are not all there.
    pub has_lost_letters: bool,
    /// Shards that follow orders.
    pub shard_count: usize,
}

/// The answer to a command that was carried out.
const OK: &str = "ok";

/// Process-wide state, and what is to be done next.
pub struct Control {
    xdr: XdrConfig,
    /// The `xdr` context as the file has it: settings of what is attached later.
    file: XdrConfig,
    namespaces: Namespaces,
    shard_count: usize,
    /// Index of each DC by name; an index is never used twice.
    indexes: BTreeMap<String, DcIndex>,
    index_next: u32,
    positions: Positions,
    holders: Holders,
    lost_start: Option<Beginning>,
    serial: u64,
    current: Option<InProgress>,
    waiting: VecDeque<(Asker, Command)>,
    /// Checkpoints that came before the start was followed, to be answered then.
    early: Vec<(ShardIndex, u64)>,
    recent: Recent,
    steps: VecDeque<Step>,
    quiet_count: usize,
    stopped_count: usize,
    durable: bool,
    /// Why the marks could not be stored when that was tried last, which every shard knows. A command
    /// that repeats another, and so moves none, tries again before it is answered.
    refusal: Option<String>,
    /// At this start something ships that marks do not know, so nothing is taken before they do.
    begins_anew: bool,
    /// Shards have told positions at their end.
    has_last_marks: bool,
    ended: bool,
}

/// A command that shards are still following, or whose marks are on their way to the device.
#[derive(Default)]
struct InProgress {
    /// `None` for what the start itself orders.
    asker: Option<Asker>,
    /// What another port may bring again, with the answer.
    command: Option<Command>,
    serial: u64,
    awaited: usize,
    /// Marks changed and must be durable before the answer.
    marks_changed: bool,
    gaps: Vec<DeleteGap>,
    /// Of a replay.
    replay: Option<Replay>,
}

/// Letters of a replay that is under way.
#[derive(Clone, Copy)]
struct Replay {
    /// Given to the shards.
    offered: usize,
    /// Taken up by their lanes so far.
    taken: usize,
}

impl Control {
    /// Tells every shard about every configured DC, with the positions its marks give.
    pub fn start(start: ControlStart) -> Self {
        let ControlStart {
            xdr,
            file,
            namespaces,
            settings,
            stores,
            lost_start,
            marks,
            has_lost_letters,
            shard_count,
        } = start;
        let stores: Vec<_> = namespaces.iter().cloned().zip(stores).collect();
        let mut holders = Holders::of(marks.as_ref());
        if let Some(marks) = marks.as_ref().filter(|_| has_lost_letters) {
            for (dc, namespace) in &marks.letters.owners {
                let (dc, namespace) = (dc.index(), namespace.index());
                holders.lose_letters(&marks.dcs[dc], &marks.namespaces[namespace]);
            }
        }
        let positions = Positions::beside(&stores, marks);
        // Of what has no position, everything ships again, or from now on.
        holders.retain(|dc, namespace| positions.lanes(dc, namespace).is_some());
        let ahead: Vec<String> = stores
            .iter()
            .filter(|(_, facts)| facts.may_have_lost)
            .map(|(name, _)| name.clone())
            .collect();
        let mut control = Self {
            xdr,
            file,
            namespaces: Namespaces { names: namespaces, settings },
            shard_count,
            indexes: BTreeMap::new(),
            index_next: 0,
            positions,
            holders,
            lost_start,
            serial: 0,
            current: None,
            waiting: VecDeque::new(),
            early: Vec::new(),
            recent: Recent::default(),
            steps: VecDeque::new(),
            quiet_count: 0,
            stopped_count: 0,
            durable: true,
            refusal: None,
            begins_anew: false,
            has_last_marks: false,
            ended: false,
        };
        ahead.into_iter().for_each(|namespace| control.remark_ahead(namespace));
        control.announce_configured();
        control
    }

    /// What is to be done next.
    pub fn next_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Takes a command. It waits until those before it have been answered.
    pub fn command(&mut self, asker: Asker, command: Command, wall: Lut) {
        self.waiting.push_back((asker, command));
        self.next_command(wall);
    }

    /// Takes settings of a DC as they are in a simulated world, smaller than any command may set,
    /// unless a command is under way. Says whether it has.
    #[cfg(any(test, feature = "sim"))]
    pub fn edit(
        &mut self,
        asker: Asker,
        dc: &str,
        change: impl FnOnce(&mut DcConfig),
        wall: Lut,
    ) -> bool {
        let before = self.xdr.clone();
        let config = self.xdr.dcs.iter_mut().find(|config| config.name == dc);
        let Some(config) = config.filter(|_| self.current.is_none()) else { return false };
        change(config);
        self.spread(&before, Effect::Dc(dc.to_owned()), (asker, None), wall);
        true
    }

    /// A shard has followed an order. `marks` are positions of the lanes that began with it, `gaps`
    /// what they cannot find again.
    pub fn followed(&mut self, serial: u64, marks: &[Mark], gaps: Vec<DeleteGap>, wall: Lut) {
        self.positions.begin(marks);
        let Some(current) = self.current.as_mut().filter(|current| serial > current.serial) else {
            return;
        };
        gaps.into_iter().for_each(|gap| DeleteGap::join(&mut current.gaps, gap));
        current.awaited -= 1;
        if current.awaited > 0 && !planted(Mutation::AnswersEarly) {
            return;
        }
        let gaps = std::mem::take(&mut current.gaps);
        let (asker, marks_changed) = (current.asker, current.marks_changed);
        let replay = current.replay;
        let command = current.command.take();
        self.remark_on(&gaps, asker.is_none());
        self.positions.has_begun();
        let after = match asker {
            None => After::Serve,
            Some(asker) => {
                let mut answer = OK.to_owned();
                if let Some(Replay { offered, taken }) = replay {
                    let kept = offered.saturating_sub(taken);
                    answer = format!("{answer};replayed={taken};kept={kept}");
                }
                for gap in &gaps {
                    answer = format!("{answer};deletes-may-be-missing={gap}");
                }
                if let Some(command) = command.filter(|_| !gaps.is_empty()) {
                    self.recent.reword(&command, &answer);
                }
                After::Answer(asker, answer)
            }
        };
        if marks_changed || self.refusal.is_some() {
            self.store_marks(after);
        } else {
            self.stored(after, Ok(()), wall);
        }
    }

    /// So many letters of the replay that is under way were given to the shards.
    pub(super) fn offered(&mut self, offered: usize) {
        if let Some(current) = &mut self.current {
            current.replay = Some(Replay { offered, taken: 0 });
        }
    }

    /// So many of them were taken up by one.
    pub(super) fn taken(&mut self, taken: usize) {
        if let Some(replay) = self.current.as_mut().and_then(|current| current.replay.as_mut()) {
            replay.taken += taken;
        }
    }

    /// Marks are durable, or why they are not.
    pub fn stored(&mut self, after: After, result: Result<(), String>, wall: Lut) {
        let refusal = result.as_ref().err();
        if refusal != self.refusal.as_ref() && after != After::End {
            self.refusal = refusal.cloned();
            self.steps.push_back(Step::TellAll(Order::MarksRefused(self.refusal.clone())));
        }
        match after {
            After::Nothing => {}
            After::Serve => {
                self.current = None;
                if result.is_err() && self.begins_anew {
                    self.steps.push_back(Step::Remark(Remark::Unkept));
                    return self.stop();
                }
                self.steps.push_back(Step::Serve);
                for (shard, round) in std::mem::take(&mut self.early) {
                    self.store_marks(After::Checkpoint(shard, round));
                }
            }
            After::Attach(attachment) => {
                self.current = None;
                self.attach(*attachment, result, wall);
            }
            After::Answer(asker, answer) => {
                self.current = None;
                let result = result.map(|()| answer);
                let not_durable =
                    |error| format!("applied, but its marks are not durable: {error}; {UNSTORED}");
                self.answer(asker, result.map_err(not_durable));
            }
            After::Checkpoint(shard, round) => {
                let of_round =
                    if result.is_ok() { Order::MarksStored } else { Order::MarksNotStored };
                self.steps.push_back(Step::Tell(shard, of_round(round)));
            }
            After::End => self.ended = true,
        }
        self.next_command(wall);
    }

    /// A shard's positions at a checkpoint.
    pub fn checkpoint(&mut self, shard: ShardIndex, round: u64, marks: &[Mark]) {
        self.positions.merge(marks);
        if self.is_starting() {
            // Lanes that have not begun would look new after a crash, be their positions lost or not.
            self.early.push((shard, round));
        } else {
            self.store_marks(After::Checkpoint(shard, round));
        }
    }

    /// Whether some shards have not followed what the start orders.
    fn is_starting(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.asker.is_none())
    }

    /// A destination has told of its stores. They are held against those that took what was shipped.
    pub fn stores_told(&mut self, dc: DcIndex, boot: u64, stores: Vec<NamespaceStore>, wall: Lut) {
        let Some(name) = self.name(dc).map(str::to_owned) else { return };
        if !self.holders.hear(&name, boot, stores) || !self.compare_stores(&name) {
            return;
        }
        match &mut self.current {
            // Lanes may have begun that no marks know yet: they go together.
            Some(current) => current.marks_changed = true,
            None if self.holders.may_be_stored(wall) => self.store_marks(After::Nothing),
            // With the next positions.
            None => {}
        }
    }

    /// Holds the stores of a destination, as it told them, against those that took what was shipped.
    /// True if there is something to be kept.
    fn compare_stores(&mut self, dc: &str) -> bool {
        let Some(config) = self.xdr.dc(dc) else { return false };
        let changed = self.holders.compare(config);
        if changed.holes {
            self.tell_holes(dc);
        }
        changed.any
    }

    fn tell_holes(&mut self, name: &str) {
        let Some(&dc) = self.indexes.get(name) else { return };
        let holes = self.holders.holes(name);
        let holes = holes.filter_map(|(name, hole)| Some((self.namespaces.find(name)?, hole)));
        let holes = holes.collect();
        self.steps.push_back(Step::TellAll(Order::Holes { dc, holes }));
    }

    /// The process is to stop.
    pub fn stop(&mut self) {
        self.steps.push_back(Step::TellAll(Order::Stop));
    }

    /// A shard takes no more requests and has answered all it took. Shards hand requests to each
    /// other, so none finishes before all are quiet.
    pub fn quiet(&mut self) {
        self.quiet_count += 1;
        if self.quiet_count == self.shard_count {
            self.steps.push_back(Step::TellAll(Order::Finish));
        }
    }

    /// A shard has ended, with the positions of namespaces whose devices have everything. Unless
    /// `durable`, other devices were too slow or have failed: of those namespaces the positions of
    /// the last checkpoint stand. When no shard brings newer ones, nothing is stored once more.
    pub fn stopped(&mut self, marks: &[Mark], durable: bool) {
        self.positions.merge(marks);
        self.has_last_marks |= !marks.is_empty();
        self.durable &= durable;
        self.stopped_count += 1;
        if self.stopped_count == self.shard_count {
            self.end();
        }
    }

    /// Nobody tells anything any more.
    pub(super) fn end(&mut self) {
        if !self.is_starting() && (self.durable || self.has_last_marks) {
            self.store_marks(After::End);
        } else {
            self.ended = true;
        }
    }

    /// Whether every shard has ended and the last marks have been stored, as far as they can be.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether all that shards acknowledged is on their devices.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether there is a DC of that name.
    pub fn has_dc(&self, name: &str) -> bool {
        self.xdr.dc(name).is_some()
    }

    /// Whether a DC ships a namespace, or has positions of it: those of one that the configuration
    /// file does not name any more wait for it to come back.
    pub fn knows(&self, dc: &str, namespace: &str) -> bool {
        self.ships(dc, namespace) || self.positions.lanes(dc, namespace).is_some()
    }

    /// Whether a namespace is shipped to a DC, as far as commands have been applied.
    pub fn ships(&self, dc: &str, namespace: &str) -> bool {
        self.xdr.dc(dc).is_some_and(|config| config.namespace(namespace).is_some())
    }

    /// Whether the DC of that index is there still.
    pub fn has_index(&self, dc: DcIndex) -> bool {
        self.name(dc).is_some()
    }

    /// The name of a DC, if it is there still.
    pub(super) fn name(&self, dc: DcIndex) -> Option<&str> {
        self.indexes.iter().find(|(_, index)| **index == dc).map(|(name, _)| name.as_str())
    }

    /// The name of a namespace.
    pub fn namespace(&self, namespace: NamespaceId) -> &str {
        &self.namespaces.names[namespace.index()]
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = NamespaceId> + use<> {
        (0..self.namespaces.names.len()).map(|index| NamespaceId(index as u8))
    }

    fn announce_configured(&mut self) {
        for dc in self.positions.orphans(&self.xdr) {
            let oldest = self.positions.oldest(&dc);
            self.steps.push_back(Step::Remark(Remark::Orphan { dc, oldest }));
        }
        for index in 0..self.xdr.dcs.len() {
            let name = self.xdr.dcs[index].name.clone();
            let starts = self.starts_from_marks(&name);
            self.tell_dc(&name, starts);
            if self.holders.holes(&name).next().is_some() {
                self.tell_holes(&name);
            }
        }
        let told = self.serial as usize;
        if told > 0 {
            let awaited = told * self.shard_count;
            self.current =
                Some(InProgress { awaited, marks_changed: true, ..InProgress::default() });
        } else {
            // From now on there are marks, and a DC that comes later is new and not lost.
            self.store_marks(After::Serve);
        }
    }

    /// Names the DCs that shipped a namespace whose last writes may be lost.
    fn remark_ahead(&mut self, namespace: String) {
        let has_shipped = |dc: &&DcConfig| self.positions.lanes(&dc.name, &namespace).is_some();
        let shipping = self.xdr.dcs.iter().filter(|dc| dc.namespace(&namespace).is_some());
        let dcs: Vec<String> = shipping.filter(has_shipped).map(|dc| dc.name.clone()).collect();
        if !dcs.is_empty() {
            self.steps.push_back(Step::Remark(Remark::Ahead { namespace, dcs }));
        }
    }

    fn starts_from_marks(&mut self, dc: &str) -> Vec<(NamespaceId, Beginning)> {
        let Some(config) = self.xdr.dc(dc) else { return Vec::new() };
        let names: Vec<String> =
            config.namespaces.iter().map(|attached| attached.name.clone()).collect();
        let start_of = |namespace: String| {
            let id = self.namespaces.find(&namespace)?;
            let start = match self.positions.lanes(dc, &namespace) {
                Some(lanes) => Beginning::At(lanes.into()),
                None => self.start_without_marks(dc, namespace),
            };
            Some((id, start))
        };
        names.into_iter().filter_map(start_of).collect()
    }

    /// Where a namespace of a DC starts that has no positions.
    fn start_without_marks(&mut self, dc: &str, namespace: String) -> Beginning {
        let why = match self.positions.why_unknown(&namespace) {
            Unknown::New => None,
            Unknown::Lost => Some("are lost, and its store holds records"),
            Unknown::OtherStore => Some("were made beside another store"),
            Unknown::Outdated => {
                Some("are not in the marks, which are of an earlier run (a copy?)")
            }
        };
        let dc = dc.to_owned();
        let (remark, start) = match (why, self.lost_start.clone()) {
            (None, _) => {
                self.begins_anew = true;
                (Remark::New { dc, namespace }, Beginning::Now)
            }
            (Some(why), None) => {
                let start = "everything ships again, from the oldest record";
                (Remark::Lost { dc, namespace, why, start }, Beginning::Oldest)
            }
            (Some(why), Some(accepted)) => {
                let start = "it starts where `longship accept` said";
                (Remark::Lost { dc, namespace, why, start }, accepted)
            }
        };
        self.steps.push_back(Step::Remark(remark));
        start
    }

    /// Takes the next waiting command when none is under way.
    fn next_command(&mut self, wall: Lut) {
        while self.current.is_none() {
            let Some((asker, command)) = self.waiting.pop_front() else { return };
            let (before, shard) = (self.xdr.clone(), asker.0);
            if command.moves_positions()
                && let Some(answer) = self.recent.brought_again(&command, wall, shard)
            {
                self.answer_durably(asker, answer);
                continue;
            }
            match command::apply(&mut self.xdr, &mut self.namespaces, &self.file, &command) {
                Ok(Effect::Nothing) => self.answer_durably(asker, OK.to_owned()),
                Ok(Effect::Starts { dc, namespace, rewind })
                    if before.dc(&dc).is_none_or(|was| was.namespace(&namespace).is_none())
                        && !planted(Mutation::CreatedWithoutMark) =>
                {
                    // Positions that a crash left of an earlier attachment are not where it begins.
                    let from = rewind.start(wall).unwrap_or(Lut::ZERO);
                    let former = self.positions.begin_at(&dc, &namespace, from);
                    let attachment =
                        Attachment { asker, command, dc, namespace, rewind, before, former };
                    self.current =
                        Some(InProgress { serial: self.serial, ..InProgress::default() });
                    self.store_marks(After::Attach(Box::new(attachment)));
                }
                Ok(effect) => {
                    self.recent.note(&command, wall, OK, shard);
                    self.spread(&before, effect, (asker, Some(command)), wall);
                }
                Err(refusal) => match self.recent.repeated(&command, wall).map(str::to_owned) {
                    Some(answer) => self.answer_durably(asker, answer),
                    None => self.answer(asker, Err(refusal.to_string())),
                },
            }
        }
    }

    /// Marks know where a namespace begins, or it does not.
    fn attach(&mut self, attachment: Attachment, result: Result<(), String>, wall: Lut) {
        let Attachment { asker, command, dc, namespace, rewind, before, former } = attachment;
        if let Err(error) = result {
            self.xdr = before;
            self.positions.begin_not(&dc, &namespace, former);
            let refusal = format!("not attached, since it cannot be kept where it begins: {error}");
            return self.answer(asker, Err(refusal));
        }
        self.holders.forget(&dc, &namespace);
        self.recent.note(&command, wall, OK, asker.0);
        let effect = Effect::Starts { dc, namespace, rewind };
        self.spread(&before, effect, (asker, Some(command)), wall);
    }

    /// Tells the shards what a command changed.
    fn spread(
        &mut self,
        before: &XdrConfig,
        effect: Effect,
        (asker, command): (Asker, Option<Command>),
        wall: Lut,
    ) {
        let mut marks_changed = false;
        let serial_before = self.serial;
        match effect {
            Effect::Nothing => {}
            Effect::Everything => {
                let src_id = SrcId(self.xdr.src_id);
                self.steps.push_back(Step::TellAll(Order::Identity(src_id)));
                for index in 0..self.xdr.dcs.len() {
                    let name = self.xdr.dcs[index].name.clone();
                    self.tell_dc(&name, Vec::new());
                }
            }
            Effect::Dc(dc) => {
                marks_changed = self.forget_detached(before, &dc);
                self.tell_dc(&dc, Vec::new());
                // It may ship to another namespace there.
                marks_changed |= self.compare_stores(&dc);
            }
            Effect::Paused(dc) => {
                marks_changed = true;
                self.tell_dc(&dc, Vec::new());
            }
            Effect::Replay { dc: name, namespace } => {
                let id = self.namespaces.find(&namespace);
                if let (Some(&dc), Some(namespace)) = (self.indexes.get(&name), id) {
                    self.serial += 1;
                    let serial = self.serial;
                    self.steps.push_back(Step::Replay { serial, dc, name, namespace });
                }
            }
            Effect::Namespace { namespace, key, value } => {
                self.tell_namespace(namespace, key, value);
            }
            Effect::DcGone(dc) => {
                marks_changed = true;
                let shipped = before.dc(&dc).into_iter().flat_map(|config| &config.namespaces);
                self.remark_dropped(&dc, shipped.map(|was| was.name.clone()).collect());
                self.positions.forget_dc(&dc);
                self.holders.forget_dc(&dc);
                self.tell_gone(&dc);
                self.steps.push_back(Step::ForgetDc(dc));
            }
            Effect::Starts { dc, namespace, rewind } => {
                let start = match rewind.start(wall) {
                    None => Beginning::Now,
                    Some(lut) => Beginning::At(vec![Some(lut); PARTITION_COUNT].into()),
                };
                let is_new = matches!(start, Beginning::Now);
                marks_changed = !(is_new && planted(Mutation::CreatedWithoutMark));
                let starts = self.namespaces.find(&namespace).map(|id| (id, start));
                self.tell_dc(&dc, starts.into_iter().collect());
                // What the destination lacks is what the operator has ship again.
                if self.holders.fill(&dc, &namespace) {
                    self.tell_holes(&dc);
                }
                self.compare_stores(&dc);
            }
        }
        let told = (self.serial - serial_before) as usize;
        if told == 0 {
            return self.answer_durably(asker, OK.to_owned());
        }
        self.current = Some(InProgress {
            asker: Some(asker),
            command,
            serial: serial_before,
            awaited: told * self.shard_count,
            marks_changed,
            gaps: Vec::new(),
            replay: None,
        });
    }

    /// Drops the positions of namespaces a DC no longer ships. Says whether there were any.
    fn forget_detached(&mut self, before: &XdrConfig, dc: &str) -> bool {
        let (Some(old), Some(new)) = (before.dc(dc), self.xdr.dc(dc)) else { return false };
        let gone = old.namespaces.iter().filter(|was| new.namespace(&was.name).is_none());
        let gone: Vec<String> = gone.map(|was| was.name.clone()).collect();
        let is_some_gone = !gone.is_empty();
        let mut had_hole = false;
        for name in &gone {
            self.positions.forget(dc, name);
            had_hole |= self.holders.forget(dc, name);
        }
        if had_hole {
            self.tell_holes(dc);
        }
        self.remark_dropped(dc, gone);
        is_some_gone
    }

    fn remark_dropped(&mut self, dc: &str, namespaces: Vec<String>) {
        if !namespaces.is_empty() {
            let dc = dc.to_owned();
            self.steps.push_back(Step::Remark(Remark::Dropped { dc, namespaces }));
        }
    }

    /// Names the spans of time whose deletes may never reach a DC.
    fn remark_on(&mut self, gaps: &[DeleteGap], is_start: bool) {
        for gap in gaps {
            let namespace = self.namespace(gap.namespace).to_owned();
            let gap = gap.clone();
            self.steps.push_back(Step::Remark(Remark::Gap { gap, namespace, is_start }));
        }
    }

    fn store_marks(&mut self, after: After) {
        let mut marks = self.positions.to_marks(&self.namespaces.names);
        self.holders.add_to(&mut marks);
        self.steps.push_back(Step::Store(marks, after));
    }

    fn tell_dc(&mut self, name: &str, starts: Vec<(NamespaceId, Beginning)>) {
        let Some(config) = self.xdr.dc(name).cloned() else { return };
        self.remark_shared(&config);
        let dc = self.index_of(name);
        let attached = config.namespaces.iter();
        let attached =
            attached.filter_map(|ns| Some((self.namespaces.find(&ns.name)?, ns.name.clone())));
        self.positions.bind(dc, name, &attached.collect::<Vec<_>>());
        let config = Some((Arc::new(config), SrcId(self.xdr.src_id)));
        self.serial += 1;
        let order = Order::Dc { serial: self.serial, dc, config, starts };
        self.steps.push_back(Step::TellAll(order));
        self.steps.push_back(Step::TellLetters { dc, name: name.to_owned() });
    }

    /// Names the namespaces of a DC that arrive in one.
    fn remark_shared(&mut self, config: &DcConfig) {
        let mut arriving: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for namespace in &config.namespaces {
            arriving.entry(namespace.remote_name()).or_default().push(namespace.name.clone());
        }
        for (remote, namespaces) in arriving.into_iter().filter(|(_, all)| all.len() > 1) {
            let (dc, remote) = (config.name.clone(), remote.to_owned());
            self.steps.push_back(Step::Remark(Remark::Shared { dc, namespaces, remote }));
        }
    }

    fn tell_namespace(&mut self, namespace: NamespaceId, key: String, value: String) {
        self.serial += 1;
        let order = Order::Namespace { serial: self.serial, namespace, key, value };
        self.steps.push_back(Step::TellAll(order));
    }

    fn tell_gone(&mut self, name: &str) {
        let Some(dc) = self.indexes.remove(name) else { return };
        self.positions.bind(dc, name, &[]);
        self.serial += 1;
        let order = Order::Dc { serial: self.serial, dc, config: None, starts: Vec::new() };
        self.steps.push_back(Step::TellAll(order));
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

    /// Answers a command for which no shard has anything to do.
    fn answer_durably(&mut self, asker: Asker, answer: String) {
        if self.refusal.is_none() {
            return self.answer(asker, Ok(answer));
        }
        // Nobody follows it: the marks alone are waited for.
        self.current = Some(InProgress { serial: self.serial, ..InProgress::default() });
        self.store_marks(After::Answer(asker, answer));
    }

    fn answer(&mut self, (shard, ticket): Asker, result: Result<String, String>) {
        self.steps.push_back(Step::Tell(shard, Order::Answer { ticket, result }));
    }
}
