//! Which records have a dead letter, so that it leaves when its cause has: a newer version of the
//! record was settled, or the record is gone.

use std::collections::HashMap;

use super::dc::DcShard;
use crate::model::{Digest, Lut, NamespaceId};

/// Letters of one namespace of a DC on one shard, as far as they are durable.
#[derive(Debug, Default)]
pub(super) struct Lettered {
    /// The LUT of the change each one is about.
    records: HashMap<Digest, Lut>,
    /// Letters that are not needed any more: those of changes of the record below the LUT.
    outdated: Vec<(Digest, Lut)>,
    /// Where the next look for records that are gone begins.
    looked_at: usize,
}

impl Lettered {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn keep(&mut self, digest: Digest, lut: Lut) {
        let kept = self.records.entry(digest).or_insert(lut);
        *kept = lut.max(*kept);
    }

    /// Changes of the record before `lut` are settled.
    #[cold]
    pub(super) fn settled(&mut self, digest: &Digest, lut: Lut) {
        if self.records.get(digest).is_some_and(|kept| *kept < lut) {
            self.records.remove(digest);
            self.outdated.push((*digest, lut));
        }
    }
}

impl DcShard {
    /// Takes letters of a namespace that were kept before it was attached.
    pub fn letters_known(
        &mut self,
        namespace: NamespaceId,
        records: impl Iterator<Item = (Digest, Lut)>,
    ) {
        if let Some(ns) = self.attached_mut(namespace) {
            records.for_each(|(digest, lut)| ns.letters.keep(digest, lut));
        }
    }

    /// Letters that have left for another reason: they were replayed and have settled.
    pub fn letters_gone(&mut self, namespace: NamespaceId, records: &[Digest]) {
        if let Some(ns) = self.attached_mut(namespace) {
            records.iter().for_each(|digest| _ = ns.letters.records.remove(digest));
        }
    }

    /// Moves out the letters of a namespace that are not needed any more: each record, and what the
    /// LUT of its letter is below.
    pub fn letters_outdated(&mut self, namespace: NamespaceId) -> Vec<(Digest, Lut)> {
        self.attached_mut(namespace)
            .map(|ns| std::mem::take(&mut ns.letters.outdated))
            .unwrap_or_default()
    }

    /// Looks whether some records with a letter are gone without a change that told of it, such as
    /// one that expired: at most `count`, others the next time.
    pub fn look_for_gone(
        &mut self,
        namespace: NamespaceId,
        count: usize,
        is_gone: impl Fn(&Digest) -> bool,
    ) {
        let Some(ns) = self.attached_mut(namespace) else { return };
        let letters = &mut ns.letters;
        let from = if letters.looked_at < letters.len() { letters.looked_at } else { 0 };
        letters.looked_at = from + count;
        let some = letters.records.keys().skip(from).take(count);
        let gone: Vec<Digest> = some.filter(|digest| is_gone(digest)).copied().collect();
        gone.iter().for_each(|digest| letters.settled(digest, Lut::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest};
    use super::super::{Outcome, Settled};
    use super::*;
    use crate::wire::ResultCode;

    /// Gives up the change of a record and keeps its letter.
    fn lettered(desk: &mut Desk, of: Digest) {
        desk.wait(10).write(of);
        let out = desk.dispatch();
        desk.send(&out[0]);
        let settled = desk.reply(out[0].slot, ResultCode(13));
        let Settled::Abandoned(letter) = settled else { panic!("{settled:?}") };
        desk.dc.letter_kept(letter.slot);
        assert_eq!(desk.dc.letters_outdated(NS), []);
    }

    #[test]
    fn a_letter_is_outdated_when_a_newer_version_has_arrived() {
        let mut desk = Desk::plain();
        lettered(&mut desk, digest(1, 1));
        lettered(&mut desk, digest(1, 2));
        assert_eq!(desk.dc.dc_stats().dead_letters, 2);
        desk.wait(200).write(digest(1, 1));
        desk.ship_all();
        let outdated = desk.dc.letters_outdated(NS);
        let [(of, below)] = outdated[..] else { panic!("{outdated:?}") };
        assert!(of == digest(1, 1) && below.plus_ms(1) >= desk.now().wall);
        assert_eq!(desk.dc.dc_stats().dead_letters, 1);
    }

    #[test]
    fn a_letter_is_outdated_when_its_record_is_gone() {
        let mut desk = Desk::plain();
        lettered(&mut desk, digest(1, 1));
        lettered(&mut desk, digest(1, 2));
        desk.wait(200).write(digest(1, 1));
        let out = desk.dispatch();
        desk.settle(out[0].slot, Outcome::NotFound);
        assert_eq!(desk.dc.letters_outdated(NS), [(digest(1, 1), Lut::MAX)]);
        for _ in 0..2 {
            desk.dc.look_for_gone(NS, 64, |gone| *gone == digest(1, 2));
        }
        assert_eq!(desk.dc.letters_outdated(NS), [(digest(1, 2), Lut::MAX)]);
    }

    #[test]
    fn a_letter_known_from_an_earlier_run_leaves_like_any_other_and_a_replay_is_not_news() {
        let mut desk = Desk::plain();
        desk.wait(500);
        let old = desk.now().wall;
        desk.dc.letters_known(NS, [(digest(7, 1), old)].into_iter());
        let now = desk.now();
        desk.change(digest(7, 1));
        desk.dc.resubmit(NS, digest(7, 1), old, "", now);
        assert_eq!(desk.ship_all().len(), 1);
        assert_eq!(desk.dc.letters_outdated(NS), [], "its replay settles in its own way");
        desk.wait(200).write(digest(7, 1));
        desk.ship_all();
        assert_eq!(desk.dc.letters_outdated(NS).len(), 1);
    }
}
