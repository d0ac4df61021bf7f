//! How results look: tables for people, and the few formats they share.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// Prints a line of results. Ends the process in silence when nobody reads them any more, as behind
/// `| head`.
pub fn print(line: &str) {
    if let Err(error) = writeln!(io::stdout().lock(), "{}", line.trim_end()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("longship: cannot write the results: {error}");
        }
        std::process::exit(i32::from(error.kind() != io::ErrorKind::BrokenPipe));
    }
}

/// A bar on a terminal; nothing elsewhere.
pub fn progress(doing: &'static str, length: u64) -> ProgressBar {
    let style = "{msg:14} {wide_bar:.cyan/blue} {human_pos:>9} of {human_len} {rate:>14} {eta:>4}";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Theirs has fourteen decimals.
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{:.1}/s", state.per_sec());
    };
    ProgressBar::new(length).with_style(style.with_key("rate", rate)).with_message(doing)
}

/// The same for bytes.
pub fn progress_bytes(doing: &'static str) -> ProgressBar {
    let style =
        "{msg:14} {wide_bar:.cyan/blue} {bytes:>9} of {total_bytes} {bytes_per_sec:>14} {eta:>4}";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(doing)
}

/// Rows of a name and a text, names aligned.
#[derive(Default)]
pub struct Table(Vec<(String, String)>);

impl Table {
    /// One more line: its name and what there is to say.
    #[must_use]
    pub fn row(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.0.push((name.into(), text.into()));
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        self.0.iter().try_for_each(|(name, text)| writeln!(f, "  {name:width$}  {text}"))
    }
}

/// A number with thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes.
pub fn bytes(number: u64) -> String {
    let scaled = |unit: u64| number as f64 / unit as f64;
    match number {
        0..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", scaled(1_000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", scaled(1_000_000)),
        _ => format!("{:.2} GB", scaled(1_000_000_000)),
    }
}

/// A number of microseconds.
pub fn micros(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} us"),
        1_000..1_000_000 => format!("{:.1} ms", number as f64 / 1e3),
        _ => format!("{:.2} s", number as f64 / 1e6),
    }
}

/// The quantiles of a histogram of microseconds that tell most.
pub fn quantiles(us: &Histogram<u64>) -> String {
    let at = |quantile| micros(us.value_at_quantile(quantile));
    let (p50, p99, p99_9, max) = (at(0.5), at(0.99), at(0.999), micros(us.max()));
    format!("p50 {p50}, p99 {p99}, p99.9 {p99_9}, max {max}")
}

/// A duration in seconds.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(count(0), "0");
        check(count(999), "999");
        check(count(1_000), "1,000");
        check(count(12_345_678), "12,345,678");
        check(bytes(999), "999 B");
        check(bytes(47_110_000), "47.1 MB");
        check(bytes(2_500_000_000), "2.50 GB");
        check(micros(850), "850 us");
        check(micros(1_250), "1.2 ms");
        check(micros(3_200_000), "3.20 s");
        check(seconds(Duration::from_millis(1234)), "1.23 s");
    }

    #[test]
    fn table_names_line_up() {
        let table = Table::default().row("a", "1").row("longer", "2");
        assert_eq!(table.to_string(), "  a       1\n  longer  2\n");
    }
}
