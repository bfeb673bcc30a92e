//! What the rounds of one measurement have given. All benches have it, by its path.

use std::fmt;

/// Figures of several rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    pub(crate) fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        (!sorted.is_empty()).then(|| percentile(&sorted, 50))
    }
}

/// The median, with the range where there were several rounds.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sorted = self.sorted();
        match sorted[..] {
            [] => Ok(()),
            [one] => f.write_str(&number(one)),
            [least, .., most] => {
                write!(f, "{} ({}–{})", number(percentile(&sorted, 50)), number(least), number(most))
            }
        }
    }
}

pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Three digits, or as many as it has before the point.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
