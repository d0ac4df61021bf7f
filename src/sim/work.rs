//! What an engine does for a DC, one small piece at a time and in any order.

use std::rc::Rc;

use super::link::{Conn, Flight, Letter, Link, OpenWalk, Request, Straggler};
use super::op::{view, wire_bins};
use super::oracle;
use super::plan::{Dest, Fault};
use super::rng::Rng;
use super::store::shown;
use super::trace::tell;
use super::world::{SETS, World};
use crate::model::{Lut, SrcId, Tick, Version, Walked};
use crate::ship::mutation::{Mutation, planted};
use crate::ship::{
    Cause, DcShard, Outcome, Sent, Settled, SweepStep, Target, WalkDemand, encode, judge,
};
use crate::wire::ResultCode;

/// How long a reply may take.
const REPLY_US_MAX: u64 = 10_000_000;
/// Kinds of work for a link.
pub const KINDS: u64 = 11;
/// The kind that changes a destination, which may ship on what it takes.
pub const DELIVER: u64 = 4;

impl World {
    /// Does one piece of a link's work, of this kind if there is any of it. False: nothing to do.
    pub fn work(&mut self, link: usize, kind: u64, rng: &mut Rng) -> bool {
        let before = if kind == DELIVER { Vec::new() } else { oracle::neighbours(self, link) };
        let done = match kind {
            0 => self.connect(link),
            1 => self.dispatch(link, rng),
            2 | 3 => self.read(link, rng),
            DELIVER => self.deliver(link, rng),
            5 | 6 => self.reply(link, rng),
            7 => self.keep_letter(link, rng),
            8 => self.sweep(link, rng),
            9 => self.begin_walk(link, rng),
            _ => self.step_walk(link, rng),
        };
        // Letters are answered, and walks give something.
        self.links[link].woken |= done && matches!(kind, 7 | 9..);
        if done && kind != DELIVER {
            oracle::nothing_a_dc_does_changes_another(self, link, &before);
        }
        done
    }

    /// Opens the connections that can be opened.
    pub fn connect(&mut self, link: usize) -> bool {
        if self.links[link].dc.is_none() || self.links[link].blocked_until_us > self.now_us {
            return false;
        }
        let mut opened = false;
        for node in 0..self.links[link].conns.len() {
            let reachable = match self.links[link].to {
                Dest::Site(site) => self.sites[site].up,
                Dest::Foreign(foreign) => self.foreigns[foreign].up[node],
            };
            if !self.links[link].conns[node].up && reachable {
                self.open(link, node);
                opened = true;
            }
        }
        opened
    }

    fn open(&mut self, link: usize, node: usize) {
        self.epoch += 1;
        let epoch = self.epoch;
        let conn = &mut self.links[link].conns[node];
        *conn = Conn { up: true, epoch, taken: conn.taken, ..Conn::default() };
        tell(None, || format!("DC {link} connects to node {node}, epoch {epoch}"));
        let fenced = self.links[link].is_fenced();
        if let Dest::Site(site) = self.links[link].to {
            // The fence: what is unread on older connections goes before the hello is answered.
            if !planted(Mutation::StragglerLetIn) {
                self.stragglers.retain(|straggler| straggler.link != link);
            }
            let (boot, src_id) = (self.sites[site].boot, self.sites[site].src_id);
            let window_ms = self.sites[site].window_ms;
            self.sites[site].greeted.insert(link, epoch);
            let known = self.links[link].known_boot.replace(boot);
            self.links[link].destination = src_id;
            let Some(dc) = &mut self.links[link].dc else { return };
            if known.is_some_and(|known| known != boot) {
                tell(None, || format!("DC {link} learns that its destination restarted"));
                dc.node_restarted(0);
                oracle::note_restart(self, link);
            }
            if let Some(dc) = &mut self.links[link].dc {
                dc.node_window(0, window_ms);
                dc.set_destination(src_id);
            }
        }
        debug_assert!(fenced || self.links[link].destination == SrcId::NONE);
        self.links[link].woken = true;
        if let Some(dc) = &mut self.links[link].dc {
            dc.map_changed();
        }
    }

