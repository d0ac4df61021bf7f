//! The life of shipping between real nodes: what is configured at run time, what fails and comes
//! back, and that the destination ends equal to what the rules admit of the source.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::support::{
    Node, PATIENCE, Reply, Request, Settings, connect, info, read_frame, wait_for,
};

/// Requests on the way at once: fewer than fill a socket's buffers.
const PIPELINED: usize = 128;
const NOT_FOUND: u8 = 2;

/// Record `n`, in partition `n` modulo 4096.
fn digest_of(record: u32) -> [u8; 20] {
    digest_in((record % 4096) as u16, record)
}

fn digest_in(partition: u16, record: u32) -> [u8; 20] {
    let mut digest = [0; 20];
    digest[..2].copy_from_slice(&partition.to_le_bytes());
    digest[8..12].copy_from_slice(&record.wrapping_mul(0x9E37_79B9).to_le_bytes());
    digest[12..16].copy_from_slice(&record.to_le_bytes());
    digest
}

fn put(record: u32, value: i64) -> Request {
    Request::put(digest_of(record), value)
}

fn put_in_set(record: u32, set: &str) -> Request {
    let mut request = put(record, i64::from(record));
    request.fields.push((1, set.as_bytes().to_vec()));
    request
}

fn delete(record: u32, durable: bool) -> Request {
    let info2 = if durable { 0x13 } else { 3 };
    Request { info2, ops: Vec::new(), ..put(record, 0) }
}

/// A connection that keeps several requests on the way.
struct Client(TcpStream);

impl Client {
    fn of(node: &Node) -> Self {
        Self(connect(node.ports()[0]))
    }

    /// Sends all and gives each answer: the header, and the value of the bin if there is one.
    fn ask(&mut self, requests: &[Request]) -> Vec<(u8, Option<i64>)> {
        let mut answers = Vec::with_capacity(requests.len());
        for some in requests.chunks(PIPELINED) {
            let frames: Vec<u8> = some.iter().flat_map(Request::frame).collect();
            self.0.write_all(&frames).unwrap();
            for _ in some {
                let (_, body) = read_frame(&mut self.0).expect("the node answers");
                let Reply { result, ops, .. } = Reply::of(&body);
                let value = (ops == 1).then(|| body[body.len() - 8..].try_into().unwrap());
                answers.push((result, value.map(i64::from_be_bytes)));
            }
        }
        answers
    }

    /// Sends what must succeed.
    fn done(&mut self, requests: impl IntoIterator<Item = Request>) {
        let requests: Vec<Request> = requests.into_iter().collect();
        for ((result, _), request) in self.ask(&requests).into_iter().zip(&requests) {
            assert_eq!(result, 0, "{request:?}");
        }
    }
}

/// The value of each record at a node; `None` for one that is not there.
fn values(node: &Node, digests: &[[u8; 20]]) -> Vec<Option<i64>> {
    let requests: Vec<Request> = digests.iter().map(|digest| Request::get(*digest)).collect();
    let value = |(result, value)| match result {
        0 => value,
        NOT_FOUND => None,
        other => panic!("result {other}"),
    };
    Client::of(node).ask(&requests).into_iter().map(value).collect()
}

/// The records of a range that a node has.
fn present(node: &Node, records: std::ops::Range<u32>) -> Vec<u32> {
    let digests: Vec<[u8; 20]> = records.clone().map(digest_of).collect();
    let found = records.zip(values(node, &digests));
    found.filter(|(_, value)| value.is_some()).map(|(record, _)| record).collect()
}

/// Waits until `node` has of `records` exactly what `expected` tells.
fn wait_until_equal(node: &Node, records: u32, expected: impl Fn(u32) -> Option<i64>) {
    let digests: Vec<[u8; 20]> = (0..records).map(digest_of).collect();
    let expected: Vec<Option<i64>> = (0..records).map(expected).collect();
    wait_for("the destination to be as it should", || {
        (values(node, &digests) == expected).then_some(())
    });
}

/// Sends a command to every port of a node, as tools do.
fn everywhere(node: &Node, command: &str) {
    for port in node.ports() {
        assert_eq!(info(*port, command), "ok", "{command}");
    }
}

fn configure(node: &Node, item: &str) {
    everywhere(node, &format!("set-config:context=xdr;dc=destination;{item}"));
}

