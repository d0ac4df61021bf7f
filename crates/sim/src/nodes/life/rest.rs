//! What holds when faults have stopped.

use std::fmt::Write as _;

use longship_node::storage::audit::audit;

use super::super::client::Client;
use super::super::plan::{Link, NAMESPACES, Plan};
use super::{REST_US, World, now_us, sleep};

/// Faults have stopped: everything is everywhere, nothing is left to do, to complain of or to count.
pub(super) async fn come_to_rest(world: &World) {
    rest(world).await;
    is_content(world, now_us() + REST_US).await;
    is_as_counted(world).await;
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
pub(super) async fn is_everywhere(world: &World) {
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
            let blocks = audit().unwrap_or_else(|error| panic!("site {site}: {error}"));
            assert_eq!(counted, shown, "records of {namespace} at site {site}; blocks:\n{blocks}");
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
