//! What an example needs beside what it shows: a node to ship to, and a look at what it holds.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use longship::config::Config;
use longship::model::Digest;
use longship::wire::frame::FRAME_HEADER_BYTES;
use longship::wire::request::Address;
use longship::wire::{Reply, next_frame};
use longship_node::process::place::place;
use longship_node::process::start;
use longship_node::process::stop::{Stopper, stopper};

/// A node of one shard in this process, with a namespace `test`.
pub(crate) struct Destination {
    port: u16,
    stopper: Stopper,
    thread: JoinHandle<()>,
}

impl Destination {
    /// Starts it in `folder`, on a port that the system picks.
    pub(crate) fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let at = folder.display();
        let config = Config::parse(
            &format!(
                "service {{\n work-directory {at}/work\n shards 1\n}}\n\
                 network {{ service {{\n address 127.0.0.1\n port 0\n}} }}\n\
                 namespace test {{\n storage-engine device {{\n file {at}/test.dat\n filesize 1G\n}}\n}}\n"
            ),
            "the example",
        )?;
        let (_, plan) = place(&config)?;
        let (stopper, orders) = stopper();
        let run = move || start::run(config, &plan, orders, &mut |_| {}).expect("the node runs");
        let thread = thread::spawn(run);
        let ports = folder.join("work/ports");
        while !ports.exists() {
            thread::sleep(Duration::from_millis(10));
        }
        let port = std::fs::read_to_string(ports)?.trim().parse()?;
        Ok(Self { port, stopper, thread })
    }

    /// Where it listens.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// What it has in bin `n` of each record; `None` where there is no record.
    pub(crate) fn values(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, Box<dyn Error>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let (mut values, mut received, mut buffer) = (Vec::new(), Vec::new(), [0; 64 << 10]);
        for some in digests.chunks(128) {
            let mut asked = Vec::new();
            for digest in some {
                let address = Address { namespace: "test", set: "", digest: *digest };
                address.get().push(0, &[], &mut asked);
            }
            stream.write_all(&asked)?;
            let wanted = values.len() + some.len();
            while values.len() < wanted {
                let Some(frame) = next_frame(&received)? else {
                    let read = stream.read(&mut buffer)?;
                    received.extend_from_slice(&buffer[..read]);
                    continue;
                };
                let mut reply = Reply::parse(frame.body).ok_or("not a reply")?;
                let value = reply
                    .ops
                    .next()
                    .and_then(|op| Some(u64::from_be_bytes(op.value.try_into().ok()?)));
                values.push(value);
                let taken = FRAME_HEADER_BYTES + frame.body.len();
                received.drain(..taken);
            }
        }
        Ok(values)
    }

    /// Stops it.
    pub(crate) fn stop(self) {
        self.stopper.stop();
        self.thread.join().expect("the node ends");
    }
}
