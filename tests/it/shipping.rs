//! The life of shipping between real nodes: what is configured at run time, what fails and comes
//! back, and that the destination ends equal to what the rules admit of the source.

use crate::support::ship::{
    Client, configure, create_dc, dc, delete, digest_in, everywhere, from_environment, one_shard,
    present, put, put_in_set, source_of, stat, values, wait_until_connected, wait_until_equal,
    wait_until_settled,
};
use crate::support::{Node, PATIENCE, Request, Settings, info, wait_for, wait_long_for};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
fn a_source_that_has_the_src_id_of_where_it_is_forwarded_to_is_told_of_until_that_has_another() {
    let identity = |id: u8| source_of(format!("src-id {id}\n"));
    let (begin, middle, end) =
        (Node::start(&identity(1)), Node::start(&identity(2)), Node::start(&identity(1)));
    for (node, other) in [(&begin, &middle), (&middle, &end)] {
        create_dc(node, other, "");
        wait_until_connected(node, "destination", other);
    }
    let problem = |node: &Node| {
        let stats =
            node.ports().iter().map(|port| info(*port, "get-stats:context=xdr;dc=destination"));
        stats.into_iter().any(|text| !text.contains("problem=none"))
    };
    assert!(!problem(&middle), "it forwards nothing");
    configure(&middle, "namespace=test;forward=true");
    wait_for("the middle to be told", || problem(&middle).then_some(()));
    assert!(!problem(&begin));
    let mut client = Client::of(&begin);
    client.done((0..100).map(|n| put(n, 1)));
    wait_until_settled(&begin, "destination");
    wait_until_settled(&middle, "destination");
    assert_eq!(present(&end, 0..100), Vec::<u32>::new());

    wait_until_connected(&middle, "destination", &end);
    everywhere(&end, "set-config:context=xdr;src-id=3");
    wait_for("the trouble to end", || (!problem(&middle)).then_some(()));
    configure(&middle, "namespace=test;action=rewind;rewind=all");
    wait_for("what was held back", || (present(&end, 0..100).len() == 100).then_some(()));
}

