//! The table.

use std::collections::BTreeMap;
use std::fmt;

use crate::figures::Figures;
use crate::process::Variant;

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    values: BTreeMap<Variant, Figures>,
}

impl Table {
    pub(crate) fn add(&mut self, variant: Variant, what: String, value: f64) {
        let at = self.rows.iter().position(|row| row.what == what).unwrap_or(self.rows.len());
        if at == self.rows.len() {
            self.rows.push(Row { what, values: BTreeMap::new() });
        }
        self.rows[at].values.entry(variant).or_default().push(value);
    }
}

/// As Markdown: the median of the rounds, with the range where there were several.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | pmesh over WebSockets | pmesh over WebRTC | peer-relay 0.0.2 | WebSockets to the original |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for row in &self.rows {
            write!(f, "| {} |", row.what)?;
            for variant in Variant::ALL {
                write!(f, " {} |", row.cell(variant))?;
            }
            let ratio = match (row.median(Variant::WebSocket), row.median(Variant::Original)) {
                (Some(ours), Some(original)) if original > 0.0 && ours > 0.0 => format!("{:.2}", ours / original),
                _ => String::new(),
            };
            writeln!(f, " {ratio} |")?;
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
