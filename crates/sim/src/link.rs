//! One DC of a site: its engine, and what the world knows of it without asking the engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::contest;
use crate::order::Reaches;
use crate::plan::{Dest, LinkPlan};
use crate::site::Site;
use crate::store::Key;
use crate::turns::Passed;
use crate::waits::Waits;
use crate::wire::{Conn, Request, Wire};
use longship::config::DcNamespaceConfig;
use longship::engine::{DcEngine, Letter};
use longship::model::{DcIndex, Lut, SrcId, Tick, Version};
use longship::ship::DcShard;

/// An engine of this world.
pub(crate) type Engine = DcEngine<Site, Wire>;

/// A request left on a dead connection that the destination may still apply.
#[derive(Clone, Debug)]
pub(crate) struct Straggler {
    pub(crate) link: usize,
    pub(crate) epoch: u64,
    pub(crate) request: Request,
    /// After this nobody has to fear it.
    pub(crate) dies_us: u64,
    /// Its namespace was detached since it was sent.
    pub(crate) is_left: bool,
}

impl Straggler {
    /// Whether it is applied at the end of its time, and not before.
    pub(crate) fn is_late(&self) -> bool {
        self.dies_us.is_multiple_of(2)
    }
}

/// How far a dispatched change is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not read yet.
    #[default]
    Dispatched,
    /// In a batch.
    Encoded,
    /// The batch is with its connection.
    Sent,
}

/// A dispatched change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flight {
    pub(crate) key: Key,
    pub(crate) node: u16,
    pub(crate) stage: Stage,
    /// The version read for it.
    pub(crate) read: Option<Version>,
    /// A deletion was sent for it.
    pub(crate) is_delete: bool,
    /// Its namespace was detached meanwhile.
    pub(crate) discarded: bool,
}

/// How a dispatched change ended without a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// There was no record; the newest change then.
    Gone(Version),
    /// Nothing of this version is to be shipped.
    FilteredOut(Version),
    /// It ships another time.
    Unsent,
}

/// What a link owes, kept independently of the rules under test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Changes of each key that were taken.
    pub(crate) taken: BTreeMap<Key, BTreeSet<Version>>,
    /// The version up to which each key is settled.
    pub(crate) settled: BTreeMap<Key, Version>,
    /// Of this, what was acknowledged or has a dead letter. The rest is settled only as long as the
    /// source keeps the version that had nothing to ship.
    pub(crate) sent: BTreeMap<Key, Version>,
    /// The versions that had nothing to ship, or were sent: what each was settled by.
    pub(crate) settled_by: BTreeMap<Key, BTreeSet<Version>>,
    /// Acknowledged by the destination's process, and lost by it since.
    pub(crate) lost: BTreeMap<Key, Version>,
    /// Given up, with a dead letter, at this version.
    pub(crate) dead: BTreeMap<Key, Version>,
    /// The same, where the record was gone before its letter was replayed, expired or deleted and the
    /// tombstone raided: the destination keeps what it has.
    pub(crate) gone: BTreeMap<Key, Version>,
    /// Given up at this version, and its letter has left since, for something that a crash of the source
    /// may take back.
    pub(crate) left: BTreeMap<Key, Version>,
    /// The version acknowledged last of each key, if nothing was given up since.
    pub(crate) arrived: BTreeMap<Key, Version>,
    /// Keys whose last answer was not a success (filtered out, gone), and the version.
    pub(crate) not_sent: BTreeMap<Key, Version>,
    /// All versions that had nothing to ship, and were not sent since. One is the last again when a
    /// newer one is lost, or was only sent with a letter that had been outdated.
    withheld: BTreeMap<Key, BTreeSet<Version>>,
    /// The newest version there was when the DC, or a namespace of it, began.
    pub(crate) begun: Version,
    /// Version clock when what is shipped changed last.
    pub(crate) refiltered: Option<Version>,
}

impl Ledger {
    /// The newest change of a key that was taken.
    pub(crate) fn newest(&self, key: Key) -> Option<Version> {
        self.taken.get(&key)?.last().copied()
    }

