//! What is known of the seeds and of each node, and when to ask next.

use std::net::SocketAddr;

use crate::limits::NODE_COUNT_MAX;
use crate::model::{NamespaceId, Tick};

use super::NamespaceFacts;
use super::places::Places;
use crate::dest::NodeIndex;

/// First and longest pause between attempts at something that fails.
const PAUSE_MS_MIN: u64 = 250;
const PAUSE_MS_MAX: u64 = 500;

/// The seeds and how far trying them has come.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    pub(super) places: Places,
    /// Passes over all seeds in a row without success.
    pub(super) passes: u32,
    pub(super) due: Tick,
    /// Where the question on its way was asked, while its answer is still what is wanted.
    pub(super) open: Option<SocketAddr>,
    pub(super) problem: Option<String>,
}

/// What a node index stands for.
#[derive(Debug)]
pub(super) enum NodeSlot {
    Free,
    Held(Box<Node>),
    /// Given up, not released yet.
    Gone,
}

/// A node that was found.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) places: Places,
    pub(super) failures: u32,
    /// Another node answered where it was asked last.
    pub(super) replaced: bool,
    /// It has answered, and its last answer was good.
    pub(super) answers: bool,
    pub(super) due: Tick,
    /// It does not answer, and may be tried when it is due.
    pub(super) has_turn: bool,
    pub(super) asked: Tick,
    /// What the question on its way asks.
    pub(super) open: Questions,
    /// What the next one asks beside the basics. It may come to be wanted while one is on its way.
    pub(super) wanted: Questions,
    pub(super) partition_generation: Option<i64>,
    pub(super) peers_generation: Option<i64>,
    /// Those it lists, as far as they are followed.
    pub(super) peers: NodeSet,
    pub(super) facts: Vec<(NamespaceId, NamespaceFacts)>,
    pub(super) facts_due: Tick,
    pub(super) problem: Option<String>,
    /// It lists a node for which there was no room.
    pub(super) crowd: Option<String>,
}

/// Some nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeSet([u64; NODE_COUNT_MAX / 64]);

impl NodeSet {
    pub(super) fn insert(&mut self, node: NodeIndex) {
        self.0[node.index() / 64] |= 1 << (node.index() % 64);
    }

    pub(super) fn remove(&mut self, node: NodeIndex) {
        self.0[node.index() / 64] &= !(1 << (node.index() % 64));
    }

    pub(super) fn contains(&self, node: NodeIndex) -> bool {
        self.0[node.index() / 64] & (1 << (node.index() % 64)) != 0
    }
}

/// What one request asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Questions {
    /// Identity and the two counters.
    pub(super) basics: bool,
    pub(super) peers: bool,
    pub(super) replicas: bool,
    pub(super) facts: bool,
}

impl Questions {
    pub(super) const ALL: Self = Self { basics: true, peers: true, replicas: true, facts: true };
    pub(super) const BASICS: Self =
        Self { basics: true, peers: false, replicas: false, facts: false };

    /// All that either asks.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            basics: self.basics | other.basics,
            peers: self.peers | other.peers,
            replicas: self.replicas | other.replicas,
            facts: self.facts | other.facts,
        }
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl NodeSlot {
    pub(super) fn held(&self) -> Option<&Node> {
        match self {
            Self::Held(node) => Some(node),
            Self::Free | Self::Gone => None,
        }
    }

    pub(super) fn held_mut(&mut self) -> Option<&mut Node> {
        match self {
            Self::Held(node) => Some(node),
            Self::Free | Self::Gone => None,
        }
    }
}

impl Node {
    pub(super) fn new(id: &str, hosts: &[(String, u16)], now: Tick) -> Self {
        let mut places = Places::default();
        places.set(hosts, false);
        Self {
            id: id.to_owned(),
            places,
            failures: 0,
            replaced: false,
            answers: false,
            due: now,
            has_turn: false,
            asked: Tick(0),
            open: Questions::default(),
            wanted: Questions::ALL,
            partition_generation: None,
            peers_generation: None,
            peers: NodeSet::default(),
            facts: Vec::new(),
            facts_due: now,
            problem: None,
            crowd: None,
        }
    }

    /// What is asked now, when a question is due.
    pub(super) fn ask(&mut self, now: Tick) -> Questions {
        self.asked = now;
        self.open = match std::mem::take(&mut self.wanted) {
            wanted if wanted.is_none() => Questions::BASICS,
            wanted => wanted,
        };
        self.open
    }

    pub(super) fn failed(&mut self, problem: &str, now: Tick) {
        self.problem = Some(problem.to_owned());
        self.failures = self.failures.saturating_add(1);
        self.answers = false;
        // Whoever answers next may have been restarted: its counters mean nothing new to us.
        self.wanted = Questions::ALL;
        self.partition_generation = None;
        self.peers_generation = None;
        self.due = now;
        if !self.places.failed() {
            self.places.refill();
            self.due = now.plus_ms(pause_ms(self.failures));
        }
    }
}

impl Seeds {
    pub(super) fn failed(&mut self, problem: &str, now: Tick) {
        self.problem = Some(problem.to_owned());
        if !self.places.failed() {
            self.passes = self.passes.saturating_add(1);
            self.places.refill();
            self.due = now.plus_ms(pause_ms(self.passes));
        }
    }
}

/// Doubles with each failure.
fn pause_ms(failures: u32) -> u64 {
    (PAUSE_MS_MIN << failures.saturating_sub(1).min(10)).min(PAUSE_MS_MAX)
}
