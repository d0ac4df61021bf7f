//! What a destination refuses: for one record, which becomes a dead letter, for all, which parks the
//! DC, or for a while.

use std::time::Instant;

use crate::support::relay::Relay;
use crate::support::ship::{
    Client, configure, dc, dc_at, digest_in, one_shard, present, put, put_in_set, source_of, stat,
    wait_until_connected, wait_until_settled,
};
use crate::support::{Node, Request, Settings, info, wait_for};

const LETTERS: &str = "xdr-dead-letters:dc=destination;namespace=test";

fn letters(node: &Node) -> String {
    node.ports().iter().map(|port| info(*port, LETTERS)).collect()
}

/// A record larger than a destination with blocks of 128 KiB takes, with its key.
fn large(record: u32) -> Request {
    let mut request = put_in_set(record, "large");
    request.fields.push((2, b"\x03alice".to_vec()));
    request.ops[0] = (2, 4, b"b".to_vec(), vec![7; 200 << 10]);
    request
}

fn small_blocks() -> Settings {
    Settings { storage: "write-block-size 128K".to_owned(), ..one_shard() }
}

#[test]
fn what_the_destination_refuses_for_ever_is_kept_and_can_be_replayed() {
    let destination = Node::start(&small_blocks());
    let source = Node::start(&source_of(dc("destination", &destination, "")));
    Client::of(&source).done([large(1), put(2, 2)]);
    wait_until_settled(&source, "destination");
    assert_eq!(stat(&source, "destination", "abandoned"), 1);
    let letter = letters(&source);
    assert!(letter.contains("set=large:key=alice:code=13:"), "{letter}");
    assert!(letter.ends_with("state=kept"), "{letter}");
    let problem = "problem=1 changes of namespace test were given up: see xdr-dead-letters";
    let has_problem =
        |port: &u16| info(*port, "get-stats:context=xdr;dc=destination").contains(problem);
    assert!(source.ports().iter().any(has_problem), "the shard that keeps it says so");

    // Another destination takes its place, which takes the record.
    let roomy = Settings { port: destination.ports()[0], ..one_shard() };
    destination.stop();
    let destination = Node::start(&roomy);
    wait_until_connected(&source, "destination", &destination);
    let replay = |node: &Node| -> Vec<String> {
        let replay = |port: &u16| info(*port, &format!("{LETTERS};action=replay"));
        node.ports().iter().map(replay).collect()
    };
    configure(&source, "action=pause");
    assert_eq!(replay(&source)[0], "ok;replayed=0;kept=1", "what is paused takes nothing up");
    configure(&source, "action=resume");
    let answers = replay(&source);
    assert_eq!(answers[0], "ok;replayed=1;kept=0");
    // As tools do; the other ports find it on its way already, or settled.
    assert!(answers[1..].iter().all(|answer| answer == "ok;replayed=0;kept=0"), "{answers:?}");
    wait_for("the replayed record", || (present(&destination, 1..2) == [1]).then_some(()));
    wait_until_settled(&source, "destination");
    wait_for("its letter to leave", || letters(&source).is_empty().then_some(()));
    assert!(!source.ports().iter().any(has_problem));
    // For good, and not only in memory.
    source.signal("KILL");
    let again = source_of(dc("destination", &destination, ""));
    let source = Node::start_in(source.into_directory(), &again);
    assert_eq!(letters(&source), "");
}

#[test]
fn a_letter_tells_set_and_key_of_a_record_that_is_only_on_the_device() {
    let destination = Node::start(&small_blocks());
    let paused = source_of(dc("destination", &destination, "max-throughput 0"));
    let source = Node::start(&paused);
    Client::of(&source).done([large(1)]);
    let source = Node::start_in(source.stop(), &paused);
    configure(&source, "namespace=test;max-throughput=100000");
    wait_until_settled(&source, "destination");
    let letter = letters(&source);
    assert!(letter.contains("set=large:key=alice:code=13:"), "{letter}");
}

/// Records of few lanes.
fn write_to_few_lanes(source: &Node, records: std::ops::Range<u32>) {
    const LANES: u32 = 4;
    let digest = |n| digest_in((n % LANES) as u16, n);
    Client::of(source).done(records.map(|n| Request::put(digest(n), 1)));
}

