//! What statistics tell of a backlog, on real nodes: how much there is to ship, and how long that
//! takes, whatever state it is in.

use std::time::Instant;

use crate::support::ship::{
    Client, configure, dc, one_shard, put, source_of, stat, wait_until_connected,
    wait_until_settled,
};
use crate::support::{Node, wait_for};

const RECORDS: u32 = 8000;
const DC: &str = "destination";

#[track_caller]
fn assert_close(found: u64, truth: u64, what: &str) {
    let off = found.abs_diff(truth);
    assert!(off * 5 <= truth, "{what}: {found} told, {truth} true");
}

/// The lowest of a figure that is an estimate, of all shards.
fn seconds_left(node: &Node) -> Option<u64> {
    let of = |port: &u16| {
        let text = crate::support::info(*port, &format!("get-stats:context=xdr;dc={DC}"));
        let (_, rest) = text.split_once(";recovery_left_s=")?;
        rest.split(';').next()?.parse().ok()
    };
    node.ports().iter().map(of).max()?
}

#[test]
fn a_backlog_is_told_within_a_fifth_paused_after_a_restart_and_while_it_ships() {
    let destination = Node::start(&one_shard());
    let settings = source_of(dc(DC, &destination, "max-throughput 1000"));
    let source = Node::start(&settings);
    wait_until_connected(&source, DC, &destination);
    configure(&source, "namespace=test;max-throughput=1000000");
    Client::of(&source).until_done((0..RECORDS).map(|n| put(n, 1)));
    wait_until_settled(&source, DC);
    let all = u64::from(RECORDS);
    assert_eq!(stat(&source, DC, "success"), all);
    let frame_bytes = stat(&source, DC, "bytes_shipped") / all;

    configure(&source, "action=pause");
    configure(&source, "namespace=test;action=rewind;rewind=all");
    assert_close(stat(&source, DC, "backlog_records"), all, "paused and rewound");
    assert_close(stat(&source, DC, "backlog_bytes"), all * frame_bytes, "bytes of it");

    // Nobody is there, and nothing was ever sent by this process.
    let port = destination.ports()[0];
    let destination = destination.stop();
    let source = Node::start_in(source.stop(), &settings);
    assert_close(stat(&source, DC, "backlog_records"), all, "known from marks only");
    wait_for("the bytes of a record", || (stat(&source, DC, "backlog_bytes") > 0).then_some(()));
    assert_close(stat(&source, DC, "backlog_bytes"), all * frame_bytes, "before the first frame");

    let settings = crate::support::Settings { port, ..one_shard() };
    let _destination = Node::start_in(destination, &settings);
    let mut told = Vec::new();
    wait_for("everything to be shipped", || {
        let before = stat(&source, DC, "success");
        let (backlog, left) = (stat(&source, DC, "backlog_records"), seconds_left(&source));
        let shipped = stat(&source, DC, "success");
        if (all / 5..=all * 9 / 10).contains(&before) {
            // The figures are of some moment in between.
            let truth = backlog.clamp(all - shipped, all - before);
            assert_close(backlog, truth, "while it ships");
            told.push((Instant::now(), left));
        }
        (shipped >= all).then_some(())
    });
    let end = Instant::now();
    assert!(told.len() > 3, "it was looked at");
    for (at, left) in told {
        let truth = end.duration_since(at).as_secs_f64();
        let left = left.expect("there is an estimate from the second tenth on") as f64;
        // It is told in whole seconds.
        assert!((left - truth).abs() <= truth / 5.0 + 1.0, "{left} s told, {truth:.2} s it took");
    }
}
