//! `longship node`: a storage server that ships, receives, or both.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use longship::config::topology::{ClusterFile, Topology};
use longship::config::{Config, LogLevel};
use longship::engine::Notice;
use longship::node::place::place;
use longship::node::start;
use longship::storage::progress::ProgressFigures;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::filter::LevelFilter;

use crate::report;

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
    start_log(&config)?;
    config.notes.iter().for_each(|note| tracing::info!("{note}"));
    let (notices, inbox) = mpsc::channel();
    stop_on_signals(notices.clone())?;
    let (_, plan) = place(&config)?;
    let mut opening = Opening::new();
    start::run(config, &plan, (notices, inbox), &mut |figures| opening.show(figures))?;
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

/// The first signal stops the node cleanly, the second at once.
fn stop_on_signals(notices: mpsc::Sender<Notice>) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 || notices.send(Notice::Stop).is_err() {
                eprintln!("longship: second signal: ending at once");
                std::process::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

/// Log lines go to the first sink of the configuration, else to standard error.
fn start_log(config: &Config) -> Result<(), Box<dyn Error>> {
    let sink = config.logging.sinks.first();
    let context = sink.and_then(|sink| sink.contexts.iter().find(|(name, _)| name == "any"));
    let level = match context.map_or(LogLevel::Info, |(_, level)| *level) {
        LogLevel::Critical => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Detail => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    match sink.and_then(|sink| sink.file.as_deref()) {
        None => {
            let is_terminal = std::io::stderr().is_terminal();
            log.with_ansi(is_terminal).with_writer(move || OverBar { is_terminal }).init();
        }
        Some(path) => log.with_ansi(false).with_writer(Arc::new(open_log(path)?)).init(),
    }
    Ok(())
}

/// Standard error for log lines; on a terminal each takes the place of the progress bar, which is
/// drawn again below it.
struct OverBar {
    is_terminal: bool,
}

impl Write for OverBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = io::stderr().lock();
        if self.is_terminal {
            out.write_all(b"\r\x1b[2K")?;
        }
        out.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn open_log(path: &Path) -> Result<File, Box<dyn Error>> {
    let file = File::options().append(true).create(true).open(path);
    file.map_err(|error| format!("cannot open the log {}: {error}", path.display()).into())
}
