//! What keeps a DC from shipping as it should, in words: what it is, and what to do about it.

use std::collections::BTreeMap;
use std::fmt;

use tracing::{info, warn};

use crate::host::Hole;
use crate::limits::LOG_LINES_MAX;
use crate::model::ShardIndex;
use crate::wire::ResultCode;
use longship_rt::metrics::LogBudget;

/// A trouble of one DC that begins and ends, and is logged when it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// There is nowhere to look for the destination.
    NoSeeds,
    /// Nothing of a namespace ships: the destination would refuse all of it.
    Parked {
        /// Name of the namespace at the source.
        namespace: String,
        /// Result code that all of it got.
        code: u8,
    },
    /// A node refuses whatever it is sent of a namespace; what goes to others ships.
    ParkedAt {
        /// Name of the namespace at the source.
        namespace: String,
        /// Id of the node.
        node: String,
        /// Result code that the node answers.
        code: u8,
    },
    /// Nobody at the destination serves partitions of a namespace in which something waits.
    NoNode {
        /// Name of the namespace at the source.
        namespace: String,
    },
    /// No more dead letters are kept, and lanes wait with what they would give up.
    LettersRefused {
        /// Why.
        why: String,
    },
    /// The destination lacks what it had acknowledged.
    Hole {
        /// Name of the namespace at the source.
        namespace: String,
        /// Why.
        hole: Hole,
    },
    /// A destination ships here without a `src-id`, and what it ships is forwarded back to it.
    Echoes {
        /// First node id of the process that ships here.
        node: String,
    },
    /// Another cluster ships here with the destination's `src-id`, and what it ships is not forwarded.
    SharedSrcId {
        /// First node id of the process that ships here.
        node: String,
        /// The `src-id` that both have.
        src_id: u8,
    },
    /// Changes of a namespace are refused for now, again and again.
    Refused {
        /// Name of the namespace at the source.
        namespace: String,
        /// Result code of the last refusal.
        code: u8,
    },
}

impl Trouble {
    /// The namespace that alone it concerns.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Parked { namespace, .. }
            | Self::ParkedAt { namespace, .. }
            | Self::NoNode { namespace }
            | Self::Hole { namespace, .. }
            | Self::Refused { namespace, .. } => Some(namespace),
            Self::NoSeeds
            | Self::LettersRefused { .. }
            | Self::Echoes { .. }
            | Self::SharedSrcId { .. } => None,
        }
    }
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
            Self::NoNode { namespace } => write!(
                f,
                "partitions of namespace {namespace} have no node at the destination: look at its \
                 cluster (its partition map, unavailable partitions)"
            ),
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
            Self::SharedSrcId { node, src_id } => write!(
                f,
                "node {node} ships here with src-id {src_id}, which is the destination's: what it \
                 ships is taken for the destination's own and not forwarded: give the destination a \
                 src-id of its own, and ship what was held back with action rewind"
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
            "look at its log, devices and max-write-cache: where a device has failed it needs a start; \
             or lower max-throughput here",
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
    by_dc: BTreeMap<String, OfDc>,
}

/// Those of one DC. The log may lag behind: what comes and goes meanwhile it does not hear of.
#[derive(Debug)]
struct OfDc {
    by_shard: BTreeMap<ShardIndex, Vec<Trouble>>,
    /// Those that the log has.
    said: Vec<Trouble>,
    /// The log has what there is.
    is_told: bool,
    lines: LogBudget,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Begun(Trouble),
    Ended(Trouble),
}

impl Troubles {
    /// Takes what a shard has now.
    pub(super) fn note(&mut self, dc: &str, shard: ShardIndex, troubles: Vec<Trouble>) {
        let of_dc = self.by_dc.entry(dc.to_owned()).or_insert_with(|| OfDc {
            by_shard: BTreeMap::new(),
            said: Vec::new(),
            is_told: true,
            lines: LogBudget::of_lines(LOG_LINES_MAX),
        });
        of_dc.by_shard.insert(shard, troubles);
        of_dc.is_told = false;
    }

