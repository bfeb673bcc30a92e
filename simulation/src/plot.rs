//! A plot of hops by size, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 50.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 20.0;
const MOST_HOPS: f64 = 10.0;

/// A line: its name, its colour, and mean hops by number of peers.
pub struct Line<'a> {
    /// What it shows.
    pub name: &'a str,
    /// As in SVG.
    pub colour: &'a str,
    /// Peers and hops.
    pub points: Vec<(f64, f64)>,
}

/// Mean hops by number of peers of one routing, from rows such as `| Kademlia 1000 | 2.81 | …` in tables of a text. Networks with
/// other than the default settings say so behind the number, and are left out.
pub fn points(text: &str, routing: &str) -> Vec<(f64, f64)> {
    let point = |line: &str| {
        let (peers, rest) = line.strip_prefix("| ")?.strip_prefix(routing)?.trim_start().split_once(" | ")?;
        Some((peers.parse().ok()?, rest.split(" | ").next()?.parse().ok()?))
    };
    let mut points: Vec<(f64, f64)> = text.lines().filter_map(point).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The plot. The axis of peers is logarithmic, from 100 to 100,000.
pub fn svg(lines: &[Line<'_>]) -> String {
    let x = |peers: f64| LEFT + (peers.log10() - 2.0) / 3.0 * (WIDTH - LEFT - 20.0);
    let y = |hops: f64| HEIGHT - BOTTOM - hops / MOST_HOPS * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut put = |text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(svg, "{text}");
    };
    for hops in (0..=MOST_HOPS as u32).step_by(2) {
        let at = y(hops.into());
        put(format!("<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>", WIDTH - 20.0));
        put(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{hops}</text>", LEFT - 8.0, at + 4.0));
    }
    for (peers, name) in [(100.0, "100"), (1e3, "1,000"), (1e4, "10,000"), (1e5, "100,000")] {
        put(format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            x(peers),
            HEIGHT - BOTTOM + 18.0
        ));
    }
    put(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">peers</text>", WIDTH / 2.0, HEIGHT - 12.0));
    put(format!(
        "<text x=\"14\" y=\"{0}\" transform=\"rotate(-90 14 {0})\" text-anchor=\"middle\">mean hops</text>",
        HEIGHT / 2.0
    ));
    for (number, line) in lines.iter().enumerate() {
        let colour = line.colour;
        let points: Vec<String> =
            line.points.iter().map(|(peers, hops)| format!("{:.1},{:.1}", x(*peers), y(*hops))).collect();
        put(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        ));
        for (peers, hops) in &line.points {
            put(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*peers), y(*hops)));
        }
        let at = TOP + 18.0 * (number + 1) as f64;
        put(format!("<text x=\"{}\" y=\"{at}\" fill=\"{colour}\">{}</text>", LEFT + 12.0, line.name));
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_from_tables() {
        let text = "| peers | hops |\n| --- | --- |\n| Chord 1000 | 4.24 | 9 |\n| Chord 100 | 2.45 | 6 |\n| Kademlia 100 | 1.76 | 3 |\n\
                    | Chord 1000, 20 successors | 3.8 | 7 |\n\n| Chord 1000 | 100 % | 1411 |\n| Chord, 10 % | 4.48 |\n";
        assert_eq!(points(text, "Chord"), [(100.0, 2.45), (1000.0, 4.24)]);
    }

    #[test]
    fn every_point_is_inside() {
        let svg = svg(&[Line { name: "a", colour: "red", points: vec![(100.0, 1.0), (1e5, 9.0)] }]);
        assert!(svg.contains("cx=\"50.0\"") && svg.contains("cx=\"620.0\"") && svg.ends_with("</svg>\n"));
    }
}
