//! How often each address is connected to anew, whose turn is next, and where several nodes answer.
//!
//! A caller that finds no turn free at an address waits in line there, in the order of asking. It
//! is told when to ask again: when its turn comes, or in a few seconds at the latest. Many nodes
//! may be listed at the address of one. That one does not wait for all of them: every second turn
//! is for callers that go first. Those are the node that answered there last, and the seeds, which
//! the operator gave. The turns between are for the others, so no caller waits without end.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Caller;
use crate::limits::{ADDRESSES_MAX, CONNECTION_EVERY_MS, CONNECTIONS_AT_ONCE};
use crate::model::Tick;

/// Nobody in line waits longer than this before he asks again: others may have left it.
const WAIT_MS_MAX: u64 = 5000;
/// A caller that does not ask again within this time of its turn has left the line.
const MISSED_MS: u64 = 2000;

/// An address is taken for one that several nodes share after so many changes of the node that
/// answers there, each within `CHANGES_MS` of the one before; and until there was no change for
/// that time.
const CHANGES_MIN: u32 = 4;
const CHANGES_MS: u64 = 10_000;

/// The addresses that were connected to lately.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: HashMap<SocketAddr, Address>,
    /// Those in line, in the order of asking. Each waits at one address, so they are no more than
    /// there are callers: the seeds, and two of each node.
    waiting: Vec<Waiting>,
    /// What is wrong with the one seen last to be shared, and until when that is believed.
    shared: Option<(String, Tick)>,
}

#[derive(Debug, Default)]
struct Address {
    /// When all connections made have had their turns.
    until: Tick,
    /// The last turn went to somebody who goes first.
    was_first: bool,
    /// Who answered last.
    id: String,
    changes: u32,
    changed: Tick,
}

#[derive(Debug)]
struct Waiting {
    caller: Caller,
    address: SocketAddr,
    goes_first: bool,
    /// When it is to ask again.
    until: Tick,
}

/// How many of each kind are in line at an address.
#[derive(Clone, Copy, Default)]
struct Line {
    first: usize,
    others: usize,
}

impl Line {
    fn count<'a>(waiting: impl Iterator<Item = &'a Waiting>, address: SocketAddr) -> Self {
        waiting.filter(|one| one.address == address).fold(Self::default(), |line, one| match one {
            Waiting { goes_first: true, .. } => Self { first: line.first + 1, ..line },
            _ => Self { others: line.others + 1, ..line },
        })
    }
}

impl Addresses {
    /// Counts a connection that `caller` now makes, or tells when it may: then it is to ask again.
    /// `id` is that of its node; without one it goes first.
    pub(super) fn connect(
        &mut self,
        caller: Caller,
        id: Option<&str>,
        address: SocketAddr,
        now: Tick,
    ) -> Result<(), Tick> {
        let goes_first =
            id.is_none_or(|id| self.known.get(&address).is_some_and(|known| known.id == id));
        if let Some(until) = self.told(caller, goes_first, address).filter(|until| *until > now) {
            return Err(until);
        }
        self.waiting.retain(|one| {
            one.until.plus_ms(MISSED_MS) >= now && (one.caller != caller || one.address == address)
        });
        if !self.has_room_for(address, now) {
            return Err(now.plus_ms(CONNECTION_EVERY_MS));
        }
        let known = self.known.entry(address).or_default();
        let place = self.waiting.iter().position(|one| one.caller == caller);
        let before =
            Line::count(self.waiting[..place.unwrap_or(self.waiting.len())].iter(), address);
        let all = Line::count(self.waiting.iter().filter(|one| one.caller != caller), address);
        let ahead = if goes_first {
            before.first + (before.first + usize::from(known.was_first)).min(all.others)
        } else {
            before.others + (before.others + usize::from(!known.was_first)).min(all.first)
        };
        let until = known.until.max(now);
        let early_us = until
            .plus_ms(ahead as u64 * CONNECTION_EVERY_MS)
            .us_since(now)
            .saturating_sub((CONNECTIONS_AT_ONCE - 1) * CONNECTION_EVERY_MS * 1000);
        if early_us > 0 {
            let until = Tick(now.0 + early_us.min(WAIT_MS_MAX * 1000));
            let one = Waiting { caller, address, goes_first, until };
            match place {
                Some(place) => self.waiting[place] = one,
                None => self.waiting.push(one),
            }
            return Err(until);
        }
        known.until = until.plus_ms(CONNECTION_EVERY_MS);
        known.was_first = goes_first;
        self.leave(caller);
        Ok(())
    }

    /// What was told to somebody in line there, if it is still true.
    fn told(&self, caller: Caller, goes_first: bool, address: SocketAddr) -> Option<Tick> {
        let is_that = |one: &&Waiting| {
            (one.caller, one.goes_first, one.address) == (caller, goes_first, address)
        };
        self.waiting.iter().find(is_that).map(|one| one.until)
    }

