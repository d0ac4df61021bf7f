//! A writer: its keys, what it asks of the node until the node dies, and reading its keys back.

use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use longship::model::Digest;
use longship::wire::request::Address;
use longship::wire::{Head, Reply, ResultCode};

use super::model::{Answer, Crash, Key, State, Verdict};
use crate::client::{Client, ClientError};
use crate::content::{BIN_COUNT, Content, finalize};

pub(super) const NAMESPACE: &str = "demo";
const SET: &str = "keys";
/// Keys of a writer: few enough that each is overwritten often.
const KEYS: u64 = 2000;
/// Connections to each shard.
const CONNECTIONS: usize = 2;
/// Requests in flight on each.
const PIPELINE: usize = 32;
/// Violations named one by one, per comparison.
const EXAMPLES_MAX: usize = 5;

/// What a comparison found, or many.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    pub(super) lost: u64,
    pub(super) back_from_the_dead: u64,
    /// Records that could not be read, or hold what was never written to them.
    pub(super) damaged: u64,
    pub(super) examples: Vec<String>,
}

impl Findings {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.back_from_the_dead += other.back_from_the_dead;
        self.damaged += other.damaged;
        self.examples.extend(other.examples);
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.lost + self.damaged == 0
    }
}

/// One writer. Others have other keys.
pub(super) struct Writer {
    content: Content,
    keys: Vec<Key>,
    random: u64,
    revision: u64,
    /// Room for the next request's key and bins.
    key: Vec<u8>,
    bins: Vec<u8>,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
}

/// An operation under way: its key, and its number there.
type Sent = (u64, usize);

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
        let content = Content {
            namespace: NAMESPACE.into(),
            set: SET.into(),
            records: KEYS,
            value_bytes: 0,
            update_percent: 0,
            delete_percent: 0,
            seed,
        };
        Self {
            content,
            keys: vec![Key::default(); KEYS as usize],
            random: seed,
            revision: 0,
            key: Vec::new(),
            bins: Vec::new(),
            acknowledged: 0,
            refused: 0,
        }
    }

    /// Puts, overwrites and deletes until the node is gone. An error before `killed` is one.
    pub(super) fn write(&mut self, seed: &str, killed: &AtomicBool) -> Result<(), ClientError> {
        match self.write_on(seed) {
            Err(_) if killed.load(Ordering::SeqCst) => Ok(()),
            ended => ended,
        }
    }

    fn write_on(&mut self, seed: &str) -> Result<(), ClientError> {
        let mut client = Client::connect(seed, NAMESPACE, CONNECTIONS, PIPELINE)?;
        loop {
            self.step(&mut client)?;
        }
    }

    /// Sends one operation: three writes for one delete, each to any key.
    fn step(&mut self, client: &mut Client<Sent>) -> Result<(), ClientError> {
        self.random = finalize(self.random);
        let record = self.random % KEYS;
        let is_delete = (self.random >> 32).is_multiple_of(4);
        self.revision += 1;
        let state = (!is_delete).then_some(self.revision);
        let operation = self.keys[record as usize].submit(state);
        let (mut key, mut bins) = (take(&mut self.key), take(&mut self.bins));
        self.content.key(record, &mut key);
        let digest = self.content.digest(&key);
        let address = Address { namespace: NAMESPACE, set: SET, digest };
        bins.clear();
        if !is_delete {
            self.content.value_bytes = value_bytes(self.revision);
            self.content.push_bins(record, self.revision, &mut bins);
        }
        let encode = |out: &mut Vec<u8>| match is_delete {
            true => address.remove().push(0, &[], out),
            false => Head { key: &key, ..address.put() }.push(BIN_COUNT, &bins, out),
        };
        client.send(&digest, (record, operation), encode, &mut |sent, at, reply| {
            self.take(sent, at, reply.code());
        })?;
        (self.key, self.bins) = (key, bins);
        Ok(())
    }

    fn take(&mut self, (record, operation): Sent, at: Instant, code: ResultCode) {
        let answer = match code {
            // What a delete does not find is deleted: the state it was to leave.
            ResultCode::OK | ResultCode::NOT_FOUND => {
                self.acknowledged += 1;
                Answer::Acknowledged(at)
            }
            _ => {
                self.refused += 1;
                Answer::Refused
            }
        };
        self.keys[record as usize].answer(operation, answer);
    }

    /// Every key's number and digest.
    pub(super) fn digests(&self) -> impl Iterator<Item = (u64, Digest)> {
        let mut key = Vec::new();
        (0..KEYS).map(move |record| {
            self.content.key(record, &mut key);
            (record, self.content.digest(&key))
        })
    }

    /// Whether no operation that leaves a key in this state was answered, and one is under way.
    pub(super) fn is_unanswered(&self, record: u64, state: State) -> bool {
        self.keys[record as usize].is_unanswered(state)
    }

    /// Reads every key back, judges it, and goes on from what was found.
    pub(super) fn compare(&mut self, seed: &str, crash: &Crash) -> Result<Findings, ClientError> {
        let mut client = Client::connect(seed, NAMESPACE, 1, PIPELINE)?;
        let mut findings = Findings::default();
        let (mut key, mut scratch) = (Vec::new(), Vec::new());
        for record in 0..KEYS {
            self.content.key(record, &mut key);
            let digest = self.content.digest(&key);
            let address = Address { namespace: NAMESPACE, set: SET, digest };
            let encode = |out: &mut Vec<u8>| address.get().push(0, &[], out);
            client.send(&digest, record, encode, &mut |record, _, reply| {
                self.judge(record, &reply, crash, &mut scratch, &mut findings);
            })?;
        }
        client.settle(&mut |record, _, reply| {
            self.judge(record, &reply, crash, &mut scratch, &mut findings);
        })?;
        Ok(findings)
    }

    fn judge(
        &mut self,
        record: u64,
        reply: &Reply<'_>,
        crash: &Crash,
        scratch: &mut Vec<u8>,
        findings: &mut Findings,
    ) {
        let found = self.state_of(record, reply, scratch);
        let key = &mut self.keys[record as usize];
        let mut example = |text: String| {
            if findings.examples.len() < EXAMPLES_MAX {
                findings.examples.push(format!("key {:x}-{record}: {text}", self.content.seed));
            }
        };
        let Ok(found) = found else {
            findings.damaged += 1;
            example(format!("answers {}, with bins nobody wrote to it", reply.code()));
            return key.settle(None);
        };
        match key.judge(found, crash) {
            Verdict::Kept => {}
            Verdict::Lost { operations, expected } => {
                findings.lost += operations;
                example(format!("holds {found:?}, must hold {expected:?} or a later revision"));
            }
            Verdict::BackFromTheDead { operations } => {
                findings.lost += operations;
                findings.back_from_the_dead += 1;
                example(format!("holds {found:?}, was deleted"));
            }
        }
        key.settle(found);
    }

    /// What a reply says a key holds; an error when that is nothing that was ever written to it.
    fn state_of(
        &mut self,
        record: u64,
        reply: &Reply<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<State, ()> {
        match reply.code() {
            ResultCode::NOT_FOUND => Ok(None),
            ResultCode::OK => {
                let revision = reply.ops.into_iter().find(|op| op.name == b"rev");
                let revision = revision.and_then(|op| op.value.try_into().ok());
                let revision = u64::from_be_bytes(revision.ok_or(())?);
                self.content.value_bytes = value_bytes(revision);
                let is_whole = self.content.matches_revision(record, revision, reply.ops, scratch);
                if is_whole { Ok(Some(revision)) } else { Err(()) }
            }
            _ => Err(()),
        }
    }
}

