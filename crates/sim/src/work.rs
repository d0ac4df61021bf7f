//! What moves a DC: the steps of its engine, its reads and its connections, one small
//! piece at a time and in any order.

use std::task::{Context, Waker};

use crate::host::Shown;
use crate::link::{Ended, Flight, Link, Nodeless, Stage, Straggler};
use crate::op::{Op, decode};
use crate::oracle;
use crate::order;
use crate::plan::{Dest, Fault};
use crate::rng::Rng;
use crate::store::shown;
use crate::trace::tell;
use crate::turns;
use crate::wire::{Conn, Handed, Request};
use crate::world::World;
use longship::dest::{NodeEvent, NodeIndex, Reboot, Reply};
use longship::engine::{Budget, Look, Next};
use longship::host::ReadOutcome;
use longship::model::{Lut, Tick, Version};
use longship::ship::Dispatch;
use longship::ship::mutation::{Mutation, planted};
use longship::wire::ResultCode;
use longship::wire::hello::HelloAnswer;

/// Kinds of work for a link.
pub(crate) const KINDS: u64 = 12;
/// The kind that changes a destination, which may ship on what it takes.
pub(crate) const DELIVER: u64 = 6;
/// The kind of which there is always more.
pub(crate) const SWEEP: u64 = 9;
/// Bytes of a batch's buffer: a few records.
const BATCH_BYTES: usize = 1024;

impl World {
    /// Does one piece of a link's work, of this kind if there is any of it. False: nothing to do.
    pub(crate) fn work(&mut self, link: usize, kind: u64, rng: &mut Rng) -> bool {
        if self.links[link].engine.is_none() {
            return false;
        }
        match kind {
            0 => self.connect(link),
            1 | 2 => self.decide(link, rng),
            3 => self.read(link, rng),
            4 => self.serve(link, rng),
            5 => self.write(link, rng),
            DELIVER => self.deliver(link, rng),
            7 | 8 => self.answer(link, rng),
            SWEEP => self.sweep(link),
            10 => self.begin_walk(link, rng),
            _ => self.step_walks(link, rng),
        }
    }

    /// Opens the connections that can be opened.
    fn connect(&mut self, link: usize) -> bool {
        if self.links[link].blocked_until_us > self.now_us {
            return false;
        }
        let mut opened = false;
        for node in 0..self.links[link].conns().len() {
            let reachable = match self.links[link].to {
                Dest::Site(site) => self.sites[site].up,
                Dest::Foreign(foreign) => self.foreigns[foreign].up[node],
            };
            if !self.links[link].conns()[node].up && reachable {
                self.open(link, node);
                opened = true;
            }
        }
        opened
    }

    fn open(&mut self, link: usize, node: usize) {
        self.epoch += 1;
        let epoch = self.epoch;
        tell(None, || format!("DC {link} connects to node {node}, epoch {epoch}"));
        let place = &mut self.links[link];
        let index = NodeIndex(node as u16);
        let mut hello = None;
        let mut reboot = None;
        if let Dest::Site(site) = place.to {
            // The fence: what is unread on older connections goes before the hello is answered.
            if !planted(Mutation::StragglerLetIn) {
                self.stragglers.retain(|straggler| straggler.link != link);
            }
            let site = &self.sites[site];
            let (boot, src_id, loss_window_ms) = (site.boot, site.src_id, site.window_ms);
            hello = Some(HelloAnswer { boot, loss_window_ms, src_id, stores: Vec::new() });
            let known = place.known_boot.replace(boot).filter(|known| *known != boot);
            reboot = known.map(|previous_boot| Reboot {
                node: index,
                previous_boot,
                boot,
                last_answer: None,
                loss_window_ms,
                src_id,
            });
        }
        let Some(wire) = place.wire_mut() else { return };
        wire.open(node, epoch);
        reboot.into_iter().for_each(|reboot| wire.notify(NodeEvent::Rebooted(reboot)));
        wire.notify(NodeEvent::Up { node: index, connection: epoch, hello });
        place.woken = true;
    }

