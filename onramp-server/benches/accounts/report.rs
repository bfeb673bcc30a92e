//! The table.

use std::collections::BTreeMap;
use std::fmt;

use crate::figures::Figures;
use crate::server::Variant;

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<(String, BTreeMap<Variant, Figures>)>,
}

impl Table {
    pub(crate) fn add(&mut self, variant: Variant, what: String, value: f64) {
        let at = self.rows.iter().position(|row| row.0 == what).unwrap_or(self.rows.len());
        if at == self.rows.len() {
            self.rows.push((what, BTreeMap::new()));
        }
        self.rows[at].1.entry(variant).or_default().push(value);
    }
}

/// As Markdown: the median of the rounds, with the range where there were several.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | pmesh | reconstruction in node | pmesh to it |")?;
        writeln!(f, "|---|---|---|---|")?;
        for (what, values) in &self.rows {
            write!(f, "| {what} |")?;
            for variant in Variant::ALL {
                write!(f, " {} |", values.get(&variant).map(Figures::to_string).unwrap_or_default())?;
            }
            let median = |variant| values.get(&variant).and_then(Figures::median);
            match (median(Variant::Pmesh), median(Variant::Rebuilt)) {
                (Some(ours), Some(other)) if other > 0.0 => writeln!(f, " {:.2} |", ours / other)?,
                _ => writeln!(f, " |")?,
            }
        }
        Ok(())
    }
}
