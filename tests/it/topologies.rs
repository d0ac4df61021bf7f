//! The configurations in `tests/topologies`: each passes `longship node --check`, and real nodes
//! started with it end as its picture says.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::ship::{
    Answer, Client, PIPELINED, configure_dc, digest_of, put, put_in_set, stat,
    wait_until_connected, wait_until_settled,
};
use crate::support::{Node, Request, info, wait_for};

/// Records of each group of writes.
const RECORDS: u32 = 300;

fn folder(topology: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/topologies").join(topology)
}

/// The files of a topology: cluster name and text.
fn files(topology: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder(topology)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

fn checked(files: &[PathBuf]) -> Output {
    let program = env!("CARGO_BIN_EXE_longship");
    Command::new(program).args(["node", "--check"]).args(files).output().unwrap()
}

/// The clusters of a topology, running.
struct World(BTreeMap<String, Node>);

impl World {
    /// Starts each file's cluster, on free ports and in folders of its own in place of the ones it
    /// says.
    fn start(topology: &str) -> Self {
        let files = files(topology);
        let paths = files.keys().map(|name| folder(topology).join(format!("{name}.conf")));
        let output = checked(&paths.collect::<Vec<_>>());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{topology}: {told}");
        // All are held until all are known, so that no two are the same.
        let held: Vec<TcpListener> =
            files.iter().map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
        let port_of = |text: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix("port "));
            line.unwrap().to_owned()
        };
        let ports: Vec<(String, u16)> = files
            .values()
            .zip(&held)
            .map(|(text, held)| (port_of(text), held.local_addr().unwrap().port()))
            .collect();
        drop(held);
        let start = |(name, text): (String, String)| {
            let directory = tempfile::tempdir().unwrap();
            let work = directory.path().join("work");
            fs::create_dir(&work).unwrap();
            let mut text =
                text.replace(&format!("/var/lib/longship/{name}"), work.to_str().unwrap());
            for (there, here) in &ports {
                text = text.replace(&format!("port {there}\n"), &format!("port {here}\n"));
                let (there, here) = (format!("127.0.0.1 {there}\n"), format!("127.0.0.1 {here}\n"));
                text = text.replace(&there, &here);
            }
            (name, Node::launch(directory, &text, 1))
        };
        let world = Self(files.into_iter().map(start).collect());
        for (from, to) in world.links() {
            wait_until_connected(&world.0[&from], &to, &world.0[&to]);
        }
        world
    }

    /// Each DC, which has the name of the cluster it leads to.
    fn links(&self) -> Vec<(String, String)> {
        let dcs = |(name, node): (&String, &Node)| {
            let text = info(node.ports()[0], "get-config:context=xdr");
            let list = text.split(';').find_map(|pair| pair.strip_prefix("dcs=")).unwrap();
            let list = list.split(',').filter(|dc| !dc.is_empty());
            list.map(|dc| (name.clone(), dc.to_owned())).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(dcs).collect()
    }

    /// What a cluster has of a record.
    fn answers(&self, cluster: &str, records: std::ops::Range<u32>) -> Vec<Answer> {
        let gets: Vec<Request> = records.map(|n| Request::get(digest_of(n))).collect();
        assert!(gets.len() > PIPELINED, "as many as a line takes at once, and more");
        Client::of(&self.0[cluster]).replies(&gets)
    }

    fn count(&self, cluster: &str, records: std::ops::Range<u32>) -> usize {
        self.answers(cluster, records).iter().filter(|answer| answer.result == 0).count()
    }

    /// Waits until every link has shipped what it takes.
    fn settle(&self) {
        // Twice: what one link ships, another may forward.
        for (from, to) in [self.links(), self.links()].concat() {
            wait_until_settled(&self.0[&from], &to);
        }
    }

    /// Changes that all links have taken together.
    fn submitted(&self) -> u64 {
        self.links().iter().map(|(from, to)| stat(&self.0[from], to, "submitted")).sum()
    }

    /// Writes a group of records at each cluster of `writes`, and waits until each group is exactly
    /// at the clusters it says. Then every change has been taken by `links` links altogether.
    fn check(&self, writes: &[(&str, &str, &[&str])], links: u64) {
        for (group, (at, set, _)) in writes.iter().enumerate() {
            let records = group as u32 * RECORDS..(group as u32 + 1) * RECORDS;
            let request = |n| if set.is_empty() { put(n, n.into()) } else { put_in_set(n, set) };
            Client::of(&self.0[*at]).done(records.map(request));
        }
        for (group, (at, _, reached)) in writes.iter().enumerate() {
            let records = group as u32 * RECORDS..(group as u32 + 1) * RECORDS;
            for cluster in reached.iter().chain([at]) {
                wait_for(&format!("the writes at {at} to reach {cluster}"), || {
                    (self.count(cluster, records.clone()) == RECORDS as usize).then_some(())
                });
            }
        }
        self.settle();
        for (group, (at, _, reached)) in writes.iter().enumerate() {
            let records = group as u32 * RECORDS..(group as u32 + 1) * RECORDS;
            for cluster in self.0.keys().filter(|name| name != at && !reached.contains(&&***name)) {
                assert_eq!(self.count(cluster, records.clone()), 0, "{at}'s writes at {cluster}");
            }
        }
        assert_eq!(
            self.submitted(),
            links * u64::from(RECORDS),
            "each change takes each link once"
        );
    }
}

