//! The table.

use std::collections::BTreeMap;
use std::fmt;

use crate::figures::Figures;
use crate::pair::Variant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// A mere number.
    Neither,
}

#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) what: String,
    pub(crate) value: f64,
    better: Better,
}

impl Sample {
    pub(crate) fn new(what: impl Into<String>, value: f64, better: Better) -> Self {
        Self { what: what.into(), value, better }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    better: Better,
    values: BTreeMap<Variant, Figures>,
}

impl Table {
    pub(crate) fn add(&mut self, variant: Variant, samples: Vec<Sample>) {
        for Sample { what, value, better } in samples {
            let at = self.rows.iter().position(|row| row.what == what).unwrap_or(self.rows.len());
            if at == self.rows.len() {
                self.rows.push(Row { what, better, values: BTreeMap::new() });
            }
            let row = &mut self.rows[at];
            row.values.entry(variant).or_default().push(value);
        }
    }
}

/// As Markdown: the median of the rounds, with the range where there were several.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | pmesh | crate, same settings | crate as it comes | pmesh to same settings |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for row in &self.rows {
            write!(f, "| {} |", row.what)?;
            for variant in Variant::ALL {
                write!(f, " {} |", row.cell(variant))?;
            }
            let ratio = match (row.better, row.median(Variant::Pmesh), row.median(Variant::Same)) {
                (Better::Higher | Better::Lower, Some(pmesh), Some(same)) if same > 0.0 => {
                    format!("{:.2}", pmesh / same)
                }
                _ => String::new(),
            };
            let sense = match row.better {
                Better::Higher if !ratio.is_empty() => " (more is better)",
                Better::Lower if !ratio.is_empty() => " (less is better)",
                _ => "",
            };
            writeln!(f, " {ratio}{sense} |")?;
        }
        Ok(())
    }
}

impl Row {
    fn median(&self, variant: Variant) -> Option<f64> {
        self.values.get(&variant).and_then(Figures::median)
    }

    fn cell(&self, variant: Variant) -> String {
        self.values.get(&variant).map(Figures::to_string).unwrap_or_default()
    }
}