/// One statistic of a DC, over all ports of a node.
fn stat(node: &Node, dc: &str, name: &str) -> u64 {
    let of_port = |port: &u16| {
        let text = info(*port, &format!("get-stats:context=xdr;dc={dc}"));
        let pairs: HashMap<&str, &str> =
            text.split(';').filter_map(|pair| pair.split_once('=')).collect();
        pairs.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| {
            panic!("no figure {name} in {text}");
        })
    };
    node.ports().iter().map(of_port).sum()
}

/// Waits until nothing is left to ship, and checks that every change is accounted for.
fn wait_until_settled(node: &Node, dc: &str) {
    let gauges = ["in_queue", "in_progress", "retrying", "recoveries_pending"];
    wait_for("everything to be shipped", || {
        gauges.iter().all(|gauge| stat(node, dc, gauge) == 0).then_some(())
    });
    for port in node.ports() {
        let check = info(*port, &format!("xdr-check:dc={dc}"));
        assert!(check.contains("balanced=true") && !check.contains("balanced=false"), "{check}");
    }
}

fn wait_until_connected(node: &Node, dc: &str, destination: &Node) {
    let nodes = (node.ports().len() * destination.ports().len()) as u64;
    wait_for("every shard to reach the destination", || {
        (stat(node, dc, "nodes") == nodes).then_some(())
    });
}

/// A DC in the configuration file, its namespace with `items`.
fn dc(name: &str, destination: &Node, items: &str) -> String {
    let mut text = format!("dc {name} {{\n");
    for port in destination.ports() {
        writeln!(text, "node-address-port 127.0.0.1 {port}").unwrap();
    }
    writeln!(text, "namespace test {{\n{items}\n}}\n}}").unwrap();
    text
}

fn source_of(xdr: String) -> Settings {
    Settings { xdr, ..Settings::default() }
}

fn one_shard() -> Settings {
    Settings { shards: 1, ..Settings::default() }
}

/// Makes a DC at run time, by every port.
fn create_dc(node: &Node, destination: &Node, attach: &str) {
    configure(node, "action=create");
    for port in destination.ports() {
        configure(node, &format!("node-address-port=127.0.0.1:{port};action=add"));
    }
    configure(node, &format!("namespace=test;action=add{attach}"));
}

#[test]
fn a_pause_keeps_the_position_and_resuming_loses_nothing() {
    let destination = Node::start(&one_shard());
    let source = Node::start(&source_of(dc("destination", &destination, "")));
    let mut client = Client::of(&source);
    client.done((0..500).map(|n| put(n, 1)));
    wait_until_equal(&destination, 500, |_| Some(1));
    wait_until_settled(&source, "destination");

    configure(&source, "action=pause");
    configure(&source, "action=pause");
    let shipped = stat(&source, "destination", "success");
    client.done((250..1000).map(|n| put(n, 2)));
    client.done((0..100).map(|n| delete(n, false)));
    for port in source.ports() {
        let stats = info(*port, "get-stats:context=xdr;dc=destination");
        assert!(stats.contains("paused=true") && stats.contains("in_queue=0"), "{stats}");
    }
    assert_eq!(stat(&source, "destination", "success"), shipped);
    assert_eq!(present(&destination, 0..1000).len(), 500);

    configure(&source, "action=resume");
    let expected = |n| match n {
        0..100 => None,
        100..250 => Some(1),
        _ => Some(2),
    };
    wait_until_equal(&destination, 1000, expected);
    wait_until_settled(&source, "destination");
    source.stop();
    destination.stop();
}

#[test]
fn a_dc_made_at_run_time_with_rewind_all_gets_everything() {
    let destination = Node::start(&Settings::default());
    let source = Node::start(&Settings::default());
    let mut client = Client::of(&source);
    client.done((0..3000).map(|n| put(n, n.into())));
    client.done((0..300).map(|n| delete(n, n % 2 == 0)));
    create_dc(&source, &destination, ";rewind=all");
    client.done((3000..4000).map(|n| put(n, n.into())));
    wait_until_equal(&destination, 4000, |n| (n >= 300).then_some(n.into()));
    wait_until_settled(&source, "destination");
    // A DC that has it all is deleted by every port, too.
    configure(&source, "namespace=test;action=remove");
    configure(&source, "action=delete");
    source.stop();
}

