//! What a source sent before it was killed, changed or configured anew, delivered late; sources that
//! go by one name; peers that may not change a node.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use crate::support::relay::{Direction, Relay};
use crate::support::ship::{
    Client, configure_dc, dc_at, digest_of, one_shard, put, source_of, stat, values,
    wait_until_settled,
};
use crate::support::{Node, PATIENCE, Settings, info, proto, read_frame, wait_for};

const KEYS: u32 = 300;
/// Some dozen writes.
const HELD_BYTES_MIN: usize = 4096;

/// A source that ships through a relay, with writes of the value 2 held on their way.
fn hold_writes(settings: &Settings, relay: &Relay) -> Node {
    let source = Node::start(settings);
    let mut client = Client::of(&source);
    client.done((0..KEYS).map(|n| put(n, 1)));
    wait_until_settled(&source, "west");
    relay.hold(Direction::ToTarget);
    client.done((0..KEYS).map(|n| put(n, 2)));
    wait_for("writes to be held", || {
        (relay.held(Direction::ToTarget) > HELD_BYTES_MIN).then_some(())
    });
    source
}

fn stale(destination: &Node) -> usize {
    let digests: Vec<[u8; 20]> = (0..KEYS).map(digest_of).collect();
    values(destination, &digests).iter().filter(|value| **value != Some(3)).count()
}

/// Writes the value 3, waits until it is there, delivers what was held, and looks again.
fn check_stragglers(source: &Node, dc: &str, relay: &Relay, destination: &Node) {
    Client::of(source).done((0..KEYS).map(|n| put(n, 3)));
    wait_until_settled(source, dc);
    assert_eq!(stale(destination), 0, "before the stragglers");
    let left = relay.cut();
    left.deliver();
    assert!(left.end(), "the destination kept a former connection");
    assert_eq!(stale(destination), 0, "after the stragglers");
}

#[test]
fn a_dc_that_reaches_its_own_node_ships_nothing_and_says_why() {
    let node = Node::start(&one_shard());
    Client::of(&node).done((0..10).map(|n| put(n, 1)));
    let seed = format!("node-address-port=127.0.0.1:{};action=add", node.ports()[0]);
    for item in ["action=create", &seed, "namespace=test;action=add;rewind=all"] {
        configure_dc(&node, "west", item);
    }
    wait_for_problem(&node, "identity of the node it reaches");
    assert_eq!((stat(&node, "west", "success"), stat(&node, "west", "nodes")), (0, 0));
}

/// Kills a source that has writes on their way, and starts it anew with other settings.
fn check_restart(change: impl FnOnce(&mut Settings), dc: &str) {
    let destination = Node::start(&one_shard());
    let relay = Relay::to(destination.ports()[0]);
    let mut settings = source_of(dc_at("west", &[relay.port()], ""));
    let mut source = hold_writes(&settings, &relay);
    source.signal("KILL");
    source.ended();
    change(&mut settings);
    let source = Node::start_in(source.into_directory(), &settings);
    check_stragglers(&source, dc, &relay, &destination);
}

#[test]
fn no_straggler_is_applied_after_a_restart_with_fewer_or_more_shards() {
    check_restart(|settings| settings.shards = 1, "west");
    check_restart(|settings| settings.shards = 3, "west");
}

#[test]
fn no_straggler_is_applied_after_a_restart_with_the_dc_under_another_name() {
    check_restart(|settings| settings.xdr = settings.xdr.replace("dc west", "dc east"), "east");
}

#[test]
fn no_straggler_is_applied_after_a_restart_with_another_node_id() {
    check_restart(|settings| settings.service = "node-id B0B0".to_owned(), "west");
}

#[test]
fn no_straggler_is_applied_after_a_dc_was_made_again_or_lost_its_namespace_to_another() {
    let destination = Node::start(&one_shard());
    let relay = Relay::to(destination.ports()[0]);
    let settings = source_of(dc_at("west", &[relay.port()], ""));
    let seed = format!("node-address-port=127.0.0.1:{};action=add", relay.port());
    for remove in ["action=delete", "namespace=test;action=remove"] {
        let source = hold_writes(&settings, &relay);
        configure_dc(&source, "west", remove);
        configure_dc(&source, "east", "action=create");
        configure_dc(&source, "east", &seed);
        configure_dc(&source, "east", "namespace=test;action=add");
        check_stragglers(&source, "east", &relay, &destination);
    }
}

#[test]
fn no_straggler_of_a_dc_is_applied_after_it_was_deleted_beside_the_one_that_takes_its_place() {
    let destination = Node::start(&one_shard());
    let relay = Relay::to(destination.ports()[0]);
    let source = hold_writes(&source_of(dc_at("west", &[relay.port()], "")), &relay);
    configure_dc(&source, "east", "action=create");
    let seed = format!("node-address-port=127.0.0.1:{};action=add", relay.port());
    configure_dc(&source, "east", &seed);
    configure_dc(&source, "east", "namespace=test;action=add");
    Client::of(&source).done((0..KEYS).map(|n| put(n, 3)));
    wait_until_settled(&source, "east");
    configure_dc(&source, "west", "action=delete");
    let left = relay.cut();
    wait_for("the destination to end the former connections", || left.are_closed().then_some(()));
    left.deliver();
    wait_until_settled(&source, "east");
    assert_eq!(stale(&destination), 0, "after the stragglers");
}

