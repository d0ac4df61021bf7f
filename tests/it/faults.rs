//! Nodes that die and connections that break under load: whatever happened, the destination ends
//! equal to the source. `LONGSHIP_ROUNDS=10` and `LONGSHIP_OUTAGE_S=60` ask for more than a machine
//! that builds every change has time for.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::support::relay::{Direction, Relay};
use crate::support::ship::{
    Client, dc, dc_at, delete, digest_in, digest_of, from_environment, one_shard, put, source_of,
    stat, values, wait_until_connected, wait_until_settled,
};
use crate::support::{Node, PATIENCE, Request, Settings, wait_for, wait_long_for};

/// Records that load is put on.
const RECORDS: u32 = 4096;

fn rounds() -> u32 {
    from_environment("LONGSHIP_ROUNDS", 3) as u32
}

/// Moments that differ from round to round, the same in every run.
fn random_ms(round: u32, from: u64, below: u64) -> u64 {
    let mixed = (u64::from(round) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    from + mixed % (below - from)
}

/// Records in which two nodes differ, with the value of each.
fn differences(
    source: &Node,
    destination: &Node,
    records: std::ops::Range<u32>,
) -> Vec<(u32, Option<i64>, Option<i64>)> {
    let digests: Vec<[u8; 20]> = records.clone().map(digest_of).collect();
    let pairs = values(source, &digests).into_iter().zip(values(destination, &digests));
    let all = records.zip(pairs).map(|(record, (here, there))| (record, here, there));
    all.filter(|(_, here, there)| here != there).collect()
}

fn wait_until_same(source: &Node, destination: &Node, records: std::ops::Range<u32>) {
    wait_until_settled(source, "destination");
    let differ = differences(source, destination, records);
    assert!(differ.is_empty(), "{} differ: {:?}", differ.len(), &differ[..differ.len().min(9)]);
}

/// What a load has sent, in order: when, and the value a record then had.
#[derive(Default)]
struct Sent(BTreeMap<u32, Vec<(Instant, Option<i64>)>>);

/// Writes and deletes records for as long as `goes_on`, or until the node is gone.
fn load(port: u16, records: std::ops::Range<u32>, goes_on: &AtomicBool) -> (Sent, u64) {
    let mut sent = Sent::default();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return (sent, 0) };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let begin = Instant::now();
    let mut acknowledged = 0;
    let mut value = 0;
    while goes_on.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
        let mut frames = Vec::new();
        let now = Instant::now();
        for _ in 0..64 {
            value += 1;
            let count = i64::from(records.len() as u32);
            let record = records.start + (value * 7919 % count) as u32;
            let is_delete = value % 11 == 0;
            let request = if is_delete { delete(record, false) } else { put(record, value) };
            frames.extend(request.frame());
            let log = sent.0.entry(record).or_default();
            log.push((now, (!is_delete).then_some(value)));
        }
        // Answers of 30 bytes each.
        let mut answers = [0; 64 * 30];
        if stream.write_all(&frames).is_err() || stream.read_exact(&mut answers).is_err() {
            break;
        }
        acknowledged += 64;
    }
    (sent, acknowledged)
}

#[test]
fn a_destination_killed_again_and_again_under_load_ends_equal_to_the_source() {
    let mut settings = Settings { storage: "flush-max-ms 1000".to_owned(), ..one_shard() };
    let mut destination = Node::start(&settings);
    settings.port = destination.ports()[0];
    let source = Node::start(&source_of(dc("destination", &destination, "")));
    let goes_on = AtomicBool::new(true);
    let (destination, acknowledged) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(source.ports()[0], 0..RECORDS, &goes_on));
        for round in 0..rounds() {
            wait_until_connected(&source, "destination", &destination);
            std::thread::sleep(Duration::from_millis(random_ms(round, 200, 1500)));
            destination.signal("KILL");
            destination.ended();
            destination = Node::start_in(destination.into_directory(), &settings);
        }
        wait_until_connected(&source, "destination", &destination);
        goes_on.store(false, Ordering::Relaxed);
        (destination, load.join().unwrap().1)
    });
    wait_until_same(&source, &destination, 0..RECORDS);
    eprintln!(
        "destination killed {} times under {acknowledged} writes: equal; {} acknowledged by it, {} \
         recoveries, {} lost with a connection",
        rounds(),
        stat(&source, "destination", "success"),
        stat(&source, "destination", "recoveries"),
        stat(&source, "destination", "retry_conn_reset"),
    );
}

