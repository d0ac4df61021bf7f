//! What examples need beside what they show: nodes in this process, and a look at what they hold.

use std::error::Error;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use longship::model::Digest;
use longship::wire::frame::FRAME_HEADER_BYTES;
use longship::wire::request::Address;
use longship::wire::{Op, ParticleType, Reply, bins, next_frame};
use longship_node::config::Config;
use longship_node::process::place::place;
use longship_node::process::start;
use longship_node::process::stop::{Stopper, stopper};
use longship_rt::blocking::read_some;

/// A node of one shard in this process, with a namespace `test`.
pub(crate) struct Node {
    port: u16,
    stopper: Stopper,
    thread: JoinHandle<()>,
}

impl Node {
    /// Starts it in `folder`, on a port that the system picks, with that in its `xdr` context.
    pub(crate) fn start(folder: &Path, xdr: &str) -> Result<Self, Box<dyn Error>> {
        let at = folder.display();
        let config = Config::parse(
            &format!(
                "service {{\n work-directory {at}/work\n shards 1\n}}\n\
                 network {{ service {{\n address 127.0.0.1\n port 0\n}} }}\n\
                 namespace test {{\n storage-engine device {{\n file {at}/test.dat\n filesize 1G\n}}\n}}\n\
                 xdr {{\n{xdr}\n}}\n"
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

    /// Writes bin `n` of records, as a client does.
    #[allow(dead_code, reason = "not every example writes to a node")]
    pub(crate) fn put(&self, records: &[(Digest, u64)]) -> Result<(), Box<dyn Error>> {
        let mut ops = Vec::new();
        self.ask(records, |(digest, n), asked| {
            ops.clear();
            bins::push(&mut ops, b"n", ParticleType::INTEGER, &n.to_be_bytes());
            Address { namespace: "test", set: "", digest: *digest }.put().push(1, &ops, asked);
        })?;
        Ok(())
    }

    /// What it has in bin `n` of each record; `None` where there is no record.
    pub(crate) fn values(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, Box<dyn Error>> {
        self.ask(digests, |digest, asked| {
            Address { namespace: "test", set: "", digest: *digest }.get().push(0, &[], asked);
        })
    }

    /// Sends a request for each, some at a time, and gives the number in each reply.
    fn ask<T>(
        &self,
        about: &[T],
        mut encode: impl FnMut(&T, &mut Vec<u8>),
    ) -> Result<Vec<Option<u64>>, Box<dyn Error>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let (mut values, mut received, mut buffer) = (Vec::new(), Vec::new(), [0; 64 << 10]);
        for some in about.chunks(128) {
            let mut asked = Vec::new();
            some.iter().for_each(|one| encode(one, &mut asked));
            stream.write_all(&asked)?;
            let wanted = values.len() + some.len();
            while values.len() < wanted {
                let Some(frame) = next_frame(&received)? else {
                    let read = read_some(&mut stream, &mut buffer)?;
                    received.extend_from_slice(&buffer[..read]);
                    continue;
                };
                let mut reply = Reply::parse(frame.body).ok_or("not a reply")?;
                let number = |op: Op<'_>| Some(u64::from_be_bytes(op.value.try_into().ok()?));
                values.push(reply.ops.next().and_then(number));
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
