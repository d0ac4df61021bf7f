//! What survives the end of a process.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::ship::{Client, dc, one_shard, put, source_of, wait_until_settled};
use crate::support::{Node, Reply, Request, Settings, connect, info, read_frame};

/// Enough records to reach every shard and several flushes.
const RECORDS: u32 = 2000;

fn digest_of(record: u32) -> [u8; 20] {
    let mut digest = [0; 20];
    digest[..2].copy_from_slice(&((record % 4096) as u16).to_le_bytes());
    digest[10..14].copy_from_slice(&record.to_le_bytes());
    digest
}

fn ask(stream: &mut TcpStream, request: &Request) -> (Reply, Vec<u8>) {
    stream.write_all(&request.frame()).unwrap();
    let (_, body) = read_frame(stream).expect("the node answers");
    (Reply::of(&body), body)
}

#[test]
fn records_and_identity_survive_a_clean_restart() {
    let settings = Settings::default();
    let node = Node::start(&settings);
    let ids: Vec<String> = node.ports().iter().map(|port| info(*port, "node")).collect();
    let mut stream = connect(node.ports()[0]);
    for record in 0..RECORDS {
        let put = Request::put(digest_of(record), record.into());
        assert_eq!(ask(&mut stream, &put).0.result, 0);
        if record % 3 == 0 {
            assert_eq!(ask(&mut stream, &put).0.generation, 2);
        }
        if record % 5 == 0 {
            let delete = Request { info2: 3, ops: Vec::new(), ..put };
            assert_eq!(ask(&mut stream, &delete).0.result, 0);
        }
    }

    let node = Node::start_in(node.stop(), &settings);
    let ids_after: Vec<String> = node.ports().iter().map(|port| info(*port, "node")).collect();
    assert_eq!(ids_after, ids);
    let mut stream = connect(node.ports()[1]);
    for record in 0..RECORDS {
        let (reply, body) = ask(&mut stream, &Request::get(digest_of(record)));
        if record % 5 == 0 {
            assert_eq!(reply.result, 2, "record {record} was deleted");
            continue;
        }
        let generation = if record % 3 == 0 { 2 } else { 1 };
        assert_eq!((reply.result, reply.generation, reply.ops), (0, generation, 1), "{record}");
        assert_eq!(body[body.len() - 8..], i64::from(record).to_be_bytes());
    }
    node.stop();
}

const FLUSH_MS: u64 = 10;
/// What is announced for that: whatever was acknowledged earlier must be on the device.
const WINDOW: Duration = Duration::from_millis(2 * (FLUSH_MS + 1000));

#[test]
fn a_kill_loses_nothing_older_than_the_flush_window() {
    let settings = Settings { storage: format!("flush-max-ms {FLUSH_MS}"), ..Settings::default() };
    let mut node = Node::start(&settings);
    let mut stream = connect(node.ports()[0]);
    let begin = Instant::now();
    let mut acknowledged = Vec::new();
    for record in 0.. {
        if begin.elapsed() > WINDOW + WINDOW / 4 {
            break;
        }
        let put = Request::put(digest_of(record), record.into());
        assert_eq!(ask(&mut stream, &put).0.result, 0);
        acknowledged.push(Instant::now());
    }
    node.signal("KILL");
    let killed = Instant::now();
    node.ended();

    let node = Node::start_in(node.into_directory(), &settings);
    let mut stream = connect(node.ports()[0]);
    for (record, at) in (0..).zip(acknowledged) {
        let (reply, _) = ask(&mut stream, &Request::get(digest_of(record)));
        let lost = reply.result == 2;
        assert!(lost || reply.result == 0, "record {record}: {reply:?}");
        assert!(
            !lost || killed - at < WINDOW,
            "record {record} was written {:?} earlier",
            killed - at
        );
    }
    node.stop();
}

#[test]
fn a_source_that_was_killed_says_once_that_its_destination_may_be_ahead() {
    let destination = Node::start(&one_shard());
    let shipping = source_of(dc("destination", &destination, ""));
    let warned = |source: &Node| {
        let log = source.log();
        log.lines().filter(|line| line.contains("namespace test was not stopped in order")).count()
    };
    let source = Node::start(&shipping);
    Client::of(&source).done((0..10).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");
    let mut source = Node::start_in(source.stop(), &shipping);
    assert_eq!(warned(&source), 0, "{}", source.log());
    source.signal("KILL");
    source.ended();
    let source = Node::start_in(source.into_directory(), &shipping);
    assert_eq!(warned(&source), 1, "{}", source.log());
    let source = Node::start_in(source.stop(), &shipping);
    assert_eq!(warned(&source), 1, "{}", source.log());
}