/// Kills a source under load again and again, each time on fresh records, and gives for each round
/// what was sent when it was killed and in what it then differs from the destination.
fn kill_source(storage: &str, mut each: impl FnMut(u32, Sent, Instant, &[Difference])) {
    let destination = Node::start(&one_shard());
    let storage = storage.to_owned();
    let settings = Settings { storage, ..source_of(dc("destination", &destination, "")) };
    let mut source = Node::start(&settings);
    for round in 0..rounds() {
        wait_until_connected(&source, "destination", &destination);
        let records = round * RECORDS..(round + 1) * RECORDS;
        let goes_on = AtomicBool::new(true);
        let port = source.ports()[0];
        let (sent, killed) = std::thread::scope(|scope| {
            let load = scope.spawn(|| load(port, records.clone(), &goes_on).0);
            std::thread::sleep(Duration::from_millis(random_ms(round, 300, 2000)));
            source.signal("KILL");
            let killed = Instant::now();
            source.ended();
            (load.join().unwrap(), killed)
        });
        source = Node::start_in(source.into_directory(), &settings);
        wait_until_connected(&source, "destination", &destination);
        wait_until_settled(&source, "destination");
        each(round, sent, killed, &differences(&source, &destination, records));
    }
}

type Difference = (u32, Option<i64>, Option<i64>);

#[test]
fn a_source_that_commits_and_is_killed_under_load_agrees_with_the_destination() {
    let mut written = 0;
    kill_source("commit-to-device true", |round, sent, _, differ| {
        assert!(differ.is_empty(), "round {round}: {differ:?}");
        written += sent.0.values().map(Vec::len).sum::<usize>();
    });
    eprintln!(
        "source with commit-to-device killed {} times under {written} writes: 0 differ",
        rounds()
    );
}

#[test]
fn a_source_killed_under_load_differs_in_writes_of_its_loss_window_only() {
    const FLUSH_MS: u64 = 200;
    let announced = Duration::from_millis(2 * (FLUSH_MS + 1000));
    let (mut written, mut counts, mut oldest) = (0, Vec::new(), Duration::ZERO);
    kill_source(&format!("flush-max-ms {FLUSH_MS}"), |round, sent, killed, differ| {
        written += sent.0.values().map(Vec::len).sum::<usize>();
        counts.push(differ.len());
        for (record, here, there) in differ {
            // What the destination has and the source has lost was written just before the end.
            let log = &sent.0[record];
            let (at, _) = log.iter().rev().find(|(_, value)| value == there).unwrap_or_else(|| {
                panic!("round {round}, record {record}: nobody wrote {there:?}")
            });
            let age = killed.saturating_duration_since(*at);
            assert!(age <= announced, "round {round}: {record} {here:?} {there:?} {age:?}");
            oldest = oldest.max(age);
        }
    });
    eprintln!(
        "source with flush-max-ms {FLUSH_MS} killed {} times under {written} writes: {counts:?} \
         differ, the oldest written {} ms before (window announced {} ms)",
        rounds(),
        oldest.as_millis(),
        announced.as_millis(),
    );
}

#[test]
fn no_straggler_of_a_cut_connection_is_ever_applied() {
    const KEYS: u32 = 400;
    let destination = Node::start(&one_shard());
    let relay = Relay::to(destination.ports()[0]);
    let settings = Settings { shards: 1, ..source_of(dc_at("destination", &[relay.port()], "")) };
    let source = Node::start(&settings);
    let mut client = Client::of(&source);
    let (mut late_bytes, mut unread) = (0, 0);
    for round in 0..2 * rounds() {
        let keys = round * KEYS..(round + 1) * KEYS;
        client.done(keys.clone().map(|n| put(n, 1)));
        wait_until_same(&source, &destination, keys.clone());
        // Some are applied and their answers held, some never arrive in time.
        relay.hold(Direction::ToSource);
        let half = keys.start + KEYS / 2;
        client.done((keys.start..half).map(|n| put(n, 2)));
        wait_for("answers to be held", || (relay.held(Direction::ToSource) > 0).then_some(()));
        relay.hold(Direction::ToTarget);
        client.done((half..keys.end).map(|n| put(n, 2)));
        wait_for("batches to be held", || {
            let all = stat(&source, "destination", "in_progress") >= u64::from(KEYS / 2);
            (all && relay.held(Direction::ToTarget) > 0).then_some(())
        });
        unread += stat(&source, "destination", "in_progress");
        client.done(keys.clone().filter(|n| n % 3 == 0).map(|n| put(n, 3)));
        client.done(keys.clone().filter(|n| n % 3 == 1).map(|n| delete(n, n % 2 == 0)));
        let left = if round % 2 == 0 {
            // The straggler comes when all newer versions are there.
            let left = relay.cut();
            wait_until_same(&source, &destination, keys.clone());
            late_bytes += left.deliver();
            left
        } else {
            // It lies unread at the destination when the source is back.
            destination.signal("STOP");
            let left = relay.cut();
            late_bytes += left.deliver();
            std::thread::sleep(Duration::from_millis(300));
            destination.signal("CONT");
            left
        };
        wait_until_same(&source, &destination, keys.clone());
        assert!(left.end(), "round {round}: the destination kept an older connection");
        let expected = |n: u32| [Some(3), None, Some(2)][(n % 3) as usize];
        let digests: Vec<[u8; 20]> = keys.clone().map(digest_of).collect();
        let found = values(&destination, &digests);
        assert_eq!(found, keys.clone().map(expected).collect::<Vec<_>>(), "round {round}");
    }
    eprintln!(
        "{} connections cut with {unread} changes unanswered, {late_bytes} bytes delivered late: 0 \
         stragglers applied",
        2 * rounds(),
    );
}

