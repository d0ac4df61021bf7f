//! Changes that were given up: how their dead letters get to the control loop, which keeps them,
//! and what becomes of kept ones.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::DcEngine;
use crate::dest::Destination;
use crate::engine::control::{Burial, Left, Notice};
use crate::engine::letters::Leaving;
use crate::engine::letters::{Letter, LetterState};
use crate::host::{Host, Peek};
use crate::model::{DcIndex, Digest, Lut, NamespaceId, ShardIndex};
use crate::ship::mutation::{Mutation, planted};
use crate::ship::{Abandoned, Admission, Cause, Now};
use crate::wire::hello::NamespaceStore;

/// Records with a dead letter that are looked for in one sweep.
const LETTER_LOOKS: usize = 64;

/// Letters that are on their way.
#[derive(Default)]
pub(super) struct GivenUp {
    /// Not told yet.
    pub(super) letters: Vec<(u32, Letter)>,
    /// Their record has to be read to tell its set and key.
    pub(super) unread: Vec<(u32, NamespaceId, Letter)>,
    /// Replayed, each with a LUT: the highest of the version clock then, its lane's LST, its
    /// letter's LUT and that of the newest change that it ships with. While it waits the LST is no
    /// higher, so a mark beyond says that it is settled.
    replays: Vec<(NamespaceId, Digest, Lut)>,
    /// For the control loop, which keeps the letters.
    pub(super) news: Vec<Notice>,
    /// How often it was told that letters leave.
    leavings: u64,
    /// How often it had been when positions of a namespace were taken last.
    taken: HashMap<NamespaceId, u64>,
}

impl GivenUp {
    fn leave(&mut self, shard: u16) -> Leaving {
        self.leavings += 1;
        Leaving { shard: ShardIndex(shard), number: self.leavings }
    }

    /// Passes on what a node says of its cluster's stores.
    pub(super) fn tell_stores(&mut self, dc: DcIndex, boot: u64, stores: Vec<NamespaceStore>) {
        if !stores.is_empty() {
            self.news.push(Notice::Stores { dc, boot, stores });
        }
    }

    /// Writes a letter about a change that was given up. A record that is only on the device is read
    /// first: the letter tells its set and key.
    pub(super) fn bury<H: Host>(
        &mut self,
        abandoned: Abandoned,
        (dc, namespaces): (&str, &[String]),
        host: &H,
        now: Now,
    ) {
        let Abandoned { slot, namespace, digest, lut, cause } = abandoned;
        let mut is_unread = false;
        let (set, key) = match host.peek(namespace, &digest) {
            Peek::Here(record) => (record.set.to_owned(), record.key.to_vec()),
            Peek::Gone => Default::default(),
            Peek::OnDevice => {
                is_unread = cause != Cause::Unreadable;
                Default::default()
            }
        };
        let letter = Letter {
            dc: dc.to_owned(),
            namespace: namespaces[namespace.index()].clone(),
            set,
            key,
            digest,
            lut,
            code: match cause {
                Cause::Refused(code) => i16::from(code.0),
                Cause::Unreadable => -1,
            },
            at: now.wall,
            state: LetterState::Kept,
        };
        if is_unread {
            self.unread.push((slot, namespace, letter));
        } else {
            self.letters.push((slot, letter));
        }
    }
}

impl<H: Host, D: Destination> DcEngine<H, D> {
    /// What the control loop is to be told since the last call.
    pub fn take_news(&mut self) -> Vec<Notice> {
        let letters = std::mem::take(&mut self.given_up.letters);
        if !letters.is_empty() {
            // What is outdated so far is not to take these with it.
            self.tell_outdated_letters();
            let (shard, dc) = (ShardIndex(self.shard), self.index);
            self.given_up.news.push(Notice::Abandoned(Burial { shard, dc, letters }));
        }
        std::mem::take(&mut self.given_up.news)
    }

    /// Takes what became of letters: whether each is kept, and if not, why.
    pub fn buried(&mut self, slots: &[(u32, bool)], refusal: Option<String>, now: Now) {
        if let Some(why) = refusal {
            self.watch.letters_refused(why, now.tick);
        }
        for &(slot, is_kept) in slots {
            if is_kept {
                self.rules.letter_kept(slot);
            } else {
                self.rules.letter_refused(slot, now);
            }
        }
    }

    /// Takes letters of this DC that were kept before.
    pub fn letters_kept(&mut self, namespace: NamespaceId, records: &[(Digest, Lut)]) {
        let (shard, count) = (self.shard, self.shard_count);
        let mine = |digest: &Digest| digest.partition().shard(count).0 == shard;
        let mine = records.iter().copied().filter(|(digest, _)| mine(digest));
        self.rules.letters_known(namespace, mine);
    }

