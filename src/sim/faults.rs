//! What goes wrong, and what operators do.

use super::oracle;
use super::plan::{Dest, Fault, choose_filter};
use super::rng::Rng;
use super::site::Mood;
use super::store::Key;
use super::trace::tell;
use super::wire::Wire;
use super::world::{World, checkpoints};
use crate::config::DcNamespaceConfig;
use crate::dest::{NamespaceFacts, Notice};
use crate::engine::Start;
use crate::model::{DcIndex, NamespaceId, Tick, Version};
use crate::model::{Lut, PARTITION_COUNT};

impl World {
    /// One of the plan's faults happens, if it can.
    pub fn fault(&mut self, rng: &mut Rng) {
        let fault = rng.pick(&Fault::ALL);
        let fault = if fault == Fault::Straggler { Fault::Reset } else { fault };
        if !self.plan.has(fault) {
            return;
        }
        let link = rng.below(self.links.len() as u64) as usize;
        let site = self.links[link].from;
        match fault {
            Fault::Reset | Fault::LostReply => self.fault_reset(fault, link, rng),
            Fault::Slow => {
                self.links[link].slow_until_us = self.now_us + rng.below(400_000);
                self.happened(fault);
            }
            Fault::Timeout => {
                let until_us = self.now_us + 11_000_000;
                self.links[link].slow_until_us = until_us;
                if rng.percent(50) {
                    self.pass(10_500_000);
                }
            }
            Fault::DestinationDown => self.fault_down(link, rng),
            Fault::DestinationRestart => {
                if let Dest::Site(site) = self.links[link].to {
                    self.happened(fault);
                    self.crash(site, rng);
                }
            }
            Fault::Temporary | Fault::Permanent | Fault::Forbidden => {
                self.fault_mood(fault, link, rng);
            }
            Fault::Community => {
                if let Dest::Foreign(foreign) = self.links[link].to {
                    self.foreigns[foreign].community = true;
                    self.happened(fault);
                }
            }
            Fault::MapChange => self.fault_map(link, rng),
            Fault::Retune | Fault::Refilter => self.fault_config(fault, link, rng),
            Fault::DcRecreated => self.fault_recreate(link, rng),
            Fault::Detach => self.fault_detach(link, rng),
            Fault::Pause => self.fault_pause(link),
            Fault::Rewind => self.fault_rewind(link, rng),
            Fault::SourceCrash => {
                self.happened(fault);
                self.crash(site, rng);
            }
            Fault::SourceRestart => self.fault_restart(site, rng),
            Fault::ClockBack | Fault::ClockForward => {
                let ms = rng.pick(&[1, 50, 3000, 100_000]);
                let sign = if fault == Fault::ClockBack { -1 } else { 1 };
                self.sites[site].step_clock(sign * ms);
                self.clock_stepped_us = self.now_us;
                self.happened(fault);
            }
            Fault::Burst => {
                self.happened(fault);
                for _ in 0..rng.below(30) {
                    self.client_write(rng);
                }
            }
            _ => {}
        }
        // What operators do and what happens to maps and clocks wakes every engine, or it looks at
        // them each second.
        self.links.iter_mut().for_each(|link| link.woken = true);
    }

    fn fault_reset(&mut self, fault: Fault, link: usize, rng: &mut Rng) {
        // Rather one with something under way, on this link or any other.
        let busy = |link: &usize| self.links[*link].conns().iter().any(|conn| !conn.is_idle());
        let candidates: Vec<usize> = (0..self.links.len()).filter(busy).collect();
        let link = rng.index(candidates.len()).map_or(link, |at| candidates[at]);
        let conns = self.links[link].conns();
        let busy = conns.iter().position(|conn| !conn.is_idle());
        let Some(node) = busy.or_else(|| rng.index(conns.len())) else { return };
        let conn = &conns[node];
        let is_up = conn.up;
        let applies = match fault {
            Fault::LostReply => !conn.replies.is_empty(),
            _ => is_up,
        };
        if applies {
            self.happened(fault);
            // Now and then it is this end that has had enough.
            let now = Tick(self.now_us);
            if is_up
                && Rng::at(!self.plan.seed, self.now_us).percent(25)
                && let Some(wire) = self.links[link].wire_mut()
            {
                wire.answer_amiss(node, now);
            }
            self.reset(link, node, rng);
        }
    }

    fn fault_down(&mut self, link: usize, rng: &mut Rng) {
        self.happened(Fault::DestinationDown);
        match self.links[link].to {
            Dest::Site(_) => {
                self.links[link].blocked_until_us = self.now_us + rng.below(3_000_000);
                self.reset(link, 0, rng);
            }
            Dest::Foreign(foreign) => {
                let node = rng.below(2) as usize;
                self.foreigns[foreign].up[node] ^= true;
                for link in 0..self.links.len() {
                    if self.links[link].to == Dest::Foreign(foreign) {
                        self.reset(link, node, rng);
                    }
                }
            }
        }
    }

