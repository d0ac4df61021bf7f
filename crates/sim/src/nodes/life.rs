//! One seed of nodes from beginning to end.

mod faults;
mod rest;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;

use longship::wire::ResultCode;
use longship_node::config::Config;
use longship_node::process::consent::Consent;
use longship_node::process::start::NodeError;
use longship_node::process::virtual_node::VirtualNode;
use longship_node::storage::device::DeviceError;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::file::memory_folder;
use longship_rt::event::Event;
use longship_rt::shard::{Queue, spawn};
use longship_rt::virtual_shard;

use super::client::Client;
use super::plan::{Link, NodesFault, Plan};
use super::story::Story;
use crate::rng::Rng;
use crate::run::panic_of;

use faults::{break_something, weather};
use rest::{come_to_rest, is_everywhere};

/// Unix time at the beginning.
const WALL_MS: u64 = 1_790_000_000_000;
/// A start, a stop, and the way to rest at the end take no longer than this.
const START_US: u64 = 60_000_000;
const STOP_US: u64 = 15_000_000;
const REST_US: u64 = 240_000_000;
/// Between rest and the power failure at the end: before positions are durable, and after.
const AFTERMATHS_US: [u64; 2] = [5_000_000, 75_000_000];
/// What is acknowledged before it is on its device is there after so long: a second, and what a device
/// may hang.
const UNFLUSHED_US: u64 = 6_000_000;
/// A client now and then asks for nothing for so long, at most.
const QUIET_US: u64 = 8_000_000;
/// What is told of a failure at most.
const LINES_MAX: usize = 60;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct NodesOutcome {
    /// Writes that were acknowledged.
    pub written: u64,
    /// Records looked at and found right.
    pub seen: u64,
    /// How often each fault happened.
    pub faults: BTreeMap<NodesFault, u64>,
    /// Starts after a power failure for which an operator had to accept damage.
    pub accepted: u64,
    /// Seconds that passed in that world.
    pub virtual_s: u64,
    /// What went wrong, and what had happened before.
    pub failure: Option<String>,
}

/// Runs a seed of nodes that ship to each other.
pub(crate) fn run(seed: u64) -> NodesOutcome {
    run_plan(Plan::of(seed))
}

/// Runs a seed of one node that ships nothing.
pub(crate) fn run_alone(seed: u64) -> NodesOutcome {
    run_plan(Plan::alone(seed))
}

fn run_plan(plan: Plan) -> NodesOutcome {
    let seed = plan.seed;
    let folder = memory_folder();
    let told = Rc::new(RefCell::new(Told::default()));
    let failure = panic_of(|| {
        let world = World::new(plan.clone(), folder.path(), Rc::clone(&told));
        virtual_shard::run(seed, WALL_MS, || live(world));
    });
    let told = told.borrow();
    let failure = failure.map(|mut text| {
        let _ = write!(text, "\n{plan:?}");
        told.lines.iter().for_each(|line| _ = write!(text, "\n{line}"));
        text
    });
    NodesOutcome { failure, ..told.outcome.clone() }
}

#[derive(Default)]
struct Told {
    outcome: NodesOutcome,
    lines: VecDeque<String>,
}

/// What all of its tasks share.
struct World {
    plan: Plan,
    folder: String,
    told: Rc<RefCell<Told>>,
    nodes: RefCell<Vec<Option<VirtualNode>>>,
    shards: RefCell<Vec<u16>>,
    stories: RefCell<Vec<Story>>,
    /// No client asks for anything more.
    is_calm: RefCell<bool>,
    /// Clients that are asking for something.
    asking: RefCell<usize>,
    /// How often the process of each site has begun anew: its clients have to look what is left.
    begun_anew: RefCell<Vec<u32>>,
    /// When the processes of each site died.
    deaths_us: RefCell<Vec<Vec<u64>>>,
    /// The power of a site's host has failed since it served.
    lacked_power: RefCell<Vec<bool>>,
    /// Processes that each site has had.
    lives: RefCell<Vec<u32>>,
}

fn now_us() -> u64 {
    Clock::real().now()
}

async fn sleep(us: u64) {
    Event::new().wait_until(now_us() + us).await;
}

impl World {
    fn new(plan: Plan, folder: &Path, told: Rc<RefCell<Told>>) -> Rc<Self> {
        let keys = plan.writers.len() * plan.keys_of_site() as usize;
        Rc::new(Self {
            folder: folder.display().to_string(),
            told,
            nodes: RefCell::new((0..plan.sites).map(|_| None).collect()),
            shards: RefCell::new(plan.shards.clone()),
            stories: RefCell::new(vec![Story::new(plan.sites); keys]),
            is_calm: RefCell::new(false),
            asking: RefCell::new(0),
            begun_anew: RefCell::new(vec![0; plan.sites]),
            deaths_us: RefCell::new(vec![Vec::new(); plan.sites]),
            lacked_power: RefCell::new(vec![false; plan.sites]),
            lives: RefCell::new(vec![0; plan.sites]),
            plan,
        })
    }

