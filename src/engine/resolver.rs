//! Host names to addresses, off the shards: a lookup blocks, for ten seconds and more where no name
//! server answers.
//!
//! A few threads serve all shards and DCs, and end when nothing waits. Whoever asks for a name that
//! is being looked up shares the answer, and for a second after it. Names that failed last time wait
//! behind the others and never take the last thread: a name that resolves is not held up by those
//! that do not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::control::{Order, Tell};
use crate::limits::{NAMES_MAX, RESOLVER_THREADS_MAX};
use crate::model::ShardIndex;
use crate::ship::mutation::{Mutation, planted};
use longship_rt::clock::Clock;
use longship_rt::net::look_up;

/// How long an answer is good for others who ask, in microseconds.
const GOOD_FOR_US: u64 = 1_000_000;

/// Looks a name up; blocks.
type LookUp = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// What the system knows of a name, or why not.
type Found = Result<Vec<IpAddr>, String>;

/// A handle; clones are the same resolver.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Shared>);

struct Shared {
    tell: Tell,
    look_up: LookUp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Names to be looked up, in the order asked.
    waiting: VecDeque<String>,
    /// Who waits for which name, those being looked up included.
    askers: HashMap<String, Vec<Asker>>,
    /// Names that failed when last looked up.
    failed: HashSet<String>,
    /// Fresh answers.
    known: HashMap<String, (u64, Found)>,
    threads: usize,
    /// Of these threads, those that look up names which failed last time.
    at_failed: usize,
}

#[derive(Clone, Copy)]
struct Asker {
    shard: ShardIndex,
    ticket: u64,
    port: u16,
}

impl Resolver {
    /// Asks the system; answers with [`Order::Resolved`].
    pub(super) fn new(tell: Tell) -> Self {
        Self::asking(tell, Arc::new(look_up))
    }

    fn asking(tell: Tell, look_up: LookUp) -> Self {
        Self(Arc::new(Shared { tell, look_up, state: Mutex::default() }))
    }

    /// Answers `ticket` of `shard` with the addresses of `host`, now or later.
    pub(super) fn ask(&self, shard: ShardIndex, ticket: u64, host: String, port: u16) {
        let asker = Asker { shard, ticket, port };
        let mut state = self.0.lock();
        let now_us = Clock::real().now();
        let fresh = state.known.get(&host).filter(|(at_us, _)| now_us < at_us + GOOD_FOR_US);
        if let Some((_, found)) = fresh {
            let found = found.clone();
            drop(state);
            return self.0.answer(asker, &found);
        }
        if let Some(askers) = state.askers.get_mut(&host) {
            askers.push(asker);
            return;
        }
        if state.askers.len() >= NAMES_MAX {
            drop(state);
            return self.0.answer(asker, &Err(format!("{NAMES_MAX} names are being looked up")));
        }
        state.askers.insert(host.clone(), vec![asker]);
        state.waiting.push_back(host);
        if state.threads < RESOLVER_THREADS_MAX {
            state.threads += 1;
            drop(state);
            self.start_thread();
        }
    }