#[test]
fn a_destination_stopped_for_a_while_under_load_catches_up() {
    let outage = Duration::from_secs(from_environment("LONGSHIP_OUTAGE_S", 10));
    let per_ms = from_environment("LONGSHIP_OUTAGE_RATE", 8000) / 1000;
    // Few lanes with short queues, so that they overflow.
    let digest = |n: u32| digest_in((n % 32) as u16, n);
    let mut settings = Settings { filesize: "1G", ..one_shard() };
    let mut destination = Node::start(&settings);
    settings.port = destination.ports()[0];
    let items = "transaction-queue-limit 1024";
    let source = Node::start(&Settings {
        shards: 1,
        filesize: "1G",
        ..source_of(dc("destination", &destination, items))
    });
    wait_until_connected(&source, "destination", &destination);
    let (goes_on, written) = (AtomicBool::new(true), AtomicI64::new(0));
    let (destination, seconds) = std::thread::scope(|scope| {
        // Each record once, so that its generation at the destination tells how often it came.
        scope.spawn(|| {
            let mut client = Client::of(&source);
            let begin = Instant::now();
            let mut next = 0_u32;
            while goes_on.load(Ordering::Relaxed) {
                let due = begin.elapsed().as_millis() as u64 * per_ms;
                if u64::from(next) < due {
                    client
                        .until_done((next..next + 100).map(|n| Request::put(digest(n), n.into())));
                    next += 100;
                    written.store(next.into(), Ordering::Relaxed);
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let some = per_ms as i64 * 2000;
        wait_long_for("some load", PATIENCE * 2, || {
            (written.load(Ordering::Relaxed) >= some).then_some(())
        });
        destination.signal("TERM");
        destination.ended();
        std::thread::sleep(outage);
        let destination = Node::start_in(destination.into_directory(), &settings);
        let back = Instant::now();
        wait_long_for("the lag to end", outage * 3 + PATIENCE, || {
            let pending = stat(&source, "destination", "recoveries_pending");
            let oldest_ms = stat(&source, "destination", "oldest_unshipped_ms");
            (pending == 0 && oldest_ms < 1500).then_some(())
        });
        let seconds = back.elapsed().as_secs_f64();
        goes_on.store(false, Ordering::Relaxed);
        (destination, seconds)
    });
    wait_until_settled(&source, "destination");
    let records = written.load(Ordering::Relaxed) as u32;
    let requests: Vec<Request> = (0..records).map(|n| Request::get(digest(n))).collect();
    let (mut missing, mut stale, mut again) = (0, 0, 0);
    for (n, reply) in Client::of(&destination).replies(&requests).into_iter().enumerate() {
        missing += u32::from(reply.result != 0);
        stale += u32::from(reply.result == 0 && reply.value != Some(n as i64));
        again += reply.generation.saturating_sub(1);
    }
    let recoveries = stat(&source, "destination", "recoveries");
    eprintln!(
        "destination away for {} s under {} writes/s: {records} records, {missing} missing, {stale} \
         stale, {recoveries} recoveries, {again} records shipped again needlessly, caught up in \
         {seconds:.1} s",
        outage.as_secs(),
        per_ms * 1000,
    );
    assert_eq!((missing, stale), (0, 0));
    assert!(recoveries > 0, "recoveries are counted");
}