    /// Sleeps so long, or a tenth of it where lives are short.
    async fn pause(&self, us: u64) {
        sleep(if self.plan.is_alone() { us / 10 } else { us }).await;
    }

    fn tell(&self, line: String) {
        let mut told = self.told.borrow_mut();
        let at_s = (now_us() - 1_000_000) as f64 / 1e6;
        told.lines.push_back(format!("{at_s:10.6} {line}"));
        if told.lines.len() > LINES_MAX {
            told.lines.pop_front();
        }
        told.outcome.virtual_s = at_s as u64;
    }

    fn happened(&self, fault: NodesFault, of: &str) {
        self.tell(format!("-- {fault:?} {of}"));
        *self.told.borrow_mut().outcome.faults.entry(fault).or_default() += 1;
    }

    /// A client of any of its shards.
    fn client(&self, site: usize, rng: &mut Rng) -> Client {
        let shards = self.shards.borrow()[site];
        Client::of(Plan::address(site, rng.below(shards.into()) as u16))
    }

    fn keys_of(&self, writer: usize) -> std::ops::Range<u32> {
        let at = self.plan.writers.iter().position(|site| *site == writer);
        let at = at.expect("a writer") as u32;
        let keys = self.plan.keys_of_site();
        at * keys..(at + 1) * keys
    }

    /// The power of a site's host fails.
    fn fail_power(&self, site: usize) {
        self.lacked_power.borrow_mut()[site] = true;
        self.with(site, VirtualNode::fail_power);
    }

    fn first_death_after(&self, site: usize, us: u64) -> Option<u64> {
        self.deaths_us.borrow()[site].iter().copied().find(|at| *at > us)
    }

    fn config(&self, site: usize) -> Config {
        let text = self.plan.text(site, Path::new(&self.folder));
        let mut config = Config::parse(&text, "plan").unwrap_or_else(|errors| panic!("{errors}"));
        for namespace in &mut config.namespaces {
            // Less than one may configure, where that is to be written over and over.
            namespace.storage.filesize = self.plan.file_mb << 20;
        }
        config
    }

    fn start(&self, site: usize) {
        let config = self.config(site);
        let shards = self.shards.borrow()[site];
        self.lives.borrow_mut()[site] += 1;
        self.tell(format!("site {site} starts with {shards} shards"));
        self.nodes.borrow_mut()[site] = Some(VirtualNode::start(config, shards));
    }

    fn with<R>(&self, site: usize, f: impl FnOnce(&VirtualNode) -> R) -> R {
        f(self.nodes.borrow()[site].as_ref().expect("every site has its node"))
    }

    async fn until_it_serves(&self, site: usize) {
        let deadline_us = now_us() + START_US;
        while !self.with(site, VirtualNode::serves) {
            match self.with(site, VirtualNode::end) {
                None => {}
                Some(Err(error)) if self.lacked_power.borrow()[site] => self.accept(site, &error),
                end => panic!("site {site} does not start: {end:?}"),
            }
            assert!(now_us() < deadline_us, "site {site} does not serve after 60 s");
            sleep(5_000).await;
        }
        self.lacked_power.borrow_mut()[site] = false;
    }

    /// A power failure can leave what looks like damage: a block that was being filled anew, but for its
    /// header. An operator accepts that, and what was acknowledged has to be there all the same.
    fn accept(&self, site: usize, error: &NodeError) {
        let NodeError::Device(DeviceError::Refused { refusals }) = error else {
            panic!("site {site} does not start: {error:?}");
        };
        self.tell(format!("site {site} does not start: {error}"));
        let consent = Consent::open(self.config(site), self.shards.borrow()[site]);
        let mut consent = consent.expect("a node that does not run");
        for word in refusals.iter().filter_map(|refusal| refusal.accept.as_ref()) {
            assert!(word.starts_with("damage-"), "site {site} does not start: {error}");
            consent.accept(word).expect("what the start has told");
        }
        self.told.borrow_mut().outcome.accepted += 1;
        drop(consent);
        self.start(site);
    }

