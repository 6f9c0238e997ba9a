//! Numbers from samples.
//!
//! Promises: every figure says how much it scatters; quantiles are of the samples themselves,
//! never interpolated beyond them.
//!
//! Never: drops a sample.

use std::time::Duration;

/// Sorted samples of one thing, in one unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// From values in any order. Values that are no numbers are not samples.
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        values.retain(|v| v.is_finite());
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// Durations, in milliseconds.
    pub(crate) fn millis(values: impl IntoIterator<Item = Duration>) -> Self {
        Self::new(values.into_iter().map(|d| d.as_secs_f64() * 1e3).collect())
    }

    /// The value below which the share `q` (0 to 1) of the samples lies; not a number without any.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        // Nearest rank, so that p99 of 200 samples is one that was seen.
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// Middle of the samples.
    pub(crate) fn median(&self) -> f64 {
        let n = self.0.len();
        if n > 0 && n.is_multiple_of(2) {
            return f64::midpoint(self.0[n / 2 - 1], self.0[n / 2]);
        }
        self.quantile(0.5)
    }

    /// Smallest.
    pub(crate) fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// Largest.
    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// `median (min / p90 / p99 / max)`.
    pub(crate) fn text(&self, unit: &str) -> String {
        let n = |q| number(self.quantile(q));
        format!(
            "{} {unit} ({} / {} / {} / {})",
            number(self.median()),
            n(0.0),
            n(0.9),
            n(0.99),
            n(1.0)
        )
    }
}

/// Three significant digits, or whole where it is larger.
pub(crate) fn number(v: f64) -> String {
    let a = v.abs();
    match a {
        _ if v.is_nan() => "-".to_owned(),
        _ if a >= 100_000.0 => format!("{:.0} k", v / 1000.0),
        _ if a >= 100.0 => format!("{v:.0}"),
        _ if a >= 10.0 => format!("{v:.1}"),
        _ if a >= 1.0 => format!("{v:.2}"),
        _ => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let s = Samples::new((1..=200).rev().map(f64::from).collect());
        assert_eq!((s.min(), s.median(), s.max()), (1.0, 100.5, 200.0));
        assert_eq!((s.quantile(0.9), s.quantile(0.99)), (180.0, 198.0));
        assert!(Samples::default().median().is_nan());
        assert_eq!(Samples::new(vec![f64::NAN, 2.0]).min(), 2.0);
    }

    #[test]
    fn numbers_are_short() {
        let all = [1_234_567.0, 1234.5, 12.345, 1.2345, 0.12345].map(number);
        assert_eq!(all, ["1235 k", "1234", "12.3", "1.23", "0.123"]);
    }
}