    /// Logs what has begun and what has ended since it was logged last; what finds no line left,
    /// the next time.
    pub(super) fn tell(&mut self, now_us: u64) {
        for (dc, of_dc) in self.by_dc.iter_mut().filter(|(_, of_dc)| !of_dc.is_told) {
            for news in of_dc.news(now_us) {
                match news {
                    News::Begun(trouble) => warn!(dc, "{trouble}"),
                    News::Ended(trouble) => info!(dc, "no longer: {trouble}"),
                }
            }
        }
    }

    /// The DC is gone.
    pub(super) fn forget(&mut self, dc: &str) {
        self.by_dc.remove(dc);
    }
}

impl OfDc {
    fn news(&mut self, now_us: u64) -> Vec<News> {
        let mut now: Vec<Trouble> = self.by_shard.values().flatten().cloned().collect();
        now.sort();
        now.dedup();
        let begun = now.iter().filter(|one| !self.said.contains(one)).cloned().map(News::Begun);
        let ended = self.said.iter().filter(|one| !now.contains(one)).cloned().map(News::Ended);
        // Ended first, so that `said` holds no more than there was at once.
        let mut news: Vec<News> = ended.chain(begun).collect();
        let left = news.iter().position(|_| self.lines.pass(now_us).is_none());
        self.is_told = left.is_none();
        news.truncate(left.unwrap_or(news.len()));
        for one in &news {
            match one {
                News::Begun(trouble) => self.said.push(trouble.clone()),
                News::Ended(trouble) => self.said.retain(|said| said != trouble),
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(namespace: usize, code: u8) -> Trouble {
        Trouble::Refused { namespace: format!("demo{namespace}"), code }
    }

    /// What the log hears when a shard of one DC has these troubles then.
    fn news(troubles: &mut Troubles, shard: u16, has: &[Trouble], now_us: u64) -> Vec<News> {
        troubles.note("west", ShardIndex(shard), has.to_vec());
        troubles.by_dc.get_mut("west").unwrap().news(now_us)
    }

    #[test]
    fn a_trouble_of_several_shards_begins_and_ends_once() {
        let (full, parked) = (refused(0, 8), refused(0, 20));
        let mut troubles = Troubles::default();
        let mut change = |shard, has: &[&Trouble]| {
            let has: Vec<Trouble> = has.iter().map(|one| (*one).clone()).collect();
            news(&mut troubles, shard, &has, 0)
        };
        assert_eq!(change(0, &[&full]), [News::Begun(full.clone())]);
        assert_eq!(change(1, &[&full]), []);
        assert_eq!(change(0, &[]), []);
        assert_eq!(change(1, &[&parked]), [News::Ended(full.clone()), News::Begun(parked.clone())]);
        assert_eq!(change(1, &[]), [News::Ended(parked)]);
    }

    #[test]
    fn troubles_that_change_all_the_time_have_as_many_lines_as_a_destination_and_the_last_is_told()
    {
        let codes = [8, 9, 11, 14, 18, 32];
        let mut troubles = Troubles::default();
        let mut lines = 0;
        for ms in 0..20_000 {
            // Eight namespaces, each with another code every half second.
            let code = |namespace| codes[(ms / 500 + namespace) % codes.len()];
            let has: Vec<Trouble> = (0..8).map(|one| refused(one, code(one))).collect();
            lines += news(&mut troubles, 0, &has, ms as u64 * 1000).len();
            assert!(troubles.by_dc["west"].said.len() <= 8);
        }
        assert!((64..=84).contains(&lines), "{lines} lines in 20 s");
        let parked = Trouble::Parked { namespace: "demo".to_owned(), code: 20 };
        let mut last = news(&mut troubles, 0, std::slice::from_ref(&parked), 20_000_000);
        assert!(!troubles.by_dc["west"].is_told);
        for s in 21..60 {
            last.extend(troubles.by_dc.get_mut("west").unwrap().news(s * 1_000_000));
        }
        assert!(last.contains(&News::Begun(parked.clone())));
        assert_eq!(troubles.by_dc["west"].said, [parked]);
        assert!(troubles.by_dc["west"].is_told);
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
