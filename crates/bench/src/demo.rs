//! `longship demo`: two nodes on this machine, one ships to the other, and the result is checked.
//!
//! A source and a destination run as processes of their own, each on its own core, with file-backed
//! storage in a temporary folder. A load with updates and deletes goes into the source; once
//! nothing is left to ship, every key is read back from the destination. Nothing stays behind.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::client::Client;
use crate::content::Content;
use crate::cores::{self, Place};
use crate::load::{self, LoadReport, Pressure};
use crate::node_text::NodeText;
use crate::report::{self, Table};
use crate::shipping::{self, Progress};
use crate::stage::Stage;
use crate::verify::{self, VerifyReport};

const NAMESPACE: &str = "demo";
const DC: &str = "west";
/// What a record takes in the log besides its value, at most.
const RECORD_OVERHEAD: u64 = 256;

/// Starts two nodes, ships a load from one to the other, and checks every record.
#[derive(clap::Args)]
pub struct DemoArgs {
    #[arg(long, default_value_t = 200_000)]
    records: u64,
    /// Bytes of each record's `data` bin.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Leave the temporary folder, with both nodes' storage and logs.
    #[arg(long)]
    keep: bool,
}

/// The two nodes.
struct Pair {
    source: Vec<String>,
    destination: Vec<String>,
    cpus: [usize; 2],
}

/// All there is to say in the end.
struct DemoReport {
    pair: Pair,
    place: Place,
    load: LoadReport,
    shipped: Progress,
    /// From the first write to the last acknowledgement, to the nearest poll.
    shipped_in: Duration,
    objects: [u64; 2],
    verify: VerifyReport,
}

/// Runs the command.
pub fn command(args: &DemoArgs) -> Result<ExitCode, Box<dyn Error>> {
    let content = Content {
        namespace: NAMESPACE.into(),
        set: "people".into(),
        records: args.records,
        value_bytes: args.value_bytes,
        update_percent: 10,
        delete_percent: 5,
        seed: 1,
    };
    let stage = Stage::open(std::env::current_exe()?, args.keep)?;
    stage.guard()?;
    let report = run(&stage, &content)?;
    if args.keep {
        eprintln!("kept {}", stage.folder().display());
    }
    drop(stage);
    if args.json {
        report::print(&report.to_json().to_string());
    } else {
        report::print(&report.to_string());
    }
    Ok(report.verify.exit_code())
}

fn run(stage: &Stage, content: &Content) -> Result<DemoReport, Box<dyn Error>> {
    let cpus = cores::allowed();
    let cpu = |wanted: usize| cpus[wanted.min(cpus.len() - 1)];
    let pair = start_pair(stage, content, [cpu(0), cpu(1)])?;
    // Only now: the nodes would inherit it.
    let place = cores::settle_on(Some(cpu(2)))?;

    let bar = report::progress("loading", 0);
    let start = Instant::now();
    let pressure = Pressure { connections: 1, pipeline: 256, rate: 0 };
    let load = load::run(&pair.source[0], content, pressure, &bar)?;
    bar.finish_and_clear();

    let bar = report::progress("shipping", load.operations());
    let watch = |progress: &Progress| bar.set_position(progress.success);
    let (shipped, settled) = shipping::settle(&pair.source, DC, watch)?;
    bar.finish_and_clear();

    let bar = report::progress("reading back", content.records);
    let verify = verify::run(&pair.destination[0], content, &bar)?;
    bar.finish_and_clear();
    let objects = [objects(&pair.source[0])?, objects(&pair.destination[0])?];
    let shipped_in = settled.duration_since(start);
    Ok(DemoReport { pair, place, load, shipped, shipped_in, objects, verify })
}

fn objects(seed: &str) -> Result<u64, Box<dyn Error>> {
    Ok(Client::<()>::connect(seed, NAMESPACE, 1, 1)?.namespace_sum(NAMESPACE, "objects")?)
}

/// Starts the destination, then the source, which has to know the destination's port.
fn start_pair(stage: &Stage, content: &Content, cpus: [usize; 2]) -> Result<Pair, Box<dyn Error>> {
    let bar = ProgressBar::new_spinner().with_message("starting two nodes");
    bar.enable_steady_tick(Duration::from_millis(100));
    let addresses = |ports: &[u16]| ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let start = |name: &str, cpu: usize, xdr: &str| {
        let work = stage.work_directory(name);
        stage.start(name, &node_config(name, &work.to_string_lossy(), cpu, content, xdr))
    };
    let destination = start("destination", cpus[1], "")?;
    let source = start("source", cpus[0], &xdr_config(destination[0]))?;
    bar.finish_and_clear();
    Ok(Pair { source: addresses(&source), destination: addresses(&destination), cpus })
}