    fn budget(&self, rng: &mut Rng) -> Budget {
        Budget {
            settled: rng.pick(&[1, 3, 4096]),
            dispatched: rng.pick(&[1, 3, 20, 100]),
            waiting: if self.plan.has(Fault::SmallQueues) { 4 } else { 2048 },
            swept: rng.pick(&[1, 30, 1000]),
            served: rng.pick(&[1, 2, 5, 256]),
        }
    }

    /// The step that decides. An engine that sleeps is called as well, since a real one may be
    /// woken for nothing.
    fn decide(&mut self, link: usize, rng: &mut Rng) -> bool {
        let Link { again, woken, next_due_us, .. } = self.links[link];
        if !again && !woken && self.now_us < next_due_us {
            oracle::who_sleeps_misses_nothing(self, link);
            // In the calm at the end of a run an engine is called only when something has woken it.
            if self.calm {
                return false;
            }
        }
        // Who waited has taken what woke it.
        self.links[link].woken &= again;
        let (now, budget) = (self.now(self.links[link].from), self.budget(rng));
        let limits = self.plan.limits;
        let in_turns = turns::are_watched(limits) && !self.has_just_stepped();
        let Self { sites, links, .. } = self;
        let place = &mut links[link];
        let Some(engine) = &mut place.engine else { return false };
        let in_order = order::is_watched(&place.reaches);
        let is_watched = in_turns || in_order;
        let before = is_watched.then(|| turns::Look::before(engine.rules(), now, in_order));
        let decided = engine.decide(&sites[place.from], now, &budget);
        let out: Vec<Dispatch> = engine.dispatched().to_vec();
        let overdue = std::mem::take(&mut engine.destination_mut().overdue);
        let settled = self.settle(link, budget.settled);
        if let (Some(before), Some(rules)) = (before, self.links[link].rules()) {
            let looks = [&before, &turns::Look::after(rules, now, in_order)];
            if in_turns {
                turns::nobody_is_passed_over(&mut self.links[link], limits, looks, &out);
            }
            if in_order {
                order::the_oldest_leaves_first(self, link, looks, &out, settled);
            }
        }
        oracle::note_sleep(self, link, decided.next, settled + out.len(), budget.waiting);
        for dispatch in &out {
            let key = self.key(dispatch.namespace, &dispatch.digest);
            tell(Some(key), || {
                format!("DC {link} dispatches @{} in slot {}", dispatch.lut, dispatch.slot)
            });
            oracle::at_most_one_version_in_flight(&self.links[link], key);
            let flight = Flight { key, node: dispatch.node, ..Flight::default() };
            self.links[link].flights.insert(dispatch.slot, flight);
            self.mark(u64::from(dispatch.slot) << 16 | u64::from(key));
        }
        self.tell_news(link);
        for dispatch in &out {
            oracle::nothing_ships_before_its_time(self, link, dispatch);
        }
        if decided.is_swept {
            oracle::an_lst_never_passes_an_unsettled_change(self, link);
            oracle::what_waits_is_told(self, link);
        }
        for node in overdue {
            self.happened(Fault::Timeout);
            self.reset(link, node, rng);
        }
        settled + out.len() > 0 || decided.next == Next::Again
    }

    /// Keeps the ledger of what an engine has just settled: it goes by replies, then by what happened
    /// to connections, as far as one budget for both has it, then by what it found out while serving.
    fn settle(&mut self, link: usize, budget: usize) -> usize {
        let mut count = 0;
        let replies = self.links[link].wire().map_or(0, |wire| wire.handed_replies.len());
        for _ in 0..replies.min(budget) {
            let wire = self.links[link].wire_mut();
            let Some(reply) = wire.and_then(|wire| wire.handed_replies.pop_front()) else { break };
            self.settle_reply(link, reply);
            count += 1;
        }
        if replies <= budget {
            count += self.settle_handed(link, budget - count);
        }
        for (slot, ended) in std::mem::take(&mut self.links[link].ended) {
            self.settle_ended(link, slot, ended);
            count += 1;
        }
        count
    }