/// A source and a destination that answers so to whatever is shipped, 2000 records so far.
fn answered_for_a_round_trip(code: u8) -> (Node, Node, Relay) {
    const RECORDS: u32 = 2000;
    let destination = Node::start(&one_shard());
    let relay = Relay::to(destination.ports()[0]);
    let settings = Settings { xdr: dc_at("destination", &[relay.port()], ""), ..one_shard() };
    let source = Node::start(&settings);
    wait_until_connected(&source, "destination", &destination);
    relay.answer(code);
    write_to_few_lanes(&source, 0..RECORDS);
    wait_for("an answer for each record", || {
        (relay.answered().0 >= RECORDS as usize).then_some(())
    });
    (source, destination, relay)
}

#[test]
fn no_lane_goes_to_recovery_for_a_destination_that_is_overloaded_for_a_round_trip() {
    const OVERLOADED: u8 = 18;
    let (source, _destination, relay) = answered_for_a_round_trip(OVERLOADED);
    let figure = |name| stat(&source, "destination", name);
    wait_for("each answer counted", || (figure("retry_dest") >= 2000).then_some(()));
    relay.answer(0);
    wait_until_settled(&source, "destination");
    assert_eq!((figure("recoveries"), figure("dropped_to_recovery"), figure("walked")), (0, 0, 0));
    assert_eq!((figure("abandoned"), figure("success")), (0, 2000));
}

#[test]
fn a_node_that_is_the_wrong_one_has_the_map_asked_for_again_and_sends_no_lane_to_recovery() {
    const WRONG_NODE: u8 = 11;
    const ROUND: u32 = 100;
    let (source, _destination, relay) = answered_for_a_round_trip(WRONG_NODE);
    // It is asked for once a second, however busy the machine is, and with each of a change's first
    // retries, which come soon. So on a machine that leaves them no second there are more to come.
    let mut written = 2000;
    let mut since = (relay.answered().1, Instant::now());
    wait_for("the map to be asked for more often than once a second", || {
        let (asked, begun) = since;
        let by_the_clock = begun.elapsed().as_secs() as usize + 1;
        if by_the_clock > 2 {
            since = (relay.answered().1, Instant::now());
            write_to_few_lanes(&source, written..written + ROUND);
            written += ROUND;
        }
        (relay.answered().1 - asked > by_the_clock + 1).then_some(())
    });
    relay.answer(0);
    wait_until_settled(&source, "destination");
    let figure = |name| stat(&source, "destination", name);
    assert_eq!((figure("recoveries"), figure("dropped_to_recovery"), figure("walked")), (0, 0, 0));
    assert_eq!((figure("abandoned"), figure("success")), (0, u64::from(written)));
}

/// A DC that could ship nothing says so and gives nothing up; once the cause is gone it goes on.
fn parked(
    refusing: &Settings,
    items: &str,
    code: u8,
    mend: impl FnOnce(&Node, Node, Settings) -> Node,
) {
    let destination = Node::start(refusing);
    let source = Node::start(&source_of(dc("destination", &destination, items)));
    wait_until_connected(&source, "destination", &destination);
    let why = format!("(code {code})");
    let is_parked = |port: &u16| {
        let text = info(*port, "get-stats:context=xdr;dc=destination");
        text.contains("is parked") && text.contains(&why)
    };
    wait_for("every shard to be parked", || source.ports().iter().all(is_parked).then_some(()));
    Client::of(&source).done((0..1000).map(|n| put(n, 1)));
    assert_eq!(stat(&source, "destination", "success"), 0);
    let at_port = Settings { port: destination.ports()[0], ..refusing.clone() };
    let destination = mend(&source, destination, at_port);
    wait_until_settled(&source, "destination");
    assert_eq!(present(&destination, 0..1000).len(), 1000);
    assert_eq!(stat(&source, "destination", "abandoned"), 0);
    assert!(!source.ports().iter().any(is_parked));
}

#[test]
fn a_destination_without_the_namespace_parks_the_dc() {
    parked(&one_shard(), "remote-namespace other", 20, |source, destination, _| {
        configure(source, "namespace=test;remote-namespace=test");
        destination
    });
}

#[test]
fn a_destination_that_forbids_shipped_writes_parks_the_dc() {
    let refusing = Settings { namespace: "reject-xdr-writes true".to_owned(), ..one_shard() };
    parked(&refusing, "", 22, |_, destination, mut settings| {
        settings.namespace.clear();
        Node::start_in(destination.stop(), &settings)
    });
}
