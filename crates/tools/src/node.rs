//! `longship node`: a storage server that ships, receives, or both.

use std::error::Error;
use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use longship_node::config::Config;
use longship_node::config::links::{ClusterFile, Links};
use longship_node::process::log_files;
use longship_node::process::place::place;
use longship_node::process::start;
use longship_node::process::stop::{stop_time, stopper};
use longship_node::storage::progress::ProgressFigures;

use crate::{log, signals};
use longship_bench::report;

/// Pause between two log lines about a start.
const LOG_EVERY: Duration = Duration::from_secs(2);

/// Runs a node until SIGTERM or SIGINT; a second one, 0.2 s later or more, ends it at once.
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
    // Before anything that may wait, such as for a file system.
    let (stopper, orders) = stopper();
    signals::obey(stopper, stop_time(config.service.stop_deadline_ms))?;
    log_files::refuse_taken(&config)?;
    log::start(&config)?;
    config.notes.iter().for_each(|note| tracing::info!("{note}"));
    tell_relative_paths(&config);
    let (_, plan) = place(&config)?;
    let mut opening = Opening::new();
    let ran = start::run(config, &plan, orders, &mut |figures| opening.show(figures));
    log::flush();
    ran?;
    Ok(ExitCode::SUCCESS)
}

/// A path that means another place when the node is started from another folder.
fn tell_relative_paths(config: &Config) {
    let files = config.namespaces.iter().flat_map(|of| &of.storage.files);
    let paths = std::iter::once(&config.service.work_directory).chain(files);
    for path in paths.filter(|path| path.is_relative()) {
        let now = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        tracing::warn!(
            "the path {} is relative: started from another folder, the node finds nothing there and \
             begins anew; write {}",
            path.display(),
            now.display()
        );
    }
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
    let links = Links::of(&clusters);
    report::print(&links.to_string());
    // Links to a file that could not be read would only seem to be missing.
    let faults = if is_wrong { &[] } else { links.faults() };
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    Ok(if is_wrong || !faults.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// Shows how far the storage is opened: a bar on a terminal, a log line now and then elsewhere.
struct Opening {
    /// Draws the bar until this is dropped. It may wait for the terminal, which nobody else does.
    bar: Option<mpsc::SyncSender<ProgressFigures>>,
    logged: Instant,
    /// Since when bytes are read. Before, headers are looked at.
    reading_since: Option<Instant>,
}

impl Opening {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(draw_bars).flatten();
        Self { bar, logged: Instant::now(), reading_since: None }
    }

    /// `None` once it is open.
    fn show(&mut self, figures: Option<&ProgressFigures>) {
        let Some(figures) = figures else {
            self.bar = None;
            return;
        };
        if let Some(bar) = &self.bar {
            // What is not drawn in time is passed over.
            let _ = bar.try_send(*figures);
            return;
        }
        if figures.bytes_wanted > 0 {
            self.reading_since.get_or_insert_with(Instant::now);
        }
        if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            let elapsed = self.reading_since.map(|since| since.elapsed()).unwrap_or_default();
            tracing::info!("opening storage: {}", figures.text(elapsed));
        }
    }
}

/// Starts the thread that draws the bars of a start, until it is over.
fn draw_bars() -> Option<mpsc::SyncSender<ProgressFigures>> {
    let (show, shown) = mpsc::sync_channel::<ProgressFigures>(1);
    let draw = move || {
        let mut bar = report::progress("looking", 0);
        let mut is_reading = false;
        while let Ok(figures) = shown.recv() {
            if figures.bytes_wanted > 0 && !std::mem::replace(&mut is_reading, true) {
                bar.finish_and_clear();
                bar = report::progress_bytes("opening");
            }
            let (position, length) = match is_reading {
                true => (figures.bytes_read, figures.bytes_wanted),
                false => (figures.blocks_seen, figures.blocks_wanted),
            };
            bar.set_length(length);
            bar.set_position(position);
        }
        bar.finish_and_clear();
    };
    std::thread::Builder::new().name("progress".into()).spawn(draw).ok()?;
    Some(show)
}