#[test]
fn two_sides_that_forward_without_a_src_id_are_told_so_until_they_have_one() {
    let (left, right) = (Node::start(&source_of(String::new())), Node::start(&one_shard()));
    for (node, other) in [(&left, &right), (&right, &left)] {
        create_dc(node, other, "");
        wait_until_connected(node, "destination", other);
    }
    let says = |node: &Node, part: &str| {
        let stats =
            node.ports().iter().map(|port| info(*port, "get-stats:context=xdr;dc=destination"));
        stats.into_iter().all(|text| text.contains(part))
    };
    assert!(says(&left, "problem=none") && says(&right, "problem=none"));
    configure(&left, "namespace=test;forward=true");
    wait_for("the echoes to be told", || says(&left, "ships here without a src-id").then_some(()));
    assert!(says(&right, "problem=none"), "it sends nothing back");
    configure(&right, "namespace=test;forward=true");
    Client::of(&left).done((0..100).map(|n| put(n, 1)));
    wait_for("the other to be told", || says(&right, "ships here without a src-id").then_some(()));
    let round = stat(&left, "destination", "success");
    wait_for("changes to go round", || {
        (stat(&left, "destination", "success") > round + 200).then_some(())
    });

    everywhere(&left, "set-config:context=xdr;src-id=1");
    everywhere(&right, "set-config:context=xdr;src-id=2");
    for node in [&left, &right] {
        wait_for("all to be well", || says(node, "problem=none").then_some(()));
        wait_until_settled(node, "destination");
    }
    wait_until_equal(&right, 100, |_| Some(1));
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

/// `LONGSHIP_HOT_S=10` makes it 100,000 writes.
#[test]
fn a_hot_key_ships_seldom_and_ends_with_its_newest_value() {
    const WRITES_PER_MS: u64 = 10;
    const HOT_KEY_MS: u64 = 100;
    let writes = from_environment("LONGSHIP_HOT_S", 2) * 1000 * WRITES_PER_MS;
    let destination = Node::start(&one_shard());
    let items = format!("hot-key-ms {HOT_KEY_MS}");
    let source = Node::start(&source_of(dc("destination", &destination, &items)));
    wait_until_connected(&source, "destination", &destination);
    let mut client = Client::of(&source);
    let begin = Instant::now();
    let mut written = 0;
    while written < writes {
        let due = (begin.elapsed().as_millis() as u64 * WRITES_PER_MS).min(writes);
        // Of the shard that is asked: one that is handed over takes a wake-up per write.
        client.done((written + 1..=due).map(|value| put(8, value as i64)));
        written = written.max(due);
        std::thread::sleep(Duration::from_millis(1));
    }
    let spent = begin.elapsed();
    let periods = spent.as_millis() as u64 / HOT_KEY_MS + 1;
    wait_until_equal(&destination, 9, |n| (n == 8).then_some(writes as i64));
    wait_until_settled(&source, "destination");
    let shipped = stat(&source, "destination", "success");
    let merged = stat(&source, "destination", "hot_keys");
    eprintln!(
        "one record written {writes} times in {:.1} s with hot-key-ms {HOT_KEY_MS}: shipped \
         {shipped} times, {merged} writes merged, newest value there",
        spent.as_secs_f64(),
    );
    assert!(shipped <= periods + periods / 4 + 2, "{shipped} in {periods} periods");
    assert!(merged > writes / 2);
}

/// `LONGSHIP_BURST=2000000` is the size of the promise.
#[test]
fn a_burst_over_the_queue_limit_is_recovered() {
    let records = from_environment("LONGSHIP_BURST", 32_000) as u32;
    let is_large = records > 100_000;
    // Few lanes, all of the shard that is asked, and records that fill the sockets soon.
    let (lanes, bytes) = if is_large { (512, 100) } else { (16, 1000) };
    let filesize = if is_large { "2G" } else { "256M" };
    let digest = |n: u32| digest_in((n % lanes * 2) as u16, n);
    let put = |n: u32| {
        let mut request = Request::put(digest(n), 0);
        let value = [vec![0; bytes], i64::from(n).to_be_bytes().to_vec()].concat();
        request.ops[0] = (2, 4, b"b".to_vec(), value);
        request
    };
    let destination = Node::start(&Settings { filesize, ..one_shard() });
    // The default throughput would be the limit, and this shard has only its share of it.
    let items = "max-throughput 10000000\ntransaction-queue-limit 1024";
    let source = source_of(dc("destination", &destination, items));
    let source = Node::start(&Settings { filesize, ..source });
    wait_until_connected(&source, "destination", &destination);
    destination.signal("STOP");
    let begin = Instant::now();
    Client::of(&source).until_done((0..records).map(put));
    let burst = begin.elapsed();
    let dropped = stat(&source, "destination", "dropped_to_recovery");
    destination.signal("CONT");
    assert!(dropped > 0, "the queues did not overflow");
    let begin = Instant::now();
    let gauges = ["in_queue", "in_progress", "retrying", "recoveries_pending"];
    wait_long_for("recovery to end", PATIENCE * (1 + records / 100_000), || {
        gauges.iter().all(|gauge| stat(&source, "destination", gauge) == 0).then_some(())
    });
    let caught_up = begin.elapsed();
    wait_until_settled(&source, "destination");
    let recoveries = stat(&source, "destination", "recoveries");
    assert!(recoveries > 0);
    let digests: Vec<[u8; 20]> = (0..records).map(digest).collect();
    let found = values(&destination, &digests).into_iter().zip(0..records);
    let missing = found.filter(|(value, n)| *value != Some(i64::from(*n))).count();
    eprintln!(
        "burst of {records} records in {:.1} s over queues of 1024: {dropped} dropped to recovery, \
         {recoveries} recoveries, {missing} missing, caught up in {:.1} s",
        burst.as_secs_f64(),
        caught_up.as_secs_f64(),
    );
    assert_eq!(missing, 0);
}
