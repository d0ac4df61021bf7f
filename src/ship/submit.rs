//! A change is taken from its writer. Never waits, never fails: what cannot be queued is left to
//! recovery.

use super::dc::{DcShard, Now};
use super::mutation::{Mutation, planted};
use super::policy::Policy;
use super::queue::{Entry, PackedLut};
use super::slots::{State, flag};
use super::timers::{ms_at_or_after, ms_of};
use crate::model::{Change, ChangeKind, Digest, Lut, NamespaceId, SetId};
// A hint that decides nothing: see `queue`.
use longship_rt::prefetch::prefetch;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It waits in its lane, or in the table of hot keys. The DC task may have something to do.
    Queued,
    /// In its lane, behind others or for a node that takes nothing now: whatever lets those go on
    /// does the same for it.
    Behind,
    /// A waiting or in-flight change of the same record will ship it.
    Merged,
    /// The rules of this DC do not ship it.
    NotShipped,
    /// The lane is paused or waits for recovery, which covers it.
    LeftToRecovery,
    /// There is no place where it could wait: nothing was taken.
    NoRoom,
    /// It did not fit: the lane dropped its queue, and recovery covers all of it.
    Overflowed,
}

impl DcShard {
    /// Numbers of sets will name other sets from the next change on: forgets which of them ship.
    pub fn forget_sets(&mut self, namespace: NamespaceId) {
        if let Some(ns) = self.attached_mut(namespace) {
            ns.sets.clear();
        }
    }

    /// Takes one change. `set_name` is the name of its set.
    #[inline]
    pub fn submit(&mut self, change: &Change, set_name: &str, now: Now) -> Admission {
        let destination = self.destination();
        let Some(lane) = self.lane_of(change.namespace, change.digest.partition()) else {
            return Admission::NotShipped;
        };
        let Some(ns) = self.attached_mut(change.namespace) else { return Admission::NotShipped };
        let policy = &ns.policy;
        if change.shipped && !policy.forward
            || Policy::is_echo(change.shipped, change.src_id, destination)
            || !policy.ships_kind(change.kind)
            || !ns.ships_set(change.set, set_name)
        {
            return Admission::NotShipped;
        }
        let lut = change.version.lut();
        ns.counters.submitted += 1;
        ns.newest = ns.newest.max(lut);
        if self.lanes[lane].has_gap() {
            return self.leave_to_recovery(lane, lut);
        }
        if let Some(admission) = self.submit_hot(lane, change, now) {
            return admission;
        }
        self.enqueue(lane, Entry::new(change.digest, lut), now)
    }

    /// A hint that changes of these records are submitted soon: fetches their lanes into the cache.
    #[inline]
    pub fn prefetch_lanes(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.lanes_ahead(namespace, digests).for_each(|lane| prefetch(&self.lanes[lane]));
    }

    /// Asks for the memory of the ends of these lanes' queues, once the lanes are there.
    #[inline]
    pub fn prefetch_tails(&self, namespace: NamespaceId, digests: &[Digest]) {
        let lanes = self.lanes_ahead(namespace, digests);
        lanes.for_each(|lane| {
            let (queue, pool) = self.lanes.queue(lane);
            queue.prefetch_tail(pool);
        });
    }

    /// The lanes of those records that are this shard's.
    fn lanes_ahead(&self, namespace: NamespaceId, digests: &[Digest]) -> impl Iterator<Item = u32> {
        let partitions = digests.iter().map(Digest::partition);
        let own = partitions.filter(|&partition| self.spaces.has(partition));
        own.filter_map(move |partition| self.lane_of(namespace, partition))
    }

