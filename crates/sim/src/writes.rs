//! What clients and storage do at a site: writes, submissions that come late, flushes, checkpoints,
//! expiry, and what tidies up behind them.

use crate::op::tombstone;
use crate::oracle;
use crate::plan::Fault;
use crate::rng::Rng;
use crate::site::Ticket;
use crate::store::{Key, Rec, shown};
use crate::trace::tell;
use crate::world::World;
use longship::engine::Piece;
use longship::model::{Lut, RecordFlags, SrcId, VoidTime};
use longship::ship::mutation::{Mutation, planted};

impl World {
    /// A client writes one of the keys that its site's clients write. Gives the site.
    pub(crate) fn client_write(&mut self, rng: &mut Rng) -> usize {
        let key = rng.below(u64::from(self.key_count())) as Key;
        let site = self.writer(key, rng);
        self.write_key(site, key, rng);
        site
    }

    fn write_key(&mut self, site: usize, key: Key, rng: &mut Rng) {
        let held = self.sites[site].tickets.iter().any(|ticket| ticket.key == key);
        if !self.sites[site].up || held && self.sites[site].commit {
            return;
        }
        self.tally.written += 1;
        let rec = self.client_record(site, key, rng);
        if self.plan.is_contested(key) {
            self.written.entry(key).or_default().insert(rec.bins);
        }
        let previous = self.sites[site].store.get(key).map(|rec| rec.version.lut());
        let change = self.change(key, &rec, previous);
        tell(Some(key), || format!("a client of site {site} writes {}", shown(&rec)));
        self.mark(rec.version.raw());
        if self.sites[site].commit {
            // Visible, submitted and acknowledged once it is on the device.
            self.sites[site].tickets.push(Ticket { key, change, unpublished: Some(rec) });
            return;
        }
        self.sites[site].store.put(key, rec);
        self.sites[site].wrote(self.now_us);
        if self.plan.has(Fault::SleepyHost) && !self.calm && rng.percent(30) {
            self.happened(Fault::SleepyHost);
            self.sites[site].tickets.push(Ticket { key, change, unpublished: None });
            return;
        }
        let full = self.plan.has(Fault::MailboxFull) && !self.calm && rng.percent(5);
        if full {
            self.happened(Fault::MailboxFull);
        }
        self.submit(site, key, &change, full);
    }

    /// The record after a random write.
    fn client_record(&mut self, site: usize, key: Key, rng: &mut Rng) -> Rec {
        let wall = self.sites[site].wall(self.now_us);
        let found = self.sites[site].store.get(key).cloned();
        let version = self.sites[site].next_version(key, self.now_us);
        let mut base = Rec {
            version,
            local_lut: version.lut(),
            void: VoidTime::NEVER,
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
            bins: [None; 3],
            source: None,
        };
        if planted(Mutation::WriteStaysShipped)
            && let Some(found) = found.as_ref().filter(|rec| rec.flags.has(RecordFlags::SHIPPED))
        {
            base.flags = RecordFlags::SHIPPED;
            (base.local_lut, base.src_id) = (found.local_lut, found.src_id);
        }
        let old = found.filter(|rec| rec.is_live(wall));
        let delete = self.plan.has(Fault::Delete) && rng.percent(20);
        if old.is_some() && delete {
            self.happened(Fault::Delete);
            let shipped = base.flags.has(RecordFlags::SHIPPED);
            return Rec { flags: tombstone(rng.percent(30), shipped), ..base };
        }
        let mut bins = old.map_or([None; 3], |rec| rec.bins);
        let replace = rng.percent(40);
        for bin in &mut bins {
            if rng.percent(50) {
                self.values += 1;
                *bin = Some(self.values);
            } else if replace {
                *bin = None;
            }
        }
        if bins == [None; 3] {
            self.values += 1;
            bins[0] = Some(self.values);
        }
        let mut void = VoidTime::NEVER;
        if self.plan.has(Fault::Expiry) && rng.percent(25) {
            self.happened(Fault::Expiry);
            void = VoidTime(wall.seconds() + 1 + rng.below(3) as u32);
        }
        Rec { bins, void, ..base }
    }