    fn fault_mood(&mut self, fault: Fault, link: usize, rng: &mut Rng) {
        let code = match fault {
            Fault::Temporary => rng.pick(&[8, 9, 11, 14, 18, 32, 80]),
            Fault::Permanent => rng.pick(&[4, 13, 19, 21, 1]),
            _ => rng.pick(&[20, 22, 81]),
        };
        let bad = Mood { code, percent: rng.pick(&[30, 100]) };
        let mood = if rng.percent(50) { bad } else { Mood::FINE };
        if mood != Mood::FINE {
            self.happened(fault);
        }
        // A cluster that refuses everything says so, if it is asked.
        let tells = mood.percent == 100 && rng.percent(50);
        let facts = match mood.code {
            20 if tells => NamespaceFacts { exists: Some(false), ..NamespaceFacts::default() },
            22 if tells => {
                NamespaceFacts { takes_shipped: Some(false), ..NamespaceFacts::default() }
            }
            _ => NamespaceFacts::default(),
        };
        self.set_mood(self.links[link].to, mood, facts);
    }

    /// A cluster answers like that from now on, and says so of itself.
    pub fn set_mood(&mut self, to: Dest, mood: Mood, facts: NamespaceFacts) {
        let before = match to {
            Dest::Site(site) => {
                self.sites[site].mood = mood;
                std::mem::replace(&mut self.sites[site].facts, facts)
            }
            Dest::Foreign(foreign) => {
                self.foreigns[foreign].mood = mood;
                std::mem::replace(&mut self.foreigns[foreign].facts, facts)
            }
        };
        if before != facts {
            let links = 0..self.links.len();
            for link in links {
                if self.links[link].to == to {
                    self.tell_facts(link);
                }
            }
        }
    }

    /// A DC learns what its destination says of its namespaces.
    pub fn tell_facts(&mut self, link: usize) {
        let facts = match self.links[link].to {
            Dest::Site(site) => self.sites[site].facts,
            Dest::Foreign(foreign) => self.foreigns[foreign].facts,
        };
        let place = &mut self.links[link];
        let namespaces = place.configs.len();
        let Some(wire) = place.wire_mut() else { return };
        wire.facts = facts;
        (0..namespaces).for_each(|n| wire.notify(Notice::FactsChanged(NamespaceId(n as u8))));
        place.woken = true;
    }

    fn fault_map(&mut self, link: usize, rng: &mut Rng) {
        let Dest::Foreign(foreign) = self.links[link].to else { return };
        self.happened(Fault::MapChange);
        let lane = rng.below(super::world::LANES as u64) as usize;
        self.foreigns[foreign].owner[lane] = rng.pick(&[None, Some(0), Some(1), Some(1)]);
        self.tell_map(foreign);
    }

    /// Every DC that ships to a cluster learns its partition map.
    pub fn tell_map(&mut self, foreign: usize) {
        let owner = &self.foreigns[foreign].owner;
        for link in self.links.iter_mut().filter(|link| link.to == Dest::Foreign(foreign)) {
            link.woken = true;
            if let Some(wire) = link.wire_mut() {
                wire.owner.clone_from(owner);
                wire.notify(Notice::MapChanged);
            }
        }
    }

    fn fault_config(&mut self, fault: Fault, link: usize, rng: &mut Rng) {
        let n = rng.below(self.plan.namespaces as u64) as usize;
        let site = &self.sites[self.links[link].from];
        // A process that is down has no clock: what it comes back with is in its store.
        let last = site.last.get().max(site.store.highest());
        oracle::note_refilter(self, link);
        let place = &mut self.links[link];
        let Some(config) = &mut place.configs[n] else { return };
        if fault == Fault::Retune {
            config.hot_key_ms = rng.pick(&[0, 20, 100, 500]);
            config.delay_ms = rng.pick(&[0, 20]).min(config.hot_key_ms);
            config.max_throughput = rng.pick(&[0, 100, 100_000]);
            config.transaction_queue_limit = rng.pick(&[4, 64, 16_384]);
        } else {
            choose_filter(config, rng);
            place.ledger.refiltered = Some(last);
        }
        tell(None, || format!("DC {link}, namespace {n}: {config:?}"));
        self.configure(link, &[]);
        oracle::note_refilter(self, link);
        self.happened(fault);
    }

    fn fault_recreate(&mut self, link: usize, rng: &mut Rng) {
        let from = self.links[link].from;
        if !self.sites[from].up {
            return;
        }
        self.happened(Fault::DcRecreated);
        if self.links[link].exists {
            self.delete(link, rng);
        }
        if rng.percent(50) {
            let back_ms = rng.pick(&[None, None, Some(0), Some(500), Some(100_000)]);
            let clock = self.clock(from);
            self.create(link, back_ms.map(|ms| clock.minus_ms(ms)));
        }
    }