#[test]
fn active_passive() {
    World::start("active-passive").check(&[("a", "", &["b"]), ("b", "", &[])], 1);
}

#[test]
fn active_active() {
    World::start("active-active").check(&[("a", "", &["b"]), ("b", "", &["a"])], 2);
}

#[test]
fn mesh_of_three() {
    let writes: [(&str, &str, &[&str]); 3] =
        [("a", "", &["b", "c"]), ("b", "", &["a", "c"]), ("c", "", &["a", "b"])];
    World::start("mesh").check(&writes, 6);
}

#[test]
fn star_whose_spokes_write() {
    let writes: [(&str, &str, &[&str]); 3] = [
        ("hub", "", &["north", "south"]),
        ("north", "", &["hub", "south"]),
        ("south", "", &["hub", "north"]),
    ];
    // None goes back to the spoke it came from.
    World::start("star").check(&writes, 6);
}

#[test]
fn chain() {
    World::start("chain").check(&[("a", "", &["b", "c"]), ("b", "", &["c"])], 3);
}

#[test]
fn set_level() {
    let writes: [(&str, &str, &[&str]); 4] =
        [("a", "books", &["b"]), ("a", "music", &["c"]), ("a", "films", &[]), ("a", "", &[])];
    World::start("set-level").check(&writes, 2);
}

#[test]
fn mesh_and_fan_out() {
    let writes: [(&str, &str, &[&str]); 2] =
        [("a", "", &["b", "archive"]), ("b", "", &["a", "archive"])];
    World::start("mesh-and-fan-out").check(&writes, 4);
}

#[test]
fn projections() {
    let world = World::start("projections");
    let bins = ["name", "price", "secret"];
    let record = |n| {
        let mut request = put(n, 0);
        let op = |name: &&str| (2, 1, name.as_bytes().to_vec(), 1_i64.to_be_bytes().to_vec());
        request.ops = bins.iter().map(op).collect();
        request
    };
    Client::of(&world.0["a"]).done((0..RECORDS).map(record));
    world.settle();
    for (cluster, expected) in
        [("a", &bins[..]), ("public", &["name", "price"]), ("billing", &["price"])]
    {
        for answer in world.answers(cluster, 0..RECORDS) {
            let mut names: Vec<String> = answer.bins.into_iter().map(|(name, _)| name).collect();
            names.sort();
            assert_eq!(names, expected, "{cluster}");
        }
    }
}

#[test]
fn a_check_says_what_it_understood_and_refuses_loops_and_missing_links() {
    let directory = tempfile::tempdir().unwrap();
    // What `change` makes of the files of a topology.
    let check = |topology: &str, change: &dyn Fn(&str, String) -> String, expected: &[&str]| {
        let write = |(name, text): (String, String)| {
            let path = directory.path().join(format!("{name}.conf"));
            fs::write(&path, change(&name, text)).unwrap();
            path
        };
        let output = checked(&files(topology).into_iter().map(write).collect::<Vec<_>>());
        let told = String::from_utf8_lossy(&output.stderr)
            .replace(&format!("{}/", directory.path().display()), "");
        assert_eq!(output.status.code(), Some(if expected.is_empty() { 0 } else { 2 }), "{told}");
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
        String::from_utf8(output.stdout).unwrap()
    };
    let understood = check("chain", &|_, text| text, &[]);
    for part in ["src-id 2", "dc c: test -> ", ", forwarding", "writes to test here arrive at"] {
        assert!(understood.contains(part), "{part} is missing in {understood}");
    }
    let forwarding = |_: &str, text: String| text.replace("forward false", "forward true");
    check(
        "active-active",
        &forwarding,
        &["a.conf:35: forwarding loop a.conf -> b.conf -> a.conf: set `forward false` in one of \
           these links"],
    );
    let stopping = |_: &str, text: String| text.replace("forward true", "forward false");
    check(
        "chain",
        &stopping,
        &["a.conf:29: writes to namespace `test` here never reach c.conf, though b.conf ships \
           there: add a DC for it here, or set `forward true` in b.conf's link"],
    );
    check(
        "chain",
        &|name, text| if name == "b" { text.replace("port 3200", "port many") } else { text },
        &["b.conf:11: network/service: `port many`: `many` is not allowed here: expected 0 or \
           1024..65535"],
    );
}

#[test]
fn a_dc_set_up_at_run_time_is_gone_after_a_restart_but_its_position_is_told() {
    let world = World::start("active-passive");
    let (a, b) = (&world.0["a"], &world.0["b"]);
    configure_dc(b, "back", "action=create");
    configure_dc(b, "back", &format!("node-address-port=127.0.0.1:{};action=add", a.ports()[0]));
    configure_dc(b, "back", "namespace=test;action=add");
    wait_until_connected(b, "back", a);
    Client::of(b).done((0..RECORDS).map(|n| put(n, 1)));
    wait_until_settled(b, "back");
    let World(mut nodes) = world;
    let b = nodes.remove("b").unwrap();
    let directory = b.stop();
    let text = fs::read_to_string(directory.path().join("longship.conf")).unwrap();
    let b = Node::launch(directory, &text, 1);
    assert!(info(b.ports()[0], "get-config:context=xdr").contains("dcs=;"));
    let line = "DC back has positions (the lowest is ";
    wait_for("a line about its position", || b.log().contains(line).then_some(()));
}
