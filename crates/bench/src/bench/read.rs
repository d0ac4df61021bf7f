//! How fast are 4 KiB random direct reads on one shard, and what do they cost its sockets?
//!
//! Unit: reads per second at 1, 8, 32 and 128 in flight; CPU microseconds per read; round trip of a
//! 100-byte frame on the same shard. Baselines: fio on the same file and core, and glommio's own
//! files. Expected: at least 0.95 of fio at every depth, 1.25 of glommio at 32, and no work by the
//! kernel's helper threads.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use longship_rt::disk_ring::worker_switches;
use serde_json::json;

use super::Failure;
use super::ping_pong::{self, Trips};
use super::readers::{Reading, Run, prepare};
use super::runs::Runs;
use crate::{cores, report};

const DEPTHS: [u32; 4] = [1, 8, 32, 128];
/// In flight while round trips are measured.
const BUSY_DEPTH: u32 = 32;

/// 4 KiB random direct reads on one shard, beside fio and glommio.
#[derive(clap::Args)]
pub(crate) struct ReadArgs {
    /// Where the file is made; it is removed afterwards.
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Size of the file.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    file_mib: u64,
    /// Length of a run.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    run_ms: u64,
    /// Runs of each kind.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// CPU the readers run on; by default the last one allowed.
    #[arg(long)]
    cpu: Option<usize>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// The runs at one depth, in turn.
struct Depth {
    depth: u32,
    longship: Vec<Run>,
    fio: Vec<Run>,
    glommio: Vec<Run>,
}

struct Report {
    depths: Vec<Depth>,
    idle: Vec<Trips>,
    busy: Vec<Trips>,
    worker_switches: u64,
    cpu: usize,
    peer_cpu: usize,
}

pub(super) fn command(args: &ReadArgs) -> Result<ExitCode, Failure> {
    let file = Removed(args.folder.join("longship-bench-read.data"));
    let file_bytes = args.file_mib << 20;
    prepare(&file.0, file_bytes)?;
    let allowed = cores::allowed();
    let cpu = args.cpu.or(allowed.last().copied()).ok_or("no CPU is allowed")?;
    let peer_cpu = allowed.into_iter().find(|peer| *peer != cpu).unwrap_or(cpu);
    let time = Duration::from_millis(args.run_ms);
    let reading = Reading { file: &file.0, file_bytes, time, cpu };
    let result = measure(&reading, args.rounds, peer_cpu)?;
    if args.json {
        report::print(&result.to_json().to_string());
    } else {
        report::print(&result.to_table());
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(reading: &Reading<'_>, rounds: u16, peer_cpu: usize) -> Result<Report, Failure> {
    let bar = report::progress("reading", (DEPTHS.len() as u64 + 1) * u64::from(rounds));
    let before = worker_switches();
    let mut depths = Vec::new();
    for depth in DEPTHS {
        let mut runs = Depth { depth, longship: vec![], fio: vec![], glommio: vec![] };
        for _ in 0..rounds {
            runs.longship.push(reading.longship(depth)?);
            runs.fio.extend(reading.fio(depth)?);
            runs.glommio.push(reading.glommio(depth)?);
            bar.inc(1);
        }
        depths.push(runs);
    }
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        idle.push(ping_pong::run(reading, 0, peer_cpu)?);
        busy.push(ping_pong::run(reading, BUSY_DEPTH, peer_cpu)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let worker_switches = worker_switches().saturating_sub(before);
    Ok(Report { depths, idle, busy, worker_switches, cpu: reading.cpu, peer_cpu })
}

impl Depth {
    fn sides(&self) -> [(&'static str, &[Run]); 3] {
        [("longship", &self.longship), ("fio", &self.fio), ("glommio", &self.glommio)]
    }

    /// Our reads per second over another's, pair by pair; `None` when the other is not there.
    fn ratio(&self, other: &[Run]) -> Option<Runs> {
        let other = reads_per_s(other);
        (!other.0.is_empty()).then(|| reads_per_s(&self.longship).over(&other))
    }

    fn vs_fio(&self) -> Option<Runs> {
        self.ratio(&self.fio)
    }

    fn vs_glommio(&self) -> Option<Runs> {
        self.ratio(&self.glommio)
    }
}

fn reads_per_s(runs: &[Run]) -> Runs {
    Runs(runs.iter().map(|run| run.reads_per_s).collect())
}

fn cpu_us(runs: &[Run]) -> Runs {
    Runs(runs.iter().map(|run| run.cpu_us_per_read).collect())
}

fn of_trips(trips: &[Trips], figure: impl Fn(&Trips) -> f64) -> Runs {
    Runs(trips.iter().map(figure).collect())
}

impl Report {
    fn to_json(&self) -> serde_json::Value {
        let mut json = json!({
            "cpu": self.cpu,
            "peer_cpu": self.peer_cpu,
            "worker_switches": self.worker_switches,
            "socket_p50_us_idle_disk": of_trips(&self.idle, |trips| trips.p50_us).median(),
            "socket_p99_us_idle_disk": of_trips(&self.idle, |trips| trips.p99_us).median(),
            "socket_p50_us_busy_disk": of_trips(&self.busy, |trips| trips.p50_us).median(),
            "socket_p99_us_busy_disk": of_trips(&self.busy, |trips| trips.p99_us).median(),
        });
        for depth in &self.depths {
            let name = |what: &str| format!("qd{}_{what}", depth.depth);
            for (side, runs) in depth.sides().into_iter().filter(|(_, runs)| !runs.is_empty()) {
                json[name(&format!("{side}_reads_per_s"))] = json!(reads_per_s(runs).median());
                json[name(&format!("{side}_cpu_us_per_read"))] = json!(cpu_us(runs).median());
            }
            for (against, ratio) in [("fio", depth.vs_fio()), ("glommio", depth.vs_glommio())] {
                let Some(ratio) = ratio else { continue };
                json[name(&format!("vs_{against}"))] = json!(ratio.median());
                json[name(&format!("vs_{against}_runs"))] = ratio.to_json();
            }
            json[name("cpu_us_per_read")] = json!(cpu_us(&depth.longship).median());
        }
        json
    }

    fn to_table(&self) -> String {
        let mut text = format!(
            "4 KiB random direct reads on CPU {}, medians; ratios with their spread\n\n\
             {:>9} {:>10} {:>10} {:>10}  {:>27}  {:>27}  {:>20}\n",
            self.cpu,
            "in flight",
            "longship/s",
            "fio/s",
            "glommio/s",
            "vs fio",
            "vs glommio",
            "CPU us/read l f g",
        );
        let ratio = |ratio: Option<Runs>| ratio.map_or("-".into(), |ratio| ratio.to_string());
        for depth in &self.depths {
            let [reads_l, reads_f, reads_g] =
                depth.sides().map(|(_, runs)| reads_per_s(runs).median());
            let [cpu_l, cpu_f, cpu_g] = depth.sides().map(|(_, runs)| cpu_us(runs).median());
            text += &format!(
                "{:>9} {reads_l:>10.0} {reads_f:>10.0} {reads_g:>10.0}  {:>27}  {:>27}  \
                 {cpu_l:>6.1} {cpu_f:>6.1} {cpu_g:>6.1}\n",
                depth.depth,
                ratio(depth.vs_fio()),
                ratio(depth.vs_glommio()),
            );
        }
        for (disk, trips) in [("idle", &self.idle), ("busy", &self.busy)] {
            let p50_us = of_trips(trips, |trips| trips.p50_us).median();
            let p99_us = of_trips(trips, |trips| trips.p99_us).median();
            text += &format!(
                "\nround trip to CPU {}, disk {disk}: p50 {p50_us:.0} us, p99 {p99_us:.0} us",
                self.peer_cpu
            );
        }
        text += &format!("\nwork left to kernel threads: {} switches", self.worker_switches);
        if self.depths.iter().any(|depth| depth.fio.is_empty()) {
            text += "\nfio is not installed (`apt-get install fio`): nothing was compared with it";
        }
        text
    }
}

/// A file that is removed when the bench ends, however it ends.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // What is gone already needs no removal.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_promised_figures() {
        let run = |reads_per_s| Run { reads_per_s, cpu_us_per_read: 2.0 };
        let depth = |depth| Depth {
            depth,
            longship: vec![run(200.0), run(300.0), run(100.0)],
            fio: vec![run(100.0), run(100.0), run(100.0)],
            glommio: vec![run(100.0), run(200.0), run(50.0)],
        };
        let trips = vec![Trips { p50_us: 60.0, p99_us: 130.0 }];
        let report = Report {
            depths: DEPTHS.map(depth).into(),
            idle: trips.clone(),
            busy: trips,
            worker_switches: 0,
            cpu: 1,
            peer_cpu: 0,
        };
        let json = report.to_json();
        for (key, value) in [
            ("qd1_vs_fio", 2.0),
            ("qd8_vs_fio", 2.0),
            ("qd32_vs_fio", 2.0),
            ("qd128_vs_fio", 2.0),
            ("qd32_vs_glommio", 2.0),
            ("qd32_cpu_us_per_read", 2.0),
            ("socket_p99_us_idle_disk", 130.0),
            ("socket_p99_us_busy_disk", 130.0),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
        assert!(report.to_table().contains("2.00 (1.50 to 2.00, 3 runs)"), "{}", report.to_table());
    }
}
