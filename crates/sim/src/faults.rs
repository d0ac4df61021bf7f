//! What goes wrong, and what operators do.

use crate::control::{name_of, namespace_of};
use crate::link::Nodeless;
use crate::oracle;
use crate::plan::{Dest, Fault, choose_filter};
use crate::rng::Rng;
use crate::site::Mood;
use crate::trace::tell;
use crate::wire::Wire;
use crate::world::{World, follower};
use longship::dest::{NamespaceFacts, NodeEvent};
use longship::engine::{Command, Rewind};
use longship::model::{NamespaceId, ShardIndex, Tick, Version};

impl World {
    /// One of the plan's faults happens, if it can.
    pub(crate) fn fault(&mut self, rng: &mut Rng) {
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
        // An operator has mended it, or thinks so.
        if fault == Fault::Permanent && Rng::at(!self.plan.seed, self.now_us).percent(40) {
            self.replay(link);
        }
    }

    /// A cluster answers like that from now on, and says so of itself.
    pub(crate) fn set_mood(&mut self, to: Dest, mood: Mood, facts: NamespaceFacts) {
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
    pub(crate) fn tell_facts(&mut self, link: usize) {
        let facts = match self.links[link].to {
            Dest::Site(site) => self.sites[site].facts,
            Dest::Foreign(foreign) => self.foreigns[foreign].facts,
        };
        let place = &mut self.links[link];
        let namespaces = place.configs.len();
        let Some(wire) = place.wire_mut() else { return };
        wire.facts = facts;
        (0..namespaces).for_each(|n| wire.notify(NodeEvent::FactsChanged(NamespaceId(n as u8))));
        place.woken = true;
        place.nodeless = Nodeless::No;
    }

    fn fault_map(&mut self, link: usize, rng: &mut Rng) {
        let Dest::Foreign(foreign) = self.links[link].to else { return };
        self.happened(Fault::MapChange);
        let lane = rng.below(crate::world::LANES as u64) as usize;
        self.foreigns[foreign].owner[lane] = rng.pick(&[None, Some(0), Some(1), Some(1)]);
        self.tell_map(foreign);
    }

    /// Every DC that ships to a cluster learns its partition map.
    pub(crate) fn tell_map(&mut self, foreign: usize) {
        let owner = &self.foreigns[foreign].owner;
        for link in self.links.iter_mut().filter(|link| link.to == Dest::Foreign(foreign)) {
            link.woken = true;
            link.nodeless = Nodeless::No;
            if let Some(wire) = link.wire_mut() {
                wire.owner.clone_from(owner);
                wire.notify(NodeEvent::MapChanged);
            }
        }
    }

    fn fault_config(&mut self, fault: Fault, link: usize, rng: &mut Rng) {
        let n = rng.below(self.plan.namespaces as u64) as usize;
        let site = &self.sites[self.links[link].from];
        // A process that is down has no clock: what it comes back with is in its store.
        let last = site.last.get().max(site.store.highest());
        let place = &mut self.links[link];
        let Some(mut config) = place.configs[n].clone() else { return };
        if rng.percent(10) {
            return self.other_command(link, rng);
        }
        if fault == Fault::Retune {
            config.hot_key_ms = rng.pick(&[0, 20, 100, 500]);
            config.delay_ms = rng.pick(&[0, 20]).min(config.hot_key_ms);
            config.max_throughput = rng.pick(&[0, 100, 100_000]);
            config.transaction_queue_limit = rng.pick(&[4, 64, 16_384]);
        } else {
            choose_filter(&mut config, rng);
        }
        tell(None, || format!("DC {link}, namespace {n}: {config:?}"));
        if place.engine.is_some() {
            let is_taken = self.edit(link, |dc| {
                if let Some(known) = dc.namespace_mut(&config.name) {
                    *known = config;
                }
            });
            if !is_taken {
                return self.other_command(link, rng);
            }
        } else {
            // The file is edited meanwhile.
            if fault == Fault::Refilter {
                place.ledger.refiltered = Some(last);
            }
            oracle::note_refilter(self, link);
            self.links[link].set(n, config.clone());
            self.links[link].configs[n] = Some(config);
            self.note_delays(link);
            oracle::note_refilter(self, link);
        }
        self.happened(fault);
    }

    /// A command that moves nothing, or is refused.
    fn other_command(&mut self, link: usize, rng: &mut Rng) {
        let (from, dc) = (self.links[link].from, name_of(link));
        let set = |key: &str, value: &str| {
            let (dc, key, value) = (dc.clone(), key.to_owned(), value.to_owned());
            Command::SetDc { dc, key, value }
        };
        let seed = "192.0.2.1:3000".to_owned();
        let (namespace, key, value) = (namespace_of(0), "nsup-period".to_owned(), "60".to_owned());
        let command = match rng.below(6) {
            0 => set("node-address-port", &seed),
            1 => Command::RemoveSeed { dc, seed },
            2 => Command::SetNamespace { namespace, key, value },
            3 => Command::DeleteDc { dc: "dcx".to_owned() },
            4 => Command::CreateDc { dc },
            _ => set("no-such-item", "1"),
        };
        self.command(from, command);
    }

    fn fault_recreate(&mut self, link: usize, rng: &mut Rng) {
        let from = self.links[link].from;
        if !self.sites[from].up {
            return;
        }
        self.happened(Fault::DcRecreated);
        if self.links[link].exists {
            self.command(from, Command::DeleteDc { dc: name_of(link) });
        }
        if rng.percent(50) {
            self.create(link, choose_rewind(rng));
        }
    }

    /// Creates a DC with the namespaces that it had.
    fn create(&mut self, link: usize, rewind: Rewind) {
        let (from, dc) = (self.links[link].from, name_of(link));
        self.command(from, Command::CreateDc { dc });
        for n in 0..self.plan.namespaces {
            if self.links[link].settings[n].is_some() {
                self.attach(link, n, rewind);
            }
        }
    }

    fn fault_detach(&mut self, link: usize, rng: &mut Rng) {
        let n = rng.below(self.plan.namespaces as u64) as usize;
        if self.links[link].engine.is_none() {
            return;
        }
        if self.links[link].configs[n].is_some() {
            let (from, dc, namespace) = (self.links[link].from, name_of(link), namespace_of(n));
            self.command(from, Command::RemoveNamespace { dc, namespace });
            self.happened(Fault::Detach);
            if rng.percent(70) {
                return;
            }
        }
        if self.links[link].settings[n].is_some() {
            self.in_the_middle_of_a_raid(self.links[link].from, rng);
            self.attach(link, n, choose_rewind(rng));
            self.happened(Fault::Detach);
            // What was in flight for it is a straggler now.
            if self.plan.has(Fault::Reset) && rng.percent(50) {
                self.happened(Fault::Reset);
                (0..self.links[link].conns().len()).for_each(|node| self.reset(link, node, rng));
            }
        }
    }

    fn attach(&mut self, link: usize, n: usize, rewind: Rewind) {
        let (from, dc, namespace) = (self.links[link].from, name_of(link), namespace_of(n));
        self.command(from, Command::AddNamespace { dc, namespace, rewind });
    }

    /// What is only in memory is gone.
    pub(crate) fn forget(&mut self, link: usize) {
        let dc = self.links[link].index;
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
        link.letters_left.clear();
        link.refused.clear();
        link.waits.clear();
        link.known_boot = None;
        link.destination = Default::default();
        link.seen.clear();
        link.asked = None;
    }

    fn fault_pause(&mut self, link: usize) {
        let paused = !self.links[link].paused;
        if !paused {
            // It lags behind the others.
            self.raid_everything(self.links[link].from);
        }
        tell(None, || format!("DC {link} is {}", if paused { "paused" } else { "resumed" }));
        if self.links[link].engine.is_none() {
            return;
        }
        let (from, dc) = (self.links[link].from, name_of(link));
        self.command(from, Command::Pause { dc, paused });
        self.happened(Fault::Pause);
    }

    /// Often enough a raid is under way when a DC begins in the past.
    fn in_the_middle_of_a_raid(&mut self, site: usize, rng: &mut Rng) {
        if self.plan.has(Fault::Raid) && self.sites[site].up && rng.percent(60) {
            if rng.percent(50) {
                self.let_a_raid_go_far(site);
            }
            self.raid_halfway(site);
        }
    }

    /// A raid has found what it wants to drop, and has not asked again.
    pub(crate) fn raid_halfway(&mut self, site: usize) {
        while !matches!(self.sites[site].raid, Some((_, true))) {
            self.raid(site);
        }
    }

    /// A whole raid of all that positions allow.
    pub(crate) fn raid_everything(&mut self, site: usize) {
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
        for _ in 0..3 {
            self.checkpoint(site);
            self.settle_control(site);
        }
        self.sites[site].raid = None;
    }

    fn fault_rewind(&mut self, link: usize, rng: &mut Rng) {
        let from = self.links[link].from;
        self.in_the_middle_of_a_raid(from, rng);
        let rewind = rng.pick(&[0, 0, 1, 1000].map(Rewind::Seconds));
        let Some(rules) = self.links[link].rules() else { return };
        let attached: Vec<NamespaceId> = rules.attached_ids().collect();
        // A tool sends it to every node, and every shard is one.
        let ports: &[u16] = rng.pick(&[&[0][..], &[2, 0, 1]]);
        for namespace in attached {
            let (dc, namespace) = (name_of(link), namespace_of(namespace.index()));
            let command = Command::RewindNamespace { dc, namespace, rewind };
            for &port in ports {
                self.command_at(from, (ShardIndex(port), 0), command.clone());
            }
        }
        self.happened(Fault::Rewind);
    }

    /// A site's process dies, and everything that was only in its memory.
    pub(crate) fn crash(&mut self, site: usize, rng: &mut Rng) {
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
        self.lose_control(site);
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
            // What is replayed has its letter until the destination has it on its device.
            let has_letter = place.ledger.dead.get(&key).is_some_and(|&dead| dead >= source);
            if is_gone && (counted || in_hand && !has_letter) {
                self.links[link].ledger.lost.insert(key, source);
            }
        }
        oracle::note_loss(self, site);
        for link in 0..self.links.len() {
            if self.links[link].from == site || self.links[link].to == Dest::Site(site) {
                oracle::note_what_is_left(self, link);
            }
        }
        self.take_letters_back(site);
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
    pub(crate) fn start_site(&mut self, site: usize) {
        self.sites[site].start();
        let now = self.now(site).tick;
        self.followers[site] = Some(follower(&self.plan, self.sites[site].src_id, true, now));
        tell(None, || format!("site {site} starts"));
        self.start_control(site);
        for link in self.links_from(site) {
            oracle::what_was_given_up_has_a_letter(self, link);
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
        self.stop_control(site);
        self.crash(site, rng);
        self.start_site(site);
    }
}

/// Where a namespace begins that is attached.
fn choose_rewind(rng: &mut Rng) -> Rewind {
    use Rewind::{Now, Seconds};
    rng.pick(&[Now, Now, Seconds(0), Seconds(1), Seconds(100)])
}