    /// Picks changes that may ship now.
    pub fn dispatch(&mut self, link: usize, rng: &mut Rng) -> bool {
        let (now, budget) = (self.now(self.links[link].from), rng.pick(&[1, 3, 20, 100]));
        let is_asleep = !self.links[link].woken && self.now_us < self.links[link].next_due_us;
        if is_asleep {
            oracle::who_sleeps_misses_nothing(self, link);
            // At last an engine comes only when it is told to.
            if self.calm {
                return false;
            }
        }
        let mut out = Vec::new();
        // A host that keeps a second in memory, and one that keeps all.
        let in_memory = if link.is_multiple_of(2) { now.wall.minus_ms(1000) } else { Lut::ZERO };
        let clock = self.sites[self.links[link].from].version_clock(self.now_us);
        let idle = self.with_ways(link, |dc, ways| {
            dc.note_in_memory(|_| in_memory);
            dc.note_clock(|_| clock);
            dc.dispatch(now, ways, &mut out, budget)
        });
        let Some(idle) = idle else { return false };
        oracle::note_sleep(self, link, &idle, out.len(), budget);
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
        self.links[link].reads.extend(&out);
        !out.is_empty()
    }

    /// Finishes one read: in any order, late, or not at all well.
    fn read(&mut self, link: usize, rng: &mut Rng) -> bool {
        let Some(at) = rng.index(self.links[link].reads.len()) else { return false };
        if !self.calm && self.plan.has(Fault::SlowRead) && rng.percent(60) {
            self.happened(Fault::SlowRead);
            return false;
        }
        let dispatch = self.links[link].reads.swap_remove(at);
        let flight = self.links[link].flights[&dispatch.slot];
        if flight.discarded {
            self.settle(link, dispatch.slot, Outcome::Unsent);
            return true;
        }
        if !self.calm && self.plan.has(Fault::FailedRead) && rng.percent(15) {
            self.happened(Fault::FailedRead);
            self.settle(link, dispatch.slot, Outcome::ReadFailed);
            return true;
        }
        let from = self.links[link].from;
        let (now, key) = (self.now(from), flight.key);
        let Some(rec) = self.sites[from].store.get(key).cloned() else {
            self.settle(link, dispatch.slot, Outcome::NotFound);
            return true;
        };
        let version = rec.version;
        self.links[link].flights.entry(dispatch.slot).or_default().read = Some(version);
        let Some((frame, sent)) = self.encode(link, &dispatch, &rec) else {
            tell(Some(key), || format!("DC {link} filters {} out", shown(&rec)));
            oracle::only_what_is_held_back_is_filtered_out(self, link, key, &rec);
            self.settle(link, dispatch.slot, Outcome::FilteredOut);
            return true;
        };
        tell(Some(key), || format!("DC {link} sends {} as {sent:?}", shown(&rec)));
        if let Some(dc) = &mut self.links[link].dc {
            dc.sent(dispatch.slot, version, sent, frame.len());
        }
        let flight = self.links[link].flights.entry(dispatch.slot).or_default();
        flight.sent = Some(sent);
        let conn = &mut self.links[link].conns[usize::from(dispatch.node)];
        if conn.up {
            conn.owing_since_us.get_or_insert(now.tick.0);
            conn.requests.push_back(Request { slot: dispatch.slot, key, version, frame });
        } else {
            self.settle(link, dispatch.slot, Outcome::Unsent);
        }
        true
    }

