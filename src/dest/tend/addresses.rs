//! How often each address is connected to anew, and where several nodes answer at one.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::limits::{ADDRESSES_MAX, CONNECTION_EVERY_MS, CONNECTIONS_AT_ONCE};
use crate::model::Tick;

/// So many times another node than the last answers at an address, each within this time of the
/// one before, and it is taken for one that several share; until none has for this time.
const CHANGES_MIN: u32 = 4;
const CHANGES_MS: u64 = 10_000;

/// The addresses that were connected to lately.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: HashMap<SocketAddr, Address>,
    /// What is wrong with the one seen last to be shared, and until when that is believed.
    shared: Option<(String, Tick)>,
}

#[derive(Debug, Default)]
struct Address {
    /// When all connections made have had their turns.
    until: Tick,
    /// Who answered last.
    id: String,
    changes: u32,
    changed: Tick,
}

impl Addresses {
    /// Counts a connection that is now made, or tells when it may be.
    pub(super) fn connect(&mut self, address: SocketAddr, now: Tick) -> Result<(), Tick> {
        if self.known.len() >= ADDRESSES_MAX && !self.known.contains_key(&address) {
            self.known.retain(|_, known| known.until > now);
            if self.known.len() >= ADDRESSES_MAX {
                return Err(now.plus_ms(CONNECTION_EVERY_MS));
            }
        }
        let known = self.known.entry(address).or_default();
        let until = known.until.max(now);
        let early_us = until
            .us_since(now)
            .saturating_sub((CONNECTIONS_AT_ONCE - 1) * CONNECTION_EVERY_MS * 1000);
        if early_us > 0 {
            return Err(Tick(now.0 + early_us));
        }
        known.until = until.plus_ms(CONNECTION_EVERY_MS);
        Ok(())
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
    use super::*;

    fn at(last: u16) -> SocketAddr {
        ([10, 0, (last >> 8) as u8, last as u8], 3000).into()
    }

    #[test]
    fn an_address_is_connected_to_ten_times_at_once_and_then_five_times_a_second() {
        let mut addresses = Addresses::default();
        let mut made = [0; 11];
        let mut now = Tick(1_000_000);
        for ms in 0..10_001 {
            match addresses.connect(at(1), now) {
                Ok(()) => made[ms / 1000] += 1,
                Err(until) => assert!(until > now && until <= now.plus_ms(CONNECTION_EVERY_MS)),
            }
            assert!(ms % 1000 != 0 || addresses.connect(at(2), now).is_ok(), "another's turns");
            now = now.plus_ms(1);
        }
        assert_eq!(made[..10], [14, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
    }

    #[test]
    fn of_addresses_without_number_those_at_rest_are_forgotten() {
        let mut addresses = Addresses::default();
        let now = Tick(1_000_000);
        for last in 0..ADDRESSES_MAX as u16 {
            assert_eq!(addresses.connect(at(last), now), Ok(()));
        }
        assert_eq!(addresses.connect(at(2000), now), Err(now.plus_ms(CONNECTION_EVERY_MS)));
        assert_eq!(addresses.connect(at(7), now), Ok(()), "one that is known");
        assert_eq!(addresses.connect(at(2000), now.plus_ms(CONNECTION_EVERY_MS)), Ok(()));
        assert!(addresses.known.len() <= 2);
    }

    #[test]
    fn an_address_is_shared_while_one_node_after_the_other_answers_there() {
        let mut addresses = Addresses::default();
        let mut now = Tick(1_000_000);
        addresses.connect(at(1), now).unwrap();
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