    fn settle_handed(&mut self, link: usize, mut left: usize) -> usize {
        let mut count = 0;
        loop {
            let place = &mut self.links[link];
            let from = place.lost.len().saturating_sub(left);
            let returned = place.lost.split_off(from);
            count += returned.len();
            left -= returned.len();
            for slot in returned {
                let flight = self.take_flight(link, slot, "returned");
                if !flight.discarded {
                    // Without a fence an answer says nothing of stragglers until then.
                    let place = &mut self.links[link];
                    let is_feared = flight.stage == Stage::Sent && !place.is_fenced();
                    let then = Tick(self.now_us).plus_ms(self.plan.limits.grace_ms.into());
                    place.waits.ended(flight.key, true, is_feared.then_some(then));
                }
            }
            let place = &mut self.links[link];
            if !place.lost.is_empty() || left == 0 {
                return count;
            }
            let wire = place.wire_mut();
            let Some(handed) = wire.and_then(|wire| wire.handed.pop_front()) else { return count };
            count += 1;
            match handed {
                Handed::Up(node, epoch, src_id) => {
                    place.return_encoded(|other| other == node);
                    place.told.insert(node, epoch);
                    place.destination = src_id.unwrap_or(place.destination);
                }
                Handed::Down(slots) => place.lost = slots,
                Handed::Rebooted => {
                    tell(None, || format!("DC {link} learns that its destination restarted"));
                    oracle::note_restart(self, link);
                }
            }
        }
    }

    fn take_flight(&mut self, link: usize, slot: u32, how: &str) -> Flight {
        let Some(flight) = self.links[link].flights.remove(&slot) else {
            panic!("DC {link} is to settle slot {slot} twice");
        };
        tell(Some(flight.key), || format!("DC {link} settles slot {slot}: {how}"));
        self.mark(u64::from(slot) << 8 | 1);
        flight
    }

    fn settle_reply(&mut self, link: usize, Reply { tag, code }: Reply) {
        let flight = self.take_flight(link, tag, &code.to_string());
        if flight.discarded {
            return;
        }
        let read = flight.read.unwrap_or_default();
        let is_there = oracle::arrived(self, link, flight.key, read);
        let Link { ledger, counted, refused, waits, .. } = &mut self.links[link];
        waits.ended(flight.key, false, None);
        if code == ResultCode::OK || flight.is_delete && code == ResultCode::NOT_FOUND {
            // Only a replay ships what is withheld: as long as its letter is there, that stands for it.
            if ledger.withholds(flight.key, read)
                && let Some(dead) = ledger.dead.get_mut(&flight.key)
            {
                *dead = read.max(*dead);
            }
            ledger.send(flight.key, read);
            // Something that is withheld may have come over it since it was read.
            if ledger.not_sent.get(&flight.key).is_some_and(|&withheld| withheld <= read) {
                ledger.not_sent.remove(&flight.key);
            }
            ledger.arrived.insert(flight.key, read);
            counted.acknowledged += 1;
            self.tally.shipped += 1;
        } else {
            waits.ended(flight.key, true, None);
            refused.insert(flight.key, read);
            if !is_there {
                ledger.arrived.remove(&flight.key);
            }
        }
    }

    fn settle_ended(&mut self, link: usize, slot: u32, ended: Ended) {
        let flight = self.take_flight(link, slot, "nothing was sent");
        if flight.discarded {
            return;
        }
        let Link { ledger, counted, waits, .. } = &mut self.links[link];
        waits.ended(flight.key, matches!(ended, Ended::Unsent), None);
        waits.unsent(flight.key);
        match ended {
            Ended::Gone(newest) => {
                counted.not_found += 1;
                ledger.withhold(flight.key, newest);
            }
            Ended::FilteredOut(read) => {
                counted.filtered_out += 1;
                ledger.withhold(flight.key, read);
            }
            Ended::Unsent => {}
        }
    }

