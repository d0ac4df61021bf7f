//! `longship node`: a storage server that ships, receives, or both.

use std::error::Error;
use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use longship::config::Config;
use longship::config::topology::{ClusterFile, Topology};
use longship::engine::Notice;
use longship::node::place::place;
use longship::node::start;
use longship::storage::progress::ProgressFigures;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::{log, report};

/// Pause between two log lines about a start.
const LOG_EVERY: Duration = Duration::from_secs(2);

/// Runs a node until SIGTERM or SIGINT; a second one ends it at once.
#[derive(clap::Args)]
pub(crate) struct NodeArgs {
    /// The configuration file, in the Aerospike format.
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    config: Option<PathBuf>,
    /// Starts nothing: checks the files of one or several clusters, each by itself and together,
    /// and says what ships where.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "config")]
    check: Vec<PathBuf>,
}

pub(crate) fn command(args: &NodeArgs) -> Result<ExitCode, Box<dyn Error>> {
    let Some(config) = &args.config else { return check(&args.check) };
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(ExitCode::from(2));
        }
    };
    log::start(&config)?;
    config.notes.iter().for_each(|note| tracing::info!("{note}"));
    let (notices, inbox) = mpsc::channel();
    obey_signals(notices.clone())?;
    let (_, plan) = place(&config)?;
    let mut opening = Opening::new();
    let ran = start::run(config, &plan, (notices, inbox), &mut |figures| opening.show(figures));
    log::flush();
    ran?;
    Ok(ExitCode::SUCCESS)
}

/// Exit code 2 says that something is wrong.
fn check(files: &[PathBuf]) -> Result<ExitCode, Box<dyn Error>> {
    let mut clusters = Vec::new();
    let mut is_wrong = false;
    for path in files {
        let file = path.display().to_string();
        let text = fs::read(path);
        let text =
            text.map_err(|error| format!("cannot read the configuration {file}: {error}"))?;
        match Config::parse_bytes(&text, &file) {
            Ok(config) => {
                config.notes.iter().for_each(|note| eprintln!("{note}"));
                let text = String::from_utf8_lossy(&text).into_owned();
                clusters.push(ClusterFile { file, text, config });
            }
            Err(errors) => {
                eprintln!("{errors}");
                is_wrong = true;
            }
        }
    }
    let topology = Topology::of(&clusters);
    report::print(&topology.to_string());
    // Links to a file that could not be read would only seem to be missing.
    let faults = if is_wrong { &[] } else { topology.faults() };
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    Ok(if is_wrong || !faults.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// Shows how far the storage is opened: a bar on a terminal, a log line now and then elsewhere.
struct Opening {
    bar: Option<ProgressBar>,
    logged: Instant,
    /// Since when bytes are read. Before, headers are looked at.
    reading_since: Option<Instant>,
}

impl Opening {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| report::progress("looking", 0));
        Self { bar, logged: Instant::now(), reading_since: None }
    }

    /// `None` once it is open.
    fn show(&mut self, figures: Option<&ProgressFigures>) {
        let Some(figures) = figures else {
            return self.bar.iter().for_each(ProgressBar::finish_and_clear);
        };
        if self.reading_since.is_none() && figures.bytes_wanted > 0 {
            self.reading_since = Some(Instant::now());
            if let Some(bar) = &mut self.bar {
                bar.finish_and_clear();
                *bar = report::progress_bytes("opening");
            }
        }
        match (&self.bar, self.reading_since) {
            (Some(bar), Some(_)) => {
                bar.set_length(figures.bytes_wanted);
                bar.set_position(figures.bytes_read);
            }
            (Some(bar), None) => {
                bar.set_length(figures.blocks_wanted);
                bar.set_position(figures.blocks_seen);
            }
            (None, since) if self.logged.elapsed() >= LOG_EVERY => {
                self.logged = Instant::now();
                let elapsed = since.map(|since| since.elapsed()).unwrap_or_default();
                tracing::info!("opening storage: {}", figures.text(elapsed));
            }
            (None, _) => {}
        }
    }
}

/// Signals that stop the node: an operator's, a terminal's, and that of a system that loses power or
/// ends a container.
const STOPPING: [i32; 4] = [SIGTERM, SIGINT, SIGQUIT, libc::SIGPWR];
/// Signals after which log files are opened again: a log rotation's, and a closing terminal's.
const REOPENING: [i32; 2] = [SIGHUP, SIGUSR1];
/// Signals that would end the process at once, and mean nothing here.
const WITHOUT_MEANING: [i32; 3] = [SIGUSR2, libc::SIGALRM, libc::SIGXFSZ];

/// The first signal to stop does so cleanly, the second at once; no other signal ends the node.
fn obey_signals(notices: mpsc::Sender<Notice>) -> Result<(), Box<dyn Error>> {
    let all = STOPPING.into_iter().chain(REOPENING).chain(WITHOUT_MEANING);
    let mut signals = Signals::new(all)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut is_stopping = false;
        for signal in signals.forever() {
            let name = signal_name(signal).unwrap_or("a signal");
            if REOPENING.contains(&signal) {
                tracing::info!("{name}: log files are opened again");
                log::reopen();
            } else if !STOPPING.contains(&signal) {
                tracing::info!("{name} means nothing to a node");
            } else if std::mem::replace(&mut is_stopping, true)
                || notices.send(Notice::Stop).is_err()
            {
                tracing::warn!("{name}, a second signal: ending at once");
                log::flush();
                std::process::exit(128 + signal);
            } else {
                tracing::info!("{name}: stopping");
            }
        }
    })?;
    Ok(())
}