    fn encode(
        &self,
        link: usize,
        dispatch: &crate::ship::Dispatch,
        rec: &super::store::Rec,
    ) -> Option<(Rc<[u8]>, Sent)> {
        let from = self.links[link].from;
        let key = self.key(dispatch.namespace, &dispatch.digest);
        let policy = self.links[link].dc.as_ref()?.policy(dispatch.namespace)?;
        let bins = wire_bins(rec.bins);
        let view = view(dispatch.digest, rec, SETS[usize::from(key) % SETS.len()], &bins);
        let wall = self.sites[from].wall(self.now_us);
        let judgement = judge(&view, policy, self.links[link].destination, wall);
        let target = Target {
            takes_origin: self.links[link].is_fenced(),
            source: self.sites[from].src_id,
            plain_deletes: dispatch.plain_delete,
        };
        let mut out = [0; 512];
        let encoded = encode(&view, judgement, policy, target, wall, &mut out)?;
        let encoded = encoded.expect("records of this world are small");
        Some((out[..encoded.bytes].into(), encoded.sent))
    }

    /// Applies requests at the destination, in the order of their connection.
    fn deliver(&mut self, link: usize, rng: &mut Rng) -> bool {
        if self.links[link].slow_until_us > self.now_us {
            return false;
        }
        let with = |conn: &Conn| conn.up && !conn.requests.is_empty();
        let nodes: Vec<usize> = (0..self.links[link].conns.len())
            .filter(|&n| with(&self.links[link].conns[n]))
            .collect();
        let Some(at) = rng.index(nodes.len()) else { return false };
        let node = nodes[at];
        for _ in 0..=rng.below(4) {
            let Some(request) = self.links[link].conns[node].requests.pop_front() else { break };
            let code = self.apply(link, &request, rng);
            self.links[link].conns[node].replies.push_back((request, code));
        }
        true
    }

    /// Takes replies.
    fn reply(&mut self, link: usize, rng: &mut Rng) -> bool {
        if self.links[link].slow_until_us > self.now_us {
            return false;
        }
        let nodes: Vec<usize> = (0..self.links[link].conns.len())
            .filter(|&n| !self.links[link].conns[n].replies.is_empty())
            .collect();
        let Some(at) = rng.index(nodes.len()) else { return false };
        for _ in 0..=rng.below(4) {
            let conn = &mut self.links[link].conns[nodes[at]];
            let Some((request, code)) = conn.replies.pop_front() else { break };
            conn.owing_since_us = (!conn.is_idle()).then_some(self.now_us);
            self.settle(link, request.slot, Outcome::Reply(ResultCode(code)));
        }
        true
    }

    /// Settles a dispatched change, and keeps the ledger.
    pub fn settle(&mut self, link: usize, slot: u32, outcome: Outcome) {
        let now = self.now(self.links[link].from);
        let Some(flight) = self.links[link].flights.remove(&slot) else {
            panic!("DC {link} is to settle slot {slot} twice");
        };
        let conn = &mut self.links[link].conns[usize::from(flight.node)];
        conn.taken = conn.taken.saturating_sub(1);
        let Some(dc) = &mut self.links[link].dc else { return };
        let settled = dc.settle(slot, outcome, now);
        self.links[link].woken = true;
        tell(Some(flight.key), || format!("DC {link} settles slot {slot}: {outcome:?}"));
        self.mark(u64::from(slot) << 8 | 1);
        if flight.discarded {
            return;
        }
        if let Settled::Abandoned(letter) = settled {
            // A failed read says nothing about versions: it gives up what its change stood for.
            let upto = match letter.cause {
                Cause::Unreadable => last_of(letter.lut),
                Cause::Refused(_) => flight.read.unwrap_or_default(),
            };
            self.links[link].letters.push_back(Letter {
                abandoned: letter,
                upto,
                discarded: false,
            });
            return;
        }
        let newest = self.links[link].ledger.newest(flight.key).unwrap_or_default();
        let Link { ledger, counted, .. } = &mut self.links[link];
        match outcome {
            Outcome::Reply(code) => {
                let delete = flight.sent.is_some_and(|sent| sent != Sent::Write);
                if code == ResultCode::OK || delete && code == ResultCode::NOT_FOUND {
                    ledger.send(flight.key, flight.read.unwrap_or_default());
                    ledger.not_sent.remove(&flight.key);
                    counted.acknowledged += 1;
                    self.tally.shipped += 1;
                }
            }
            Outcome::NotFound => {
                counted.not_found += 1;
                ledger.settle(flight.key, newest);
                ledger.not_sent.insert(flight.key, newest);
            }
            Outcome::FilteredOut => {
                let read = flight.read.unwrap_or_default();
                counted.filtered_out += 1;
                ledger.settle(flight.key, read);
                ledger.not_sent.insert(flight.key, read);
            }
            Outcome::ReadFailed
            | Outcome::NotRead
            | Outcome::Unsent
            | Outcome::Unanswered { .. } => {}
        }
    }

