//! Changes that were given up: their dead letters on the way to whoever keeps them, and what becomes
//! of those that are kept.

use std::collections::{BTreeMap, HashSet};

use super::DcEngine;
use crate::dest::Destination;
use crate::engine::letters::Letter;
use crate::host::{Host, Peek};
use crate::model::{Digest, Lut, NamespaceId};
use crate::ship::{Abandoned, Admission, Cause, Now};

/// Records with a dead letter that are looked for in one sweep.
const LETTER_LOOKS: usize = 64;

/// Something whoever keeps the letters is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Changes were given up, each under its slot: their letters are to be kept.
    Abandoned(Vec<(u32, Letter)>),
    /// Letters are not needed any more: each record, and what the LUT of its letter is below.
    LettersOutdated(NamespaceId, Vec<(Digest, Lut)>),
    /// Replayed letters are settled for good.
    ReplaySettled(NamespaceId, Vec<Digest>),
    /// Replays were given up: the letters stay as they are.
    ReplayDropped(NamespaceId, Vec<Digest>),
}

/// Letters that are on their way.
#[derive(Default)]
pub(super) struct GivenUp {
    /// Not told yet.
    pub(super) letters: Vec<(u32, Letter)>,
    /// Their record has to be read to tell its set and key.
    pub(super) unread: Vec<(u32, NamespaceId, Letter)>,
    /// Replayed, each at a version clock: a mark above it says that it is settled.
    replays: Vec<(NamespaceId, Digest, Lut)>,
    news: Vec<News>,
}

impl GivenUp {
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
            is_replayed: false,
        };
        if is_unread {
            self.unread.push((slot, namespace, letter));
        } else {
            self.letters.push((slot, letter));
        }
    }
}

impl<H: Host, D: Destination> DcEngine<H, D> {
    /// What is to be told since the last call.
    pub fn take_news(&mut self) -> Vec<News> {
        let letters = std::mem::take(&mut self.given_up.letters);
        if !letters.is_empty() {
            self.given_up.news.push(News::Abandoned(letters));
        }
        std::mem::take(&mut self.given_up.news)
    }

    /// Takes what became of letters: whether each is kept.
    pub fn buried(&mut self, slots: &[(u32, bool)], now: Now) {
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

    /// Takes up changes that were given up. Tells which its lanes took.
    pub fn replay(
        &mut self,
        host: &H,
        namespace: NamespaceId,
        letters: &[Letter],
        now: Now,
    ) -> Vec<Digest> {
        let clock = host.version_clock(namespace);
        let (shard, count) = (self.shard, self.shard_count);
        let mine = |letter: &&Letter| letter.digest.partition().shard(count).0 == shard;
        let mut taken = Vec::new();
        for Letter { digest, lut, set, .. } in letters.iter().filter(mine) {
            match self.rules.resubmit(namespace, *digest, *lut, set, now) {
                // Its letter stays as it is, to be replayed later.
                Admission::NotShipped | Admission::NoRoom => {}
                _ => taken.push(*digest),
            }
        }
        let replays = &mut self.given_up.replays;
        // One that was replayed before and given up again has a new letter, which stays until this
        // replay is settled, not the former.
        let again: HashSet<&Digest> = taken.iter().collect();
        replays.retain(|(of, digest, _)| *of != namespace || !again.contains(digest));
        replays.extend(taken.iter().map(|digest| (namespace, *digest, clock)));
        taken
    }

    /// Tells of replayed letters that are settled for good: their marks are past the replay, which
    /// no restart of the destination takes back.
    pub(super) fn note_settled_replays(&mut self) {
        let GivenUp { replays, news, .. } = &mut self.given_up;
        if replays.is_empty() {
            return;
        }
        let rules = &mut self.rules;
        let mut settled: BTreeMap<NamespaceId, Vec<Digest>> = BTreeMap::new();
        let mut dropped: BTreeMap<NamespaceId, Vec<Digest>> = BTreeMap::new();
        for (namespace, digest) in rules.take_dropped_replays() {
            dropped.entry(namespace).or_default().push(digest);
        }
        replays.retain(|(namespace, digest, clock)| {
            if dropped.get(namespace).is_some_and(|dropped| dropped.contains(digest)) {
                return false;
            }
            match rules.mark(*namespace, digest.partition()) {
                Some(mark) if mark <= *clock => return true,
                Some(_) => settled.entry(*namespace).or_default().push(*digest),
                // The namespace was detached.
                None => dropped.entry(*namespace).or_default().push(*digest),
            }
            false
        });
        for (namespace, letters) in dropped {
            news.push(News::ReplayDropped(namespace, letters));
        }
        for (namespace, letters) in settled {
            rules.letters_gone(namespace, &letters);
            news.push(News::ReplaySettled(namespace, letters));
        }
    }

    /// Tells of letters whose records have changed since.
    pub(super) fn note_outdated_letters(&mut self, host: &H) {
        let rules = &mut self.rules;
        let attached: Vec<NamespaceId> = rules.attached_ids().collect();
        for id in attached {
            rules.look_for_gone(id, LETTER_LOOKS, |digest| {
                matches!(host.peek(id, digest), Peek::Gone)
            });
            let records = rules.letters_outdated(id);
            if !records.is_empty() {
                self.given_up.news.push(News::LettersOutdated(id, records));
            }
        }
    }
}