    /// Finishes one read: in any order, late, or not at all well.
    fn read(&mut self, link: usize, rng: &mut Rng) -> bool {
        let (from, index) = (self.links[link].from, self.links[link].index);
        let reads = self.sites[from].reading.iter().enumerate();
        let mine: Vec<usize> =
            reads.filter(|(_, reading)| reading.dc == index).map(|(at, _)| at).collect();
        let Some(at) = rng.index(mine.len()) else { return false };
        if !self.calm && self.plan.has(Fault::SlowRead) && rng.percent(60) {
            self.happened(Fault::SlowRead);
            return false;
        }
        let reading = self.sites[from].reading.swap_remove(mine[at]);
        let fails = !self.calm && self.plan.has(Fault::FailedRead) && rng.percent(20);
        let mut ended = None;
        if fails {
            self.happened(Fault::FailedRead);
            let outcome = if rng.percent(75) { ReadOutcome::Failed } else { ReadOutcome::NoMemory };
            self.sites[from].fail_read(reading, outcome);
            ended = Some(Ended::Unsent);
        } else {
            if self.sites[from].store.get(reading.key).is_none() {
                ended = Some(self.gone(link, reading.key));
            }
            self.sites[from].finish_read(reading);
        }
        if let Some(ended) = ended.filter(|_| !reading.for_letter) {
            self.links[link].read_ends.push((reading.tag as u32, ended));
        }
        true
    }

    fn gone(&self, link: usize, key: crate::store::Key) -> Ended {
        Ended::Gone(self.links[link].ledger.newest(key).unwrap_or_default())
    }

    /// The step that serves, with memory for batches or without.
    fn serve(&mut self, link: usize, rng: &mut Rng) -> bool {
        let (now, budget) = (self.now(self.links[link].from), self.budget(rng));
        let is_short = !self.calm && rng.percent(4);
        let Self { sites, links, .. } = self;
        let place = &mut links[link];
        let site = &mut sites[place.from];
        let dropped = place.dropped_reads(site);
        let Some(engine) = &mut place.engine else { return false };
        let book = site.book.clone();
        book.take();
        site.peeked.set(None);
        let memory = |_: usize| {
            if is_short {
                book.note(Shown::NoMemory);
            }
            (!is_short).then(|| vec![0; BATCH_BYTES])
        };
        let begun = site.reading.len();
        let is_read = engine.poll_reads(site, &mut Context::from_waker(Waker::noop())).is_ready();
        let served = engine.serve(site, &memory, now, &budget);
        place.woken |= served.news;
        let sent = std::mem::take(&mut engine.destination_mut().sent);
        let begun = site.reading.len() > begun;
        if is_read {
            let ends = std::mem::take(&mut place.read_ends);
            place.ended.extend(ends);
            place.ended.extend(dropped.into_iter().map(|slot| (slot, Ended::Unsent)));
        }
        let shown = book.take();
        let done = is_read || begun || !sent.is_empty() || served.more || served.news;
        self.note_shown(link, shown);
        self.note_sent(link, &sent);
        done
    }

    /// Notes what an engine was shown, and what is to come of it by the text of its configuration.
    fn note_shown(&mut self, link: usize, all: Vec<Shown>) {
        let mut all = all.into_iter().peekable();
        while let Some(one) = all.next() {
            // It will be looked at again.
            if matches!(all.peek(), Some(Shown::NoMemory)) {
                continue;
            }
            let (key, rec) = match one {
                Shown::Record(key, rec) => (key, Some(rec)),
                Shown::Gone(key) => (key, None),
                Shown::NoMemory => continue,
            };
            let flights = &self.links[link].flights;
            let is_next = |flight: &Flight| {
                flight.key == key && flight.stage == Stage::Dispatched && !flight.discarded
            };
            let known = |slot: &u32| self.links[link].ended.iter().any(|(ended, _)| ended == slot);
            let slot = flights.iter().find(|(slot, flight)| is_next(flight) && !known(slot));
            let Some(slot) = slot.map(|(slot, _)| *slot) else {
                panic!("DC {link} reads key {key}, which is not dispatched");
            };
            let ended = match &rec {
                None => Some(self.gone(link, key)),
                Some(rec) if oracle::is_held_back(self, link, key, rec) => {
                    tell(Some(key), || format!("DC {link} is to filter {} out", shown(rec)));
                    Some(Ended::FilteredOut(rec.version))
                }
                Some(_) => None,
            };
            let place = &mut self.links[link];
            if let (None, Some(rec)) = (ended, rec) {
                tell(Some(key), || format!("DC {link} reads {}", shown(&rec)));
                let flight = place.flights.entry(slot).or_default();
                flight.stage = Stage::Encoded;
                flight.read = Some(rec.version);
            }
            place.ended.extend(ended.map(|ended| (slot, ended)));
        }
    }

