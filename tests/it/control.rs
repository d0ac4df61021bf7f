//! What operators do at run time, over the info protocol: DCs, nodes and namespaces come and go,
//! items are set, shown and take effect, rewinds ship again.

use std::time::{Duration, Instant};

use longship::model::Lut;

use crate::support::ship::{
    Client, configure, configure_dc, create_dc, delete, digest_of, everywhere, one_shard, present,
    put, stat, values, wait_until_connected, wait_until_settled,
};
use crate::support::{Node, PATIENCE, Request, Settings, info, wait_for, wait_long_for};

const DC: &str = "get-config:context=xdr;dc=destination";

/// What every port of a node answers, which is one and the same.
fn shown(node: &Node, command: &str) -> String {
    let answers: Vec<String> = node.ports().iter().map(|port| info(*port, command)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{command}: {answers:?}");
    answers[0].clone()
}

fn refused(node: &Node, item: &str, message: &str) {
    let command = format!("set-config:context=xdr;dc=destination;{item}");
    let answer = shown(node, &command);
    assert!(answer.starts_with("ERROR:4:") && answer.ends_with(message), "{item}: {answer}");
    // An item that is refused is named.
    let key = item.rsplit(';').next().and_then(|last| last.split_once('=')).map_or("", |p| p.0);
    let is_named = answer.starts_with(&format!("ERROR:4:{key}: "));
    assert!(item.contains("action=") || message.starts_with("namespace '") || is_named, "{answer}");
}

/// Writes a record and gives how long it took until the destination had it.
fn arrival(source: &mut Client, destination: &Node, record: u32, value: i64) -> Duration {
    let begin = Instant::now();
    source.done([put(record, value)]);
    wait_for("the change to arrive", || {
        (values(destination, &[digest_of(record)]) == [Some(value)]).then_some(())
    });
    begin.elapsed()
}

#[test]
fn a_rewind_ships_again_what_changed_since_and_rewind_all_everything() {
    const APART: Duration = Duration::from_secs(4);
    let destination = Node::start(&one_shard());
    let source = Node::start(&Settings::default());
    create_dc(&source, &destination, "");
    let mut client = Client::of(&source);
    client.done((0..300).map(|n| put(n, 1)));
    // What a rewind by seconds is about: some are older than others.
    std::thread::sleep(APART);
    let begin = Instant::now();
    client.done((200..400).map(|n| put(n, 2)));
    client.done((200..220).map(|n| delete(n, false)));
    wait_until_settled(&source, "destination");
    assert_eq!(present(&destination, 0..400).len(), 380);

    // Once as an operator of the reference system rewinds, once by the command for it.
    let again = |rewind: &str| {
        configure(&source, "namespace=test;action=remove");
        configure(&source, &format!("namespace=test;action=add;rewind={rewind}"));
    };
    let moved = |rewind: &str| {
        configure(&source, &format!("namespace=test;action=rewind;rewind={rewind}"));
    };
    let rewound = |by: &dyn Fn(&str), rewind: &str, expected: &[u32]| {
        let there = present(&destination, 0..400);
        Client::of(&destination).done(there.into_iter().map(|n| delete(n, false)));
        assert!(present(&destination, 0..400).is_empty());
        by(rewind);
        wait_for("what was removed to be back", || {
            (present(&destination, 0..400).len() >= expected.len()).then_some(())
        });
        wait_until_settled(&source, "destination");
        assert_eq!(present(&destination, 0..400), expected, "rewind={rewind}");
    };
    let newer: Vec<u32> = (220..400).collect();
    // Below APART and what has passed: none of the older ones, however long this takes.
    let seconds = begin.elapsed().as_secs() + 3;
    rewound(&again, &seconds.to_string(), &newer);
    configure(&source, "namespace=test;delay-ms=7");
    let seconds = begin.elapsed().as_secs() + 3;
    rewound(&moved, &format!("{seconds}s"), &newer);
    rewound(&moved, "all", &[(0..200).collect(), newer].concat());
    let kept = shown(&source, &format!("{DC};namespace=test"));
    assert!(kept.contains("delay-ms=7;"), "a rewind keeps the settings: {kept}");
    let attached = "namespace 'test' is already shipped to DC 'destination': use action=rewind";
    refused(&source, "namespace=test;action=add;rewind=5", attached);
    let soon =
        "rewind 'soon' is not a time: expected all, or seconds, or a number with s, m, h or d";
    refused(&source, "namespace=test;action=add;rewind=soon", soon);
}

#[test]
fn tombstones_are_kept_for_whom_they_are_new_and_what_of_them_is_gone_is_named() {
    let source = Node::start(&Settings {
        namespace: "xdr-tomb-raider-period 1".to_owned(),
        filesize: "16M",
        storage: "write-block-size 128K".to_owned(),
        ..Settings::default()
    });
    let mut client = Client::of(&source);
    client.done((0..100).map(|n| put(n, 1)));
    client.done((0..50).map(|n| delete(n, n % 2 == 0)));
    // What is settled is known from the first checkpoint on, 30 s after the start; and no older
    // version may be left in any block, written again or not.
    wait_long_for("the raider to forget", PATIENCE * 3, || {
        client.until_done((0..20).map(|n| large(200 + n % 4)));
        (figure(&source, "tombstones") == 0).then_some(())
    });
    assert_eq!(figure(&source, "tombstones_raided"), 50);

    // A raid that is under way takes nothing from a DC that is attached meanwhile.
    let mut records = 1000..;
    wait_for("the raider to forget again", || {
        let some: Vec<u32> = records.by_ref().take(50).collect();
        client.until_done(some.iter().map(|n| put(*n, 1)));
        client.until_done(some.iter().map(|n| delete(*n, true)));
        client.until_done((0..20).map(|n| large(200 + n % 4)));
        (figure(&source, "tombstones_raided") > 50).then_some(())
    });
    configure(&source, "action=create");
    shown(&source, "set-config:context=xdr;dc=destination;namespace=test;action=add;rewind=all");
    let figures = || (figure(&source, "tombstones"), figure(&source, "tombstones_raided"));
    let (begin, then) = (Instant::now(), figures());
    assert!(then.0 > 0, "there are none left to keep");
    while begin.elapsed() < Duration::from_secs(3) {
        client.until_done((0..20).map(|n| large(200 + n % 4)));
    }
    assert_eq!(figures(), then, "those that were there when it was answered");
    configure(&source, "namespace=test;action=remove");

    let horizons = source.ports().iter().map(|port| figure_at(*port, "tombstone_horizon"));
    let horizon = Lut::from_unix_ms(horizons.max().unwrap());
    let oldest = Lut::ZERO;

    let attached = |rewind: &str| {
        let add = format!("namespace=test;action=add;rewind={rewind}");
        let answer = shown(&source, &format!("set-config:context=xdr;dc=destination;{add}"));
        configure(&source, "namespace=test;action=remove");
        answer
    };
    let span = format!("{}..{}", oldest.utc(), horizon.utc());
    assert_eq!(attached("all"), format!("ok;deletes-may-be-missing={span}"));
    let line = format!("deletes of {span} (UTC) may be missing there");
    assert!(source.log().contains(&line), "{line}: {}", source.log());
    // It happened at least a raider's period ago, so this is all there is to know.
    assert_eq!(attached("0"), "ok");
}

#[test]
fn without_doorbell_changes_ship_by_the_period() {
    const WRITES: u32 = 9;
    let destination = Node::start(&one_shard());
    let source = Node::start(&one_shard());
    create_dc(&source, &destination, "");
    wait_until_connected(&source, "destination", &destination);
    let mut client = Client::of(&source);
    let mut next = 0;
    // Each is written when the source knows that the one before has arrived, so that one lap ships
    // one: an answer makes a lap too. What counts is the middle one of a few, since once a second
    // there is a lap out of turn, and the machine may be busy with others.
    let mut spent = |items: [&str; 2]| {
        items.iter().for_each(|item| configure(&source, item));
        next += WRITES;
        let one = |n| {
            let spent = arrival(&mut client, &destination, n, 1);
            wait_until_settled(&source, "destination");
            spent
        };
        let mut each: Vec<Duration> = (next - WRITES..next).map(one).collect();
        each.sort();
        each[each.len() / 2]
    };
    let rung = spent(["doorbell=true", "period-ms=1000"]);
    let slow = spent(["doorbell=false", "period-ms=400"]);
    let fast = spent(["doorbell=false", "period-ms=20"]);
    eprintln!(
        "a write on its own: {rung:?} with doorbell, {slow:?} in laps of 400 ms, {fast:?} of 20 ms"
    );
    // The lap is under way when it is written.
    assert!(slow >= Duration::from_millis(200), "{slow:?}");
    assert!(rung < slow && fast < slow, "{rung:?} {slow:?} {fast:?}");
}

#[test]
fn what_is_set_at_run_time_is_shown_in_the_shape_of_the_reference() {
    let node = Node::start(&Settings::default());
    let xdr = "get-config:context=xdr";
    let namespace = format!("{DC};namespace=test");
    assert_eq!(shown(&node, xdr), "dcs=;src-id=0;trace-sample=0");
    everywhere(&node, "set-config:context=xdr;src-id=7");
    configure(&node, "action=create");
    assert_eq!(shown(&node, xdr), "dcs=destination;src-id=7;trace-sample=0");
    let dc = |changed: [&str; 6]| {
        let [doorbell, recoveries, seeds, period, threads, namespaces] = changed;
        format!(
            "auth-mode=none;auth-password-file=null;auth-user=null;connector=false;\
             doorbell={doorbell};max-recoveries-interleaved={recoveries};\
             node-address-port={seeds};period-ms={period};recovery-threads={threads};\
             tls-name=null;use-alternate-access-address=false;namespaces={namespaces}"
        )
    };
    assert_eq!(shown(&node, DC), dc(["true", "0", "", "100", "1", ""]));
    assert_eq!(
        shown(&node, &namespace),
        "enabled=false;bin-policy=all;compression-level=1;compression-threshold=128;delay-ms=0;\
         enable-compression=false;forward=false;hot-key-ms=100;ignored-bins=;\
         ignore-expunges=false;ignored-sets=;max-throughput=100000;remote-namespace=null;\
         sc-replication-wait-ms=100;shipped-bins=;ship-bin-luts=false;ship-nsup-deletes=false;\
         ship-only-specified-sets=false;shipped-sets=;ship-versions-interval=60;\
         ship-versions-policy=latest;transaction-queue-limit=16384;write-policy=auto"
    );
    for item in [
        "doorbell=false",
        "max-recoveries-interleaved=3",
        "period-ms=50",
        "recovery-threads=4",
        "node-address-port=127.0.0.1:9;action=add",
        "node-address-port=localhost:10;action=add",
        "namespace=test;action=add",
    ] {
        configure(&node, item);
    }
    let seeds = "127.0.0.1:9,localhost:10";
    assert_eq!(shown(&node, DC), dc(["false", "3", seeds, "50", "4", "test"]));
    for item in [
        "bin-policy=only-specified",
        "hot-key-ms=200",
        "delay-ms=50",
        "forward=true",
        "ignore-bin=b",
        "ignore-expunges=true",
        "ignore-set=u",
        "max-throughput=200",
        "remote-namespace=other",
        "sc-replication-wait-ms=10",
        "ship-bin=a",
        "ship-bin=c",
        "ship-nsup-deletes=true",
        "ship-only-specified-sets=true",
        "ship-set=s",
        "enable-set=t",
        "transaction-queue-limit=2048",
        "write-policy=update",
    ] {
        configure(&node, &format!("namespace=test;{item}"));
    }
    assert_eq!(
        shown(&node, &namespace),
        "enabled=true;bin-policy=only-specified;compression-level=1;compression-threshold=128;\
         delay-ms=50;enable-compression=false;forward=true;hot-key-ms=200;ignored-bins=b;\
         ignore-expunges=true;ignored-sets=u;max-throughput=200;remote-namespace=other;\
         sc-replication-wait-ms=10;shipped-bins=a,c;ship-bin-luts=false;ship-nsup-deletes=true;\
         ship-only-specified-sets=true;shipped-sets=s,t;ship-versions-interval=60;\
         ship-versions-policy=latest;transaction-queue-limit=2048;write-policy=update"
    );
}

/// A figure of the namespace at one port.
fn figure_at(port: u16, name: &str) -> u64 {
    let text = info(port, "namespace/test");
    let mut pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(key, _)| *key == name);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
}

