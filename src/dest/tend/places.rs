//! Addresses to try for one thing that is to be reached: literal ones at once, names after somebody
//! off the shard has resolved them.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use crate::limits::{ADDRESSES_PER_NAME_MAX, HOSTS_MAX};

/// Resolves host names without blocking the shard: an admin thread does it and answers through a
/// mailbox. Names are resolved afresh each time the addresses known have all failed.
pub trait Resolver {
    /// The addresses of `host`, each with `port`.
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

/// Future of [`Resolver::resolve`].
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// What to try next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Connect here.
    Address(SocketAddr),
    /// Resolve this first.
    Name(String, u16),
    /// Everything has been tried.
    Exhausted,
}

/// The hosts of one target and how far trying them has come.
#[derive(Debug, Default)]
pub(super) struct Places {
    hosts: Vec<(String, u16)>,
    addresses: VecDeque<SocketAddr>,
    names: VecDeque<(String, u16)>,
}

impl Places {
    /// Takes the hosts, in order of preference, and says whether they are others than before. The
    /// address in use stays in use if it `answers`.
    pub(super) fn set(&mut self, hosts: &[(String, u16)], answers: bool) -> bool {
        if self.hosts == hosts {
            return false;
        }
        let in_use = self.addresses.front().copied().filter(|_| answers);
        self.hosts = hosts.iter().take(HOSTS_MAX).cloned().collect();
        self.refill();
        if let Some(address) = in_use {
            self.addresses.retain(|&other| other != address);
            self.addresses.push_front(address);
        }
        true
    }

    /// What was looked for answers here: from now on it is tried here first.
    pub(super) fn found_at(&mut self, address: SocketAddr) {
        let host = (address.ip().to_string(), address.port());
        self.hosts.retain(|other| *other != host);
        self.hosts.insert(0, host);
        self.hosts.truncate(HOSTS_MAX);
        self.addresses.retain(|&other| other != address);
        self.addresses.push_front(address);
    }

    pub(super) fn next(&self) -> Attempt {
        if let Some(&address) = self.addresses.front() {
            return Attempt::Address(address);
        }
        self.names
            .front()
            .map_or(Attempt::Exhausted, |(host, port)| Attempt::Name(host.clone(), *port))
    }

    /// A name given by `next` stands for these addresses.
    pub(super) fn resolved(&mut self, host: &str, addresses: &[SocketAddr]) {
        if self.names.pop_front_if(|(name, _)| name == host).is_some() {
            self.addresses.extend(addresses.iter().take(ADDRESSES_PER_NAME_MAX));
        }
    }

    /// What `next` gave did not work. Returns whether something else is left to try.
    pub(super) fn failed(&mut self) -> bool {
        if self.addresses.pop_front().is_none() {
            self.names.pop_front();
        }
        !self.addresses.is_empty() || !self.names.is_empty()
    }

    /// Starts over.
    pub(super) fn refill(&mut self) {
        self.addresses.clear();
        self.names.clear();
        for (host, port) in &self.hosts {
            match host.parse::<IpAddr>() {
                Ok(ip) => self.addresses.push_back((ip, *port).into()),
                Err(_) => self.names.push_back((host.clone(), *port)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(hosts: &[&str]) -> Vec<(String, u16)> {
        hosts.iter().map(|&host| (host.into(), 3000)).collect()
    }

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 3000).into()
    }

    #[test]
    fn literals_come_first_then_names_then_it_starts_over() {
        let mut places = Places::default();
        assert_eq!(places.next(), Attempt::Exhausted);
        places.set(&hosts(&["b.example", "10.0.0.1", "::1"]), false);
        for round in 0..2 {
            assert_eq!(places.next(), Attempt::Address(address(1)), "{round}");
            assert!(places.failed());
            assert_eq!(places.next(), Attempt::Address("[::1]:3000".parse().unwrap()));
            assert!(places.failed());
            assert_eq!(places.next(), Attempt::Name("b.example".into(), 3000));
            places.resolved("b.example", &[address(7), address(8)]);
            assert_eq!(places.next(), Attempt::Address(address(7)));
            assert!(places.failed() && !places.failed());
            assert_eq!(places.next(), Attempt::Exhausted);
            places.refill();
        }
    }

    #[test]
    fn a_name_without_addresses_is_passed_over() {
        let mut places = Places::default();
        places.set(&hosts(&["nowhere", "b.example"]), false);
        places.resolved("nowhere", &[]);
        assert_eq!(places.next(), Attempt::Name("b.example".into(), 3000));
        assert!(!places.failed());
    }

    #[test]
    fn the_address_in_use_survives_a_new_list() {
        let mut places = Places::default();
        places.set(&hosts(&["10.0.0.1"]), false);
        places.set(&hosts(&["10.0.0.2", "10.0.0.1", "10.0.0.3"]), true);
        let mut order = Vec::new();
        while let Attempt::Address(address) = places.next() {
            order.push(address);
            places.failed();
        }
        assert_eq!(order, [1, 2, 3].map(address));
    }
}
