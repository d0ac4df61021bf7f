//! The comparison that the demo ends with can fail: a destination is tampered with behind the
//! shipper's back.

use std::io::Write;
use std::process::{Command, Output};

use longship::model::Digest;

use crate::support::{Node, Reply, Request, Settings, connect, read_frame, wait_for};

const SEED: u64 = 7;
const SET: &str = "people";

fn longship(command: &str, node: &Node) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longship"))
        .args([command, "--host", &node.seed(), "--namespace", "test", "--set", SET])
        .args(["--records", "1000", "--value-bytes", "20", "--seed", &SEED.to_string()])
        .output()
        .unwrap()
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

fn change(node: &Node, request: &Request) {
    let mut stream = connect(node.ports()[0]);
    stream.write_all(&request.frame()).unwrap();
    let (_, body) = read_frame(&mut stream).expect("the node answers");
    assert_eq!(Reply::of(&body).result, 0);
}

/// A write of an integer bin to the record of that key.
fn write(key: &str) -> Request {
    let Digest(digest) = Digest::of_string(SET, key);
    let mut request = Request::put(digest, 1);
    request.fields.push((1, SET.as_bytes().to_vec()));
    request
}

#[test]
fn one_record_removed_one_changed_and_one_added_are_told_apart() {
    let destination = Node::start(&Settings::default());
    let source = Node::start(&Settings::default().shipping_to(&destination));
    let loaded = longship("load", &source);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let output = wait_for("every record to be shipped", || {
        Some(longship("verify", &destination)).filter(|output| output.status.success())
    });
    assert_eq!(last_line(&output), "verified: 1000 records, 0 missing, 0 stale, 0 extra");

    let key = |record: u64| format!("{SEED:x}-{record}");
    change(&destination, &Request { info2: 3, ops: Vec::new(), ..write(&key(1)) });
    change(&destination, &write(&key(2)));
    change(&destination, &write("a stranger"));
    let output = longship("verify", &destination);
    assert!(!output.status.success(), "what differs must fail");
    assert_eq!(last_line(&output), "verified: 1000 records, 1 missing, 1 stale, 1 extra");
    source.stop();
    destination.stop();
}
