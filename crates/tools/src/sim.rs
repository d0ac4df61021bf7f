//! `longship sim`: runs the rules of shipping against seeds of faults, and says what they did.

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use longship_sim::{
    Failure, Fault, MUTATION_SEEDS, NODES_MUTATION_SEEDS, NodesOutcome, Outcome, Plan, Report,
    Score, Seeds, Watch, mutations,
};
use longship_sim::{score, shrink, story};

use longship_bench::report::{self, Table};

/// Failures told in full; of the others only the seed is.
const STORIES_MAX: usize = 3;

/// Runs the rules of shipping in a simulated world that tries to lose a record.
#[derive(clap::Args)]
pub(crate) struct SimArgs {
    #[command(flatten)]
    what: What,
    /// Tells what happened to this key of the seed; `all` for all keys.
    #[arg(long, value_name = "KEY", requires = "seed", value_parser = watch)]
    trace: Option<Watch>,
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Run these seeds, the last one included.
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Run this one and, should it fail, tell of the shortest run that still does.
    #[arg(long)]
    seed: Option<u64>,
    /// Run whole nodes in virtual time with these seeds, the last one included.
    #[arg(long, value_name = "A..B")]
    nodes: Option<Seeds>,
    /// The same with a node that ships nothing, and whose devices are small and nearly full.
    #[arg(long, value_name = "A..B")]
    devices: Option<Seeds>,
    /// Break each rule in turn, or the one of that name, and see after how many seeds that is noticed.
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    mutations: Option<Option<String>>,
}

fn watch(text: &str) -> Result<Watch, std::num::ParseIntError> {
    if text == "all" { Ok(Watch::All) } else { text.parse().map(Watch::Key) }
}