/// The same, over all ports.
fn figure(node: &Node, name: &str) -> u64 {
    node.ports().iter().map(|port| figure_at(*port, name)).sum()
}

/// A record of 100 kB.
fn large(record: u32) -> Request {
    let mut request = put(record, 1);
    request.ops[0] = (2, 4, b"b".to_vec(), vec![7; 100_000]);
    request
}

fn set_namespace(node: &Node, item: &str) {
    everywhere(node, &format!("set-config:context=namespace;id=test;{item}"));
}

#[test]
fn a_lowered_stop_writes_used_pct_refuses_writes_and_a_raised_one_takes_them_again() {
    const OUT_OF_SPACE: u8 = 8;
    let node = Node::start(&Settings::default());
    let mut client = Client::of(&node);
    // More than 1 % of either shard's half of 256 MiB.
    client.done((0..40).map(large));
    let results = |client: &mut Client, requests: &[Request]| -> Vec<u8> {
        client.ask(requests).into_iter().map(|(result, _)| result).collect()
    };
    let writes = [put(100, 1), put(101, 1)];
    assert_eq!(results(&mut client, &writes), [0, 0]);
    set_namespace(&node, "stop-writes-used-pct=1");
    let refused =
        [writes[0].clone(), writes[1].clone(), delete(0, false), Request::get(digest_of(1))];
    assert_eq!(results(&mut client, &refused), [OUT_OF_SPACE, OUT_OF_SPACE, 0, 0]);
    assert_eq!(figure(&node, "fail_out_of_space"), 2);
    everywhere(&node, "set-config:context=namespace;namespace=test;stop-writes-used-pct=0");
    assert_eq!(results(&mut client, &writes), [0, 0]);
    let shown = shown(&node, "get-config:context=namespace;id=test");
    assert!(shown.contains(";storage-engine.stop-writes-used-pct=0;"), "{shown}");
}