    /// Takes up a change that was given up, or its record's newest version by then. Rules for sets are
    /// for the record as it is read: a letter may not know its set, and what is shipped no more has
    /// then come to its end.
    ///
    /// It may be far older than anything its lane owes. So it waits in a slot of its own, where no
    /// overflow of the lane takes it along: recovery would walk the lane from its time on. And the source
    /// may have lost it since: positions do not move to its time, past what the record has left.
    pub fn resubmit(
        &mut self,
        namespace: NamespaceId,
        digest: Digest,
        lut: Lut,
        now: Now,
    ) -> Admission {
        let Some(lane) = self.lane_of(namespace, digest.partition()) else {
            return Admission::NotShipped;
        };
        let has_no_room = !self.slots.has_free() || !self.has_room_to_wait(lane);
        let known = self.slots.find(&digest, lane);
        if self.ns_of(lane).paused || known.is_none() && has_no_room {
            return Admission::NoRoom;
        }
        self.ns_of(lane).counters.submitted += 1;
        let lut = lut.min(self.lanes[lane].lst.get());
        if let Some(slot) = known {
            return self.join(slot, lut, ms_of(now.tick));
        }
        let slot = self.slots.take(digest, lane, PackedLut::of(lut), State::Due);
        self.ns_of(lane).gauges.in_queue += 1;
        self.note_floor(lane, lut);
        self.make_ready(slot);
        Admission::Queued
    }

    /// The newest change of a record that waits or is on its way outside its lane's queue.
    pub fn newest_under_way(&self, namespace: NamespaceId, digest: &Digest) -> Option<Lut> {
        let slot = self.slots.find(digest, self.lane_of(namespace, digest.partition())?)?;
        Some(self.slots.at(slot).highest())
    }

    fn leave_to_recovery(&mut self, lane: u32, lut: Lut) -> Admission {
        self.lanes.miss(lane, lut);
        self.ns_of(lane).counters.dropped_to_recovery += 1;
        self.note_missed(lane, 1);
        Admission::LeftToRecovery
    }

    /// The hot-key rule: a key written again within `hot-key-ms` ships once for all writes until
    /// its last one is that old, and the change as old as `delay-ms` wants it. Merges only into what
    /// has not been dispatched; a write while one is in flight waits for that one's verdict. `None`: not hot, or no room to treat it as such.
    fn submit_hot(&mut self, lane: u32, change: &Change, now: Now) -> Option<Admission> {
        let lut = change.version.lut();
        let hot_key_ms = u64::from(self.ns_of(lane).policy.hot_key_ms);
        let age_ms = lut.ms().saturating_sub(change.previous_lut?.ms());
        if age_ms >= hot_key_ms {
            return None;
        }
        let delay_ms = self.ns_of(lane).policy.delay_left_ms(lut, now.wall);
        let due_ms = ms_at_or_after(now.tick) + delay_ms.max(hot_key_ms - age_ms);
        if let Some(slot) = self.slots.find(&change.digest, lane) {
            let admission = self.join(slot, lut, due_ms);
            self.ns_of(lane).counters.hot_keys += u64::from(admission == Admission::Merged);
            return Some(admission);
        }
        if self.slots.due() >= self.limits.hot_keys || !self.slots.has_free() {
            return None;
        }
        let slot = self.slots.take(change.digest, lane, PackedLut::of(lut), State::Due);
        self.ns_of(lane).gauges.in_queue += 1;
        self.note_floor(lane, lut);
        self.wheel.insert(slot, due_ms, &mut self.slots);
        Some(Admission::Queued)
    }