    /// The newest change of a key, if it is not settled.
    pub(crate) fn owed(&self, key: Key) -> Option<Version> {
        let newest = self.newest(key)?;
        let settled = self.settled.get(&key).copied().unwrap_or_default();
        (settled < newest).then_some(newest)
    }

    /// Nothing can be lost of a change that was given up, or that is not to be shipped as the record
    /// is now.
    pub(crate) fn nothing_to_lose(&self, key: Key, version: Version) -> bool {
        let left = self.newest(key).map_or(version, |newest| version.min(newest));
        // Nor of one over which something came that had nothing to ship, before it was read.
        let withheld = self.withheld.get(&key).and_then(BTreeSet::last);
        self.not_sent.get(&key).is_some_and(|&last| last >= left)
            || withheld.is_some_and(|&last| last >= left)
            || [&self.dead, &self.gone].iter().any(|of| of.get(&key).is_some_and(|&up| up >= left))
    }

    pub(crate) fn take(&mut self, key: Key, version: Version) {
        self.taken.entry(key).or_default().insert(version);
    }

    /// The source is back at `left`, nothing newer is left of the key.
    pub(crate) fn lose(&mut self, key: Key, left: Version) {
        if let Some(taken) = self.taken.get_mut(&key) {
            taken.retain(|version| *version <= left);
            if taken.is_empty() {
                self.taken.remove(&key);
            }
        }
        if let Some(withheld) = self.withheld.get_mut(&key) {
            withheld.retain(|version| *version <= left);
        }
        if self.settled.get(&key).is_some_and(|&settled| settled > left) {
            let sent = self.sent.get(&key).copied().unwrap_or_default();
            let by = self.settled_by.entry(key).or_default();
            by.retain(|version| *version <= left);
            let kept = by.last().copied().unwrap_or_default();
            self.settled.insert(key, sent.max(kept));
            self.not_sent.remove(&key);
            let withheld = self.withholds(key, kept);
            self.not_sent.extend(withheld.then_some((key, kept)));
        }
    }

    /// A key is settled no further than up to `kept`.
    pub(crate) fn unsettle(&mut self, key: Key, kept: Option<Version>) {
        for versions in [&mut self.settled, &mut self.sent] {
            let left = versions.remove(&key).zip(kept).map(|(last, kept)| last.min(kept));
            versions.extend(left.map(|version| (key, version)));
        }
    }

    /// There was nothing to ship of a version.
    pub(crate) fn withhold(&mut self, key: Key, version: Version) {
        self.settle(key, version);
        self.not_sent.insert(key, version);
        self.withheld.entry(key).or_default().insert(version);
    }

    /// Whether a version had nothing to ship when it was looked at last.
    pub(crate) fn withholds(&self, key: Key, version: Version) -> bool {
        self.withheld.get(&key).is_some_and(|versions| versions.contains(&version))
    }

    /// A key is owed again from a LUT on. What was settled of it before stays so: should the source
    /// lose the rest, nobody asks for that again.
    pub(crate) fn rewind(&mut self, key: Key, from: Lut) {
        let taken = self.taken.get(&key).into_iter().flatten();
        let before = taken.take_while(|version| version.lut() < from).last().copied();
        self.unsettle(key, before);
        if let Some(by) = self.settled_by.get_mut(&key) {
            by.retain(|version| before.is_some_and(|before| *version <= before));
        }
    }

    /// Nothing is owed of some keys any more.
    pub(crate) fn forget(&mut self, keep: impl Fn(Key) -> bool) {
        self.taken.retain(|&key, _| keep(key));
        let Self { settled, sent, lost, dead, gone, left, arrived, not_sent, .. } = self;
        for versions in [settled, sent, lost, dead, gone, left, arrived, not_sent] {
            versions.retain(|&key, _| keep(key));
        }
        self.settled_by.retain(|&key, _| keep(key));
        self.withheld.retain(|&key, _| keep(key));
    }

    pub(crate) fn send(&mut self, key: Key, version: Version) {
        let sent = self.sent.entry(key).or_default();
        *sent = version.max(*sent);
        if let Some(withheld) = self.withheld.get_mut(&key) {
            withheld.remove(&version);
        }
        self.settle(key, version);
    }

