//! How long each change has to wait by the text of `delay-ms` and `hot-key-ms`, from what the world
//! saw of it.

use std::collections::BTreeMap;

use crate::store::Key;
use longship::config::DcNamespaceConfig;
use longship::model::{Lut, Tick};

/// When a version was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) at: Tick,
    /// The wall clock then: below the version's own time after it was set back.
    pub(crate) wall: Lut,
    /// How often the clock had been set.
    pub(crate) steps: u32,
}

/// A change that has not been dispatched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) made: Made,
    /// That of a hot key ships no earlier.
    pub(crate) held_until: Tick,
}

/// What is to come of one key.
#[derive(Clone, Debug, Default)]
struct OfKey {
    changes: BTreeMap<Lut, Waiting>,
    /// What the last dispatch stood for, and its own time.
    dispatched: BTreeMap<Lut, Waiting>,
    last: Lut,
    /// Those with a place of their own in the lane's queue, as it was when the key was dispatched last,
    /// and those that had left it then since the dispatch before. A newer one may have been dispatched
    /// for them; met while that is under way they make another trip, which others join.
    queued: BTreeMap<Lut, Waiting>,
    unqueued: BTreeMap<Lut, Waiting>,
    /// What was dispatched last has failed, or its letter is replayed.
    is_retry: bool,
    /// What was given up has no letter, and ships again.
    is_returned: bool,
    /// Its letter was replayed: that ships under the time of its lane's position.
    is_replayed: bool,
    /// A walk has found its expiry, which ships under the time of the walk.
    has_expired: bool,
    /// It ships once more then: a straggler may undo what was answered before.
    ships_again: Option<Tick>,
}

/// Changes of a link that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    keys: BTreeMap<Key, OfKey>,
    /// By namespace: the `delay-ms` there was, and since when.
    delays: Vec<Vec<(Tick, u32)>>,
}

impl Waits {
    /// Everything is settled, or was only in memory.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
    }

    pub(crate) fn forget(&mut self, keep: impl Fn(Key) -> bool) {
        self.keys.retain(|&key, _| keep(key));
    }

    /// These settings count from now on.
    pub(crate) fn configure(&mut self, configs: &[Option<DcNamespaceConfig>], now: Tick) {
        self.delays.resize(configs.len(), Vec::new());
        for (delays, config) in self.delays.iter_mut().zip(configs) {
            let delay_ms = config.as_ref().map(|config| config.delay_ms);
            delays.extend(
                delay_ms
                    .map(|ms| (now, ms))
                    .filter(|new| delays.last().is_none_or(|last| last.1 != new.1)),
            );
        }
    }

    /// The shortest `delay-ms` of a namespace since then.
    pub(crate) fn least_delay_ms(&self, n: usize, since: Tick) -> u64 {
        let delays = &self.delays[n];
        let before = delays.iter().rposition(|(from, _)| *from < since).unwrap_or(0);
        delays[before..].iter().map(|(_, ms)| u64::from(*ms)).min().unwrap_or(0)
    }

    /// A change is taken. Of several in one millisecond the first began the wait, and who is not hot
    /// need not wait for the others.
    pub(crate) fn take(&mut self, key: Key, lut: Lut, waiting: Waiting) {
        let of = self.keys.entry(key).or_default();
        // A newer one has left, and did not wait for this: it may join that, or ship by itself.
        let held_until = if lut <= of.last { Tick(0) } else { waiting.held_until };
        let place = of.changes.entry(lut).or_insert(waiting);
        place.held_until = place.held_until.min(held_until);
    }

    /// It has a place in its lane's queue.
    pub(crate) fn queue(&mut self, key: Key, lut: Lut, made: Made) {
        let waiting = Waiting { made, held_until: Tick(0) };
        self.keys.entry(key).or_default().queued.insert(lut, waiting);
    }

    /// A walk gives its expiry.
    pub(crate) fn find_expiry(&mut self, key: Key) {
        self.keys.entry(key).or_default().has_expired = true;
    }

    pub(crate) fn has_expired(&self, key: Key) -> bool {
        self.keys.get(&key).is_some_and(|of| of.has_expired)
    }

    /// A walk gives it: it may be known, and wait as the change of a hot key.
    pub(crate) fn find(&mut self, key: Key, lut: Lut, made: Made) {
        let found = Waiting { made, held_until: Tick(0) };
        self.keys.entry(key).or_default().changes.entry(lut).or_insert(found);
    }

    /// Hot keys of a pause wait for nothing but their delay.
    pub(crate) fn release(&mut self, keys: std::ops::Range<Key>) {
        let of = self.keys.range_mut(keys).flat_map(|(_, of)| of.changes.values_mut());
        of.for_each(|waiting| waiting.held_until = Tick(0));
    }

    /// It ships again, or does not; and once more then.
    pub(crate) fn ended(&mut self, key: Key, fails: bool, ships_again: Option<Tick>) {
        let of = self.keys.entry(key).or_default();
        of.is_retry = fails;
        of.ships_again = of.ships_again.max(ships_again);
    }

    /// Nothing was sent: what stands in a queue yet may ship by itself.
    pub(crate) fn unsent(&mut self, key: Key) {
        let of = self.keys.entry(key).or_default();
        for (lut, waiting) in std::mem::take(&mut of.dispatched) {
            let place = of.changes.entry(lut).or_insert(waiting);
            place.held_until = place.held_until.min(waiting.held_until);
        }
    }

    /// It cannot have a letter: it ships again, if something of it is in flight after that.
    pub(crate) fn returned(&mut self, key: Key) {
        self.keys.entry(key).or_default().is_returned = true;
    }

    /// A letter of it is replayed.
    pub(crate) fn replayed(&mut self, key: Key) {
        let of = self.keys.entry(key).or_default();
        (of.is_retry, of.is_replayed) = (true, true);
    }

    pub(crate) fn is_replayed(&self, key: Key) -> bool {
        self.keys.get(&key).is_some_and(|of| of.is_replayed)
    }

    /// A change is dispatched, with what it stands for; `None` if it need not have waited. Its lane's
    /// queue begins with `queue` then.
    pub(crate) fn dispatch(
        &mut self,
        key: Key,
        lut: Lut,
        now: Tick,
        queue: Option<Lut>,
    ) -> Option<BTreeMap<Lut, Waiting>> {
        let of = self.keys.entry(key).or_default();
        let mut joined = std::mem::take(&mut of.unqueued);
        joined.extend(&of.queued);
        let is_queued = |lut: &Lut| queue.is_some_and(|oldest| *lut >= oldest);
        (of.queued, of.unqueued) =
            std::mem::take(&mut of.queued).into_iter().partition(|(lut, _)| is_queued(lut));
        let later = of.changes.split_off(&lut.plus_ms(1));
        let mut changes = std::mem::replace(&mut of.changes, later);
        // Another of its millisecond may wait still, or be what a walk finds, and nobody can tell.
        let other = changes.get(&lut).map(|of| Waiting { held_until: Tick(0), ..*of });
        of.changes.extend(other.map(|other| (lut, other)));
        of.dispatched.clone_from(&changes);
        for (&lut, &waiting) in joined.range(..=lut) {
            changes.entry(lut).or_insert(waiting);
        }
        let again = of.ships_again.take_if(|then| then.0 / 1000 <= now.0 / 1000);
        let is_retry = std::mem::take(&mut of.is_retry) | std::mem::take(&mut of.is_returned);
        of.last = of.last.max(lut);
        (!is_retry && again.is_none()).then_some(changes)
    }
}