    fn delete(&mut self, link: usize, rng: &mut Rng) {
        let from = self.links[link].from;
        for node in 0..self.links[link].conns().len() {
            self.reset(link, node, rng);
        }
        self.forget(link);
        self.links[link].exists = false;
        self.links[link].ledger = Default::default();
        self.sites[from].writing = None;
        self.checkpoints[from].changed();
        self.sites[from].durable.marks.remove(&link);
        self.sites[from].feared_until = self.after_grace();
        tell(None, || format!("DC {link} is deleted"));
    }

    fn fault_detach(&mut self, link: usize, rng: &mut Rng) {
        let n = rng.below(self.plan.namespaces as u64) as usize;
        if self.links[link].engine.is_none() {
            return;
        }
        if let Some(config) = self.links[link].configs[n].take() {
            self.detach(link, n);
            self.links[link].detached[n] = Some(config);
            if rng.percent(70) {
                return;
            }
        }
        if let Some(config) = self.links[link].detached[n].take() {
            self.in_the_middle_of_a_raid(self.links[link].from, rng);
            let back_ms = rng.pick(&[None, None, Some(0), Some(500), Some(100_000)]);
            self.attach(link, n, config, back_ms);
            // What was in flight for it is a straggler now.
            if self.plan.has(Fault::Reset) && rng.percent(50) {
                self.happened(Fault::Reset);
                (0..self.links[link].conns().len()).for_each(|node| self.reset(link, node, rng));
            }
        }
    }

    fn detach(&mut self, link: usize, n: usize) {
        tell(None, || format!("DC {link} ships namespace {n} no more"));
        let keys = self.plan.keys;
        let keep = |key: Key| usize::from(key / keys) != n;
        let place = &mut self.links[link];
        place.seen.retain(|(of, _), _| *of != n);
        place.ledger.forget(keep);
        place.flights.values_mut().for_each(|flight| flight.discarded |= !keep(flight.key));
        self.configure(link, &[]);
        self.happened(Fault::Detach);
        let site = &mut self.sites[self.links[link].from];
        (site.writing, site.stored_late) = (None, None);
        if let Some(marks) = site.durable.marks.get_mut(&link) {
            marks.retain(|(of, _), _| *of != n);
        }
    }

    fn attach(&mut self, link: usize, n: usize, config: DcNamespaceConfig, back_ms: Option<u64>) {
        let (namespace, from) = (NamespaceId(n as u8), self.links[link].from);
        let clock = self.clock(from);
        let begin = back_ms.map_or(clock, |ms| clock.minus_ms(ms));
        tell(None, || format!("DC {link} ships namespace {n} again, from {begin} on"));
        self.links[link].configs[n] = Some(config);
        self.links[link].ledger.begun = self.sites[from].last.get();
        let start = back_ms.map_or(Start::Now, |_| at(begin));
        self.configure(link, &[(namespace, start)]);
        let marks = self.marks(link);
        self.begin_marks(link, marks);
        if back_ms.is_some() {
            oracle::note_rewind(self, link, Some(namespace), begin);
        }
        self.happened(Fault::Detach);
    }

    /// What is only in memory is gone.
    fn forget(&mut self, link: usize) {
        let dc = DcIndex(link as u32);
        let link = &mut self.links[link];
        let site = &mut self.sites[link.from];
        if let Some(mut engine) = link.engine.take() {
            engine.close_walks(site);
        }
        site.reading.retain(|reading| reading.dc != dc);
        site.read.retain(|(of, _)| *of != dc);
        link.flights.clear();
        link.ended.clear();
        link.read_ends.clear();
        link.lost.clear();
        link.letters.clear();
        link.refused.clear();
        link.known_boot = None;
        link.destination = Default::default();
        link.seen.clear();
        link.asked = None;
    }

    fn fault_pause(&mut self, link: usize) {
        if self.links[link].paused {
            // It lags behind the others.
            self.raid_everything(self.links[link].from);
        }
        self.links[link].paused ^= true;
        let paused = self.links[link].paused;
        tell(None, || format!("DC {link} is {}", if paused { "paused" } else { "resumed" }));
        if self.links[link].engine.is_none() {
            return;
        }
        self.configure(link, &[]);
        self.happened(Fault::Pause);
        let marks = self.marks(link);
        self.begin_marks(link, marks);
    }

