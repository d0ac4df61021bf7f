//! Which records have a dead letter, so that it leaves when its cause has: a newer version of the
//! record is settled for good, or the record is gone.
//!
//! A crash of the destination may take back what it has acknowledged, so a letter stays until its
//! lane's mark is past that. A crash of the source may take back the newer version. The control
//! loop, which keeps the letters, sees to that: a letter leaves its file only with the positions
//! that are taken next ([`Left`](crate::engine::Left)).

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use super::dc::DcShard;
use crate::model::{Digest, DigestMap, Lut, NamespaceId};

/// Letters of one namespace of a DC on one shard.
#[derive(Debug, Default)]
pub(super) struct Lettered {
    /// Letters that are durable: the record, and the LUT of the change that was given up.
    records: BTreeMap<Digest, Lut>,
    /// Letters that are not known to be durable yet.
    coming: DigestMap<Coming>,
    /// Records with a letter of which changes below the LUT are settled, to leave with the mark.
    settled: DigestMap<Lut>,
    /// Letters that are not needed any more: those of changes of the record below the LUT.
    outdated: Vec<(Digest, Lut)>,
    /// Those are known that were kept before the namespace was attached.
    is_told: bool,
    /// Where the next look for records that are gone begins.
    looked_at: usize,
}

/// Letters of a record that are on their way to their file.
#[derive(Debug, Default)]
struct Coming {
    count: u32,
    /// Changes before this were settled meanwhile.
    settled: Lut,
}

impl Lettered {
    /// Whether nothing is to be told of what settles.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.coming.is_empty()
    }

    /// A change of the record was given up.
    pub(super) fn expect(&mut self, digest: Digest) {
        self.coming.entry(digest).or_default().count += 1;
    }

    /// What became of its letter is known. Tells which changes of the record were settled meanwhile.
    pub(super) fn arrive(&mut self, digest: Digest) -> Lut {
        let Entry::Occupied(mut coming) = self.coming.entry(digest) else { return Lut::ZERO };
        coming.get_mut().count -= 1;
        let settled = coming.get().settled;
        if coming.get().count == 0 {
            coming.remove();
        }
        settled
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn keep(&mut self, digest: Digest, lut: Lut) {
        let kept = self.records.entry(digest).or_insert(lut);
        *kept = lut.max(*kept);
        // What settled before says nothing of this one.
        self.settled.remove(&digest);
    }

    /// Changes of the record before `lut` are settled.
    #[cold]
    pub(super) fn settled(&mut self, digest: &Digest, lut: Lut) {
        if let Some(coming) = self.coming.get_mut(digest) {
            coming.settled = lut.max(coming.settled);
        }
        let Some(kept) = self.records.get(digest).filter(|kept| **kept < lut) else { return };
        // The first that is enough: its mark is there first.
        let settled = self.settled.entry(*digest).or_insert(lut);
        if *settled <= *kept {
            *settled = lut;
        }
    }

    /// Letters of changes of the record before `lut` are not needed any more.
    fn leave(&mut self, digest: Digest, lut: Lut) {
        if self.records.get(&digest).is_some_and(|kept| *kept < lut) {
            self.records.remove(&digest);
            self.outdated.push((digest, lut));
        }
    }
}

impl DcShard {
    /// Takes letters of a namespace that were kept before it was attached: the first time it is told.
    /// What has become of them since is known better here.
    pub fn letters_known(
        &mut self,
        namespace: NamespaceId,
        records: impl Iterator<Item = (Digest, Lut)>,
    ) {
        if let Some(ns) = self.attached_mut(namespace)
            && !std::mem::replace(&mut ns.letters.is_told, true)
        {
            records.for_each(|(digest, lut)| ns.letters.keep(digest, lut));
        }
    }

    /// Letters that have left for another reason: they were replayed and have settled.
    pub fn letters_gone(&mut self, namespace: NamespaceId, records: &[Digest]) {
        if let Some(ns) = self.attached_mut(namespace) {
            for digest in records {
                ns.letters.records.remove(digest);
                ns.letters.settled.remove(digest);
            }
        }
    }