    /// Adds a newer change to the slot of its record. The caller holds the change as its own; the
    /// slot takes it over, as queued if it has to ship separately.
    pub(super) fn join(&mut self, slot: u32, lut: Lut, due_ms: u64) -> Admission {
        let place = self.slots.at_mut(slot);
        let lane = place.lane;
        let is_under_way = place.state() == State::Dispatched;
        // What takes a grace over counts as old as that, whatever it was dispatched for.
        let ships_with_heir =
            is_under_way && place.has(flag::OWES_GRACE) && lut < place.covers.get();
        // An older change than the one dispatched needs no read of its own: it ships with that one.
        let separate = is_under_way
            && lut >= place.lut.get()
            && !ships_with_heir
            && !planted(Mutation::MergeIntoDispatched);
        if separate && !place.has(flag::AGAIN) {
            place.flags |= flag::AGAIN;
            place.again = PackedLut::of(lut);
            place.due_ms = due_ms as u32;
            self.ns_of(lane).gauges.in_queue += 1;
            self.note_floor(lane, lut);
            return Admission::Queued;
        }
        // The older of the two is superseded: the newer one ships for it.
        if separate {
            place.again = PackedLut::of(lut.max(place.again.get()));
        } else {
            let newest = if ships_with_heir { place.lut.get() } else { place.lut.get().max(lut) };
            place.stand_for(place.oldest().min(lut), newest);
        }
        self.ns_of(lane).counters.merged += 1;
        Admission::Merged
    }

    #[inline]
    fn enqueue(&mut self, lane: u32, entry: Entry, now: Now) -> Admission {
        let limit = self.ns_of(lane).policy.queue_entries_max;
        let empty = self.lanes[lane].queued() == 0;
        let mut is_news =
            empty && !self.held.lanes().contains(lane) && !planted(Mutation::LostWake);
        if is_news {
            let wait_ms = self.ns_of(lane).policy.delay_left_ms(entry.lut.get(), now.wall);
            self.turns_of(lane).wake_at(now.tick.plus_ms(wait_ms));
        }
        if self.lanes[lane].queued() >= limit {
            return self.overflow(lane, entry.lut.get());
        }
        if self.lanes.push_back(lane, entry).is_err() {
            self.drop_longest_lane();
            is_news = true;
            if self.lanes[lane].has_gap() || self.lanes.push_back(lane, entry).is_err() {
                return self.overflow(lane, entry.lut.get());
            }
        }
        self.ns_of(lane).gauges.in_queue += 1;
        if is_news { Admission::Queued } else { Admission::Behind }
    }

    /// The lane keeps nothing, the newest change included; recovery covers all of it.
    fn overflow(&mut self, lane: u32, lut: Lut) -> Admission {
        self.open_gap(lane, lut);
        self.ns_of(lane).counters.dropped_to_recovery += 1;
        self.note_missed(lane, 1);
        Admission::Overflowed
    }

    /// The DC's share of memory is used up: of the namespace that has most of it the longest queue
    /// goes to recovery.
    #[cold]
    pub(super) fn drop_longest_lane(&mut self) {
        let mut queued = vec![0_u64; self.spaces.blocks() as usize];
        for lane in self.lanes.queued().iter() {
            let block = self.block_of(lane) as usize;
            queued[block] += u64::from(self.lanes[lane].queued());
        }
        let Some(block) = (0..queued.len()).max_by_key(|&block| queued[block]) else { return };
        let lanes = self.lanes_of_block(block as u32);
        let of_block = self.lanes.queued().iter().filter(|lane| lanes.contains(lane));
        let longest = of_block.max_by_key(|&lane| self.lanes[lane].queued());
        if let Some(lane) = longest {
            self.open_gap(lane, Lut::MAX);
        }
    }
}

impl Policy {
    /// Whether a kind of change is shipped.
    #[inline]
    pub const fn ships_kind(&self, kind: ChangeKind) -> bool {
        match kind {
            ChangeKind::Write | ChangeKind::DurableDelete => true,
            ChangeKind::Delete => !self.ignore_expunges,
            ChangeKind::NsupDelete => self.ship_nsup_deletes,
        }
    }
}