    pub(crate) fn settle(&mut self, key: Key, version: Version) {
        let settled = self.settled.entry(key).or_default();
        *settled = version.max(*settled);
        self.settled_by.entry(key).or_default().insert(version);
        if self.lost.get(&key).is_some_and(|&lost| lost <= version) {
            self.lost.remove(&key);
        }
    }
}

/// What a DC's counters have to say, counted by whoever did it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) submitted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) not_found: u64,
    pub(crate) filtered_out: u64,
    pub(crate) letters: u64,
}

/// One DC.
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: Dest,
    /// Configuration, which outlives the process.
    pub(crate) configs: Vec<Option<DcNamespaceConfig>>,
    /// The settings of each namespace, as they were when it was shipped last.
    pub(crate) settings: Vec<Option<DcNamespaceConfig>>,
    /// Some once were such that what was sent may be merged with what is there.
    pub(crate) has_merged: bool,
    pub(crate) exists: bool,
    /// What the control loop calls it.
    pub(crate) index: DcIndex,
    pub(crate) paused: bool,
    pub(crate) counted: Counted,
    pub(crate) engine: Option<Engine>,
    pub(crate) flights: BTreeMap<u32, Flight>,
    /// Ended while being served, for the engine to settle.
    pub(crate) ended: Vec<(u32, Ended)>,
    /// How reads ended that gave no record, for the engine to find out.
    pub(crate) read_ends: Vec<(u32, Ended)>,
    /// What a lost connection left, as far as it is not settled.
    pub(crate) lost: Vec<u32>,
    /// Given up, by slot, whose dead letter is not known to be kept.
    pub(crate) letters: BTreeMap<u32, Letter>,
    /// Keys of them of which a letter has left its file meanwhile.
    pub(crate) letters_left: BTreeSet<Key>,
    /// The version refused last of each key.
    pub(crate) refused: BTreeMap<Key, Version>,
    pub(crate) ledger: Ledger,
    /// The version of each key that the destination, a site, applied last, and its own version clock
    /// after that.
    pub(crate) applied: BTreeMap<Key, (Version, Version)>,
    /// The last version of each key that left nothing there, where nothing was.
    pub(crate) absent: BTreeMap<Key, Version>,
    pub(crate) waits: Waits,
    pub(crate) known_boot: Option<u64>,
    /// Epoch of the connection to each node that the engine was told of last.
    pub(crate) told: BTreeMap<u16, u64>,
    pub(crate) destination: SrcId,
    /// LSTs and marks at the last look, by namespace and lane; empty when they may move back.
    pub(crate) seen: BTreeMap<(usize, u16), (Lut, Lut)>,
    /// Nothing moves on its connections before this.
    pub(crate) slow_until_us: u64,
    /// Its connections cannot be opened before this.
    pub(crate) blocked_until_us: u64,
    pub(crate) next_due_us: u64,
    /// Decided changes that keep its engine from deciding more.
    pub(crate) waiting: usize,
    /// Something happened that wakes an engine before that. It stays so until the engine waits.
    pub(crate) woken: bool,
    /// It asked to be called at once, and did not wait.
    pub(crate) again: bool,
    /// Turns without a change since, though each asked for the next at once.
    pub(crate) spins: u32,
    /// When the last question of the tending was asked.
    pub(crate) asked: Option<Tick>,
    /// How long something has been owed of lanes that nobody at the destination has.
    pub(crate) nodeless: Nodeless,
    /// What goes by while lanes wait for their turns.
    pub(crate) passed: BTreeMap<(usize, usize), Passed>,
    /// How far laps reach into what has to be read from the device.
    pub(crate) reaches: Reaches,
}

/// Whether lanes have something owed, and no owner, at the end of each sweep of late. Whatever
/// changes that in between begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Nodeless {
    #[default]
    No,
    /// At the last: the engine knows of it when it looks again.
    Seen,
    /// The engine has looked since, and went on looking until the last sweep.
    Since {
        /// When that began.
        since: Tick,
        /// The last sweep.
        last: Tick,
    },
}

