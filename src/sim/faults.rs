//! What goes wrong, and what operators do.

use super::link::Conn;
use super::op::tick_ms;
use super::oracle;
use super::plan::{Dest, Fault, choose_filter};
use super::rng::Rng;
use super::site::Mood;
use super::store::Key;
use super::trace::tell;
use super::world::World;
use crate::config::DcNamespaceConfig;
use crate::model::{NamespaceId, Version};
use crate::ship::{Policy, Start};

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
        let busy = |link: &usize| self.links[*link].conns.iter().any(|conn| !conn.is_idle());
        let candidates: Vec<usize> = (0..self.links.len()).filter(busy).collect();
        let link = rng.index(candidates.len()).map_or(link, |at| candidates[at]);
        let conns = &self.links[link].conns;
        let busy = conns.iter().position(|conn| !conn.is_idle());
        let Some(node) = busy.or_else(|| rng.index(conns.len())) else { return };
        let conn = &self.links[link].conns[node];
        let applies = match fault {
            Fault::LostReply => !conn.replies.is_empty(),
            _ => conn.up,
        };
        if applies {
            self.happened(fault);
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
        match self.links[link].to {
            Dest::Site(site) => self.sites[site].mood = mood,
            Dest::Foreign(foreign) => self.foreigns[foreign].mood = mood,
        }
    }

    fn fault_map(&mut self, link: usize, rng: &mut Rng) {
        let Dest::Foreign(foreign) = self.links[link].to else { return };
        self.happened(Fault::MapChange);
        let lane = rng.below(super::world::LANES as u64) as usize;
        self.foreigns[foreign].owner[lane] = rng.pick(&[None, Some(0), Some(1), Some(1)]);
        for link in &mut self.links {
            if let (Dest::Foreign(to), Some(dc)) = (link.to, &mut link.dc)
                && to == foreign
            {
                dc.map_changed();
            }
        }
    }

    fn fault_config(&mut self, fault: Fault, link: usize, rng: &mut Rng) {
        let n = rng.below(self.plan.namespaces as u64) as usize;
        let from = self.links[link].from;
        let clock = self.sites[from].version_clock(self.now_us);
        let last = self.sites[from].last;
        oracle::note_refilter(self, link);
        let place = &mut self.links[link];
        let Some(config) = &mut place.configs[n] else { return };
        if fault == Fault::Retune {
            config.hot_key_ms = rng.pick(&[0, 20, 100, 500]);
            config.delay_ms = rng.pick(&[0, 20]).min(config.hot_key_ms);
            config.max_throughput = rng.pick(&[0, 100, 100_000]);
            config.transaction_queue_limit = rng.pick(&[4, 64, 16_384]);
        } else if config.forward {
            return;
        } else {
            choose_filter(config, rng);
            place.ledger.refiltered = Some(last);
        }
        let policy = Policy::new(config, 0, 1);
        tell(None, || format!("DC {link}, namespace {n}: {config:?}"));
        if let Some(dc) = &mut self.links[link].dc {
            dc.set_policy(NamespaceId(n as u8), policy, clock);
        }
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
            let clock = self.sites[from].version_clock(self.now_us);
            self.create(link, back_ms.map(|ms| clock.minus_ms(ms)));
        }
    }

    fn delete(&mut self, link: usize, rng: &mut Rng) {
        let from = self.links[link].from;
        self.links[link].dc = None;
        for node in 0..self.links[link].conns.len() {
            self.reset(link, node, rng);
        }
        self.forget(link);
        self.links[link].exists = false;
        self.links[link].ledger = Default::default();
        self.sites[from].writing = None;
        self.sites[from].durable.marks.remove(&link);
        self.sites[from].feared_until = self.after_grace();
        tell(None, || format!("DC {link} is deleted"));
    }

    fn fault_detach(&mut self, link: usize, rng: &mut Rng) {
        let n = rng.below(self.plan.namespaces as u64) as usize;
        if self.links[link].dc.is_none() {
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
                (0..self.links[link].conns.len()).for_each(|node| self.reset(link, node, rng));
            }
        }
    }

    fn detach(&mut self, link: usize, n: usize) {
        tell(None, || format!("DC {link} ships namespace {n} no more"));
        let (namespace, keys) = (NamespaceId(n as u8), self.plan.keys);
        let keep = |key: Key| usize::from(key / keys) != n;
        let place = &mut self.links[link];
        if let Some(dc) = &mut place.dc {
            dc.detach(namespace);
        }
        place.seen.retain(|(of, _), _| *of != n);
        place.ledger.forget(keep);
        place.flights.values_mut().for_each(|flight| flight.discarded |= !keep(flight.key));
        for letter in &mut place.letters {
            letter.discarded |= letter.abandoned.namespace == namespace;
        }
        self.happened(Fault::Detach);
        let site = &mut self.sites[self.links[link].from];
        site.writing = None;
        if let Some(marks) = site.durable.marks.get_mut(&link) {
            marks.retain(|(of, _), _| *of != n);
        }
    }

    fn attach(&mut self, link: usize, n: usize, config: DcNamespaceConfig, back_ms: Option<u64>) {
        let (namespace, from) = (NamespaceId(n as u8), self.links[link].from);
        let (now, clock) = (self.now(from), self.sites[from].version_clock(self.now_us));
        let begin = back_ms.map_or(clock, |ms| clock.minus_ms(ms));
        tell(None, || format!("DC {link} ships namespace {n} again, from {begin} on"));
        let place = &mut self.links[link];
        if let Some(dc) = &mut place.dc {
            let start = back_ms.map_or(Start::Now, |_| Start::From(begin));
            dc.attach(namespace, Policy::new(&config, 0, 1), clock, now, |_| start);
        }
        place.configs[n] = Some(config);
        let marks = self.marks(link);
        self.begin_marks(link, marks);
        if back_ms.is_some() {
            oracle::note_rewind(self, link, Some(namespace), begin);
        }
        self.happened(Fault::Detach);
    }

    /// What is only in memory is gone.
    fn forget(&mut self, link: usize) {
        let link = &mut self.links[link];
        for walk in &link.walks {
            self.sites[link.from].store.close_walk(walk.id);
        }
        link.dc = None;
        link.reads.clear();
        link.flights.clear();
        link.letters.clear();
        link.walks.clear();
        link.known_boot = None;
        link.destination = Default::default();
        link.seen.clear();
        link.asked = None;
        for conn in &mut link.conns {
            *conn = Conn::default();
        }
    }

    fn fault_pause(&mut self, link: usize) {
        let from = self.links[link].from;
        let clock = self.sites[from].version_clock(self.now_us);
        self.links[link].paused ^= true;
        let paused = self.links[link].paused;
        tell(None, || format!("DC {link} is {}", if paused { "paused" } else { "resumed" }));
        let Some(dc) = &mut self.links[link].dc else { return };
        if paused {
            dc.pause(|_| clock);
        } else {
            dc.resume(|_| clock);
        }
        self.happened(Fault::Pause);
        let marks = self.marks(link);
        self.begin_marks(link, marks);
    }

    /// Often enough a raid is under way when a DC begins in the past.
    fn in_the_middle_of_a_raid(&mut self, site: usize, rng: &mut Rng) {
        if self.plan.has(Fault::Raid) && self.sites[site].up && rng.percent(60) {
            while !matches!(self.sites[site].raid, Some((_, true))) {
                self.raid(site);
            }
        }
    }

    fn fault_rewind(&mut self, link: usize, rng: &mut Rng) {
        let from = self.links[link].from;
        self.in_the_middle_of_a_raid(from, rng);
        let clock = self.sites[from].version_clock(self.now_us);
        let to = clock.minus_ms(rng.pick(&[0, 10, 500, 1_000_000]));
        let Some(dc) = &mut self.links[link].dc else { return };
        tell(None, || format!("DC {link} is rewound to {to}"));
        let namespaces: Vec<NamespaceId> = dc.attached_ids().collect();
        for namespace in namespaces {
            // As an engine does it: its configuration again, then where it begins.
            let place = &mut self.links[link];
            if let (Some(config), Some(dc)) = (&place.configs[namespace.index()], &mut place.dc) {
                dc.set_policy(namespace, Policy::new(config, 0, 1), clock);
                dc.rewind(namespace, to);
            }
        }
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
        for (key, version, (link, source)) in held {
            let now = self.sites[site].store.get(key).map(|rec| rec.version);
            let settled = self.links[link].ledger.settled.get(&key).copied().unwrap_or_default();
            if now.unwrap_or(Version::ZERO) < version && settled >= source {
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
            if self.links[link].from == site {
                self.links[link].dc = None;
            }
            if self.links[link].from == site || self.links[link].to == Dest::Site(site) {
                for node in 0..self.links[link].conns.len() {
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
            while !self.sweep(link, rng) {}
        }
        self.sites[site].writing = None;
        self.checkpoint(site);
        self.checkpoint(site);
        self.crash(site, rng);
        let _ = tick_ms(0);
        self.start_site(site);
    }
}
