//! A source cluster's process: storage, clock, write tickets, durable marks. It is a destination of
//! others as well.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::host::{Book, ReadRecord, Reading};
use crate::keys::Keys;
use crate::letters::Paper;
use crate::store::{Key, Rec, Store};
use crate::trace::tell;
use crate::waits::Made;
use longship::dest::NamespaceFacts;
use longship::host::{Marks, ReadDone};
use longship::model::{Change, DcIndex, Lut, SrcId, Tick, Version};
use longship::ship::mutation::{Mutation, planted};

/// Wall clock of every site at tick 0, in ms since 2010.
pub(crate) const WALL_START_MS: u64 = 500_000_000;

/// A write whose change has not been submitted.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) key: Key,
    pub(crate) change: Change,
    /// What is to be published with it, if that has not happened.
    pub(crate) unpublished: Option<crate::store::Rec>,
}

/// The marks of one link's lanes, by namespace and lane.
pub(crate) type LinkMarks = BTreeMap<(usize, u16), Lut>;

/// What survives the process, apart from the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    /// The marks file.
    pub(crate) file: Option<Marks>,
    /// The same by link.
    pub(crate) marks: BTreeMap<usize, LinkMarks>,
    /// Links and namespaces of which there are marks although nothing was shipped there when they
    /// were stored: a process died while it ended them. Nobody begins at those for certain.
    pub(crate) orphans: BTreeSet<(usize, usize)>,
    /// The file of dead letters.
    pub(crate) letters: Paper,
}

/// How a site answers what is shipped to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mood {
    /// This result code...
    pub(crate) code: u8,
    /// ...this many times out of a hundred.
    pub(crate) percent: u64,
}

impl Mood {
    pub(crate) const FINE: Self = Self { code: 0, percent: 0 };
}

/// One process.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) src_id: SrcId,
    pub(crate) commit: bool,
    pub(crate) window_ms: u64,
    pub(crate) up: bool,
    pub(crate) boot: u64,
    pub(crate) store: Store,
    pub(crate) last: Cell<Version>,
    pub(crate) now_us: u64,
    pub(crate) keys: Rc<Keys>,
    pub(crate) clock_offset_ms: i64,
    /// How far the clock has been back and forward.
    pub(crate) clock_span_ms: (i64, i64),
    /// How often the clock has been set.
    pub(crate) clock_steps: u32,
    /// The last version of each key and millisecond.
    pub(crate) made: BTreeMap<(Key, Lut), Made>,
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) durable: Durable,
    /// What the host was told: everything of a lane below this is settled at every DC. Nothing of
    /// the others.
    pub(crate) settled: LinkMarks,
    /// Tombstones that a raid wants to drop, and whether it has looked for older copies.
    pub(crate) raid: Option<(Vec<(Key, Version)>, bool)>,
    pub(crate) unflushed_since_us: Option<u64>,
    pub(crate) mood: Mood,
    /// What it says of its namespaces.
    pub(crate) facts: NamespaceFacts,
    /// Records changed so long ago are read from the device; all are in memory without.
    pub(crate) memory_ms: Option<u64>,
    /// The next walk goes by the index.
    pub(crate) walks_index: bool,
    /// Walks wait for the device.
    pub(crate) walks_stall: bool,
    /// What the last step of a walk gave.
    pub(crate) walked: Vec<(Key, Rec)>,
    /// Positions are taken, and wait for a flush.
    pub(crate) is_watched: bool,
    /// Begun and not finished.
    pub(crate) reading: Vec<Reading>,
    /// Finished and not drained.
    pub(crate) read: Vec<(DcIndex, ReadDone<ReadRecord>)>,
    /// The key looked at last.
    pub(crate) peeked: Cell<Option<Key>>,
    pub(crate) book: Book,
}

impl Site {
    pub(crate) fn new(index: usize, commit: bool, window_ms: u64, keys: Rc<Keys>) -> Self {
        Self {
            src_id: SrcId(index as u8 + 1),
            commit,
            window_ms: if commit { 0 } else { window_ms },
            up: true,
            boot: 1,
            store: Store::default(),
            last: Cell::new(Version::ZERO),
            now_us: 0,
            keys,
            clock_offset_ms: 0,
            clock_span_ms: (0, 0),
            clock_steps: 0,
            made: BTreeMap::new(),
            tickets: Vec::new(),
            durable: Durable::default(),
            settled: LinkMarks::new(),
            raid: None,
            unflushed_since_us: None,
            mood: Mood::FINE,
            facts: NamespaceFacts::default(),
            memory_ms: None,
            walks_index: false,
            walked: Vec::new(),
            walks_stall: false,
            is_watched: false,
            reading: Vec::new(),
            read: Vec::new(),
            peeked: Cell::new(None),
            book: Book::default(),
        }
    }

    pub(crate) fn wall(&self, now_us: u64) -> Lut {
        let ms = (WALL_START_MS + now_us / 1000) as i64 + self.clock_offset_ms;
        Lut::from_ms(ms.max(1).unsigned_abs())
    }

    /// The wall clock is set.
    pub(crate) fn step_clock(&mut self, ms: i64) {
        self.clock_offset_ms += ms;
        self.clock_steps += 1;
        let (low, high) = self.clock_span_ms;
        self.clock_span_ms = (low.min(self.clock_offset_ms), high.max(self.clock_offset_ms));
    }

    /// Takes the next version, for a key.
    pub(crate) fn next_version(&mut self, key: Key, now_us: u64) -> Version {
        let wall = self.wall(now_us);
        let version = self.last.get().next(wall);
        self.last.set(version);
        let made = Made { at: Tick(now_us), wall, steps: self.clock_steps };
        self.made.insert((key, version.lut()), made);
        version
    }

    /// Everything written is on the device.
    pub(crate) fn flush(&mut self) {
        self.store.flush();
        self.is_watched = false;
        self.unflushed_since_us = None;
    }

    pub(crate) fn wrote(&mut self, now_us: u64) {
        self.unflushed_since_us.get_or_insert(now_us);
    }

    /// The process dies.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        for ticket in &self.tickets {
            tell(Some(ticket.key), || "its ticket dies with the process".to_owned());
        }
        self.tickets.clear();
        self.is_watched = false;
        self.settled.clear();
        self.raid = None;
        self.unflushed_since_us = None;
        self.store.crash();
        self.last.set(Version::ZERO);
        self.reading.clear();
        self.read.clear();
    }

    /// The process is back: versions go on above everything it finds.
    pub(crate) fn start(&mut self) {
        self.up = true;
        self.boot += 1;
        let marks = self.durable.marks.values().flat_map(BTreeMap::values);
        let highest = marks.copied().max().unwrap_or(Lut::ZERO);
        if !planted(Mutation::ClockUnderMarks) {
            self.last.set(self.store.highest().max(Version::first_of(highest)));
        }
    }
}

/// A cluster without fence, boot id or loss: several nodes over one set of records.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) records: BTreeMap<Key, crate::store::Rec>,
    /// Which of the nodes are up.
    pub(crate) up: Vec<bool>,
    /// Owner of each lane.
    pub(crate) owner: Vec<Option<u16>>,
    pub(crate) mood: Mood,
    /// What it says of its namespaces.
    pub(crate) facts: NamespaceFacts,
    pub(crate) community: bool,
}

impl Foreign {
    pub(crate) fn new(nodes: u16, lanes: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            up: vec![true; usize::from(nodes)],
            owner: (0..lanes).map(|lane| Some(lane as u16 % nodes)).collect(),
            mood: Mood::FINE,
            facts: NamespaceFacts::default(),
            community: false,
        }
    }
}