    /// Notes what was handed to connections; what is left for a node that is away ships anew.
    fn note_sent(&mut self, link: usize, sent: &[u32]) {
        let Link { flights, .. } = &mut self.links[link];
        for slot in sent {
            let flight = flights.entry(*slot).or_default();
            assert_eq!(
                flight.stage,
                Stage::Encoded,
                "invariant 1: DC {link} ships what is held back of key {}",
                flight.key
            );
            flight.stage = Stage::Sent;
        }
        let place = &mut self.links[link];
        let told = |(node, conn): (usize, &Conn)| {
            conn.up && place.told.get(&(node as u16)) == Some(&conn.epoch)
        };
        let told: Vec<bool> = place.conns().iter().enumerate().map(told).collect();
        place.return_encoded(|node| !told[usize::from(node)]);
    }

    /// Writes a batch to its socket.
    fn write(&mut self, link: usize, rng: &mut Rng) -> bool {
        let Link { engine: Some(engine), flights, woken, .. } = &mut self.links[link] else {
            return false;
        };
        let wire = engine.destination_mut();
        let nodes: Vec<usize> = (0..wire.nodes.len())
            .filter(|&n| wire.nodes[n].up && !wire.nodes[n].pipeline.is_drained())
            .collect();
        let Some(at) = rng.index(nodes.len()) else { return false };
        // Its socket is free again.
        *woken = true;
        let mut sent = Vec::new();
        let written = wire.write(nodes[at], Tick(self.now_us), |slot, frame| {
            let flight = flights.entry(slot).or_default();
            let op = decode(&frame).op;
            flight.is_delete = matches!(op, Op::Delete { .. });
            sent.push((flight.key, op));
            let (key, version) = (flight.key, flight.read.unwrap_or_default());
            tell(Some(key), || format!("DC {link} sends @{}", version.lut()));
            Request { key, version, frame }
        });
        for (key, op) in sent {
            oracle::nothing_withheld_is_sent(self, link, key, op);
            oracle::what_a_namespace_left_arrives_no_more(self, link, key);
        }
        written
    }

    /// Applies requests at the destination, in the order of their connection.
    fn deliver(&mut self, link: usize, rng: &mut Rng) -> bool {
        if self.links[link].slow_until_us > self.now_us {
            return false;
        }
        let conns = self.links[link].conns();
        let nodes: Vec<usize> =
            (0..conns.len()).filter(|&n| conns[n].up && !conns[n].requests.is_empty()).collect();
        let Some(at) = rng.index(nodes.len()) else { return false };
        let node = nodes[at];
        for _ in 0..=rng.below(4) {
            let Some(wire) = self.links[link].wire_mut() else { break };
            let Some(request) = wire.nodes[node].requests.pop_front() else { break };
            let code = self.apply(link, &request, rng);
            let Some(wire) = self.links[link].wire_mut() else { break };
            wire.nodes[node].replies.push_back(ResultCode(code));
        }
        true
    }

    /// Replies arrive.
    fn answer(&mut self, link: usize, rng: &mut Rng) -> bool {
        if self.links[link].slow_until_us > self.now_us {
            return false;
        }
        let conns = self.links[link].conns();
        let nodes: Vec<usize> =
            (0..conns.len()).filter(|&n| !conns[n].replies.is_empty()).collect();
        let Some(at) = rng.index(nodes.len()) else { return false };
        let count = 1 + rng.below(5) as usize;
        let now = Tick(self.now_us);
        let place = &mut self.links[link];
        if let Some(wire) = place.wire_mut() {
            wire.answer(nodes[at], count, rng, now);
        }
        place.woken = true;
        true
    }