/// Mostly small records, now and then one over many device pages.
fn value_bytes(revision: u64) -> usize {
    let draw = finalize(revision);
    let bytes = if draw.is_multiple_of(64) { 30_000 } else { 1000 };
    ((draw >> 32) % bytes) as usize
}

#[cfg(test)]
impl Writer {
    /// Notes the next revision of a key as sent, and perhaps as answered; its digest and bins.
    pub(super) fn submit_for_test(&mut self, record: u64, answered: bool) -> (Digest, Vec<u8>) {
        self.revision += 1;
        let operation = self.keys[record as usize].submit(Some(self.revision));
        if answered {
            let answer = Answer::Acknowledged(Instant::now());
            self.keys[record as usize].answer(operation, answer);
        }
        let (mut key, mut bins) = (Vec::new(), Vec::new());
        self.content.key(record, &mut key);
        self.content.value_bytes = value_bytes(self.revision) % 1000;
        self.content.push_bins(record, self.revision, &mut bins);
        (self.content.digest(&key), bins)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::standin::StandIn;

    #[test]
    fn a_writer_recognises_its_records_and_what_was_done_to_them() {
        let cluster = StandIn::start(2);
        let seed = cluster.seed();
        let mut writer = Writer::new(5);
        let mut client = Client::connect(&seed, NAMESPACE, CONNECTIONS, PIPELINE).unwrap();
        (0..3 * KEYS).for_each(|_| writer.step(&mut client).unwrap());
        client.settle(&mut |sent, at, reply| writer.take(sent, at, reply.code())).unwrap();
        assert_eq!((writer.acknowledged, writer.refused), (3 * KEYS, 0));
        let compare = |writer: &mut Writer| {
            let crash = Crash { at: Instant::now(), window: Duration::ZERO };
            let found = writer.compare(&seed, &crash).unwrap();
            (found.lost, found.back_from_the_dead, found.damaged, found.examples.len())
        };
        assert_eq!(compare(&mut writer), (0, 0, 0, 0));

        let mut key = Vec::new();
        let mut tamper = |record: u64, change: &dyn Fn(&mut Option<Vec<u8>>)| {
            writer.content.key(record, &mut key);
            cluster.tamper(writer.content.digest(&key), change);
        };
        let mut bins = Vec::new();
        let content = Content { value_bytes: value_bytes(1), ..Writer::new(5).content };
        (0..KEYS).for_each(|record| {
            bins.clear();
            content.push_bins(record, 1, &mut bins);
            tamper(record, &|record| *record = Some(bins.clone()));
        });
        let (lost, from_the_dead, damaged, examples) = compare(&mut writer);
        assert!((KEYS - 1..=KEYS).contains(&lost), "one may truly hold revision 1: {lost}");
        assert!(from_the_dead > KEYS / 8 && from_the_dead < KEYS / 2, "{from_the_dead}");
        assert_eq!((damaged, examples), (0, EXAMPLES_MAX));

        let mut tamper = |record: u64, change: &dyn Fn(&mut Option<Vec<u8>>)| {
            writer.content.key(record, &mut key);
            cluster.tamper(writer.content.digest(&key), change);
        };
        tamper(7, &|record| *record.as_mut().unwrap().last_mut().unwrap() ^= 1);
        tamper(8, &|record| *record = None);
        assert_eq!(compare(&mut writer), (1, 0, 1, 2));
        assert_eq!(compare(&mut writer).0, 0);
    }
}
