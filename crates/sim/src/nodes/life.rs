//! One seed of nodes from beginning to end.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;

use longship::wire::ResultCode;
use longship_node::config::Config;
use longship_node::process::virtual_node::VirtualNode;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::Fault;
use longship_rt::event::Event;
use longship_rt::shard::{Queue, spawn};
use longship_rt::{virtual_net, virtual_shard};

use super::client::Client;
use super::plan::{KEYS, Link, NodesFault, Plan};
use super::story::Story;
use crate::rng::Rng;
use crate::run::panic_of;

/// Unix time at the beginning.
const WALL_MS: u64 = 1_790_000_000_000;
/// A start, a stop, and the way to rest at the end take no longer than this.
const START_US: u64 = 60_000_000;
const STOP_US: u64 = 15_000_000;
const REST_US: u64 = 240_000_000;
/// Longer than until positions are durable, and until the raider has looked twice.
const AFTERMATH_US: u64 = 75_000_000;
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
    /// Seconds that passed in that world.
    pub virtual_s: u64,
    /// What went wrong, and what had happened before.
    pub failure: Option<String>,
}

/// Runs a seed.
pub(crate) fn run(seed: u64) -> NodesOutcome {
    let plan = Plan::of(seed);
    let base = Path::new("/dev/shm");
    let folder = if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder for the files of nodes");
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
    /// Writers whose process has begun anew, and that have to look what is left.
    anew: RefCell<Vec<bool>>,
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
        let keys = plan.writers.len() * KEYS as usize;
        Rc::new(Self {
            folder: folder.display().to_string(),
            told,
            nodes: RefCell::new((0..plan.sites).map(|_| None).collect()),
            shards: RefCell::new(plan.shards.clone()),
            stories: RefCell::new(vec![Story::new(plan.sites); keys]),
            is_calm: RefCell::new(false),
            asking: RefCell::new(0),
            anew: RefCell::new(vec![false; plan.sites]),
            lives: RefCell::new(vec![0; plan.sites]),
            plan,
        })
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

    fn keys_of(&self, writer: usize) -> std::ops::Range<u32> {
        let at = self.plan.writers.iter().position(|site| *site == writer);
        let at = at.expect("a writer") as u32;
        at * KEYS..(at + 1) * KEYS
    }

    fn start(&self, site: usize) {
        let text = self.plan.text(site, Path::new(&self.folder));
        let config = Config::parse(&text, "plan").unwrap_or_else(|errors| panic!("{errors}"));
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
            let end = self.with(site, VirtualNode::end);
            assert!(end.is_none(), "site {site} does not start: {end:?}");
            assert!(now_us() < deadline_us, "site {site} does not serve after 60 s");
            sleep(5_000).await;
        }
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

    /// Sets an item of a site's namespace.
    async fn bound(&self, site: usize, item: &str) {
        let command = format!("set-config:context=namespace;id=test;{item}");
        assert_eq!(self.insist(site, &command).await, "ok");
    }

    async fn break_devices_for(&self, site: usize, fault: Fault, us: u64) {
        self.with(site, |node| node.break_devices(&[fault]));
        sleep(us).await;
        self.with(site, |node| node.break_devices(&[]));
    }

    async fn mend(&self, site: usize, fault: NodesFault) {
        self.bound(site, bounds_of(fault).1).await;
    }

    /// The site that writes a key shows this of it.
    fn assert_newest(&self, site: usize, key: u32, found: Option<u64>) {
        let story = &self.stories.borrow()[key as usize];
        assert!(
            story.may_be_newest(found),
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
            assert!(now_us() < deadline_us, "site {site} does not answer for key {key}");
            sleep(50_000).await;
        }
    }
}

/// The item that makes a node refuse what is shipped to it, and as it was.
fn bounds_of(fault: NodesFault) -> (&'static str, &'static str) {
    match fault {
        NodesFault::Refuse => ("reject-xdr-writes=true", "reject-xdr-writes=false"),
        _ => ("max-record-size=1024", "max-record-size=131072"),
    }
}