fn problem(node: &Node) -> String {
    let text = info(node.ports()[0], "get-stats:context=xdr;dc=west");
    let found = text.split(';').find_map(|pair| pair.strip_prefix("problem="));
    found.unwrap().to_owned()
}

fn wait_for_problem(node: &Node, part: &str) -> String {
    wait_for(part, || Some(problem(node)).filter(|problem| problem.contains(part)))
}

#[test]
fn a_copied_work_directory_is_named_on_all_sides_and_what_is_left_ships_on() {
    let destination = Node::start(&one_shard());
    let settings = Settings { shards: 1, ..source_of(dc_at("west", destination.ports(), "")) };
    let original = Node::start(&settings);
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("work")).unwrap();
    let file = "work/identity";
    fs::copy(original.directory().join(file), copy.path().join(file)).unwrap();
    Client::of(&original).done((0..10).map(|n| put(n, 1)));
    wait_until_settled(&original, "west");

    let copied = Node::start_in(copy, &settings);
    wait_for_problem(&original, "another process with this identity, begun later, ships from");
    wait_for_problem(&copied, "another process with this node's identity tries to ship from");
    let line = "another process with this identity, begun later";
    wait_for("a line at the destination", || destination.log().contains(line).then_some(()));
    Client::of(&original).done((0..10).map(|n| put(n, 2)));
    Client::of(&copied).done((20..30).map(|n| put(n, 2)));
    wait_until_settled(&copied, "west");

    copied.stop();
    wait_for("the original to ship again", || {
        (stat(&original, "west", "nodes") == 1 && problem(&original) == "none").then_some(())
    });
    wait_until_settled(&original, "west");
    let digests: Vec<[u8; 20]> = (0..10).map(digest_of).collect();
    assert_eq!(values(&destination, &digests), [Some(2); 10]);
}

#[test]
fn two_sources_with_one_node_id_are_told_so_and_both_ship() {
    let destination = Node::start(&one_shard());
    let xdr = dc_at("west", destination.ports(), "");
    let service = "node-id AB0000".to_owned();
    let settings = Settings { shards: 1, service, ..source_of(xdr) };
    let sources = [Node::start(&settings), Node::start(&settings)];
    for source in &sources {
        wait_for_problem(source, "another source calls itself node AB0000, too");
        Client::of(source).done((0..10).map(|n| put(n, 1)));
        wait_until_settled(source, "west");
    }
    let line = "calls itself node AB0000, too";
    assert!(destination.log().contains(line), "{}", destination.log());
    let [first, second] = sources;
    second.stop();
    wait_for("the other to be alone", || (problem(&first) == "none").then_some(()));
}

/// An address of this machine that is not its loopback.
fn outward_address() -> Option<IpAddr> {
    // Nothing is sent: the system only chooses the address it would send from.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("198.51.100.1", 9)).ok()?;
    socket.local_addr().map(|address| address.ip()).ok().filter(|address| !address.is_loopback())
}

/// Asks at an address of a node; the asker's address is the same.
fn ask_at(at: SocketAddr, command: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&proto(1, format!("{command}\n").as_bytes())).unwrap();
    let (_, body) = read_frame(&mut stream).unwrap();
    let text = String::from_utf8(body).unwrap();
    text.trim_end().split_once('\t').unwrap().1.to_owned()
}

#[test]
fn strangers_read_but_neither_change_a_node_nor_ship_to_it_and_who_does_is_logged() {
    let Some(outward) = outward_address() else {
        eprintln!("skipped: this machine has no address but its loopback");
        return;
    };
    let mut settings = Settings { address: "any", ..one_shard() };
    let destination = Node::start(&settings);
    settings.port = destination.ports()[0];
    let at = SocketAddr::new(outward, destination.ports()[0]);
    let create = "set-config:context=xdr;dc=west;action=create";
    let refusal =
        format!("ERROR:81:{outward} may not change this node: add `admin-allow {outward}`");
    for command in [create, "xdr-dead-letters:dc=d;namespace=test;action=replay", "longship-hello:"]
    {
        let answer = ask_at(at, command);
        assert!(answer.starts_with(&refusal), "{command}: {answer}");
    }
    assert_eq!(ask_at(at, "status"), "ok");
    assert_eq!(ask_at(at, "get-config:context=xdr"), info(at.port(), "get-config:context=xdr"));
    assert!(!info(at.port(), "get-config:context=xdr").contains("west"));
    assert_eq!(info(at.port(), create), "ok");
    let audited = format!("{create}: ok");
    let is_it = |line: &str| line.contains("audit: 127.0.0.1:") && line.ends_with(&audited);
    wait_for("the line of who did it", || destination.log().lines().any(is_it).then_some(()));
    let log = destination.log();
    assert_eq!(log.matches(" may not change this node: ").count(), 1, "one line of many");

    let xdr = format!(
        "dc west {{\nnode-address-port {outward} {}\nnamespace test {{ }}\n}}\n",
        at.port()
    );
    let source = Node::start(&Settings { shards: 1, ..source_of(xdr) });
    wait_for_problem(&source, "may not change this node");
    Client::of(&source).done((0..10).map(|n| put(n, 1)));
    settings.service = format!("admin-allow {outward}");
    let destination = Node::start_in(destination.stop(), &settings);
    wait_for("the source to be admitted", || (problem(&source) == "none").then_some(()));
    wait_until_settled(&source, "west");
    assert_eq!(ask_at(at, create), "ok");
    let digests: Vec<[u8; 20]> = (0..10).map(digest_of).collect();
    assert_eq!(values(&destination, &digests), [Some(1); 10]);
}
