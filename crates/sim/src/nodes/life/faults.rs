//! What breaks, and what operators do.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use longship_node::process::virtual_node::VirtualNode;
use longship_rt::disk_ring::Fault;
use longship_rt::{virtual_net, virtual_shard};

use super::super::plan::{Link, NAMESPACES, NodesFault, Plan};
use super::{World, now_us};
use crate::rng::Rng;

impl World {
    /// Sets an item of a site's namespace.
    async fn bound(&self, site: usize, item: &str) {
        for namespace in NAMESPACES {
            let command = format!("set-config:context=namespace;id={namespace};{item}");
            assert_eq!(self.insist(site, &command).await, "ok");
        }
    }

    async fn break_devices_for(&self, site: usize, fault: Fault, us: u64) {
        self.with(site, |node| node.break_devices(&[fault]));
        self.pause(us).await;
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
}

/// The item that makes a node refuse what is shipped to it, and as it was.
fn bounds_of(fault: NodesFault) -> (&'static str, &'static str) {
    match fault {
        NodesFault::Refuse => ("reject-xdr-writes=true", "reject-xdr-writes=false"),
        NodesFault::Full => ("stop-writes-used-pct=1", "stop-writes-used-pct=90"),
        _ => ("max-record-size=1024", "max-record-size=131072"),
    }
}

/// What breaks beside everything else.
pub(super) async fn weather(world: Rc<World>) {
    *world.asking.borrow_mut() += 1;
    let rng = &mut Rng::at(world.plan.seed, 0x7765_6174_6865);
    while !*world.is_calm.borrow() {
        let most_us = rng.pick(&[100_000, 1_000_000, 10_000_000]);
        world.pause(rng.below(most_us)).await;
        let fault = rng.pick(&[NodesFault::Cut, NodesFault::LateCut, NodesFault::Hang]);
        if world.plan.has(fault) {
            break_something(&world, fault, rng).await;
        }
    }
    *world.asking.borrow_mut() -= 1;
}

pub(super) async fn break_something(world: &World, fault: NodesFault, rng: &mut Rng) {
    let plan = &world.plan;
    // Of a node that is alone nothing happens that is of links.
    let alone = Link { from: 0, to: 0, forward: false };
    let link = rng.index(plan.links.len()).map_or(alone, |at| plan.links[at]);
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
            world.fail_power(site);
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
                world.pause(rng.below(rng.clone().pick(&[2_000, 200_000, 3_000_000]))).await;
                world.happened(NodesFault::Midway, &format!("of a stop of site {site}"));
                match rng.percent(50) {
                    true => world.with(site, VirtualNode::kill),
                    false => world.fail_power(site),
                }
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
            // And what it knew of earlier failures.
            world.lacked_power.borrow_mut()[site] = true;
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
            world.pause(rng.below(3_000_000)).await;
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
            world.pause(rng.below(4_000_000)).await;
            world.mend(site, fault).await;
        }
        NodesFault::Recreate => {
            world.happened(fault, &format!("{link:?}"));
            let answer = world.set_config(&link, "action=delete").await;
            assert!(answer.starts_with("ok"), "{answer}");
            world.pause(rng.below(2_000_000)).await;
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

/// The process of a site has died: it may have lost what it showed before that was on its device.
fn has_died(world: &World, site: usize) {
    world.deaths_us.borrow_mut()[site].push(now_us());
    for (key, story) in (0..).zip(&mut *world.stories.borrow_mut()) {
        if !world.plan.commits(site, key) {
            story.forget_floor(site);
        }
    }
}

/// A process that has ended starts again. Where it died, it may have lost what it showed before that
/// was on its device.
async fn begin_anew(world: &World, site: usize, rng: &mut Rng, died: bool) {
    world.lives.borrow_mut()[site] += 1;
    if died {
        has_died(world, site);
    }
    world.begun_anew.borrow_mut()[site] += 1;
    world.pause(rng.below(3_000_000)).await;
    world.start(site);
    while world.plan.has(NodesFault::Midway) && rng.percent(30) {
        let most_us = rng.pick(&[1_000, 10_000, 50_000, 1_000_000]);
        world.pause(rng.below(most_us)).await;
        let served = world.with(site, VirtualNode::serves);
        world.happened(NodesFault::Midway, &format!("of a start of site {site}, serves {served}"));
        match rng.below(3) {
            0 => world.with(site, VirtualNode::kill),
            1 => world.fail_power(site),
            _ => world.stop(site).await,
        }
        has_died(world, site);
        world.begun_anew.borrow_mut()[site] += 1;
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
    world.pause(rng.below(3_000_000)).await;
    world.start(site);
    world.until_it_serves(site).await;
    world.pause(20_000_000).await;
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