    /// Whether an address is known or can be. Of those at rest, the ones where nobody has answered
    /// are forgotten before the others.
    fn has_room_for(&mut self, address: SocketAddr, now: Tick) -> bool {
        if self.known.contains_key(&address) {
            return true;
        }
        for keeps_met in [true, false] {
            if self.known.len() < ADDRESSES_MAX {
                break;
            }
            let is_met = |known: &Address| keeps_met && !known.id.is_empty();
            self.known.retain(|_, known| known.until > now || is_met(known));
        }
        self.known.len() < ADDRESSES_MAX
    }

    /// Whoever it was connects to nothing any more.
    pub(super) fn leave(&mut self, caller: Caller) {
        self.waiting.retain(|one| one.caller != caller);
    }

    /// A node gave its id there.
    pub(super) fn answered(&mut self, address: SocketAddr, id: &str, now: Tick) {
        let Some(known) = self.known.get_mut(&address).filter(|known| known.id != id) else {
            return;
        };
        let is_first = known.id.is_empty();
        id.clone_into(&mut known.id);
        if is_first {
            return;
        }
        if now > known.changed.plus_ms(CHANGES_MS) {
            known.changes = 0;
        }
        known.changes = known.changes.saturating_add(1);
        known.changed = now;
        if known.changes >= CHANGES_MIN {
            let problem = format!(
                "{address} answers as several nodes, as a load balancer does: list the nodes' own \
                 addresses as node-address-port"
            );
            self.shared = Some((problem, now.plus_ms(CHANGES_MS)));
        }
    }

    /// The address that several nodes answer at, in words, if there is one.
    pub(super) fn problem(&self, now: Tick) -> Option<&str> {
        self.shared.as_ref().filter(|(_, until)| now < *until).map(|(problem, _)| problem.as_str())
    }

