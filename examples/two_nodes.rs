//! Two nodes in one process: what a client writes to the one is read from the other.
//!
//! Run it with `cargo run --release --example two_nodes`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod support;

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use longship::model::Digest;
use support::Node;

fn main() -> Result<(), Box<dyn Error>> {
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let west = Node::start(folders[1].path(), "")?;
    let dc = format!(
        "src-id 1\n dc west {{\n node-address-port 127.0.0.1 {}\n namespace test {{ }}\n}}",
        west.port()
    );
    let source = Node::start(folders[0].path(), &dc)?;

    let records: Vec<(Digest, u64)> =
        (0..10_000).map(|n: u64| (Digest::of_string("", &n.to_string()), n)).collect();
    let begun = Instant::now();
    source.put(&records)?;
    println!("written at the source:      {} in {:.0?}", records.len(), begun.elapsed());

    let digests: Vec<Digest> = records.iter().map(|(digest, _)| *digest).collect();
    loop {
        let there = west.values(&digests)?;
        let same = there.iter().zip(&records).filter(|(there, (_, n))| **there == Some(*n));
        let same = same.count();
        println!("there at the destination:   {same} after {:.0?}", begun.elapsed());
        if same == records.len() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    source.stop();
    west.stop();
    Ok(())
}
