//! One seed of nodes from beginning to end.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
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
use super::plan::{Link, NAMESPACES, NodesFault, Plan};
use super::story::Story;
use crate::rng::Rng;

/// Unix time at the beginning.
const WALL_MS: u64 = 1_790_000_000_000;
/// A start, a stop, and the way to rest at the end take no longer than this.
const START_US: u64 = 60_000_000;
const STOP_US: u64 = 15_000_000;
const REST_US: u64 = 240_000_000;
/// Between rest and the power failure at the end: before positions are durable, and after.
const AFTERMATHS_US: [u64; 2] = [5_000_000, 75_000_000];
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
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let world = World::new(plan.clone(), folder.path(), Rc::clone(&told));
        virtual_shard::run(seed, WALL_MS, || live(world));
    }));
    let told = told.borrow();
    let mut outcome = told.outcome.clone();
    if let Err(cause) = caught {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let mut failure = text.unwrap_or_else(|| "a panic without words".to_owned());
        let _ = write!(failure, "\n{plan:?}");
        told.lines.iter().for_each(|line| _ = write!(failure, "\n{line}"));
        outcome.failure = Some(failure);
    }
    outcome
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
        let keys = plan.writers.len() * plan.keys as usize;
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

    /// A client of any of its shards.
    fn client(&self, site: usize, rng: &mut Rng) -> Client {
        let shards = self.shards.borrow()[site];
        Client::of(Plan::address(site, rng.below(shards.into()) as u16))
    }

    fn keys_of(&self, writer: usize) -> std::ops::Range<u32> {
        let at = self.plan.writers.iter().position(|site| *site == writer);
        let at = at.expect("a writer") as u32;
        at * self.plan.keys..(at + 1) * self.plan.keys
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

    /// The same of a namespace.
    async fn set_of(&self, link: &Link, namespace: &str, items: &str) {
        let answer = self.set_config(link, &format!("namespace={namespace};{items}")).await;
        assert!(answer.starts_with("ok"), "{items}: {answer}");
    }

    /// Sets an item of a site's namespace.
    async fn bound(&self, site: usize, item: &str) {
        for namespace in NAMESPACES {
            let command = format!("set-config:context=namespace;id={namespace};{item}");
            assert_eq!(self.insist(site, &command).await, "ok");
        }
    }

    async fn break_devices_for(&self, site: usize, fault: Fault, us: u64) {
        self.with(site, |node| node.break_devices(&[fault]));
        sleep(us).await;
        self.with(site, |node| node.break_devices(&[]));
    }

    /// Keeps a copy of the files of a site that has stopped.
    fn copy(&self, site: usize) {
        if self.plan.only_receives(site) {
            let (from, to) = (Path::new(&self.folder), Path::new(&self.folder).join("copies"));
            self.copy_files(site, from, &to);
        }
    }

    fn has_copy(&self, site: usize) -> bool {
        Path::new(&self.folder).join("copies").join(format!("work{site}")).exists()
    }

    fn put_back(&self, site: usize) {
        let (from, to) = (Path::new(&self.folder).join("copies"), Path::new(&self.folder));
        self.copy_files(site, &from, to);
    }

    fn copy_files(&self, site: usize, from: &Path, to: &Path) {
        let work = format!("work{site}");
        let _ = fs::remove_dir_all(to.join(&work));
        fs::create_dir_all(to.join(&work)).expect("a folder");
        let entries = fs::read_dir(from.join(&work)).expect("a work directory").flatten();
        let names = entries.map(|entry| format!("{work}/{}", entry.file_name().display()));
        for name in names.chain(self.plan.data_files(site)) {
            fs::copy(from.join(&name), to.join(&name)).expect("a file that can be copied");
        }
    }

    async fn mend(&self, site: usize, fault: NodesFault) {
        self.bound(site, bounds_of(fault).1).await;
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

/// The item that makes a node refuse what is shipped to it, and as it was.
fn bounds_of(fault: NodesFault) -> (&'static str, &'static str) {
    match fault {
        NodesFault::Refuse => ("reject-xdr-writes=true", "reject-xdr-writes=false"),
        NodesFault::Full => ("stop-writes-used-pct=1", "stop-writes-used-pct=90"),
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
    spawn(Queue::Work, weather(Rc::clone(&world)));
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
    come_to_rest(&world).await;
    // What is at rest is durable everywhere; later positions are too, and tombstones may go.
    let rng = &mut Rng::at(world.plan.seed, 0x6166_7465_7200);
    sleep(rng.pick(&AFTERMATHS_US)).await;
    for site in 0..world.plan.sites {
        world.with(site, VirtualNode::fail_power);
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

/// Faults have stopped: everything is everywhere, nothing is left to do, to complain of or to count.
async fn come_to_rest(world: &World) {
    rest(world).await;
    is_content(world, now_us() + REST_US).await;
    is_as_counted(world).await;
}

/// What breaks beside everything else.
async fn weather(world: Rc<World>) {
    *world.asking.borrow_mut() += 1;
    let rng = &mut Rng::at(world.plan.seed, 0x7765_6174_6865);
    while !*world.is_calm.borrow() {
        let most_us = rng.pick(&[100_000, 1_000_000, 10_000_000]);
        sleep(rng.below(most_us)).await;
        let fault = rng.pick(&[NodesFault::Cut, NodesFault::LateCut, NodesFault::Hang]);
        if world.plan.has(fault) {
            break_something(&world, fault, rng).await;
        }
    }
    *world.asking.borrow_mut() -= 1;
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
            begin_anew(world, site, rng, true).await;
        }
        NodesFault::Power => {
            world.happened(fault, &format!("site {site}"));
            world.with(site, VirtualNode::fail_power);
            begin_anew(world, site, rng, true).await;
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
            begin_anew(world, site, rng, true).await;
        }
        NodesFault::Restart | NodesFault::Reshard => {
            world.happened(fault, &format!("site {site}"));
            let is_cut = plan.has(NodesFault::Midway) && rng.percent(30);
            if is_cut {
                world.with(site, VirtualNode::stop);
                sleep(rng.below(rng.clone().pick(&[2_000, 200_000, 3_000_000]))).await;
                world.happened(NodesFault::Midway, &format!("of a stop of site {site}"));
                let dies =
                    if rng.percent(50) { VirtualNode::kill } else { VirtualNode::fail_power };
                world.with(site, dies);
            } else {
                world.stop(site).await;
                world.tell(format!("site {site} has stopped"));
                world.copy(site);
            }
            if fault == NodesFault::Reshard {
                world.shards.borrow_mut()[site] = 1 + rng.below(3) as u16;
            }
            begin_anew(world, site, rng, is_cut).await;
        }
        NodesFault::LoseWork => {
            world.happened(fault, &format!("site {site}"));
            world.with(site, VirtualNode::kill);
            let work = Path::new(&world.folder).join(format!("work{site}"));
            fs::remove_dir_all(work).expect("it was there");
            begin_anew(world, site, rng, true).await;
        }
        // A fault of starts and stops.
        NodesFault::Midway => {}
        NodesFault::Clock => {
            let most_ms = rng.pick(&[500, 30_000, 3_600_000]);
            let ahead_ms = rng.below(2 * most_ms) as i64 - most_ms as i64;
            world.happened(fault, &format!("of site {site} is {ahead_ms} ms ahead"));
            virtual_shard::set_clock(Plan::host(site), ahead_ms);
        }
        NodesFault::Restore => restore(world, link.to, rng).await,
        NodesFault::Pause => {
            world.happened(fault, &format!("{link:?}"));
            assert_eq!(world.set_config(&link, "action=pause").await, "ok");
            sleep(rng.below(3_000_000)).await;
            assert_eq!(world.set_config(&link, "action=resume").await, "ok");
        }
        NodesFault::Rewind => {
            world.happened(fault, &format!("{link:?}"));
            let rewind = rng.pick(&["all", "1", "5", "3600"]);
            let namespace = rng.pick(&NAMESPACES);
            world.set_of(&link, namespace, &format!("action=rewind;rewind={rewind}")).await;
        }
        NodesFault::Retune => {
            world.happened(fault, &format!("{link:?}"));
            let (name, value) = rng.pick(&[
                ("max-throughput", "100000"),
                ("max-throughput", "200"),
                ("hot-key-ms", "300"),
                ("write-policy", "replace"),
            ]);
            let namespace = rng.pick(&NAMESPACES);
            world.set_of(&link, namespace, &format!("{name}={value}")).await;
        }
        NodesFault::Refuse | NodesFault::TooBig | NodesFault::Full => {
            let site = if fault == NodesFault::Full { site } else { link.to };
            world.happened(fault, &format!("site {site}"));
            let (worse, _) = bounds_of(fault);
            world.bound(site, worse).await;
            sleep(rng.below(4_000_000)).await;
            world.mend(site, fault).await;
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
            ];
            for items in items {
                let answer = world.set_config(&link, &items).await;
                assert!(answer.starts_with("ok"), "{items}: {answer}");
            }
            for namespace in NAMESPACES {
                world.set_of(&link, namespace, "action=add;rewind=all").await;
                for (name, value) in world.plan.dc_items(&link) {
                    world.set_of(&link, namespace, &format!("{name}={value}")).await;
                }
            }
        }
    }
}

/// A process that has ended starts again. Where it died, it may have lost what it showed before that
/// was on its device.
async fn begin_anew(world: &World, site: usize, rng: &mut Rng, has_died: bool) {
    world.lives.borrow_mut()[site] += 1;
    for (key, story) in (0..).zip(&mut *world.stories.borrow_mut()) {
        if has_died && !world.plan.commits(site, key) {
            story.forget_floor(site);
        }
    }
    world.anew.borrow_mut()[site] = true;
    sleep(rng.below(3_000_000)).await;
    world.start(site);
    while world.plan.has(NodesFault::Midway) && rng.percent(30) {
        let most_us = rng.pick(&[1_000, 10_000, 50_000, 1_000_000]);
        sleep(rng.below(most_us)).await;
        let served = world.with(site, VirtualNode::serves);
        world.happened(NodesFault::Midway, &format!("of a start of site {site}, serves {served}"));
        match rng.below(3) {
            0 => world.with(site, VirtualNode::kill),
            1 => world.with(site, VirtualNode::fail_power),
            _ => world.stop(site).await,
        }
        for (key, story) in (0..).zip(&mut *world.stories.borrow_mut()) {
            if !world.plan.commits(site, key) {
                story.forget_floor(site);
            }
        }
        world.start(site);
    }
    world.until_it_serves(site).await;
    world.tell(format!("site {site} serves"));
}

/// A destination that only receives goes back to what it was when it stopped. Its sources say so, and
/// an operator has them ship everything again; or they say nothing, and nothing is missing.
async fn restore(world: &World, site: usize, rng: &mut Rng) {
    if !world.plan.only_receives(site) || !world.has_copy(site) {
        return;
    }
    world.happened(NodesFault::Restore, &format!("site {site}"));
    world.with(site, VirtualNode::kill);
    world.lives.borrow_mut()[site] += 1;
    world.stories.borrow_mut().iter_mut().for_each(|story| story.forget_floor(site));
    world.put_back(site);
    sleep(rng.below(3_000_000)).await;
    world.start(site);
    world.until_it_serves(site).await;
    sleep(20_000_000).await;
    for link in world.plan.links.iter().filter(|link| link.to == site) {
        let command = format!("get-stats:context=xdr;dc={}", Plan::dc(link));
        let answer = world.insist(link.from, &command).await;
        let is_told = answer.contains("rewind all");
        world.tell(format!("{link:?} tells of a hole: {is_told}"));
        for namespace in NAMESPACES {
            if is_told {
                world.set_of(link, namespace, "action=rewind;rewind=all").await;
            }
        }
    }
}

/// The clients of a site: they write their keys, one after the other.
async fn write(world: Rc<World>, site: usize) {
    *world.asking.borrow_mut() += 1;
    let rng = &mut Rng::at(world.plan.seed, 0x7772_6974_6500 + site as u64);
    let mut client = world.client(site, rng);
    let keys = world.keys_of(site);
    while !*world.is_calm.borrow() {
        // Now and then nothing new hides what an older write has done.
        let pause_us = if rng.percent(2) { QUIET_US } else { world.plan.pause_us };
        sleep(rng.below(pause_us)).await;
        if rng.percent(2) {
            client = world.client(site, rng);
        }
        if std::mem::take(&mut world.anew.borrow_mut()[site]) {
            for key in keys.clone() {
                let found = world.look(site, &mut client, key).await;
                let mut stories = world.stories.borrow_mut();
                let story = &mut stories[key as usize];
                assert!(
                    story.may_be_newest(found, now_us()),
                    "site {site} has lost key {key}: it shows {found:?} of {story:?}"
                );
                // It may have died again meanwhile.
                if !world.anew.borrow()[site] {
                    story.settle(found, now_us());
                }
            }
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
        sleep(rng.below(200_000)).await;
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

/// Faults have stopped: every record comes to be everywhere as it is where it was written, and nothing
/// is left to do.
async fn rest(world: &World) {
    let plan = &world.plan;
    let deadline_us = now_us() + REST_US;
    for link in &plan.links {
        for namespace in NAMESPACES {
            replay_all(world, link, namespace, deadline_us).await;
        }
    }
    // What lives for a while only is gone then.
    if plan.expires {
        sleep(15_000_000).await;
    }
    for &writer in &plan.writers {
        let mut client = Client::of(Plan::address(writer, 0));
        for key in world.keys_of(writer) {
            let found = world.look(writer, &mut client, key).await;
            let story = world.stories.borrow()[key as usize].clone();
            assert!(
                story.may_be_newest(found, now_us()),
                "site {writer} has lost key {key}: it shows {found:?} of {story:?}"
            );
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
        for namespace in NAMESPACES {
            let command =
                format!("get-stats:context=xdr;dc={};namespace={namespace}", Plan::dc(link));
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
}

/// No DC has a problem any more.
async fn is_content(world: &World, deadline_us: u64) {
    for link in &world.plan.links {
        let command = format!("get-stats:context=xdr;dc={}", Plan::dc(link));
        let shards = world.shards.borrow()[link.from];
        for shard in 0..shards {
            loop {
                let answer = world.insist_at(link.from, shard, &command).await;
                let problem = answer.split_once("problem=").expect("it is told").1.trim();
                if problem == "none" {
                    break;
                }
                assert!(now_us() < deadline_us, "{link:?} has a problem: {problem}");
                sleep(1_000_000).await;
            }
        }
    }
}

/// Every site shows what the writer does, at once.
async fn is_everywhere(world: &World) {
    for &writer in &world.plan.writers {
        let mut client = Client::of(Plan::address(writer, 0));
        for key in world.keys_of(writer) {
            let found = world.look(writer, &mut client, key).await;
            for site in world.plan.reaches(writer) {
                let mut there = Client::of(Plan::address(site, 0));
                let shown = world.look(site, &mut there, key).await;
                assert!(
                    shown == found,
                    "after a power failure at rest key {key} of site {writer} is {found:?}, and \
                     {shown:?} at site {site}"
                );
            }
        }
    }
}

/// Sites count as many records as they show.
async fn is_as_counted(world: &World) {
    let plan = &world.plan;
    for site in 0..plan.sites {
        let mut shown = [0; 2];
        let reaching = |writer: &&usize| plan.reaches(**writer).contains(&site);
        for writer in plan.writers.iter().filter(reaching) {
            for key in world.keys_of(*writer) {
                let mut client = Client::of(Plan::address(site, 0));
                let found = world.look(site, &mut client, key).await;
                shown[key as usize % 2] += usize::from(found.is_some());
            }
        }
        for (namespace, shown) in NAMESPACES.into_iter().zip(shown) {
            let mut counted = 0;
            let shards = world.shards.borrow()[site];
            for shard in 0..shards {
                let answer = world.insist_at(site, shard, &format!("namespace/{namespace}")).await;
                let mut pairs = answer.split(';').filter_map(|pair| pair.split_once('='));
                let figure = pairs.find(|(name, _)| *name == "objects");
                let figure: usize = figure.expect("it is told").1.parse().expect("a number");
                counted += figure;
            }
            assert_eq!(counted, shown, "records of {namespace} at site {site}");
        }
    }
}

/// An operator, who has mended what was refused, has it shipped again until nothing is left.
async fn replay_all(world: &World, link: &Link, namespace: &str, deadline_us: u64) {
    let shards = world.shards.borrow()[link.from];
    let command = format!("xdr-dead-letters:dc={};namespace={namespace}", Plan::dc(link));
    for shard in 0..shards {
        loop {
            let left = world.insist_at(link.from, shard, &command).await;
            // One that was shipped again stays until its time has come by the clock, which may be slow.
            if left.split(';').all(|letter| letter.is_empty() || letter.contains("state=replayed"))
            {
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