    /// Moves out the letters of a namespace that are not needed any more: each record, and what the
    /// LUT of its letter is below.
    pub fn letters_outdated(&mut self, namespace: NamespaceId) -> Vec<(Digest, Lut)> {
        let Some(ns) = self.attached_mut(namespace) else { return Vec::new() };
        let mut settled = std::mem::take(&mut ns.letters.settled);
        let is_safe = |digest: &Digest, lut: &mut Lut| {
            self.mark(namespace, digest.partition()).is_some_and(|mark| mark > *lut)
        };
        let safe: Vec<_> = settled.extract_if(is_safe).collect();
        let Some(ns) = self.attached_mut(namespace) else { return Vec::new() };
        ns.letters.settled = settled;
        safe.into_iter().for_each(|(digest, lut)| ns.letters.leave(digest, lut));
        std::mem::take(&mut ns.letters.outdated)
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
        // What was written since has letters of its own.
        let (letters, below) = (&mut ns.letters, ns.clock);
        let from = if letters.looked_at < letters.len() { letters.looked_at } else { 0 };
        letters.looked_at = from + count;
        let some = letters.records.keys().skip(from).take(count);
        let gone: Vec<Digest> = some.filter(|digest| is_gone(digest)).copied().collect();
        gone.into_iter().for_each(|digest| letters.leave(digest, below));
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

    /// The letters that leave once marks have followed.
    fn leaves(desk: &mut Desk) -> Vec<(Digest, Lut)> {
        desk.wait(20_000).sweep();
        desk.dc.letters_outdated(NS)
    }

    #[test]
    fn a_letter_stays_when_a_crash_takes_the_newer_version_back() {
        let mut desk = Desk::plain();
        desk.dc.node_window(0, 1000);
        lettered(&mut desk, digest(1, 1));
        desk.wait(200).write(digest(1, 1));
        let out = desk.dispatch();
        desk.send(&out[0]);
        desk.ok(out[0].slot);
        desk.dc.node_restarted(0);
        desk.sweep();
        assert_eq!(desk.dc.letters_outdated(NS), []);
        assert_eq!(desk.dc.dc_stats().dead_letters, 1);
        assert_eq!(desk.wait(100).begin_walk().map(|walk| walk.lanes.len()), Some(1));
    }

    #[test]
    fn a_letter_is_outdated_when_a_newer_version_has_arrived() {
        let mut desk = Desk::plain();
        lettered(&mut desk, digest(1, 1));
        lettered(&mut desk, digest(1, 2));
        assert_eq!(desk.dc.dc_stats().dead_letters, 2);
        desk.wait(200).write(digest(1, 1));
        desk.ship_all();
        let arrived = desk.now().wall;
        assert_eq!(desk.dc.letters_outdated(NS), [], "a crash could take it back");
        let outdated = leaves(&mut desk);
        let [(of, below)] = outdated[..] else { panic!("{outdated:?}") };
        assert!(of == digest(1, 1) && below.plus_ms(1) >= arrived);
        assert_eq!(desk.dc.dc_stats().dead_letters, 1);
    }

    #[test]
    fn a_newer_letter_does_not_leave_with_what_outdated_the_former() {
        let (mut letters, of) = (Lettered::default(), digest(1, 1));
        letters.keep(of, Lut::from_ms(10));
        letters.settled(&of, Lut::from_ms(20));
        assert_eq!(letters.settled.get(&of), Some(&Lut::from_ms(20)));
        // Given up since, though older than what had covered the first: as where a clock stands.
        letters.keep(of, Lut::from_ms(15));
        assert_eq!(letters.settled.get(&of), None);
    }

    #[test]
    fn a_letter_is_outdated_when_its_record_is_gone() {
        let mut desk = Desk::plain();
        lettered(&mut desk, digest(1, 1));
        lettered(&mut desk, digest(1, 2));
        desk.wait(200).write(digest(1, 1));
        let out = desk.dispatch();
        desk.settle(out[0].slot, Outcome::NotFound);
        let clock = desk.now().wall;
        assert_eq!(leaves(&mut desk), [(digest(1, 1), clock.plus_ms(1))]);
        desk.dc.note_clock(|_| clock);
        for _ in 0..2 {
            desk.dc.look_for_gone(NS, 64, |gone| *gone == digest(1, 2));
        }
        assert_eq!(desk.dc.letters_outdated(NS), [(digest(1, 2), clock)]);
    }

    #[test]
    fn a_letter_on_its_way_is_outdated_by_what_arrives_before_it() {
        for is_gone in [false, true] {
            let mut desk = Desk::plain();
            desk.wait(10).write(digest(1, 1));
            let out = desk.dispatch();
            desk.send(&out[0]);
            let Settled::Abandoned(letter) = desk.reply(out[0].slot, ResultCode(13)) else {
                panic!("not given up")
            };
            desk.wait(200).write(digest(1, 1));
            if is_gone {
                let out = desk.dispatch();
                desk.settle(out[0].slot, Outcome::NotFound);
            } else {
                desk.ship_all();
            }
            assert_eq!(desk.dc.letters_outdated(NS), []);
            desk.dc.letter_kept(letter.slot);
            assert_eq!(leaves(&mut desk).len(), 1, "it has to leave again");
            assert_eq!(desk.dc.dc_stats().dead_letters, 0);
        }
    }

    #[test]
    fn a_letter_known_from_an_earlier_run_leaves_like_any_other_and_a_replay_is_not_news() {
        let mut desk = Desk::plain();
        desk.wait(500);
        let old = desk.now().wall;
        desk.dc.letters_known(NS, [(digest(7, 1), old)].into_iter());
        let now = desk.now();
        desk.change(digest(7, 1));
        desk.dc.resubmit(NS, digest(7, 1), old, now);
        assert_eq!(desk.ship_all().len(), 1);
        assert_eq!(leaves(&mut desk), [], "its replay settles in its own way");
        // As an expiry that is not shipped by itself does.
        desk.wait(200).change(digest(7, 1));
        assert!(desk.lst(7) > 10);
        let now = desk.now();
        desk.dc.resubmit(NS, digest(7, 1), old, now);
        assert_eq!(desk.ship_all().len(), 1);
        assert_eq!(leaves(&mut desk), [], "so it does if it shipped a newer version");
        desk.wait(200).write(digest(7, 1));
        desk.ship_all();
        assert_eq!(leaves(&mut desk).len(), 1);
    }
    #[test]
    fn a_letter_leaves_when_a_rewind_has_brought_what_it_stands_for() {
        let mut desk = Desk::plain();
        lettered(&mut desk, digest(1, 1));
        let clock = desk.wait(200).now().wall;
        desk.dc.note_clock(|_| clock);
        desk.dc.rewind(NS, Lut::ZERO);
        let walk = desk.begin_walk().expect("a rewind");
        desk.walk_all(walk.walk);
        assert_eq!(desk.ship_all().len(), 1);
        assert_eq!(leaves(&mut desk).len(), 1);
    }
}