    /// Keeps a dead letter, or has no room for it.
    fn keep_letter(&mut self, link: usize, rng: &mut Rng) -> bool {
        let Some(letter) = self.links[link].letters.pop_front() else { return false };
        let Letter { abandoned: letter, upto, discarded } = letter;
        let now = self.now(self.links[link].from);
        let key = self.key(letter.namespace, &letter.digest);
        let full = !self.calm && self.plan.has(Fault::LettersFull) && rng.percent(60);
        if full {
            self.happened(Fault::LettersFull);
        }
        let Link { dc: Some(dc), ledger, counted, .. } = &mut self.links[link] else { return true };
        if full {
            dc.letter_refused(letter.slot, now);
            tell(Some(key), || format!("DC {link} cannot keep its dead letter"));
        } else {
            dc.letter_kept(letter.slot);
            tell(Some(key), || format!("DC {link} keeps a dead letter: {:?}", letter.cause));
            if !discarded {
                counted.letters += 1;
                ledger.send(key, upto);
                ledger.dead.insert(key, upto);
            }
        }
        true
    }

    /// A piece of a sweep.
    pub fn sweep(&mut self, link: usize, rng: &mut Rng) -> bool {
        let from = self.links[link].from;
        let clock = self.sites[from].version_clock(self.now_us);
        let pieces = rng.pick(&[1, 3, 1000]);
        let Some(dc) = &mut self.links[link].dc else { return false };
        if dc.sweep(pieces, |_| clock) == SweepStep::Done {
            oracle::an_lst_never_passes_an_unsettled_change(self, link);
        }
        true
    }

    fn begin_walk(&mut self, link: usize, rng: &mut Rng) -> bool {
        let from = self.links[link].from;
        let now = self.now(from);
        let issued = self.sites[from].last.lut();
        let request = self.with_ways(link, |dc, ways| dc.begin_walk(now, ways, |_| issued));
        let Some(Some(request)) = request else { return false };
        tell(None, || format!("DC {link} walks {:?}", request.lanes));
        oracle::a_walk_begins_at_what_is_owed(self, link, &request);
        let wanted = (0..self.key_count())
            .filter(|&key| self.namespace(key) == request.namespace)
            .filter_map(|key| {
                let partition = self.digest(key).partition();
                let (_, lut) = request.lanes.iter().find(|(lane, _)| *lane == partition)?;
                Some((key, *lut))
            })
            .collect();
        let by_index = rng.percent(self.plan.index_walks);
        let id = self.sites[from].store.open_walk(wanted, by_index);
        let walk = OpenWalk { index: request.walk, namespace: request.namespace, id };
        self.links[link].walks.push(walk);
        true
    }