    /// Often enough a raid is under way when a DC begins in the past.
    fn in_the_middle_of_a_raid(&mut self, site: usize, rng: &mut Rng) {
        if self.plan.has(Fault::Raid) && self.sites[site].up && rng.percent(60) {
            if rng.percent(50) {
                self.let_a_raid_go_far(site);
            }
            while !matches!(self.sites[site].raid, Some((_, true))) {
                self.raid(site);
            }
        }
    }

    /// A whole raid of all that positions allow.
    pub fn raid_everything(&mut self, site: usize) {
        if self.plan.has(Fault::Raid) && self.sites[site].up {
            self.let_a_raid_go_far(site);
            (0..3).for_each(|_| self.raid(site));
        }
    }

    /// Positions as new, and older copies as few, as can be.
    fn let_a_raid_go_far(&mut self, site: usize) {
        self.flush(site);
        if self.plan.has(Fault::Defrag) {
            while self.sites[site].store.defrag(0) {}
            self.flush(site);
        }
        self.links_from(site).into_iter().for_each(|link| _ = self.sweep(link));
        (0..3).for_each(|_| self.checkpoint(site));
        self.sites[site].raid = None;
    }

    fn fault_rewind(&mut self, link: usize, rng: &mut Rng) {
        let from = self.links[link].from;
        self.in_the_middle_of_a_raid(from, rng);
        let to = self.clock(from).minus_ms(rng.pick(&[0, 10, 500, 1_000_000]));
        let Some(rules) = self.links[link].rules() else { return };
        tell(None, || format!("DC {link} is rewound to {to}"));
        let starts: Vec<_> = rules.attached_ids().map(|namespace| (namespace, at(to))).collect();
        self.configure(link, &starts);
        self.happened(Fault::Rewind);
        self.links[link].seen.clear();
        let marks = self.marks(link);
        self.begin_marks(link, marks);
        oracle::note_rewind(self, link, None, to);
    }

    /// A site's process dies, and everything that was only in its memory.
    pub fn crash(&mut self, site: usize, rng: &mut Rng) {
        if !self.sites[site].up {
            return;
        }
        tell(None, || format!("site {site} dies"));
        let held: Vec<_> = self.sites[site]
            .store
            .keys()
            .filter_map(|(key, rec)| Some((key, rec.version, rec.source?)))
            .collect();
        self.sites[site].crash();
        self.checkpoints[site] = checkpoints(self.plan.namespaces);
        for (key, version, (link, source)) in held {
            let now = self.sites[site].store.get(key).map(|rec| rec.version);
            let place = &self.links[link];
            let settled = place.ledger.settled.get(&key).copied().unwrap_or_default();
            let in_hand = place.wire().into_iter().flat_map(Wire::acknowledged).any(|slot| {
                let flight = place.flights.get(&slot);
                flight.is_some_and(|flight| flight.key == key && flight.read >= Some(source))
            });
            let is_gone = now.unwrap_or(Version::ZERO) < version;
            let counted = settled >= source && !place.ledger.nothing_to_lose(key, source);
            if is_gone && (counted || in_hand) {
                self.links[link].ledger.lost.insert(key, source);
            }
        }
        oracle::note_loss(self, site);
        for link in 0..self.links.len() {
            if self.links[link].from == site || self.links[link].to == Dest::Site(site) {
                oracle::note_what_is_left(self, link);
            }
        }
        self.stragglers.retain(|straggler| self.links[straggler.link].to != Dest::Site(site));
        for link in 0..self.links.len() {
            if self.links[link].from == site || self.links[link].to == Dest::Site(site) {
                for node in 0..self.links[link].conns().len() {
                    self.reset(link, node, rng);
                }
            }
            if self.links[link].from == site {
                self.forget(link);
            }
        }
    }

    /// A site's process starts again.
    pub fn start_site(&mut self, site: usize) {
        self.sites[site].start();
        self.sites[site].feared_until = self.after_grace();
        tell(None, || format!("site {site} starts"));
        for link in 0..self.links.len() {
            if self.links[link].from == site && self.links[link].exists {
                self.start_dc(link);
            }
        }
    }

    /// A stop in good order: flushed, marks durable. What is in flight then is left to its fate.
    fn fault_restart(&mut self, site: usize, rng: &mut Rng) {
        if !self.sites[site].up {
            return;
        }
        self.happened(Fault::SourceRestart);
        while self.sites[site].tickets.iter().any(|ticket| ticket.unpublished.is_none()) {
            self.wake_ticket(site, rng);
        }
        self.flush(site);
        for link in self.links_from(site) {
            self.sweep(link);
        }
        let links = self.links_from(site);
        let marks = links.into_iter().flat_map(|link| self.positions(link)).collect();
        self.store_marks(site, marks);
        self.crash(site, rng);
        self.start_site(site);
    }
}

/// All lanes of a namespace at a position.
fn at(from: Lut) -> Start {
    Start::At(vec![Some(from); PARTITION_COUNT].into())
}