#[test]
fn a_default_ttl_is_that_of_the_next_write_and_expiry_begins_when_it_is_given_a_period() {
    let node = Node::start(&Settings::default());
    let mut client = Client::of(&node);
    let mut ends = |n: u32| {
        client.done([put(n, 1)]);
        client.replies(&[Request::get(digest_of(n))])[0].void_time
    };
    let both = |ends: &mut dyn FnMut(u32) -> u32, n| [ends(n), ends(n + 1)];
    assert_eq!(both(&mut ends, 0), [0, 0]);
    set_namespace(&node, "default-ttl=1h");
    let hour = both(&mut ends, 0);
    set_namespace(&node, "default-ttl=2h");
    let two = both(&mut ends, 2);
    for (hour, two) in hour.into_iter().zip(two) {
        assert!(hour > 0 && (3600..3700).contains(&(two - hour)), "{hour} {two}");
    }
    set_namespace(&node, "default-ttl=1s");
    both(&mut ends, 4);
    set_namespace(&node, "nsup-period=1s");
    wait_for("two records to expire", || (figure(&node, "expired_objects") == 2).then_some(()));
    assert_eq!(figure(&node, "objects"), 4);
}

#[test]
fn items_of_a_namespace_are_taken_shown_and_kept_to_on_every_shard() {
    const TOO_BIG: u8 = 13;
    const FORBIDDEN: u8 = 22;
    let node = Node::start(&Settings::default());
    let mut client = Client::of(&node);
    let command = "get-config:context=namespace;id=test";
    let before = shown(&node, command);
    let changes = [
        ("allow-ttl-without-nsup", "true", "false"),
        ("default-ttl", "0", "0"),
        ("max-record-size", "1048576", "2048"),
        ("nsup-period", "0", "600"),
        ("reject-non-xdr-writes", "false", "true"),
        ("reject-xdr-writes", "false", "true"),
        ("xdr-tomb-raider-period", "120", "5"),
        ("storage-engine.defrag-lwm-pct", "50", "60"),
        ("storage-engine.flush-max-ms", "1000", "20"),
        ("storage-engine.max-write-cache", "67108864", "8388608"),
        ("storage-engine.post-write-cache", "33554432", "0"),
        ("storage-engine.stop-writes-used-pct", "70", "80"),
    ];
    let mut expected = before.clone();
    for (item, old, new) in changes {
        let (was, is) = (format!("{item}={old}"), format!("{item}={new}"));
        assert_eq!(before.split(';').filter(|pair| *pair == was).count(), 1, "{was}: {before}");
        expected = expected.replace(&was, &is);
    }
    let mut large = put(1, 1);
    large.ops[0] = (2, 4, b"b".to_vec(), vec![7; 4000]);
    client.done([large.clone(), put(2, 1)]);
    for (item, _, new) in changes.iter().filter(|(item, ..)| !item.starts_with("reject")) {
        set_namespace(&node, &format!("{item}={new}"));
    }
    assert_eq!(client.ask(&[large, put(2, 2), put(3, 2)]), [(TOO_BIG, None), (0, None), (0, None)]);
    for (item, _, new) in changes.iter().filter(|(item, ..)| item.starts_with("reject")) {
        set_namespace(&node, &format!("{item}={new}"));
    }
    assert_eq!(client.ask(&[put(2, 3), put(3, 3)]), [(FORBIDDEN, None); 2]);
    assert_eq!(shown(&node, command), expected);

    for (item, message) in [
        (
            "write-block-size=2M",
            "cannot be changed at run time, since the devices are formatted with it: put it into \
             the file and restart",
        ),
        (
            "post-write-cache=64M",
            "must not be above 33554432, its value at the start: its memory was set aside then",
        ),
        ("default-tll=1", "unknown; did you mean `default-ttl`?"),
        ("stop-writes-used-pct=101", "`101` is not allowed here: expected 0..100 percent"),
    ] {
        let command = format!("set-config:context=namespace;id=test;{item}");
        let (key, _) = item.split_once('=').expect("an item has a value");
        assert_eq!(shown(&node, &command), format!("ERROR:4:{key}: {message}"), "{item}");
    }
    let unknown = "set-config:context=namespace;id=other;default-ttl=1";
    assert_eq!(
        shown(&node, unknown),
        "ERROR:4:this node has no namespace 'other'; `namespaces` lists them"
    );
    assert_eq!(shown(&node, command), expected);

    // What is set at run time is gone after a restart; what was written meanwhile is not.
    let node = Node::start_in(node.stop(), &Settings::default());
    assert_eq!(shown(&node, command), before);
    assert_eq!(values(&node, &[digest_of(2), digest_of(3)]), [Some(2), Some(2)]);
}

