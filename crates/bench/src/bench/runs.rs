//! One figure measured several times.

use std::fmt;

use serde_json::{Value, json};

/// What each run gave, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(pub(super) Vec<f64>);

impl Runs {
    pub(super) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The middle one of what the runs gave.
    pub(super) fn median(&self) -> f64 {
        super::median(&self.0)
    }

    /// Run by run over its neighbour.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }

    fn extremes(&self) -> (f64, f64) {
        let least = self.0.iter().copied().reduce(f64::min).unwrap_or_default();
        (least, self.0.iter().copied().reduce(f64::max).unwrap_or_default())
    }

    /// Median and spread, each as `unit` writes a figure.
    pub(super) fn text(&self, unit: impl Fn(f64) -> String) -> String {
        let (least, most) = self.extremes();
        let spread = format!("({} to {}, {} runs)", unit(least), unit(most), self.0.len());
        format!("{} {spread}", unit(self.median()))
    }

    pub(super) fn to_json(&self) -> Value {
        let (least, most) = self.extremes();
        json!({ "median": self.median(), "min": least, "max": most, "runs": self.0 })
    }
}

/// As ratios are written.
impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(|figure| format!("{figure:.2}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbours() {
        let (own, other) = (Runs(vec![2.0, 9.0, 4.0]), Runs(vec![1.0, 3.0, 8.0]));
        assert_eq!(own.over(&other).0, [2.0, 3.0, 0.5]);
        assert_eq!(own.over(&other).to_string(), "2.00 (0.50 to 3.00, 3 runs)");
        assert_eq!(own.to_json()["max"], 9.0);
        assert_eq!(Runs::default().to_string(), "0.00 (0.00 to 0.00, 0 runs)");
    }
}