impl Link {
    pub(crate) fn new(plan: &LinkPlan, now: Tick) -> Self {
        let mut waits = Waits::default();
        waits.configure(&plan.namespaces, now);
        Self {
            from: plan.from,
            to: plan.to,
            configs: plan.namespaces.clone(),
            settings: plan.namespaces.clone(),
            has_merged: plan.namespaces.iter().flatten().any(contest::merges),
            exists: true,
            index: DcIndex(0),
            paused: false,
            counted: Counted::default(),
            engine: None,
            flights: BTreeMap::new(),
            ended: Vec::new(),
            read_ends: Vec::new(),
            lost: Vec::new(),
            letters: BTreeMap::new(),
            letters_left: BTreeSet::new(),
            refused: BTreeMap::new(),
            ledger: Ledger::default(),
            applied: BTreeMap::new(),
            absent: BTreeMap::new(),
            waits,
            known_boot: None,
            told: BTreeMap::new(),
            destination: SrcId::NONE,
            seen: BTreeMap::new(),
            slow_until_us: 0,
            blocked_until_us: 0,
            next_due_us: 0,
            waiting: 0,
            woken: true,
            again: false,
            spins: 0,
            asked: None,
            nodeless: Nodeless::No,
            passed: BTreeMap::new(),
            reaches: Reaches::new(),
        }
    }

    /// A namespace is shipped with these settings from now on.
    pub(crate) fn set(&mut self, n: usize, settings: DcNamespaceConfig) {
        self.has_merged |= contest::merges(&settings);
        self.settings[n] = Some(settings);
    }

    /// What is encoded for some nodes, and not handed over, ships anew.
    pub(crate) fn return_encoded(&mut self, which: impl Fn(u16) -> bool) {
        for (slot, flight) in &mut self.flights {
            if flight.stage == Stage::Encoded && which(flight.node) {
                flight.stage = Stage::Dispatched;
                self.ended.push((*slot, Ended::Unsent));
            }
        }
    }

    /// What is decided of keys that are not shipped any more goes no further than it is.
    pub(crate) fn discard(&mut self, site: &Site, keep: impl Fn(Key) -> bool) {
        for (slot, flight) in &mut self.flights {
            if keep(flight.key) || std::mem::replace(&mut flight.discarded, true) {
                continue;
            }
            let is_read = site.reads(self.index, *slot);
            let is_known = self.ended.iter().any(|(ended, _)| ended == slot);
            if flight.stage == Stage::Dispatched && !is_read && !is_known {
                self.ended.push((*slot, Ended::Unsent));
            }
        }
    }

    /// Records that were read for such keys, which nobody looks at.
    pub(crate) fn dropped_reads(&self, site: &Site) -> Vec<u32> {
        let slots = site.read_for(self.index);
        slots.filter(|slot| self.flights.get(slot).is_some_and(|of| of.discarded)).collect()
    }

    /// Whether a request was sent for a namespace that was detached since.
    pub(crate) fn is_left(&self, request: &Request) -> bool {
        let (key, read) = (request.key, Some(request.version));
        self.flights.values().any(|of| of.discarded && of.key == key && of.read == read)
    }

    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self.to, Dest::Site(_))
    }

    /// The rules of its engine.
    pub(crate) fn rules(&self) -> Option<&DcShard> {
        self.engine.as_ref().map(DcEngine::rules)
    }

    /// The destination as its engine sees it.
    pub(crate) fn wire(&self) -> Option<&Wire> {
        self.engine.as_ref().map(DcEngine::destination)
    }

    /// The same, to move it.
    pub(crate) fn wire_mut(&mut self) -> Option<&mut Wire> {
        self.engine.as_mut().map(DcEngine::destination_mut)
    }

    /// Its connections, while there is an engine.
    pub(crate) fn conns(&self) -> &[Conn] {
        self.wire().map_or(&[], |wire| &wire.nodes)
    }

    /// Whether nothing is under way anywhere.
    pub(crate) fn is_quiet(&self) -> bool {
        self.flights.is_empty()
            && self.ended.is_empty()
            && self.letters.is_empty()
            && self.wire().is_none_or(Wire::is_quiet)
            && self.rules().is_none_or(|rules| {
                let stats = rules.dc_stats();
                stats.backlog() == 0 && stats.recoveries_pending == 0
            })
    }
}