#[test]
fn old_unsupported_and_misspelled_items_are_refused_by_name_and_change_nothing() {
    let node = Node::start(&Settings::default());
    configure(&node, "action=create");
    configure(&node, "namespace=test;action=add");
    let namespace = format!("{DC};namespace=test");
    let before = (shown(&node, DC), shown(&node, &namespace));
    for (item, message) in [
        // Of older releases.
        ("xdr-period=100", "no longer an item: write `period-ms` in the DC"),
        ("datacenter=east", "no longer an item: write `dc NAME {`"),
        (
            "namespace=test;max-ship-throughput=100",
            "no longer an item: write `max-throughput` in the DC's namespace",
        ),
        ("namespace=test;ship-bins=a,b", "no longer an item: write `ship-bin NAME`, once for each"),
        // Not done yet.
        ("connector=true", "not supported yet: only `false` is"),
        ("tls-name=x", "not supported yet: only `null` is"),
        ("auth-mode=internal", "not supported yet: only `none` is"),
        ("namespace=test;enable-compression=true", "not supported yet: only `false` is"),
        ("namespace=test;ship-bin-luts=true", "not supported yet: only `false` is"),
        ("namespace=test;ship-versions-policy=all", "not supported yet: only `latest` is"),
        ("namespace=test;encryption=aes-128", "not supported: records would be stored in clear"),
        // Slips and strangers.
        ("perod-ms=100", "unknown; did you mean `period-ms`?"),
        ("namespace=test;forwrad=true", "unknown; did you mean `forward`?"),
        ("namespace=test;banana=1", "unknown"),
        // Rules between items, and names that are not there.
        ("namespace=test;delay-ms=101", "must not be above `hot-key-ms`, which is 100"),
        (
            "namespace=other;action=add",
            "this node has no namespace 'other'; `namespaces` lists them",
        ),
        (
            "namespace=other;forward=true",
            "namespace 'other' is not shipped to DC 'destination'; action=add makes it so",
        ),
    ] {
        refused(&node, item, message);
    }
    let unknown = "ERROR:4:no DC is named 'east'; get-config:context=xdr names them";
    assert_eq!(shown(&node, "set-config:context=xdr;dc=east;period-ms=50"), unknown);
    assert_eq!(shown(&node, "get-config:context=xdr;dc=east"), unknown);
    assert_eq!((shown(&node, DC), shown(&node, &namespace)), before);
}

