//! What keeps a DC from shipping as it should, in words: what it is, and what to do about it.

use std::collections::BTreeMap;
use std::fmt;

use tracing::{info, warn};

use crate::host::Hole;
use crate::model::ShardIndex;
use crate::wire::ResultCode;

/// A trouble of one DC that begins and ends, and is logged when it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// There is nowhere to look for the destination.
    NoSeeds,
    /// Nothing of a namespace ships: the destination would refuse all of it.
    Parked {
        /// The namespace.
        namespace: String,
        /// What it answers.
        code: u8,
    },
    /// A node refuses whatever it is sent of a namespace; what goes to others ships.
    ParkedAt {
        /// The namespace.
        namespace: String,
        /// The node.
        node: String,
        /// What it answers.
        code: u8,
    },
    /// No more dead letters are kept, and lanes wait with what they would give up.
    LettersRefused {
        /// Why.
        why: String,
    },
    /// The destination lacks what it had acknowledged.
    Hole {
        /// The namespace.
        namespace: String,
        /// Why.
        hole: Hole,
    },
    /// A destination ships here without a `src-id`, and what it ships is forwarded back to it.
    Echoes {
        /// Its node.
        node: String,
    },
    /// Changes of a namespace are refused for now, again and again.
    Refused {
        /// The namespace.
        namespace: String,
        /// The last answer.
        code: u8,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSeeds => write!(f, "it has no node-address-port, and ships nothing"),
            Self::Parked { namespace, code } => {
                let why = refusal_text(ResultCode(*code));
                write!(f, "namespace {namespace} is parked: the destination {why}")
            }
            Self::ParkedAt { namespace, node, code } => {
                let why = refusal_text(ResultCode(*code));
                write!(f, "namespace {namespace} is parked at node {node}: the destination {why}")
            }
            Self::LettersRefused { why } => write!(f, "changes to be given up wait: {why}"),
            Self::Hole { namespace, hole } => {
                let (cause, remedy) = hole_text(*hole);
                write!(
                    f,
                    "namespace {namespace}: {cause}: only new changes ship until you rewind it \
                     ({remedy})"
                )
            }
            Self::Echoes { node } => write!(
                f,
                "node {node} ships here without a src-id, so what it ships is forwarded back to it, \
                 over newer changes there, and may go round for ever: give each cluster a src-id \
                 of its own, or set `forward false` here"
            ),
            Self::Refused { namespace, code } => {
                let why = refusal_text(ResultCode(*code));
                write!(f, "changes of namespace {namespace} are tried again: the destination {why}")
            }
        }
    }
}

/// What a destination lacks, and what brings it there. Without `=`, which separates figures.
const fn hole_text(hole: Hole) -> (&'static str, &'static str) {
    match hole {
        Hole::OtherStore => (
            "the destination answers from another store than the one that took what was shipped, and \
             lacks what that one has",
            "action rewind, rewind all",
        ),
        Hole::OlderCopy => (
            "the destination answers from an older copy of its store, and lacks what it took since",
            "action rewind, rewind all or a time before that copy was made",
        ),
        Hole::Incomplete => (
            "the destination was allowed to start without a part of what its store had",
            "action rewind, rewind all",
        ),
        Hole::LettersLost => (
            "changes were given up and their dead letters are lost (look at the file `letters` of the \
             work directory)",
            "action rewind, rewind all",
        ),
    }
}

