//! What a bench answers: the circumstances, then figures, each measured in several runs.

use serde_json::{Map, Value, json};

use super::runs::Runs;
use crate::report::{self, Table};

/// In what a figure is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Ratio,
    /// A ratio that is wanted close to one.
    Precise,
    PerSecond,
    Micros,
    Seconds,
    Percent,
    Count,
}

/// What the figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted {
    Any,
    AtLeast(f64),
    AtMost(f64),
}

/// The answer of one bench.
pub(super) struct Answer {
    bench: &'static str,
    facts: Vec<(&'static str, String)>,
    figures: Vec<Figure>,
}

struct Figure {
    name: String,
    unit: Unit,
    runs: Runs,
    wanted: Wanted,
}

impl Unit {
    fn text(self, figure: f64) -> String {
        match self {
            Self::Ratio => format!("{figure:.2}"),
            Self::Precise => format!("{figure:.4}"),
            Self::PerSecond => format!("{}/s", report::count(figure as u64)),
            Self::Micros => report::micros(figure as u64),
            Self::Seconds => format!("{figure:.2} s"),
            Self::Percent => format!("{figure:.2} %"),
            Self::Count => report::count(figure as u64),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ratio | Self::Precise => "ratio",
            Self::PerSecond => "per second",
            Self::Micros => "microseconds",
            Self::Seconds => "seconds",
            Self::Percent => "percent",
            Self::Count => "count",
        }
    }
}

impl Wanted {
    fn is_met_by(self, figure: f64) -> bool {
        match self {
            Self::Any => true,
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }

    fn text(self, unit: Unit) -> Option<String> {
        match self {
            Self::Any => None,
            Self::AtLeast(least) => Some(format!("at least {}", unit.text(least))),
            Self::AtMost(most) => Some(format!("at most {}", unit.text(most))),
        }
    }
}

impl Answer {
    pub(super) const fn new(bench: &'static str) -> Self {
        Self { bench, facts: Vec::new(), figures: Vec::new() }
    }

    #[must_use]
    pub(super) fn fact(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.facts.push((name, text.into()));
        self
    }

    /// Adds a figure, unless it was not measured.
    #[must_use]
    pub(super) fn figure(self, name: impl Into<String>, unit: Unit, runs: &Runs) -> Self {
        self.target(name, unit, runs, Wanted::Any)
    }

    /// Adds a figure with what it should be, unless it was not measured.
    #[must_use]
    pub(super) fn target(
        mut self,
        name: impl Into<String>,
        unit: Unit,
        runs: &Runs,
        wanted: Wanted,
    ) -> Self {
        if !runs.0.is_empty() {
            self.figures.push(Figure { name: name.into(), unit, runs: runs.clone(), wanted });
        }
        self
    }

    /// Prints a table, or one line of JSON.
    pub(super) fn print(&self, as_json: bool) {
        match as_json {
            true => report::print(&self.to_json().to_string()),
            false => report::print(&self.to_table().to_string()),
        }
    }

    fn to_table(&self) -> Table {
        let facts = self.facts.iter().map(|(name, text)| ((*name).to_owned(), text.clone()));
        let figures = self.figures.iter().map(|figure| (figure.name.clone(), figure.text()));
        facts.chain(figures).fold(Table::default(), |table, (name, text)| table.row(name, text))
    }

    fn to_json(&self) -> Value {
        let facts: Map<_, _> =
            self.facts.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        let figures: Map<_, _> =
            self.figures.iter().map(|figure| (figure.name.clone(), figure.to_json())).collect();
        json!({ "bench": self.bench, "facts": facts, "figures": figures })
    }
}

impl Figure {
    fn text(&self) -> String {
        let text = self.runs.text(|figure| self.unit.text(figure));
        match self.wanted.text(self.unit) {
            None => text,
            Some(wanted) if self.wanted.is_met_by(self.runs.median()) => {
                format!("{text}; wanted {wanted}")
            }
            Some(wanted) => format!("{text}; MISSED: wanted {wanted}"),
        }
    }

    fn to_json(&self) -> Value {
        let mut json = self.runs.to_json();
        json["unit"] = json!(self.unit.name());
        if let Some(wanted) = self.wanted.text(self.unit) {
            json["wanted"] = json!(wanted);
            json["met"] = json!(self.wanted.is_met_by(self.runs.median()));
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_what_was_wanted_of_it() {
        let check = |wanted, expected: &str| {
            let figure = Figure {
                name: "x".into(),
                unit: Unit::Ratio,
                runs: Runs(vec![2.0, 4.0, 3.0]),
                wanted,
            };
            assert_eq!(figure.text(), format!("3.00 (2.00 to 4.00, 3 runs){expected}"));
        };
        check(Wanted::Any, "");
        check(Wanted::AtLeast(3.0), "; wanted at least 3.00");
        check(Wanted::AtMost(2.5), "; MISSED: wanted at most 2.50");
    }

    #[test]
    fn an_answer_has_facts_and_figures_by_name() {
        let runs = Runs(vec![1000.0]);
        let answer = Answer::new("ship")
            .fact("kernel", "6.1")
            .figure("none", Unit::Ratio, &Runs::default())
            .target("rate", Unit::PerSecond, &runs, Wanted::AtLeast(2000.0));
        let json = answer.to_json();
        assert_eq!((&json["bench"], &json["facts"]["kernel"]), (&json!("ship"), &json!("6.1")));
        assert!(json["figures"].get("none").is_none());
        assert_eq!(json["figures"]["rate"]["met"], false);
        assert_eq!(json["figures"]["rate"]["wanted"], "at least 2,000/s");
    }
}