    fn start_thread(&self) {
        let shared = Arc::clone(&self.0);
        let serve = move || shared.serve();
        #[cfg(feature = "sim")]
        if longship_rt::virtual_shard::is_here() {
            return serve();
        }
        if let Err(error) = thread::Builder::new().name("resolver".into()).spawn(serve) {
            let mut state = self.0.lock();
            state.threads -= 1;
            if state.threads > 0 {
                return;
            }
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            let found = Err(format!("no thread to resolve a name: {error}"));
            waiting.into_iter().for_each(|host| self.0.found(host, found.clone()));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread: looks names up until none is left for it.
    fn serve(&self) {
        while let Some((host, has_failed)) = self.next() {
            let found = (self.look_up)(&host).map_err(|error| error.to_string());
            if has_failed {
                self.lock().at_failed -= 1;
            }
            self.found(host, found);
        }
    }

    /// See [`State::next`]. A function of its own: the lock is held no longer than this.
    fn next(&self) -> Option<(String, bool)> {
        self.lock().next()
    }

    fn found(&self, host: String, found: Found) {
        let mut state = self.lock();
        let askers = state.askers.remove(&host).unwrap_or_default();
        state.note(host, found.clone());
        drop(state);
        askers.into_iter().for_each(|asker| self.answer(asker, &found));
    }

    fn answer(&self, Asker { shard, ticket, port }: Asker, found: &Found) {
        let with_port =
            |ips: &Vec<IpAddr>| ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let addresses = found.as_ref().map(with_port).map_err(String::clone);
        if planted(Mutation::NameUnanswered) {
            return;
        }
        (self.tell)(shard, Order::Resolved { ticket, addresses });
    }
}

impl State {
    /// The next name for a thread, and whether it failed when last looked up; without one the
    /// thread ends.
    fn next(&mut self) -> Option<(String, bool)> {
        let good = self.waiting.iter().position(|host| !self.failed.contains(host));
        if let Some(host) = good.and_then(|place| self.waiting.remove(place)) {
            return Some((host, false));
        }
        if self.at_failed + 1 < RESOLVER_THREADS_MAX
            && let Some(host) = self.waiting.pop_front()
        {
            self.at_failed += 1;
            return Some((host, true));
        }
        self.threads -= 1;
        None
    }

    fn note(&mut self, host: String, found: Found) {
        match &found {
            Ok(_) => drop(self.failed.remove(&host)),
            Err(_) if self.failed.len() < NAMES_MAX => drop(self.failed.insert(host.clone())),
            Err(_) => {}
        }
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        self.known.insert(host, (Clock::real().now(), found));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    type Answers = mpsc::Receiver<(u64, Result<Vec<SocketAddr>, String>)>;

    /// Tickets and addresses as they are answered.
    fn line() -> (Tell, Answers) {
        let (send, receive) = mpsc::channel();
        let send = Mutex::new(send);
        let tell: Tell = Arc::new(move |_, order| {
            if let Order::Resolved { ticket, addresses } = order {
                send.lock().unwrap().send((ticket, addresses)).unwrap();
            }
        });
        (tell, receive)
    }

    #[test]
    fn names_that_hang_take_few_threads_and_hold_up_no_name_that_resolves() {
        let (tell, answers) = line();
        let (busy, busiest) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let (release, hold) = mpsc::channel::<()>();
        let (hold, seen) = (Mutex::new(hold), Arc::clone(&busiest));
        let look_up = move |host: &str| {
            if host == "good" {
                return Ok(vec![HERE]);
            }
            seen.fetch_max(busy.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let _ = hold.lock().unwrap().recv();
            busy.fetch_sub(1, Ordering::Relaxed);
            Err(io::ErrorKind::NotFound.into())
        };
        let resolver = Resolver::asking(tell, Arc::new(look_up));
        let ask_bad = |from: u64| {
            for name in 0..100_u64 {
                resolver.ask(ShardIndex(0), from + name, format!("bad-{name}"), 3000);
            }
        };
        ask_bad(0);
        // Let go, all fail.
        (0..100).for_each(|_| release.send(()).unwrap());
        for _ in 0..100 {
            assert!(answers.recv_timeout(PATIENCE).unwrap().1.is_err());
        }
        thread::sleep(Duration::from_micros(GOOD_FOR_US));
        // Now they hang, and are known to be bad.
        ask_bad(1000);
        resolver.ask(ShardIndex(3), 7, "good".into(), 3001);
        let (ticket, found) = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!((ticket, found), (7, Ok(vec![SocketAddr::new(HERE, 3001)])));
        assert!(busiest.load(Ordering::Relaxed) <= RESOLVER_THREADS_MAX);
        drop(release);
        for _ in 0..100 {
            assert!(answers.recv_timeout(PATIENCE).unwrap().1.is_err());
        }
    }

    #[test]
    fn who_asks_for_the_same_name_shares_one_lookup() {
        let (tell, answers) = line();
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lookups);
        let (release, hold) = mpsc::channel::<()>();
        let hold = Mutex::new(hold);
        let look_up = move |_: &str| {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = hold.lock().unwrap().recv();
            Ok(vec![HERE])
        };
        let resolver = Resolver::asking(tell, Arc::new(look_up));
        for ticket in 0..64 {
            let port = 3000 + ticket as u16;
            resolver.ask(ShardIndex(ticket as u16), ticket, "dc.example".into(), port);
        }
        release.send(()).unwrap();
        for _ in 0..64 {
            let (ticket, found) = answers.recv_timeout(PATIENCE).unwrap();
            assert_eq!(found, Ok(vec![SocketAddr::new(HERE, 3000 + ticket as u16)]));
        }
        resolver.ask(ShardIndex(0), 99, "dc.example".into(), 1);
        assert_eq!(answers.recv_timeout(PATIENCE).unwrap().0, 99, "the answer is still fresh");
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
    }
}