/// What an answer of the destination says, and what to do about it.
pub(crate) fn refusal_text(code: ResultCode) -> String {
    let (meaning, remedy) = match code {
        ResultCode::NAMESPACE => {
            ("has no such namespace", "create it there or set remote-namespace")
        }
        ResultCode::FORBIDDEN => (
            "forbids these writes",
            "look there for reject-xdr-writes, nsup-period and stop-writes",
        ),
        ResultCode::ROLE_VIOLATION => ("denies the role to write", "grant it to our user there"),
        ResultCode::NOT_WHITELISTED => {
            ("does not take connections from here", "add this address to its whitelist")
        }
        ResultCode::OUT_OF_SPACE => {
            ("is full", "make room there: its stop-writes limits tell which kind is missing")
        }
        ResultCode::DEVICE_OVERLOAD => (
            "cannot write as fast as this ships",
            "look at its devices and max-write-cache, or lower max-throughput here",
        ),
        ResultCode::NOT_AUTHENTICATED => {
            ("asks for a login", "allow unauthenticated shipping connections there")
        }
        ResultCode::QUOTA_EXCEEDED => {
            ("grants no more writes", "raise the quota of our user there")
        }
        ResultCode::TIMEOUT => ("does not finish writes in time", "look at its load and devices"),
        ResultCode::UNAVAILABLE => {
            ("has partitions that nobody serves", "look whether all of its nodes are up")
        }
        ResultCode::KEY_BUSY | ResultCode::XDR_KEY_BUSY => {
            ("is busy with these keys", "look for clients there that write them all the time")
        }
        ResultCode::MRT_BLOCKED => {
            ("has these records in a transaction", "look for transactions there that do not end")
        }
        _ => ("takes no write", "look at its configuration"),
    };
    format!("{meaning} (code {}): {remedy}", code.0)
}

/// The troubles of all DCs, as each shard told them last. A trouble that several shards have is one.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    by_dc: BTreeMap<String, BTreeMap<ShardIndex, Vec<Trouble>>>,
}

impl Troubles {
    /// Takes what a shard has now, and logs what begins or ends with it.
    pub(super) fn note(&mut self, dc: &str, shard: ShardIndex, troubles: Vec<Trouble>) {
        let (begun, ended) = self.change(dc, shard, troubles);
        begun.iter().for_each(|trouble| warn!(dc, "{trouble}"));
        ended.iter().for_each(|trouble| info!(dc, "no longer: {trouble}"));
    }

    fn change(
        &mut self,
        dc: &str,
        shard: ShardIndex,
        troubles: Vec<Trouble>,
    ) -> (Vec<Trouble>, Vec<Trouble>) {
        let shards = self.by_dc.entry(dc.to_owned()).or_default();
        let all = |shards: &BTreeMap<ShardIndex, Vec<Trouble>>| {
            let mut all: Vec<Trouble> = shards.values().flatten().cloned().collect();
            all.sort();
            all.dedup();
            all
        };
        let before = all(shards);
        shards.insert(shard, troubles);
        let after = all(shards);
        shards.retain(|_, troubles| !troubles.is_empty());
        let only = |these: &[Trouble], those: &[Trouble]| {
            these.iter().filter(|one| !those.contains(one)).cloned().collect()
        };
        (only(&after, &before), only(&before, &after))
    }

    /// The DC is gone.
    pub(super) fn forget(&mut self, dc: &str) {
        self.by_dc.remove(dc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_of_several_shards_begins_and_ends_once() {
        let full = Trouble::Refused { namespace: "demo".to_owned(), code: 8 };
        let mut troubles = Troubles::default();
        let mut change = |shard, has: &[&Trouble]| {
            let has = has.iter().map(|one| (*one).clone()).collect();
            let (begun, ended) = troubles.change("west", ShardIndex(shard), has);
            (begun.len(), ended.len())
        };
        assert_eq!(change(0, &[&full]), (1, 0));
        assert_eq!(change(1, &[&full]), (0, 0));
        assert_eq!(change(0, &[]), (0, 0));
        let parked = Trouble::Parked { namespace: "demo".to_owned(), code: 20 };
        assert_eq!(change(1, &[&parked]), (1, 1));
        assert_eq!(change(1, &[]), (0, 1));
    }

    #[test]
    fn a_hole_has_a_cause_and_a_remedy_that_figures_can_show() {
        for hole in [Hole::OtherStore, Hole::OlderCopy, Hole::Incomplete, Hole::LettersLost] {
            let text = Trouble::Hole { namespace: "demo".to_owned(), hole }.to_string();
            assert!(text.contains("action rewind, rewind all"), "{text}");
            assert!(!text.contains(['=', ';']), "{text}");
        }
    }

    #[test]
    fn every_code_that_is_tried_again_has_a_meaning_and_a_remedy() {
        for code in [8, 9, 11, 14, 18, 20, 22, 32, 80, 81, 82, 83, 120] {
            let trouble = Trouble::Refused { namespace: "demo".to_owned(), code };
            let text = trouble.to_string();
            assert!(text.contains(&format!("(code {code}): ")), "{text}");
            assert!(!text.contains("takes no write"), "{text}");
        }
    }
}