    fn step_walk(&mut self, link: usize, rng: &mut Rng) -> bool {
        let Some(at) = rng.index(self.links[link].walks.len()) else { return false };
        let from = self.links[link].from;
        let walk = self.links[link].walks[at];
        let Some(dc) = &self.links[link].dc else { return false };
        match dc.walk_demand(walk.index) {
            WalkDemand::Wait => return false,
            WalkDemand::Close => {
                self.links[link].walks.remove(at);
                self.sites[from].store.close_walk(walk.id);
                if let Some(dc) = &mut self.links[link].dc {
                    dc.walk_closed(walk.index);
                }
                return true;
            }
            WalkDemand::Step => {}
        }
        let mut give = Vec::new();
        let complete_below = self.sites[from].store.step_walk(walk.id, &mut give);
        let found: Vec<Walked> = give
            .iter()
            .map(|(key, rec)| {
                tell(Some(*key), || format!("DC {link} walks over {}", shown(rec)));
                let change = self.change(*key, rec, None);
                Walked {
                    digest: change.digest,
                    version: rec.version,
                    local_lut: rec.local_lut,
                    set: change.set,
                    kind: change.kind,
                    shipped: change.shipped,
                    src_id: rec.src_id,
                }
            })
            .collect();
        let index = walk.index;
        let Some(dc) = &mut self.links[link].dc else { return false };
        let walked = |dc: &DcShard| dc.counted().0.walked;
        let before = walked(dc);
        dc.walked(index, &found, |set| SETS[usize::from(set.0)]);
        self.tally.recovered += walked(dc) - before;
        match complete_below {
            Some(lut) => dc.walk_progress(index, lut),
            None => {
                dc.walk_done(index);
                self.sites[from].store.close_walk(walk.id);
                self.links[link].walks.remove(at);
            }
        }
        true
    }

    /// The destination answers something else than a request.
    pub fn tend(&mut self, link: usize) {
        let Dest::Site(site) = self.links[link].to else { return };
        let asked = self.links[link].asked.replace(Tick(self.now_us));
        let same = self.links[link].known_boot == Some(self.sites[site].boot);
        let up = self.sites[site].up && self.links[link].conns[0].up;
        self.links[link].woken |= same && up;
        if let (Some(asked), true, Some(dc)) = (asked, same && up, &mut self.links[link].dc) {
            dc.node_answered(0, asked);
        }
    }

    /// Ends a connection. What was not applied is dropped, or stays to be applied later.
    pub fn reset(&mut self, link: usize, node: usize, rng: &mut Rng) {
        let fenced = self.links[link].is_fenced();
        let conn = &mut self.links[link].conns[node];
        if !conn.up {
            return;
        }
        conn.up = false;
        let epoch = conn.epoch;
        let applied: Vec<Request> = conn.replies.drain(..).map(|(request, _)| request).collect();
        let sent: Vec<Request> = conn.requests.drain(..).collect();
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
                let (node, request) = (node as u16, request.clone());
                self.stragglers.push(Straggler { link, node, epoch, request, dies_us });
            }
        }
        if self.links[link].dc.is_none() {
            return;
        }
        for request in sent[begun..].iter().rev() {
            self.settle(link, request.slot, Outcome::Unsent);
        }
        for request in sent[..begun].iter().rev().chain(applied.iter().rev()) {
            self.settle(link, request.slot, Outcome::Unanswered { fenced });
        }
    }

    /// Ends connections that have owed a reply for too long.
    pub fn cut_overdue(&mut self, link: usize) {
        for node in 0..self.links[link].conns.len() {
            let conn = &self.links[link].conns[node];
            if conn.owing_since_us.is_some_and(|since| since + REPLY_US_MAX < self.now_us) {
                if conn.up {
                    self.happened(Fault::Timeout);
                }
                self.links[link].conns[node].owing_since_us = None;
                let mut rng = Rng::at(self.plan.seed, self.now_us);
                self.reset(link, node, &mut rng);
            }
        }
    }
}

/// The highest version of a millisecond.
fn last_of(lut: crate::model::Lut) -> Version {
    Version::from_raw(Version::first_of(lut).raw() | 0xFF_FFFF)
}