#[test]
fn set_rules_decide_per_dc_what_is_shipped() {
    let (all_but, only) = (Node::start(&one_shard()), Node::start(&one_shard()));
    let xdr = dc("all-but", &all_but, "ignore-set private")
        + &dc("only", &only, "ship-only-specified-sets true\nship-set public");
    let source = Node::start(&source_of(xdr));
    let mut client = Client::of(&source);
    client.done((0..900).map(|n| match n % 3 {
        0 => put(n, n.into()),
        1 => put_in_set(n, "public"),
        _ => put_in_set(n, "private"),
    }));
    wait_until_settled(&source, "all-but");
    wait_until_settled(&source, "only");
    assert_eq!(present(&all_but, 0..900), (0..900).filter(|n| n % 3 != 2).collect::<Vec<_>>());
    assert_eq!(present(&only, 0..900), (0..900).filter(|n| n % 3 == 1).collect::<Vec<_>>());
}

#[test]
fn a_chain_forwards_what_it_is_told_to() {
    let end = Node::start(&one_shard());
    let middle = Node::start(&source_of(dc("destination", &end, "forward false")));
    let begin = Node::start(&source_of(dc("destination", &middle, "")));
    let mut client = Client::of(&begin);
    client.done((0..500).map(|n| put(n, 1)));
    wait_until_settled(&begin, "destination");
    Client::of(&middle).done((1000..1100).map(|n| put(n, 1)));
    wait_until_settled(&middle, "destination");
    assert_eq!(present(&middle, 0..500).len(), 500);
    assert_eq!(present(&end, 0..1100), (1000..1100).collect::<Vec<_>>());

    configure(&middle, "namespace=test;forward=true");
    client.done((400..600).map(|n| put(n, 2)));
    wait_until_settled(&begin, "destination");
    wait_until_settled(&middle, "destination");
    assert_eq!(present(&end, 0..1000), (400..600).collect::<Vec<_>>());
}

#[test]
fn two_active_sides_do_not_throw_changes_back_and_forth() {
    let identity = |id: u8| source_of(format!("src-id {id}\n"));
    let (left, right) = (Node::start(&identity(1)), Node::start(&identity(2)));
    for (node, other) in [(&left, &right), (&right, &left)] {
        create_dc(node, other, "");
        configure(node, "namespace=test;forward=true");
        wait_until_connected(node, "destination", other);
    }
    Client::of(&left).done((0..1000).map(|n| put(n, 1)));
    Client::of(&right).done((1000..2000).map(|n| put(n, 2)));
    for node in [&left, &right] {
        wait_until_equal(node, 2000, |n| Some(if n < 1000 { 1 } else { 2 }));
    }
    for node in [&left, &right] {
        wait_until_settled(node, "destination");
        assert_eq!(stat(node, "destination", "submitted"), 1000);
        assert_eq!(stat(node, "destination", "success"), 1000);
    }
}

#[test]
fn deletes_are_shipped() {
    let destination = Node::start(&one_shard());
    let source = Node::start(&source_of(dc("destination", &destination, "")));
    let mut client = Client::of(&source);
    client.done((0..1000).map(|n| put(n, 1)));
    wait_until_equal(&destination, 1000, |_| Some(1));
    client.done((0..600).map(|n| delete(n, n % 2 == 0)));
    client.done((500..600).map(|n| put(n, 3)));
    wait_until_equal(&destination, 1000, |n| match n {
        0..500 => None,
        500..600 => Some(3),
        _ => Some(1),
    });
    wait_until_settled(&source, "destination");
}

/// Takes the destination away under load with `signal`, brings it back, and compares.
fn outage(signal: &str) {
    const RECORDS: u32 = 4096;
    let storage = "flush-max-ms 1000".to_owned();
    let mut settings = Settings { shards: 1, storage, ..Settings::default() };
    let mut destination = Node::start(&settings);
    settings.port = destination.ports()[0];
    let source = Node::start(&source_of(dc("destination", &destination, "")));
    let goes_on = AtomicBool::new(true);
    let begin = Instant::now();
    let (destination, rounds) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = Client::of(&source);
            let mut round = 0;
            while goes_on.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
                round += 1;
                client.done((0..RECORDS).map(|n| put(n, round)));
                client.done((0..RECORDS).step_by(7).map(|n| delete(n, false)));
            }
            round
        });
        let shipped_since = |count: u64| {
            wait_for("shipping to go on", || {
                (stat(&source, "destination", "success") >= count).then_some(())
            });
        };
        shipped_since(5000);
        destination.signal(signal);
        let status = destination.ended();
        assert_eq!(status.success(), signal == "TERM", "{status}");
        wait_for("the source to see it", || {
            (stat(&source, "destination", "nodes") == 0).then_some(())
        });
        let destination = Node::start_in(destination.into_directory(), &settings);
        shipped_since(stat(&source, "destination", "success") + 2000);
        goes_on.store(false, Ordering::Relaxed);
        (destination, load.join().unwrap())
    });
    wait_until_equal(&destination, RECORDS, |n| (n % 7 != 0).then_some(rounds));
    wait_until_settled(&source, "destination");
    source.stop();
    destination.stop();
}