    /// The seeds are others now: what was found is to be seen again.
    pub(super) fn forget_shared(&mut self) {
        self.shared = None;
        self.known.values_mut().for_each(|known| known.changes = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Target;
    use super::*;
    use crate::dest::NodeIndex;

    const NOW: Tick = Tick(1_000_000);

    fn at(last: u16) -> SocketAddr {
        ([10, 0, (last >> 8) as u8, last as u8], 3000).into()
    }

    fn tending(node: u16) -> Caller {
        Caller::Tending(Target::Node(NodeIndex(node)))
    }

    /// Callers that each connect to one address, again and again: for each of them, when it did, in
    /// ms.
    fn turns(
        addresses: &mut Addresses,
        callers: &[(Caller, &str)],
        ms: u64,
        retry_ms: u64,
    ) -> Vec<Vec<u64>> {
        let mut due = vec![NOW; callers.len()];
        let mut made = vec![Vec::new(); callers.len()];
        for ms in 0..ms {
            let now = NOW.plus_ms(ms);
            for (at_caller, &(caller, id)) in callers.iter().enumerate() {
                if due[at_caller] > now {
                    continue;
                }
                match addresses.connect(caller, Some(id), at(1), now) {
                    Ok(()) => {
                        made[at_caller].push(ms);
                        due[at_caller] = now.plus_ms(retry_ms);
                    }
                    Err(until) => {
                        assert!(until > now);
                        due[at_caller] = until;
                    }
                }
            }
        }
        made
    }

    #[test]
    fn whoever_waits_for_an_address_gets_a_turn_however_many_others_want_it() {
        // Nodes that are listed there and are not. Whoever began to wait first wakes first.
        let callers: Vec<(Caller, &str)> = (0..41).map(|node| (tending(node), "N")).collect();
        let made = turns(&mut Addresses::default(), &callers, 60_000, 500);
        for (node, made) in made.iter().enumerate() {
            assert!((7..=9).contains(&made.len()), "{node} of 41 in 309 turns: {made:?}");
        }
    }

    #[test]
    fn who_answered_there_last_goes_before_those_never_met_there_every_second_time() {
        let mut addresses = Addresses::default();
        let mut callers: Vec<(Caller, &str)> = (0..255).map(|node| (tending(node), "N")).collect();
        addresses.connect(tending(255), Some("A1"), at(1), Tick(0)).unwrap();
        addresses.answered(at(1), "A1", Tick(0));
        turns(&mut addresses, &callers, 1, 500);
        assert_eq!(addresses.waiting.len(), 245);
        callers.extend([(tending(255), "A1"), (Caller::Shipping(NodeIndex(255)), "A1")]);
        let made = turns(&mut addresses, &callers, 10_000, 200);
        for who in [255, 256] {
            let waits = |made: &[u64]| made.windows(2).map(|two| two[1] - two[0]).max();
            assert!(made[who][0] <= 600 && waits(&made[who]) <= Some(1000), "{:?}", made[who]);
        }
        let others: usize = made[..255].iter().map(Vec::len).sum();
        assert!((24..=26).contains(&others), "{others} of 50 turns for those never met");
        assert!(addresses.waiting.len() <= 257);
        // Another node answers there: from now on that one goes first.
        let now = NOW.plus_ms(10_000);
        addresses.answered(at(1), "N", now);
        let wait = addresses.connect(tending(255), Some("A1"), at(1), now);
        assert_eq!(wait, Err(now.plus_ms(WAIT_MS_MAX)), "a long line");
    }

    #[test]
    fn seeds_go_first() {
        let mut addresses = Addresses::default();
        let callers: Vec<(Caller, &str)> = (0..100).map(|node| (tending(node), "N")).collect();
        turns(&mut addresses, &callers, 1, 500);
        let seeds = Caller::Tending(Target::Seeds);
        let until = addresses.connect(seeds, None, at(1), NOW).unwrap_err();
        assert!(until <= NOW.plus_ms(2 * CONNECTION_EVERY_MS), "{until:?}");
    }

    #[test]
    fn who_has_left_the_line_holds_nobody_up() {
        let mut addresses = Addresses::default();
        let callers: Vec<(Caller, &str)> = (0..30).map(|node| (tending(node), "N")).collect();
        turns(&mut addresses, &callers, 1, 500);
        let told = |addresses: &mut Addresses, node: u16, now: Tick| {
            let until = addresses.connect(tending(node), Some("N"), at(1), now).unwrap_err();
            until.us_since(now) / 200_000
        };
        assert_eq!(told(&mut addresses, 30, NOW), 21);
        assert_eq!(told(&mut addresses, 30, NOW), 21, "it keeps its place");
        // One goes elsewhere, one is gone.
        assert_eq!(addresses.connect(tending(20), Some("N"), at(2), NOW), Ok(()));
        addresses.leave(tending(25));
        assert_eq!(told(&mut addresses, 31, NOW), 20);
        // Those do not come who were to by then.
        let later = NOW.plus_ms(MISSED_MS + 10 * 200 + 1);
        assert_eq!(told(&mut addresses, 32, later), 1, "ten may go at once after a rest");
        let left: Vec<Caller> = addresses.waiting.iter().map(|one| one.caller).collect();
        assert_eq!(left, [21, 22, 23, 24, 26, 27, 28, 29, 30, 31, 32].map(tending));
    }

    #[test]
    fn an_address_is_connected_to_ten_times_at_once_and_then_five_times_a_second() {
        let mut addresses = Addresses::default();
        let mut made = [0; 11];
        let mut now = Tick(1_000_000);
        for ms in 0..10_001 {
            match addresses.connect(tending(1), Some("A"), at(1), now) {
                Ok(()) => made[ms / 1000] += 1,
                Err(until) => assert!(until > now && until <= now.plus_ms(CONNECTION_EVERY_MS)),
            }
            let other = || addresses.connect(tending(2), Some("B"), at(2), now);
            assert!(ms % 1000 != 0 || { other }().is_ok(), "another's turns");
            now = now.plus_ms(1);
        }
        assert_eq!(made[..10], [14, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
    }

    #[test]
    fn of_addresses_without_number_those_at_rest_are_forgotten() {
        let mut addresses = Addresses::default();
        let mut connect =
            |last: u16, now: Tick| addresses.connect(tending(1), Some("A"), at(last), now);
        for last in 0..ADDRESSES_MAX as u16 {
            assert_eq!(connect(last, NOW), Ok(()));
        }
        let until = NOW.plus_ms(CONNECTION_EVERY_MS);
        assert_eq!(connect(2000, NOW), Err(until));
        assert_eq!(connect(7, NOW), Ok(()), "one that is known");
        addresses.answered(at(8), "A", NOW);
        addresses.connect(tending(1), Some("A"), at(2000), until).unwrap();
        let mut known: Vec<&SocketAddr> = addresses.known.keys().collect();
        known.sort();
        assert_eq!(known, [&at(7), &at(8), &at(2000)], "in use, met, and the one that came");
    }

    #[test]
    fn an_address_is_shared_while_one_node_after_the_other_answers_there() {
        let mut addresses = Addresses::default();
        let mut now = NOW;
        addresses.connect(tending(1), Some("A"), at(1), now).unwrap();
        for id in ["A", "A", "B", "B", "A"] {
            addresses.answered(at(1), id, now);
        }
        now = now.plus_ms(CHANGES_MS + 1);
        for id in ["B", "C", "A"] {
            assert_eq!(addresses.problem(now), None, "restarts now and then");
            addresses.answered(at(1), id, now);
        }
        addresses.answered(at(1), "C", now);
        let problem = addresses.problem(now).unwrap_or_default();
        assert!(problem.starts_with("10.0.0.1:3000 answers as several nodes"), "{problem}");
        assert!(addresses.problem(now.plus_ms(CHANGES_MS - 1)).is_some());
        assert_eq!(addresses.problem(now.plus_ms(CHANGES_MS)), None);
    }
}