#[test]
fn a_dc_made_at_run_time_ships_while_its_namespace_is_attached_and_is_gone_when_deleted() {
    let destination = Node::start(&Settings::default());
    let source = Node::start(&Settings::default());
    let mut client = Client::of(&source);
    let seed = |port: &u16| format!("127.0.0.1:{port}");
    let seeds: Vec<String> = destination.ports().iter().map(seed).collect();
    let is_seed = |seeds: &str| {
        shown(&source, DC).split(';').any(|pair| pair == format!("node-address-port={seeds}"))
    };
    client.done((0..100).map(|n| put(n, 1)));
    create_dc(&source, &destination, "");
    wait_until_connected(&source, "destination", &destination);
    assert!(is_seed(&seeds.join(",")));
    client.done((100..200).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");

    // The nodes are known by now: seeds are where to start.
    configure(&source, &format!("node-address-port={};action=remove", seeds[0]));
    assert!(is_seed(&seeds[1]));
    client.done((200..300).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");
    wait_until_connected(&source, "destination", &destination);
    configure(&source, &format!("node-address-port={};action=add", seeds[0]));
    assert!(is_seed(&format!("{},{}", seeds[1], seeds[0])));

    configure(&source, "namespace=test;action=remove");
    assert!(shown(&source, DC).ends_with(";namespaces="));
    client.done((300..400).map(|n| put(n, 1)));
    configure(&source, "namespace=test;action=add");
    assert!(shown(&source, DC).ends_with(";namespaces=test"));
    client.done((400..500).map(|n| put(n, 1)));
    wait_until_settled(&source, "destination");
    // From now on, and from now on again: with a hole.
    let expected: Vec<u32> = (100..300).chain(400..500).collect();
    assert_eq!(present(&destination, 0..500), expected);

    configure(&source, "action=delete");
    let unknown = "ERROR:4:no DC is named 'destination'; get-config:context=xdr names them";
    for command in [DC, "get-stats:context=xdr;dc=destination", "xdr-check:dc=destination"] {
        assert_eq!(shown(&source, command), unknown, "{command}");
    }
    assert_eq!(shown(&source, "get-config:context=xdr"), "dcs=;src-id=0;trace-sample=0");
    client.done((500..600).map(|n| put(n, 1)));
    // Another DC ships what comes after, and what was written without any stays.
    configure_dc(&source, "again", "action=create");
    configure_dc(&source, "again", &format!("node-address-port={};action=add", seeds[0]));
    configure_dc(&source, "again", "namespace=test;action=add");
    client.done((600..700).map(|n| put(n, 1)));
    wait_until_settled(&source, "again");
    let expected: Vec<u32> = expected.into_iter().chain(600..700).collect();
    assert_eq!(present(&destination, 0..700), expected);
    source.stop();
}

#[test]
fn recovery_threads_are_taken_and_shown_and_recoveries_go_on_with_them() {
    let destination = Node::start(&one_shard());
    let source = Node::start(&Settings::default());
    Client::of(&source).done((0..2000).map(|n| put(n, 1)));
    configure(&source, "action=create");
    for threads in ["1", "32", "4"] {
        configure(&source, &format!("recovery-threads={threads}"));
        let text = format!(";recovery-threads={threads};");
        assert!(shown(&source, DC).contains(&text), "{text}");
    }
    for threads in ["0", "33", "many"] {
        let message = format!("`{threads}` is not allowed here: expected 1..32");
        refused(&source, &format!("recovery-threads={threads}"), &message);
    }
    create_dc(&source, &destination, ";rewind=all");
    wait_for("everything to arrive", || {
        (present(&destination, 0..2000).len() == 2000).then_some(())
    });
    wait_until_settled(&source, "destination");
    assert!(stat(&source, "destination", "recoveries") > 0);
    assert!(shown(&source, DC).contains(";recovery-threads=4;"));
}