fn node_config(name: &str, work: &str, cpu: usize, content: &Content, xdr: &str) -> String {
    // Room for every version of every record, so that nothing depends on reclaiming space.
    let bytes = content.records * (content.value_bytes as u64 + RECORD_OVERHEAD) * 4;
    let gigabytes = bytes.div_ceil(1 << 30).max(1);
    let text = NodeText {
        work,
        service: &[
            ("cluster-name", name.into()),
            ("shards", "1".into()),
            ("cpu-set", cpu.to_string()),
        ],
        network: &[],
        namespace: NAMESPACE,
        file: "demo.log",
        storage: &[("filesize", format!("{gigabytes}G"))],
        xdr,
    };
    text.format()
}

fn xdr_config(port: u16) -> String {
    format!(
        "xdr {{
    dc {DC} {{
        node-address-port 127.0.0.1 {port}
        namespace {NAMESPACE} {{
        }}
    }}
}}
"
    )
}

impl DemoReport {
    fn shipped_per_second(&self) -> f64 {
        self.shipped.success as f64 / self.shipped_in.as_secs_f64()
    }

    fn to_table(&self) -> Table {
        let count = report::count;
        let per_second = |rate: f64| format!("{} records/s", count(rate as u64));
        let node = |addresses: &[String], cpu: usize, objects: u64| {
            format!("{}, CPU {cpu}, {} objects", addresses.join(" "), count(objects))
        };
        let Self { pair, load, shipped, verify, .. } = self;
        let read_rate = verify.records as f64 / verify.elapsed.as_secs_f64();
        Table::default()
            .row("source", node(&pair.source, pair.cpus[0], self.objects[0]))
            .row("destination", node(&pair.destination, pair.cpus[1], self.objects[1]))
            .row("load", self.place.to_string())
            .row("written", format!("{}, {}", load.written_text(), per_second(load.per_second())))
            .row(
                "shipped",
                format!(
                    "{} changes in {}, {}",
                    count(shipped.success),
                    report::seconds(self.shipped_in),
                    per_second(self.shipped_per_second())
                ),
            )
            .row("bytes", report::bytes(shipped.bytes_shipped))
            .row(
                "lag",
                format!(
                    "p50 {}, p99 {}",
                    report::micros(shipped.lag_us_p50),
                    report::micros(shipped.lag_us_p99)
                ),
            )
            .row("retries", count(shipped.retries))
            .row("abandoned", count(shipped.abandoned))
            .row(
                "read back",
                format!(
                    "{} keys in {}, {}",
                    count(verify.records),
                    report::seconds(verify.elapsed),
                    per_second(read_rate)
                ),
            )
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "source": { "cpu": self.pair.cpus[0], "objects": self.objects[0] },
            "destination": { "cpu": self.pair.cpus[1], "objects": self.objects[1] },
            "load_core": self.place.to_json(),
            "load": self.load.to_json(),
            "shipped": {
                "changes": self.shipped.success,
                "seconds": self.shipped_in.as_secs_f64(),
                "changes_per_second": self.shipped_per_second(),
                "bytes": self.shipped.bytes_shipped,
                "lag_us": { "p50": self.shipped.lag_us_p50, "p99": self.shipped.lag_us_p99 },
                "retries": self.shipped.retries,
                "abandoned": self.shipped.abandoned,
            },
            "verified": self.verify.to_json(),
        })
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.to_table())?;
        for example in &self.verify.examples {
            writeln!(f, "  {example}")?;
        }
        f.write_str(&self.verify.verdict())
    }
}

#[cfg(test)]
mod tests {
    use longship_node::config::Config;

    use super::*;
    use crate::content::tests::small;

    #[test]
    fn the_nodes_accept_their_configuration() {
        let content = Content { records: 5_000_000, ..small(0) };
        for xdr in [String::new(), xdr_config(3000)] {
            let text = node_config("source", "/tmp/x", 0, &content, &xdr);
            if let Err(errors) = Config::parse(&text, "demo") {
                panic!("{errors}\n{text}");
            }
            assert!(text.contains("filesize 6G"), "{text}");
        }
    }
}