    async fn stop(&self, site: usize) {
        let begun_us = now_us();
        self.with(site, VirtualNode::stop);
        loop {
            match self.with(site, VirtualNode::end) {
                Some(Ok(())) => break,
                Some(Err(error)) => panic!("site {site} stops with: {error}"),
                None => {}
            }
            assert!(now_us() < begun_us + STOP_US, "the stop of site {site} hangs");
            sleep(2_000).await;
        }
        // What its threads would take with them.
        self.with(site, VirtualNode::kill);
    }

    /// A client asks until it is answered.
    async fn insist(&self, site: usize, command: &str) -> String {
        self.insist_at(site, 0, command).await
    }

    /// The same at the port of a shard.
    async fn insist_at(&self, site: usize, shard: u16, command: &str) -> String {
        let mut client = Client::of(Plan::address(site, shard));
        let deadline_us = now_us() + START_US;
        loop {
            if let Ok(answer) = client.info(command).await {
                self.tell(format!("site {site} is told {command}: {answer}"));
                return answer;
            }
            assert!(now_us() < deadline_us, "site {site} does not answer {command}");
            sleep(50_000).await;
        }
    }

    async fn set_config(&self, link: &Link, items: &str) -> String {
        let dc = Plan::dc(link);
        self.insist(link.from, &format!("set-config:context=xdr;dc={dc};{items}")).await
    }

    /// The same of a namespace.
    async fn set_of(&self, link: &Link, namespace: &str, items: &str) {
        let answer = self.set_config(link, &format!("namespace={namespace};{items}")).await;
        assert!(answer.starts_with("ok"), "{items}: {answer}");
    }

    /// The site that writes a key shows this of it.
    fn assert_newest(&self, site: usize, key: u32, found: Option<u64>) {
        let story = &self.stories.borrow()[key as usize];
        assert!(
            story.may_be_newest(found, now_us()),
            "site {site} has lost key {key}: it shows {found:?} of {story:?}"
        );
    }

    /// What a site shows of a key, however long that takes.
    async fn look(&self, site: usize, client: &mut Client, key: u32) -> Option<u64> {
        let deadline_us = now_us() + START_US;
        loop {
            if let Ok(Ok(found)) = client.read(key).await {
                return found;
            }
            // It may have been one of a shard that is no more.
            *client = Client::of(Plan::address(site, 0));
            assert!(now_us() < deadline_us, "site {site} does not answer for key {key}");
            sleep(50_000).await;
        }
    }
}

async fn live(world: Rc<World>) {
    (0..world.plan.sites).for_each(|site| world.start(site));
    for site in 0..world.plan.sites {
        world.until_it_serves(site).await;
    }
    for &writer in &world.plan.writers {
        for client in 0..world.plan.clients {
            spawn(Queue::Work, write(Rc::clone(&world), writer, client));
        }
    }
    for site in 0..world.plan.sites {
        spawn(Queue::Work, watch(Rc::clone(&world), site));
    }
    spawn(Queue::Work, weather(Rc::clone(&world)));
    let end_us = now_us() + world.plan.virtual_s * 1_000_000;
    let mut step = 0;
    while now_us() < end_us {
        let rng = &mut Rng::at(world.plan.seed, step);
        step += 1;
        let most_us = rng.pick(&[50_000, 1_000_000, 4_000_000]);
        world.pause(rng.below(most_us)).await;
        let fault = rng.pick(&NodesFault::ALL);
        if world.plan.has(fault) {
            break_something(&world, fault, rng).await;
        }
    }
    *world.is_calm.borrow_mut() = true;
    world.tell("== faults stop".to_owned());
    while *world.asking.borrow() > 0 {
        sleep(100_000).await;
    }
    come_to_rest(&world).await;
    // What is at rest is durable everywhere; later positions are too, and tombstones may go.
    let rng = &mut Rng::at(world.plan.seed, 0x6166_7465_7200);
    sleep(if world.plan.is_alone() { AFTERMATHS_US[0] } else { rng.pick(&AFTERMATHS_US) }).await;
    for site in 0..world.plan.sites {
        world.fail_power(site);
        world.start(site);
        world.until_it_serves(site).await;
    }
    world.tell("== the power has failed at rest".to_owned());
    is_everywhere(&world).await;
    come_to_rest(&world).await;
    for site in 0..world.plan.sites {
        world.stop(site).await;
    }
}