    /// Positions are brought up to date, as before a stop.
    pub(crate) fn sweep(&mut self, link: usize) -> bool {
        let Self { sites, links, .. } = self;
        let place = &mut links[link];
        let Some(engine) = &mut place.engine else { return false };
        engine.sweep_now(&sites[place.from]);
        self.tell_news(link);
        oracle::an_lst_never_passes_an_unsettled_change(self, link);
        true
    }

    fn begin_walk(&mut self, link: usize, rng: &mut Rng) -> bool {
        let by_index = rng.percent(self.plan.index_walks);
        let now = self.now(self.links[link].from);
        let Self { sites, links, .. } = self;
        let place = &mut links[link];
        let site = &mut sites[place.from];
        site.walks_index = by_index;
        let Some(engine) = &mut place.engine else { return false };
        let Some(request) = engine.begin_walk(site, now) else { return false };
        tell(None, || format!("DC {link} walks {:?}", request.lanes));
        oracle::a_walk_begins_at_what_is_owed(self, link, &request);
        order::begins(self, link, request.namespace.index(), true);
        true
    }

    fn step_walks(&mut self, link: usize, rng: &mut Rng) -> bool {
        let stalls = !self.calm && rng.percent(5);
        let Self { sites, links, tally, .. } = self;
        let place = &mut links[link];
        let site = &mut sites[place.from];
        site.walks_stall = stalls;
        let Some(engine) = &mut place.engine else { return false };
        let before = engine.rules().counted().0.walked;
        site.walked.clear();
        let look = engine.step_walks(site, &mut Context::from_waker(Waker::noop()));
        tally.recovered += engine.rules().counted().0.walked - before;
        place.woken |= look == Look::Progress;
        for (key, rec) in std::mem::take(&mut site.walked) {
            oracle::note_walked(self, link, key, &rec);
            oracle::note_found(self, link, key, &rec);
        }
        look == Look::Progress
    }

    /// The destination answers something else than a request.
    pub(crate) fn tend(&mut self, link: usize) {
        let Dest::Site(site) = self.links[link].to else { return };
        let place = &mut self.links[link];
        let asked = place.asked.replace(Tick(self.now_us));
        let same = place.known_boot == Some(self.sites[site].boot);
        let up = self.sites[site].up && place.conns().first().is_some_and(|conn| conn.up);
        if let (Some(asked), true, Some(wire)) = (asked, same && up, place.wire_mut()) {
            wire.notify(NodeEvent::Alive { node: NodeIndex(0), asked });
            place.woken = true;
        }
    }

    /// Ends a connection. What was not applied is dropped, or stays to be applied later.
    pub(crate) fn reset(&mut self, link: usize, node: usize, rng: &mut Rng) {
        let Some(wire) = self.links[link].wire_mut() else { return };
        if !wire.nodes[node].up {
            return;
        }
        let epoch = wire.nodes[node].epoch;
        let sent = wire.lose(node);
        self.links[link].woken = true;
        self.links[link].nodeless = Nodeless::No;
        tell(None, || format!("DC {link} loses its connection to node {node}"));
        // The last of them may never have left.
        let begun = sent.len() - rng.below(sent.len() as u64 + 1) as usize / 2;
        let alive = match self.links[link].to {
            Dest::Site(site) => self.sites[site].up,
            Dest::Foreign(_) => true,
        };
        for request in sent[..begun].iter().filter(|_| alive && self.plan.has(Fault::Straggler)) {
            if rng.percent(85) {
                let dies_us =
                    self.now_us + rng.below(u64::from(self.plan.limits.grace_ms) * 1000 - 1000);
                let (request, is_left) = (request.clone(), self.links[link].is_left(request));
                self.stragglers.push(Straggler { link, epoch, request, dies_us, is_left });
            }
        }
    }
}

/// The highest version of a millisecond.
pub(crate) fn last_of(lut: Lut) -> Version {
    Version::from_raw(Version::first_of(lut).raw() | 0xFF_FFFF)
}