impl super::namespaces::Attached {
    /// Whether a set is shipped; asks its name once.
    #[inline]
    pub(super) fn ships_set(&mut self, set: SetId, name: &str) -> bool {
        if let Some(Some(known)) = self.sets.get(usize::from(set.0)) {
            return *known;
        }
        let ships = self.policy.sets.admits(name);
        if self.sets.len() <= usize::from(set.0) {
            self.sets.resize(usize::from(set.0) + 1, None);
        }
        self.sets[usize::from(set.0)] = Some(ships);
        ships
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::SetRule;
    use super::super::testing::{Desk, NS, digest, policy};
    use super::super::{Limits, Outcome};
    use super::*;
    use crate::model::{SetId, SrcId};

    #[test]
    fn a_number_that_names_another_set_now_is_judged_by_the_new_name() {
        let sets = SetRule { ignore: vec!["other".to_owned()], ..SetRule::default() };
        let mut desk = Desk::new(Policy { sets, ..policy() }, Limits::default());
        let takes = |desk: &mut Desk, n: u32, name: &str| {
            let change = Change { set: SetId(7), ..desk.change(digest(1, n)) };
            desk.dc.submit(&change, name, desk.now()) != Admission::NotShipped
        };
        assert!(takes(&mut desk, 1, "kept"));
        assert!(takes(&mut desk, 2, "other"), "a name is not looked at again");
        desk.dc.forget_sets(NS);
        assert!(!takes(&mut desk, 3, "other"));
        desk.dc.forget_sets(NS);
        assert!(takes(&mut desk, 4, "kept"));
    }

    #[test]
    fn set_flag_and_echo_rules_decide_what_is_taken() {
        let check = |policy: Policy, edit: fn(&mut Change), set: &str, taken: bool| {
            let mut desk = Desk::new(policy, Limits::default());
            desk.dc.set_destination(SrcId(7));
            let mut change = desk.change(digest(1, 1));
            edit(&mut change);
            let now = desk.now();
            let admission = desk.dc.submit(&change, set, now);
            assert_eq!(admission != Admission::NotShipped, taken, "{change:?} {set:?}");
            assert_eq!(desk.dc.dc_stats().counters.submitted, u64::from(taken));
        };
        let forward = || Policy { forward: true, ..policy() };
        let ignoring = || SetRule { ignore: vec!["no".to_owned()], ..SetRule::default() };
        let from = |src_id: u8| SrcId(src_id);
        check(policy(), |_| {}, "", true);
        check(policy(), |c| c.shipped = true, "", false);
        check(forward(), |c| c.shipped = true, "", true);
        assert_eq!(from(7), SrcId(7));
        check(forward(), |c| (c.shipped, c.src_id) = (true, SrcId(7)), "", false);
        check(forward(), |c| (c.shipped, c.src_id) = (true, SrcId(8)), "", true);
        check(policy(), |c| c.kind = ChangeKind::Delete, "", true);
        check(policy(), |c| c.kind = ChangeKind::NsupDelete, "", false);
        let nsup = Policy { ship_nsup_deletes: true, ..policy() };
        check(nsup, |c| c.kind = ChangeKind::NsupDelete, "", true);
        let expunges = || Policy { ignore_expunges: true, ..policy() };
        check(expunges(), |c| c.kind = ChangeKind::Delete, "", false);
        check(expunges(), |c| c.kind = ChangeKind::DurableDelete, "", true);
        check(Policy { sets: ignoring(), ..policy() }, |c| c.set = SetId(3), "no", false);
        check(Policy { sets: ignoring(), ..policy() }, |c| c.set = SetId(3), "yes", true);
    }

    #[test]
    fn a_changed_set_rule_counts_from_the_next_change_on() {
        let mut desk = Desk::plain();
        let mut change = desk.change(digest(1, 1));
        change.set = SetId(2);
        let now = desk.now();
        assert_eq!(desk.dc.submit(&change, "s", now), Admission::Queued);
        let sets = SetRule { ignore: vec!["s".to_owned()], ..SetRule::default() };
        desk.dc.set_policy(super::super::testing::NS, Policy { sets, ..policy() }, now.wall);
        assert_eq!(desk.dc.submit(&change, "s", now), Admission::NotShipped);
    }

    #[test]
    fn a_full_lane_drops_its_queue_and_the_newest_change_with_it() {
        let mut desk = Desk::new(Policy { queue_entries_max: 4, ..policy() }, Limits::default());
        for n in 0..4 {
            let admission = if n == 0 { Admission::Queued } else { Admission::Behind };
            assert_eq!(desk.wait(1).write(digest(5, n)), admission);
        }
        assert_eq!(desk.wait(1).write(digest(6, 0)), Admission::Queued);
        assert_eq!(desk.wait(1).write(digest(5, 4)), Admission::Overflowed);
        assert_eq!(desk.wait(1).write(digest(5, 5)), Admission::LeftToRecovery);
        let stats = desk.dc.dc_stats();
        assert_eq!((stats.counters.dropped_to_recovery, stats.gauges.in_queue), (6, 1));
        assert_eq!(stats.recoveries_pending, 1);
        assert_eq!(desk.lst(5), 1);
    }

    #[test]
    fn a_dc_over_its_memory_drops_its_longest_lane() {
        let limits = Limits { queue_bytes: 404 * 3, ..Limits::default() };
        let mut desk = Desk::new(policy(), limits);
        for n in 0..20 {
            let admission = if n == 0 { Admission::Queued } else { Admission::Behind };
            assert_eq!(desk.write(digest(1, n)), admission);
        }
        assert_eq!(desk.write(digest(2, 0)), Admission::Queued);
        assert_eq!(desk.write(digest(3, 0)), Admission::Queued);
        let stats = desk.dc.dc_stats();
        assert_eq!((stats.counters.dropped_to_recovery, stats.gauges.in_queue), (20, 2));
        assert_eq!(desk.write(digest(1, 0)), Admission::LeftToRecovery);
    }

    /// One key written every 10 ms for a second, shipped as soon as it may.
    #[test]
    fn a_hot_key_ships_about_once_per_hot_key_ms() {
        let mut desk = Desk::plain();
        let key = digest(9, 1);
        let mut shipped = 0;
        for _ in 0..1000 {
            if desk.ms.is_multiple_of(10) {
                desk.write(key);
            }
            shipped += desk.wait(1).ship_all().len();
        }
        desk.wait(200).ship_all();
        assert!((10..=12).contains(&shipped), "{shipped}");
        let stats = desk.dc.dc_stats();
        assert_eq!(stats.backlog(), 0);
        assert!(stats.counters.hot_keys >= 85, "{stats:?}");
    }

    #[test]
    fn a_write_in_flight_waits_for_the_verdict_and_later_ones_merge() {
        let mut desk = Desk::plain();
        let key = digest(9, 1);
        desk.write(key);
        let first = desk.dispatch();
        desk.send(&first[0]);
        assert_eq!(desk.wait(10).write(key), Admission::Queued);
        assert_eq!(desk.wait(10).write(key), Admission::Merged);
        assert!(desk.wait(1000).dispatch().is_empty(), "one version in flight");
        assert_eq!(desk.lst(9), 0);
        desk.ok(first[0].slot);
        let again = desk.dispatch();
        assert_eq!(again.len(), 1);
        assert_eq!(desk.lst(9), 20);
        desk.send(&again[0]);
        desk.ok(again[0].slot);
        assert_eq!(desk.dc.dc_stats().backlog(), 0);
        assert_eq!(desk.dc.dc_stats().counters.merged, 1);
    }

    #[test]
    fn what_was_read_after_the_newer_write_covers_it() {
        let mut desk = Desk::plain();
        let key = digest(9, 1);
        desk.write(key);
        let first = desk.dispatch();
        desk.wait(10).write(key);
        desk.wait(10).write(key);
        // The read comes last: it holds all three writes, though only the first was dispatched.
        // Of writes in one millisecond it could not tell.
        desk.send(&first[0]);
        desk.ok(first[0].slot);
        assert_eq!(desk.wait(500).dispatch().len(), 1);
        let mut desk = Desk::plain();
        desk.write(key);
        let first = desk.dispatch();
        desk.wait(10).write(key);
        desk.wait(10);
        let later = desk.change(key);
        desk.send(&first[0]);
        desk.submit(&later);
        assert_eq!(desk.dc.dc_stats().counters.merged, 1);
        desk.ok(first[0].slot);
        assert_eq!(desk.wait(500).dispatch().len(), 1);
    }

    #[test]
    fn a_hot_key_waits_for_its_delay_too() {
        let mut desk = Desk::new(Policy { delay_ms: 50, ..policy() }, Limits::default());
        desk.write(digest(1, 1));
        assert_eq!(desk.wait(50).ship_all().len(), 1);
        desk.wait(40).write(digest(1, 1));
        assert_eq!(desk.wait(49).dispatch().len(), 0, "its key is hot no more, but it is young");
        assert_eq!(desk.wait(1).dispatch().len(), 1);
    }

    /// A key of which a newer version is in flight, while an older one is queued.
    fn sent_before_its_entry(desk: &mut Desk, key: Digest) -> u32 {
        desk.write(key);
        desk.wait(10).write(key);
        desk.wait(90).write(key);
        let (out, _) = desk.dispatch_idle(1);
        assert_eq!(out.len(), 1, "the hot key goes first");
        desk.send(&out[0]);
        out[0].slot
    }

    /// Met while a newer version is in flight, it would let whatever comes meanwhile ship at once.
    #[test]
    fn an_entry_older_than_what_is_in_flight_ships_with_that() {
        let mut desk = Desk::plain();
        let key = digest(1, 1);
        let slot = sent_before_its_entry(&mut desk, key);
        assert!(desk.dispatch().is_empty(), "the older entry joins it");
        desk.wait(10).write(key);
        desk.ok(slot);
        assert!(desk.wait(89).dispatch().is_empty());
        assert_eq!(desk.wait(1).dispatch().len(), 1);
    }

    /// What takes a grace over counts as old as that for positions, not for what it was read after.
    #[test]
    fn an_entry_older_than_the_heir_of_a_grace_ships_with_that() {
        let mut desk = Desk::plain();
        let key = digest(1, 1);
        desk.write(key);
        let out = desk.dispatch();
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        assert_eq!(desk.ship_all().len(), 1);
        let slot = sent_before_its_entry(desk.wait(14_890), key);
        assert!(desk.wait(10).dispatch().is_empty(), "the grace ends, and the older entry joins");
        desk.wait(10).write(key);
        desk.ok(slot);
        assert!(desk.wait(79).dispatch().is_empty());
        assert_eq!(desk.wait(1).dispatch().len(), 1);
    }

    #[test]
    fn a_full_table_of_hot_keys_queues_normally() {
        let mut desk = Desk::new(policy(), Limits { hot_keys: 1, ..Limits::default() });
        for n in 0..3 {
            desk.write(digest(1, n));
        }
        desk.ship_all();
        desk.wait(10);
        let admissions = [0, 1, 2].map(|n| desk.write(digest(1, n)));
        assert_eq!(admissions, [Admission::Queued, Admission::Queued, Admission::Behind]);
        assert_eq!(desk.dispatch().len(), 2, "only one waits for its time");
    }

    #[test]
    fn an_entry_met_in_the_queue_joins_its_hot_key() {
        let mut desk = Desk::plain();
        let key = digest(1, 1);
        desk.write(key);
        desk.wait(10).write(key);
        assert!(desk.dispatch().is_empty(), "the queued one merges into the waiting one");
        assert_eq!(desk.lst(1), 10);
        let out = desk.wait(90).dispatch();
        assert_eq!(out.len(), 1);
        desk.settle(out[0].slot, Outcome::NotFound);
        assert_eq!(desk.dc.dc_stats().counters.merged, 1);
    }
}