#[test]
fn a_destination_stopped_under_load_ends_complete() {
    outage("TERM");
}

#[test]
fn a_destination_killed_under_load_ends_complete() {
    outage("KILL");
}

#[test]
fn a_hot_key_ships_seldom_and_ends_with_its_newest_value() {
    let destination = Node::start(&one_shard());
    let source = Node::start(&source_of(dc("destination", &destination, "hot-key-ms 200")));
    wait_until_connected(&source, "destination", &destination);
    let mut client = Client::of(&source);
    let begin = Instant::now();
    // Of the shard that is asked: one that is handed over takes a wake-up per write.
    client.done((1..=20_000).map(|value| put(8, value)));
    let periods = begin.elapsed().as_millis() as u64 / 200 + 1;
    wait_until_equal(&destination, 9, |n| (n == 8).then_some(20_000));
    wait_until_settled(&source, "destination");
    let shipped = stat(&source, "destination", "success");
    assert!(shipped <= 2 * periods + 2, "{shipped} in {periods} periods");
    assert!(stat(&source, "destination", "hot_keys") > 10_000);
}

#[test]
fn a_burst_over_the_queue_limit_is_recovered() {
    const RECORDS: u32 = 32_000;
    // Few lanes, all of the shard that is asked, and records that fill the sockets soon.
    let digest = |n: u32| digest_in((n % 16 * 2) as u16, n);
    let put = |n: u32| {
        let mut request = Request::put(digest(n), 0);
        let value = [vec![0; 1000], i64::from(n).to_be_bytes().to_vec()].concat();
        request.ops[0] = (2, 4, b"b".to_vec(), value);
        request
    };
    let destination = Node::start(&one_shard());
    let items = "transaction-queue-limit 1024";
    let source = Node::start(&source_of(dc("destination", &destination, items)));
    wait_until_connected(&source, "destination", &destination);
    destination.signal("STOP");
    Client::of(&source).done((0..RECORDS).map(put));
    let dropped = stat(&source, "destination", "dropped_to_recovery");
    destination.signal("CONT");
    assert!(dropped > 0, "the queues did not overflow");
    wait_until_settled(&source, "destination");
    assert!(stat(&source, "destination", "recoveries") > 0);
    let digests: Vec<[u8; 20]> = (0..RECORDS).map(digest).collect();
    let expected: Vec<Option<i64>> = (0..RECORDS).map(|n| Some(n.into())).collect();
    assert!(values(&destination, &digests) == expected, "something is missing");
}

#[test]
fn what_the_destination_refuses_for_ever_is_kept_and_can_be_replayed() {
    let small = Settings { storage: "write-block-size 128K".to_owned(), ..one_shard() };
    let destination = Node::start(&small);
    let source = Node::start(&source_of(dc("destination", &destination, "")));
    let mut large = put_in_set(1, "large");
    large.ops[0] = (2, 4, b"b".to_vec(), vec![7; 200 << 10]);
    let mut client = Client::of(&source);
    client.done([large, put(2, 2)]);
    wait_until_settled(&source, "destination");
    assert_eq!(stat(&source, "destination", "abandoned"), 1);
    let ask = "xdr-dead-letters:dc=destination;namespace=test";
    let letters = || source.ports().iter().map(|port| info(*port, ask)).collect::<String>();
    let letter = letters();
    assert!(letter.contains("set=large:key=null:code=13:"), "{letter}");
    assert!(letter.ends_with("state=kept"), "{letter}");

    // Another destination takes its place, which takes the record.
    let roomy = Settings { port: destination.ports()[0], ..one_shard() };
    destination.stop();
    let destination = Node::start(&roomy);
    wait_until_connected(&source, "destination", &destination);
    everywhere(&source, &format!("{ask};action=replay"));
    wait_for("the replayed record", || (present(&destination, 1..2) == [1]).then_some(()));
    wait_until_settled(&source, "destination");
    assert!(letters().ends_with("state=replayed"));
}