/// Runs the command.
pub(crate) fn command(args: &SimArgs) -> Result<ExitCode, Box<dyn Error>> {
    let fine = match &args.what {
        What { seeds: Some(seeds), .. } => run_seeds(seeds, args),
        What { seed: Some(seed), .. } => run_seed(*seed, args),
        What { nodes: Some(seeds), .. } => run_nodes(seeds, false, args),
        What { devices: Some(seeds), .. } => run_nodes(seeds, true, args),
        _ => run_mutations(args),
    };
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_seeds(seeds: &Seeds, args: &SimArgs) -> bool {
    let start = Instant::now();
    let bar = report::progress("simulating", seeds.0.end() - seeds.0.start() + 1);
    let found = Report::of(seeds.0.clone(), args.threads.get(), || bar.inc(1));
    bar.finish_and_clear();
    let took = start.elapsed();
    report::print(&match args.json {
        true => to_json(&found, seeds, args.threads, took).to_string(),
        false => to_text(&found, seeds, args.threads, took),
    });
    for (&seed, text) in found.failures.iter().take(STORIES_MAX) {
        match shrink(seed) {
            Some(failure) => eprintln!("{}", told(&failure)),
            None => eprintln!("seed {seed} failed once, and did not again: {text}"),
        }
    }
    for (seed, text) in found.failures.iter().skip(STORIES_MAX) {
        eprintln!("seed {seed} failed: {text}");
    }
    found.failures.is_empty()
}

/// Whole nodes, on so many threads.
fn run_nodes(seeds: &Seeds, alone: bool, args: &SimArgs) -> bool {
    let start = Instant::now();
    let count = seeds.0.end() - seeds.0.start() + 1;
    let bar = report::progress("living", count);
    let threads = args.threads.get();
    let all = longship_sim::run_all_nodes(seeds.0.clone(), alone, threads, || bar.inc(1));
    bar.finish_and_clear();
    let took = start.elapsed();
    let failed: Vec<_> =
        all.iter().filter_map(|(seed, one)| Some((seed, one.failure.as_ref()?))).collect();
    let sum = |of: fn(&NodesOutcome) -> u64| all.values().map(of).sum::<u64>();
    let mut faults = BTreeMap::new();
    for (fault, count) in all.values().flat_map(|one| &one.faults) {
        *faults.entry(format!("{fault:?}")).or_insert(0) += count;
    }
    let figures = serde_json::json!({
        "seeds": count,
        "failed": failed.len(),
        "written": sum(|one| one.written),
        "seen": sum(|one| one.seen),
        "damage_accepted": sum(|one| one.accepted),
        "virtual_s": sum(|one| one.virtual_s),
        "seeds_per_minute": (count as f64 * 60.0 / took.as_secs_f64()) as u64,
        "faults": faults,
    });
    report::print(&figures.to_string());
    for (seed, text) in failed.iter().take(STORIES_MAX) {
        eprintln!("seed {seed} of nodes failed: {text}");
    }
    for (seed, text) in failed.iter().skip(STORIES_MAX) {
        eprintln!("seed {seed} of nodes failed: {}", text.lines().next().unwrap_or_default());
    }
    failed.is_empty()
}

fn run_seed(seed: u64, args: &SimArgs) -> bool {
    let (outcome, lines) = story(seed, args.trace);
    for line in lines {
        report::print(&line);
    }
    match args.json {
        true => report::print(&json_of(seed, &outcome).to_string()),
        false => report::print(&format!(
            "seed {seed}, {}: {} steps, {} written, {} shipped, fingerprint {:016x}",
            Plan::of(seed).topology,
            report::count(outcome.steps),
            report::count(outcome.tally.written),
            report::count(outcome.tally.shipped),
            outcome.fingerprint
        )),
    }
    let Some(text) = &outcome.failure else { return true };
    match (args.trace, shrink(seed)) {
        (None, Some(failure)) => eprintln!("{}", told(&failure)),
        _ => eprintln!("seed {seed} failed: {text}"),
    }
    false
}

fn run_mutations(args: &SimArgs) -> bool {
    let start = Instant::now();
    let only = args.what.mutations.as_ref().and_then(Option::as_ref);
    let mut all = mutations();
    all.retain(|mutation| only.is_none_or(|only| *only == format!("{mutation:?}")));
    let bar = report::progress("breaking rules", all.len() as u64);
    let scores = score(&all, args.threads.get(), || bar.inc(1));
    bar.finish_and_clear();
    let noticed = scores.iter().filter(|score| score.noticed.is_some()).count();
    if args.json {
        report::print(&scores_to_json(&scores).to_string());
    } else {
        for score in &scores {
            report::print(&scored(score));
        }
        report::print(&format!(
            "{noticed} of {} broken rules noticed within {} seeds, or {NODES_MUTATION_SEEDS} of nodes, \
             in {}",
            scores.len(),
            report::count(MUTATION_SEEDS),
            report::seconds(start.elapsed())
        ));
    }
    noticed == scores.len() && noticed > 0
}

fn scored(score: &Score) -> String {
    let name = format!("{:?}", score.mutation);
    match &score.noticed {
        Some((seeds, text)) => {
            let first = text.lines().next().unwrap_or_default();
            format!("  {name:27} {seeds:>5}  {first}")
        }
        None => format!("  {name:27}     -  NOT NOTICED"),
    }
}

fn scores_to_json(scores: &[Score]) -> serde_json::Value {
    let entry = |score: &Score| {
        let seeds = score.noticed.as_ref().map(|(seeds, _)| *seeds);
        (format!("{:?}", score.mutation), seeds.into())
    };
    serde_json::Value::Object(scores.iter().map(entry).collect())
}

fn per_minute(found: &Report, took: Duration) -> u64 {
    (found.seeds as f64 * 60.0 / took.as_secs_f64().max(1e-9)) as u64
}

fn to_text(found: &Report, seeds: &Seeds, threads: NonZeroUsize, took: Duration) -> String {
    let (first, last) = (seeds.0.start(), seeds.0.end());
    let table = Table::default()
        .row("seeds", format!("{}, {first}..{last}", report::count(found.seeds)))
        .row("failed", report::count(found.failures.len() as u64))
        .row("steps", format!("{} median", report::count(found.steps_median())))
        .row("written", report::count(found.written))
        .row("shipped", report::count(found.shipped))
        .row("recovered", report::count(found.recovered))
        .row("took", format!("{} on {threads} threads", report::seconds(took)))
        .row("seeds a minute", report::count(per_minute(found, took)));
    let mut text = format!("{table}\n  worlds of\n");
    for (topology, &seeds) in &found.topologies {
        text += &format!("    {topology:20} {:>7}\n", report::count(seeds));
    }
    text += "\n  fault                  seeds              times\n";
    for fault in Fault::ALL {
        let (seeds, times) = found.happened(fault);
        let percent = seeds as f64 * 100.0 / found.seeds as f64;
        text += &format!(
            "    {:20} {:>7}  {percent:>5.1} %  {:>10}\n",
            format!("{fault:?}"),
            report::count(seeds),
            report::count(times)
        );
    }
    let rare = found.rare();
    if found.seeds >= 1000 && !rare.is_empty() {
        text += &format!("  in less than 1 % of the seeds: {rare:?}\n");
    }
    text
}

fn to_json(
    found: &Report,
    seeds: &Seeds,
    threads: NonZeroUsize,
    took: Duration,
) -> serde_json::Value {
    let faults: BTreeMap<String, _> = Fault::ALL
        .into_iter()
        .map(|fault| (format!("{fault:?}"), found.happened(fault)))
        .map(|(name, (seeds, times))| (name, serde_json::json!({"seeds": seeds, "times": times})))
        .collect();
    let failures: BTreeMap<String, &String> =
        found.failures.iter().map(|(seed, text)| (seed.to_string(), text)).collect();
    serde_json::json!({
        "first": seeds.0.start(),
        "last": seeds.0.end(),
        "seeds": found.seeds,
        "steps_median": found.steps_median(),
        "written": found.written,
        "shipped": found.shipped,
        "recovered": found.recovered,
        "threads": threads,
        "seconds": took.as_secs_f64(),
        "seeds_per_minute": per_minute(found, took),
        "topologies": found.topologies,
        "faults": faults,
        "failures": failures,
    })
}

fn json_of(seed: u64, outcome: &Outcome) -> serde_json::Value {
    serde_json::json!({
        "seed": seed,
        "steps": outcome.steps,
        "written": outcome.tally.written,
        "shipped": outcome.tally.shipped,
        "fingerprint": format!("{:016x}", outcome.fingerprint),
        "failure": outcome.failure,
    })
}

/// The story of a failure.
fn told(failure: &Failure) -> String {
    format!(
        "seed {} failed: {}\nshortest run that still does: {} steps; its faults: {:?}\n{}\n\
         all of it: longship sim --seed {} --trace {}\n",
        failure.seed,
        failure.text,
        failure.steps,
        failure.faults,
        failure.story.join("\n"),
        failure.seed,
        failure.key.map_or("all".to_owned(), |key| key.to_string())
    )
}