/// A client of a site: it writes its keys, one after the other.
async fn write(world: Rc<World>, site: usize, number: u32) {
    *world.asking.borrow_mut() += 1;
    let stream = 0x7772_6974_6500 + site as u64 + (u64::from(number) << 48);
    let rng = &mut Rng::at(world.plan.seed, stream);
    let mut client = world.client(site, rng);
    let first = world.keys_of(site).start + number * world.plan.keys;
    let keys = first..first + world.plan.keys;
    let begun_anew = || world.begun_anew.borrow()[site];
    let (mut known, mut looked_us) = (0, vec![0; keys.len()]);
    loop {
        // Now and then nothing new hides what an older write has done.
        if rng.percent(2) {
            world.pause(rng.below(QUIET_US)).await;
        } else {
            sleep(rng.below(world.plan.pause_us)).await;
        }
        if rng.percent(2) {
            client = world.client(site, rng);
        }
        while known != begun_anew() {
            known = begun_anew();
            for (key, looked_us) in keys.clone().zip(&mut looked_us) {
                let found = world.look(site, &mut client, key).await;
                let died_us = world.first_death_after(site, *looked_us);
                if let Some(at) = died_us.filter(|_| !world.plan.commits(site, key)) {
                    let since_us = at.saturating_sub(UNFLUSHED_US);
                    world.stories.borrow_mut()[key as usize].doubt_since(since_us);
                }
                world.assert_newest(site, key, found);
                // It may have died again meanwhile.
                if known == begun_anew() {
                    world.stories.borrow_mut()[key as usize].settle(found, now_us());
                    *looked_us = now_us();
                }
            }
        }
        if *world.is_calm.borrow() {
            break;
        }
        let key = keys.start + rng.below(u64::from(world.plan.keys)) as u32;
        let deletes = rng.percent(15);
        let bytes = 1 + rng.below(world.plan.value_bytes) as usize;
        let ttl_s = if world.plan.expires && rng.percent(30) { 1 + rng.below(8) } else { 0 };
        let ttl_us = ttl_s * 1_000_000;
        let number = world.stories.borrow_mut()[key as usize].ask(deletes, ttl_us, now_us());
        let told = (!deletes).then_some(number);
        let answer = client.write(key, told, (bytes, ttl_s as u32)).await;
        let mut stories = world.stories.borrow_mut();
        let story = &mut stories[key as usize];
        match answer {
            Ok(ResultCode::OK) => {
                story.acknowledge(number, now_us());
                world.told.borrow_mut().outcome.written += 1;
            }
            Ok(ResultCode::NOT_FOUND) if deletes => story.acknowledge(number, now_us()),
            // It may have been done all the same.
            Ok(ResultCode::TIMEOUT) => {}
            Err(_) => client = world.client(site, rng),
            Ok(ResultCode::DEVICE_OVERLOAD) => story.refuse(number),
            Ok(code) => {
                world.tell(format!("site {site} refuses number {number} of key {key}: {code}"));
                story.refuse(number);
            }
        }
    }
    *world.asking.borrow_mut() -= 1;
}

/// Somebody who reads at a site: what is shown there never goes back.
async fn watch(world: Rc<World>, site: usize) {
    *world.asking.borrow_mut() += 1;
    let rng = &mut Rng::at(world.plan.seed, 0x7761_7463_6800 + site as u64);
    let mut client = world.client(site, rng);
    let reaching = |writer: &&usize| world.plan.reaches(**writer).contains(&site);
    let keys: Vec<u32> =
        world.plan.writers.iter().filter(reaching).flat_map(|at| world.keys_of(*at)).collect();
    while !*world.is_calm.borrow() {
        world.pause(rng.below(200_000)).await;
        let key = keys[rng.below(keys.len() as u64) as usize];
        let life = world.lives.borrow()[site];
        let Ok(Ok(found)) = client.read(key).await else {
            client = world.client(site, rng);
            continue;
        };
        if life != world.lives.borrow()[site] {
            continue;
        }
        let mut stories = world.stories.borrow_mut();
        let story = &mut stories[key as usize];
        let is_shipped = !world.plan.writers.contains(&site) || !world.keys_of(site).contains(&key);
        if let Err(error) = story.see(site, found, (now_us(), is_shipped)) {
            panic!("key {key}: {error}; {story:?}");
        }
        world.told.borrow_mut().outcome.seen += 1;
    }
    *world.asking.borrow_mut() -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of nodes alone: a start that took writes on their way for damage (28, 149), devices on which no
    /// block came free any more (102, 20066).
    #[test]
    fn seeds_that_failed_end_well() {
        for seed in [28, 102, 149, 20_066] {
            assert_eq!(run_alone(seed).failure, None, "seed {seed}");
        }
    }

    #[test]
    fn the_same_seed_goes_the_same_way_and_ends_well() {
        for seed in [1, 2, 3] {
            let (one, again) = (run(seed), run(seed));
            assert_eq!(one.failure, None, "seed {seed}");
            assert_eq!((one.written, one.seen), (again.written, again.seen), "seed {seed}");
            assert!(one.written > 0 && one.seen > 0 && one.virtual_s > 0);
        }
    }
}