    /// Everything written at a site is on its device; with commit-to-device it becomes visible.
    pub(crate) fn flush(&mut self, site: usize) {
        let (publish, keep): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sites[site].tickets)
            .into_iter()
            .partition(|ticket| ticket.unpublished.is_some());
        for ticket in &publish {
            if let Some(rec) = &ticket.unpublished {
                self.sites[site].store.put(ticket.key, rec.clone());
            }
        }
        self.sites[site].flush();
        // Publishing and submitting are one step: the clock looks at tickets in between only.
        self.sites[site].tickets = keep;
        for ticket in publish {
            self.submit(site, ticket.key, &ticket.change, false);
        }
    }

    /// A sleeping host thread wakes up and submits.
    pub(crate) fn wake_ticket(&mut self, site: usize, rng: &mut Rng) {
        let open: Vec<usize> = (0..self.sites[site].tickets.len())
            .filter(|&at| self.sites[site].tickets[at].unpublished.is_none())
            .collect();
        let Some(at) = rng.index(open.len()) else { return };
        let ticket = self.sites[site].tickets.remove(open[at]);
        self.submit(site, ticket.key, &ticket.change, false);
    }

    /// Expired records go: each leaves a tombstone, as an older copy may have no expiry.
    pub(crate) fn expire(&mut self, site: usize) {
        let wall = self.sites[site].wall(self.now_us);
        for key in self.sites[site].store.over(wall) {
            let held = self.sites[site].tickets.iter().any(|ticket| ticket.key == key);
            let Some(old) = self.sites[site].store.get(key).cloned() else { continue };
            if held {
                continue;
            }
            let version = self.sites[site].next_version(key, self.now_us);
            let shipped = old.flags.has(RecordFlags::SHIPPED);
            let own = planted(Mutation::ExpiryIsOwnChange) && !shipped;
            let rec = Rec {
                version,
                local_lut: if own { version.lut() } else { old.local_lut },
                void: VoidTime::NEVER,
                // It goes no further than the record went.
                flags: RecordFlags::TOMBSTONE
                    .with(RecordFlags::NSUP, true)
                    .with(RecordFlags::SHIPPED, shipped && !planted(Mutation::ExpiryForgetsOrigin)),
                bins: [None; 3],
                source: None,
                ..old.clone()
            };
            tell(Some(key), || format!("site {site} expires {}", shown(&old)));
            let change = self.change(key, &rec, Some(old.version.lut()));
            self.sites[site].store.put(key, rec);
            self.sites[site].store.expired.insert(key, old);
            self.sites[site].wrote(self.now_us);
            self.submit(site, key, &change, false);
        }
    }

    /// A step of a raid: the tombstones that every DC is past; those of which there is no older
    /// copy; and, of these, what may still go.
    pub(crate) fn raid(&mut self, site: usize) {
        let settled: Vec<Lut> =
            (0..self.key_count()).map(|key| self.settled_below(site, key)).collect();
        let below = |key: Key| settled[usize::from(key)];
        let raid = self.sites[site].raid.take();
        let store = &mut self.sites[site].store;
        let next = match raid {
            None => Some((store.tombstones(below), false)),
            Some((mut candidates, false)) => {
                candidates.retain(|&(key, version)| {
                    planted(Mutation::RaidWithOlderCopy) || !store.has_older_copy(key, version)
                });
                Some((candidates, true))
            }
            Some((candidates, true)) => {
                for (key, version) in candidates {
                    if version.lut() < below(key) || planted(Mutation::RaidAsksOnce) {
                        let dropped = self.sites[site].store.drop_tombstone(key, version);
                        if let Some(rec) = dropped {
                            oracle::a_tombstone_outlives_what_is_owed(self, site, key, &rec);
                        }
                    }
                }
                None
            }
        };
        self.sites[site].raid = next;
    }

    /// One piece of a checkpoint, unless the last one waits for its answer.
    fn next_checkpoint(&mut self, site: usize) {
        let follower = self.followers[site].as_ref();
        if follower.is_some_and(|follower| !follower.awaits_answer()) {
            self.checkpoint(site);
        }
    }

    /// One piece of a checkpoint: positions are taken, and told once they are flushed.
    pub(crate) fn checkpoint(&mut self, site: usize) {
        if let Some(Piece::Told(notice)) =
            self.with_follower(site, |follower, dcs| follower.checkpoint(dcs, true))
        {
            self.notify(site, 0, notice);
        }
    }

    /// One of the things storage does on its own.
    pub(crate) fn chore(&mut self, site: usize, rng: &mut Rng) {
        if !self.sites[site].up {
            if rng.percent(40) {
                self.start_site(site);
            }
            return;
        }
        match rng.below(15) {
            0 | 1 => self.flush(site),
            2 => self.wake_ticket(site, rng),
            // Two pieces: each change of configuration makes it begin anew.
            5..=8 => (0..2).for_each(|_| self.next_checkpoint(site)),
            9 => self.expire(site),
            10 | 12..15 if self.plan.has(Fault::Raid) => {
                self.happened(Fault::Raid);
                if rng.percent(10) {
                    self.raid_everything(site);
                } else {
                    self.raid(site);
                }
            }
            11 if self.plan.has(Fault::Defrag)
                && self.sites[site].store.defrag(rng.below(64) as usize) =>
            {
                self.sites[site].wrote(self.now_us);
                self.happened(Fault::Defrag);
            }
            _ => {}
        }
    }
}