async fn live(world: Rc<World>) {
    (0..world.plan.sites).for_each(|site| world.start(site));
    for site in 0..world.plan.sites {
        world.until_it_serves(site).await;
    }
    for &writer in &world.plan.writers {
        spawn(Queue::Work, write(Rc::clone(&world), writer));
    }
    for site in 0..world.plan.sites {
        spawn(Queue::Work, watch(Rc::clone(&world), site));
    }
    let end_us = now_us() + world.plan.virtual_s * 1_000_000;
    let mut step = 0;
    while now_us() < end_us {
        let rng = &mut Rng::at(world.plan.seed, step);
        step += 1;
        let most_us = rng.pick(&[50_000, 1_000_000, 4_000_000]);
        sleep(rng.below(most_us)).await;
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
    rest(&world).await;
    outlive_everything(&world).await;
    for site in 0..world.plan.sites {
        world.stop(site).await;
    }
}

/// Long after the last change, when positions are durable and tombstones may go, every process dies, or
/// its host does: what comes back is what was there.
async fn outlive_everything(world: &World) {
    sleep(AFTERMATH_US).await;
    for site in 0..world.plan.sites {
        let rng = &mut Rng::at(world.plan.seed, 0x6166_7465_7200 + site as u64);
        let end = if rng.percent(50) { VirtualNode::kill } else { VirtualNode::fail_power };
        world.with(site, end);
        begin_anew(world, site, rng).await;
    }
    rest(world).await;
}

async fn break_something(world: &World, fault: NodesFault, rng: &mut Rng) {
    let plan = &world.plan;
    let link = plan.links[rng.below(plan.links.len() as u64) as usize];
    let site = rng.below(plan.sites as u64) as usize;
    match fault {
        NodesFault::Cut | NodesFault::LateCut => {
            world.happened(fault, &format!("{link:?}"));
            let between = (Plan::host(link.from), Plan::host(link.to));
            virtual_net::cut(between, fault == NodesFault::LateCut);
        }
        NodesFault::Stall => {
            let most_us = rng.pick(&[100_000, 2_000_000, 12_000_000]);
            let us = rng.below(most_us);
            world.happened(fault, &format!("site {site} for {us} us"));
            virtual_net::stall(Plan::host(site), now_us() + us);
        }
        NodesFault::Kill => {
            world.happened(fault, &format!("site {site}"));
            world.with(site, VirtualNode::kill);
            begin_anew(world, site, rng).await;
        }
        NodesFault::Power => {
            world.happened(fault, &format!("site {site}"));
            world.with(site, VirtualNode::fail_power);
            begin_anew(world, site, rng).await;
        }
        NodesFault::Hang => {
            let us = rng.below(4_000_000);
            world.happened(fault, &format!("site {site} for {us} us"));
            world.break_devices_for(site, Fault::Hang(0), us).await;
        }
        NodesFault::Unreadable => {
            let (at, us) = (rng.below(world.plan.file_mb << 20), rng.below(4_000_000));
            let bytes = 1 << rng.below(22);
            world.happened(fault, &format!("site {site}, {bytes} at {at} for {us} us"));
            world.break_devices_for(site, Fault::Read(at..at + bytes), us).await;
        }
        NodesFault::Unwritable => {
            world.happened(fault, &format!("site {site}"));
            let fault = if rng.percent(50) { Fault::Write(0..u64::MAX) } else { Fault::Flush };
            world.break_devices_for(site, fault, 500_000).await;
            world.with(site, VirtualNode::kill);
            begin_anew(world, site, rng).await;
        }
        NodesFault::Restart | NodesFault::Reshard => {
            world.happened(fault, &format!("site {site}"));
            world.stop(site).await;
            world.tell(format!("site {site} has stopped"));
            if fault == NodesFault::Reshard {
                world.shards.borrow_mut()[site] = 1 + rng.below(3) as u16;
            }
            begin_anew(world, site, rng).await;
        }
        NodesFault::Pause => {
            world.happened(fault, &format!("{link:?}"));
            assert_eq!(world.set_config(&link, "action=pause").await, "ok");
            sleep(rng.below(3_000_000)).await;
            assert_eq!(world.set_config(&link, "action=resume").await, "ok");
        }
        NodesFault::Rewind => {
            world.happened(fault, &format!("{link:?}"));
            let rewind = rng.pick(&["all", "1", "5", "3600"]);
            let items = format!("namespace=test;action=rewind;rewind={rewind}");
            let answer = world.set_config(&link, &items).await;
            assert!(answer.starts_with("ok"), "{answer}");
        }
        NodesFault::Retune => {
            world.happened(fault, &format!("{link:?}"));
            let (name, value) = rng.pick(&[
                ("max-throughput", "100000"),
                ("max-throughput", "200"),
                ("hot-key-ms", "300"),
                ("write-policy", "replace"),
            ]);
            let items = format!("namespace=test;{name}={value}");
            let answer = world.set_config(&link, &items).await;
            assert!(answer.starts_with("ok"), "{answer}");
        }
        NodesFault::Refuse | NodesFault::TooBig => {
            world.happened(fault, &format!("site {}", link.to));
            let (worse, _) = bounds_of(fault);
            world.bound(link.to, worse).await;
            sleep(rng.below(4_000_000)).await;
            world.mend(link.to, fault).await;
        }
        NodesFault::Recreate => {
            world.happened(fault, &format!("{link:?}"));
            let answer = world.set_config(&link, "action=delete").await;
            assert!(answer.starts_with("ok"), "{answer}");
            sleep(rng.below(2_000_000)).await;
            let (there, port) = (plan.host_name(link.to), Plan::address(link.to, 0).port());
            let items = [
                "action=create".to_owned(),
                format!("node-address-port={there}:{port};action=add"),
                "namespace=test;action=add;rewind=all".to_owned(),
            ];
            let tuned = world.plan.dc_items(&link).into_iter();
            let tuned = tuned.map(|(name, value)| format!("namespace=test;{name}={value}"));
            for items in items.into_iter().chain(tuned) {
                let answer = world.set_config(&link, &items).await;
                assert!(answer.starts_with("ok"), "{items}: {answer}");
            }
        }
    }
}

/// A process that has ended starts again.
async fn begin_anew(world: &World, site: usize, rng: &mut Rng) {
    world.lives.borrow_mut()[site] += 1;
    for story in &mut *world.stories.borrow_mut() {
        story.forget_floor(site);
    }
    world.anew.borrow_mut()[site] = true;
    sleep(rng.below(3_000_000)).await;
    world.start(site);
    world.until_it_serves(site).await;
    world.tell(format!("site {site} serves"));
}

/// The clients of a site: they write their keys, one after the other.
async fn write(world: Rc<World>, site: usize) {
    *world.asking.borrow_mut() += 1;
    let mut client = Client::of(Plan::address(site, 0));
    let rng = &mut Rng::at(world.plan.seed, 0x7772_6974_6500 + site as u64);
    let keys = world.keys_of(site);
    while !*world.is_calm.borrow() {
        // Now and then nothing new hides what an older write has done.
        let pause_us = if rng.percent(2) { QUIET_US } else { world.plan.pause_us };
        sleep(rng.below(pause_us)).await;
        if std::mem::take(&mut world.anew.borrow_mut()[site]) {
            for key in keys.clone() {
                let found = world.look(site, &mut client, key).await;
                world.assert_newest(site, key, found);
                // It may have died again meanwhile.
                if !world.anew.borrow()[site] {
                    world.stories.borrow_mut()[key as usize].settle(found);
                }
            }
        }
        let key = keys.start + rng.below(u64::from(KEYS)) as u32;
        let deletes = rng.percent(15);
        let bytes = 1 + rng.below(world.plan.value_bytes) as usize;
        let number = world.stories.borrow_mut()[key as usize].ask(deletes, now_us());
        let answer = client.write(key, (!deletes).then_some(number), bytes).await;
        let mut stories = world.stories.borrow_mut();
        let story = &mut stories[key as usize];
        match answer {
            Ok(ResultCode::OK) => {
                story.acknowledge(number);
                world.told.borrow_mut().outcome.written += 1;
            }
            Ok(ResultCode::NOT_FOUND) if deletes => story.acknowledge(number),
            // It may have been done all the same.
            Ok(ResultCode::TIMEOUT) | Err(_) => {}
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
    let mut client = Client::of(Plan::address(site, 0));
    let rng = &mut Rng::at(world.plan.seed, 0x7761_7463_6800 + site as u64);
    let reaching = |writer: &&usize| world.plan.reaches(**writer).contains(&site);
    let keys: Vec<u32> =
        world.plan.writers.iter().filter(reaching).flat_map(|at| world.keys_of(*at)).collect();
    while !*world.is_calm.borrow() {
        sleep(rng.below(200_000)).await;
        let key = keys[rng.below(keys.len() as u64) as usize];
        let life = world.lives.borrow()[site];
        let Ok(Ok(found)) = client.read(key).await else { continue };
        if life != world.lives.borrow()[site] {
            continue;
        }
        let mut stories = world.stories.borrow_mut();
        let story = &mut stories[key as usize];
        if let Err(error) = story.see(site, found) {
            panic!("key {key}: {error}; {story:?}");
        }
        world.told.borrow_mut().outcome.seen += 1;
    }
    *world.asking.borrow_mut() -= 1;
}

/// Faults have stopped: every record comes to be everywhere as it is where it was written, and nothing
/// is left to do.
async fn rest(world: &World) {
    let plan = &world.plan;
    let deadline_us = now_us() + REST_US;
    for link in &plan.links {
        replay_all(world, link, deadline_us).await;
    }
    for &writer in &plan.writers {
        let mut client = Client::of(Plan::address(writer, 0));
        for key in world.keys_of(writer) {
            let found = world.look(writer, &mut client, key).await;
            world.assert_newest(writer, key, found);
            for site in plan.reaches(writer) {
                let mut there = Client::of(Plan::address(site, 0));
                loop {
                    let shown = world.look(site, &mut there, key).await;
                    if shown == found {
                        break;
                    }
                    assert!(
                        now_us() < deadline_us,
                        "key {key} of site {writer} is {found:?}, and {shown:?} at site {site}: {}",
                        state(world).await
                    );
                    sleep(500_000).await;
                }
                world.told.borrow_mut().outcome.seen += 1;
            }
        }
    }
    for link in &plan.links {
        let command = format!("get-stats:context=xdr;dc={};namespace=test", Plan::dc(link));
        let shards = world.shards.borrow()[link.from];
        for shard in 0..shards {
            loop {
                let answer = world.insist_at(link.from, shard, &command).await;
                let is = |what: &&str| answer.split(';').any(|pair| pair == *what);
                if ["in_queue=0", "in_progress=0", "recoveries_pending=0"].iter().all(is) {
                    break;
                }
                assert!(now_us() < deadline_us, "{link:?} does not come to rest: {answer}");
                sleep(500_000).await;
            }
        }
    }
}

/// An operator, who has mended what was refused, has it shipped again until nothing is left.
async fn replay_all(world: &World, link: &Link, deadline_us: u64) {
    let shards = world.shards.borrow()[link.from];
    let command = format!("xdr-dead-letters:dc={};namespace=test", Plan::dc(link));
    for shard in 0..shards {
        loop {
            let left = world.insist_at(link.from, shard, &command).await;
            if left.is_empty() {
                break;
            }
            assert!(now_us() < deadline_us, "{link:?} keeps letters: {left}");
            let replay = format!("{command};action=replay");
            let answer = world.insist_at(link.from, shard, &replay).await;
            assert!(answer.starts_with("ok;replayed="), "{answer}");
            sleep(2_000_000).await;
        }
    }
}

/// What every DC says of itself.
async fn state(world: &World) -> String {
    let mut text = String::new();
    for link in &world.plan.links {
        let command = format!("get-stats:context=xdr;dc={}", Plan::dc(link));
        let answer = world.insist(link.from, &command).await;
        let _ = write!(text, "\n{link:?}: {answer}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
