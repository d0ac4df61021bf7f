//! A node that may open few files: who is already there is served, and shipping goes on.

use std::io::Write as _;
use std::net::TcpStream;

use crate::support::ship::{
    Client, dc_at, digest_of, one_shard, put, source_of, stat, values, wait_until_settled,
};
use crate::support::{Node, Settings, connect, proto, read_frame, wait_for};

/// Hardly more than what the table of files of a ring takes.
const LIMIT: u32 = 280;

#[test]
fn with_few_files_clients_are_turned_away_and_shipping_goes_on() {
    let mut beyond = one_shard();
    let destination = Node::start(&beyond);
    beyond.port = destination.ports()[0];
    let xdr = dc_at("west", destination.ports(), "");
    let source = Node::start_with_open_files(&Settings { shards: 1, ..source_of(xdr) }, LIMIT);
    let log = source.log();
    assert!(log.contains(&format!("the process may open {LIMIT} files only")), "{log}");
    let mut client = Client::of(&source);
    client.done((0..10).map(|n| put(n, 1)));
    wait_until_settled(&source, "west");

    // Strangers take every place that clients have.
    let crowd: Vec<TcpStream> =
        (0..LIMIT).map(|_| TcpStream::connect(("127.0.0.1", source.ports()[0])).unwrap()).collect();
    let refused = "the most this shard takes (proto-fd-max, and the limit of open files)";
    wait_for("strangers to be turned away", || source.log().contains(refused).then_some(()));
    client.done((0..10).map(|n| put(n, 2)));
    // The connection to the destination is made anew while they are there.
    let destination = Node::start_in(destination.stop(), &beyond);
    client.done((0..10).map(|n| put(n, 3)));
    let digests: Vec<[u8; 20]> = (0..10).map(digest_of).collect();
    wait_for("the destination to have what was written", || {
        (values(&destination, &digests) == [Some(3); 10]).then_some(())
    });
    let log = source.log();
    assert!(!log.contains("cannot accept connections"), "no descriptor was missing: {log}");
    assert_eq!(log.matches(refused).count(), 1, "one line of many");

    drop(crowd);
    wait_for("a place", || {
        let mut stream = connect(source.ports()[0]);
        stream.write_all(&proto(1, b"status\n")).ok()?;
        read_frame(&mut stream)
    });
    assert_eq!(stat(&source, "west", "nodes"), 1);
}