    /// Takes up changes that were given up. [`Self::take_news`] tells which its lanes took.
    pub fn replay(&mut self, host: &H, namespace: NamespaceId, letters: &[Letter], now: Now) {
        // What came to nothing before is no end of these.
        self.note_dropped_replays();
        let clock = host.version_clock(namespace);
        let (shard, count) = (self.shard, self.shard_count);
        let mine = |letter: &&Letter| letter.digest.partition().shard(count).0 == shard;
        let mut taken = Vec::new();
        for Letter { digest, lut, .. } in letters.iter().filter(mine) {
            match self.rules.resubmit(namespace, *digest, *lut, now) {
                // Its letter stays as it is, to be replayed later.
                Admission::NotShipped | Admission::NoRoom => {}
                // A writer that is late holds the clock behind all three.
                _ => {
                    let lst = self.rules.lst(namespace, digest.partition()).unwrap_or_default();
                    // It may have joined a newer change.
                    let joined = self.rules.newest_under_way(namespace, digest).unwrap_or_default();
                    taken.push((*digest, clock.max(lst).max(joined).max(*lut)));
                }
            }
        }
        let replays = &mut self.given_up.replays;
        // One that was replayed before and given up again has a new letter, which stays until this
        // replay is settled, not the former.
        let again: HashSet<&Digest> = taken.iter().map(|(digest, _)| digest).collect();
        replays.retain(|(of, digest, _)| *of != namespace || !again.contains(digest));
        replays.extend(taken.iter().map(|(digest, upto)| (namespace, *digest, *upto)));
        let taken = taken.into_iter().map(|(digest, _)| digest).collect();
        let (dc, namespace) = self.names(namespace);
        self.given_up.news.push(Notice::Replayed { dc, namespace, taken });
    }

    /// The DC and a namespace, as the control loop knows them.
    fn names(&self, namespace: NamespaceId) -> (String, String) {
        (self.name.clone(), self.namespaces[namespace.index()].clone())
    }

    /// Tells of replays that came to nothing: their letters stay, to be replayed again. So does the
    /// letter of a record that was given up since its replay, be it the replay itself or a newer
    /// change.
    fn note_dropped_replays(&mut self) {
        let given_up: BTreeSet<(NamespaceId, Digest)> =
            self.rules.take_dropped_replays().into_iter().collect();
        if given_up.is_empty() {
            return;
        }
        let dropped = self
            .given_up
            .replays
            .extract_if(.., |(namespace, digest, _)| given_up.contains(&(*namespace, *digest)));
        let dropped = by_namespace(dropped.map(|(namespace, digest, _)| (namespace, digest)));
        self.tell_dropped(dropped);
    }

    /// A destination may have lost what it took. Marks see to the rest, and are past what is replayed:
    /// letters stay until another replay.
    pub(super) fn drop_replays(&mut self) {
        let dropped = std::mem::take(&mut self.given_up.replays);
        let dropped = dropped.into_iter().map(|(namespace, digest, _)| (namespace, digest));
        self.tell_dropped(by_namespace(dropped));
    }

    fn tell_dropped(&mut self, dropped: BTreeMap<NamespaceId, Vec<Digest>>) {
        for (id, letters) in dropped {
            let (dc, namespace) = self.names(id);
            self.given_up.news.push(Notice::ReplayDropped { dc, namespace, letters });
        }
    }

    /// Tells of replayed letters that are settled for good: their marks are past the replay, which
    /// no restart of the destination takes back.
    pub(super) fn note_settled_replays(&mut self) {
        self.note_dropped_replays();
        let (rules, mut settled, mut detached) = (&self.rules, Vec::new(), Vec::new());
        self.given_up.replays.retain(|(namespace, digest, clock)| {
            match rules.mark(*namespace, digest.partition()) {
                Some(mark) if mark <= *clock && !planted(Mutation::ReplayBelieved) => return true,
                Some(_) => settled.push((*namespace, *digest)),
                None => detached.push((*namespace, *digest)),
            }
            false
        });
        self.tell_dropped(by_namespace(detached.into_iter()));
        for (id, letters) in by_namespace(settled.into_iter()) {
            self.rules.letters_gone(id, &letters);
            let (dc, namespace) = self.names(id);
            let leaving = self.given_up.leave(self.shard);
            self.given_up.news.push(Notice::ReplaySettled { dc, namespace, letters, leaving });
        }
    }

    /// Tells of letters whose records have changed since, or are gone.
    pub(super) fn note_outdated_letters(&mut self, host: &H) {
        let attached: Vec<NamespaceId> = self.rules.attached_ids().collect();
        for id in attached {
            self.rules.look_for_gone(id, LETTER_LOOKS, |digest| {
                matches!(host.peek(id, digest), Peek::Gone)
            });
        }
        self.tell_outdated_letters();
    }

    fn tell_outdated_letters(&mut self) {
        let attached: Vec<NamespaceId> = self.rules.attached_ids().collect();
        for id in attached {
            let records = self.rules.letters_outdated(id);
            if !records.is_empty() {
                let (dc, namespace) = self.names(id);
                let leaving = self.given_up.leave(self.shard);
                self.given_up.news.push(Notice::LettersOutdated {
                    dc,
                    namespace,
                    records,
                    leaving,
                });
            }
        }
    }

    /// Positions of a namespace are taken now: letters that leave by them go with them. Then
    /// [`Self::take_news`] tells which.
    pub fn take_left(&mut self, namespace: NamespaceId) {
        self.note_settled_replays();
        self.tell_outdated_letters();
        self.given_up.taken.insert(namespace, self.given_up.leavings);
    }

    /// Letters that leave with the positions of a namespace that were taken last.
    pub fn left(&self, namespace: NamespaceId) -> Option<Left> {
        let number = *self.given_up.taken.get(&namespace)?;
        let upto = Leaving { shard: ShardIndex(self.shard), number };
        Some(Left { dc: self.index, namespace, upto })
    }
}

fn by_namespace(
    records: impl Iterator<Item = (NamespaceId, Digest)>,
) -> BTreeMap<NamespaceId, Vec<Digest>> {
    let mut sorted: BTreeMap<NamespaceId, Vec<Digest>> = BTreeMap::new();
    records.for_each(|(namespace, digest)| sorted.entry(namespace).or_default().push(digest));
    sorted
}
