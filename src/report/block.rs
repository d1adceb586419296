//! What a report consists of: sections of blocks. Knows how they are called in the template and in the script, not how they look.

use serde::Serialize;

use super::statistics::Interval;

/// A part of the report under a title.
#[derive(Debug, Serialize)]
pub struct Section {
    /// The name in links.
    pub id: String,
    /// The title.
    pub title: String,
    /// One sentence on what is to be seen.
    pub lead: String,
    /// What is in it.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Block {
    /// Charts, as many side by side as there is room for.
    Charts {
        /// The charts.
        charts: Vec<Chart>,
    },
    /// A table.
    Table(Table),
    /// Names and values.
    Facts {
        /// Name, value, and a word on it.
        facts: Vec<(String, String, String)>,
    },
    /// Pairs with their texts.
    Pairs {
        /// What they have in common.
        title: String,
        /// The pairs.
        pairs: Vec<PairText>,
    },
    /// A text that is shown as it is, folded.
    Code {
        /// What it is.
        title: String,
        /// The text.
        text: String,
    },
    /// A sentence: what was left out, or what a word means.
    Note {
        /// The sentence.
        text: String,
    },
}

/// Rows under titles.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The columns' titles; those that begin with `#` have numbers.
    pub columns: Vec<String>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<String>>,
    /// Whether it is folded at first.
    pub folded: bool,
}

/// A pair as a person reads it.
#[derive(Debug, Serialize)]
pub struct PairText {
    /// The prompt's id.
    pub prompt_id: String,
    /// What was asked: who says it (nobody in a plain text) and what.
    pub asked: Vec<(String, Text)>,
    /// The response to prefer.
    pub chosen: Text,
    /// The response to avoid.
    pub rejected: Text,
    /// The difference of their rewards.
    pub gap: String,
    /// The pair's weight.
    pub weight: String,
}

/// A text, the end of a long one folded.
#[derive(Debug, Serialize)]
pub struct Text {
    /// The beginning.
    pub shown: String,
    /// What follows it.
    pub folded: String,
    /// How many characters after that are left out.
    pub left_out: usize,
}

/// A picture of numbers.
#[derive(Debug, Serialize)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// How to read it; may be empty.
    pub note: String,
    /// What is to the right.
    pub x: String,
    /// What is up.
    pub y: String,
    /// What is drawn.
    #[serde(flatten)]
    pub marks: Marks,
}

/// What is drawn in a chart.
#[derive(Debug, Serialize)]
#[serde(tag = "marks", rename_all = "snake_case")]
pub enum Marks {
    /// Curves, with bands where there are intervals.
    Lines {
        /// The curves.
        series: Vec<Series>,
        /// Every name that a colour stands for here and in the charts beside it.
        colors: Vec<String>,
        /// A value to compare with.
        rule: Option<f64>,
        /// Where one part ends and the next begins, to the right.
        breaks: Vec<f64>,
        /// The lowest and highest value to show, to be the same in several charts.
        range: Option<(f64, f64)>,
        /// Whether values to the right are whole numbers.
        whole: bool,
    },
    /// One dot for each of many things, with its interval.
    Dots {
        /// The dots.
        dots: Vec<Dot>,
        /// Every name that a colour stands for.
        colors: Vec<String>,
        /// Every name that a shape stands for.
        shapes: Vec<String>,
    },
    /// Histograms below each other.
    Histograms {
        /// One for each name.
        panels: Vec<Panel>,
    },
    /// Means before and after.
    Arrows {
        /// One a line.
        arrows: Vec<Arrow>,
    },
    /// Bars made of pieces.
    Bars {
        /// The pieces.
        bars: Vec<Bar>,
        /// Every name that a colour stands for.
        colors: Vec<String>,
    },
    /// Nodes, and which reads what.
    Graph {
        /// The nodes.
        nodes: Vec<Vertex>,
        /// The edges.
        edges: Vec<Edge>,
    },
}

/// A curve.
#[derive(Debug, Serialize)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// x, y, and the interval of y.
    pub points: Vec<[Option<f64>; 4]>,
}

/// A dot.
#[derive(Debug, Serialize)]
pub struct Dot {
    /// What its colour stands for.
    pub color: String,
    /// What its shape stands for; may be empty.
    pub shape: String,
    /// x, y, and the interval of y.
    pub point: [Option<f64>; 4],
}

/// A histogram.
#[derive(Debug, Serialize)]
pub struct Panel {
    /// Its name.
    pub name: String,
    /// From, to, count.
    pub bins: Vec<(f64, f64, u64)>,
    /// The mean of the values.
    pub mean: Option<f64>,
}

/// A mean before and after.
#[derive(Debug, Serialize)]
pub struct Arrow {
    /// The line's name.
    pub name: String,
    /// What its colour stands for.
    pub color: String,
    /// The mean before.
    pub before: f64,
    /// The mean after.
    pub after: f64,
    /// More, for the tooltip.
    pub detail: String,
}

/// A piece of a bar.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// The bar.
    pub bar: String,
    /// The piece, and what its colour stands for.
    pub piece: String,
    /// How long it is.
    pub value: f64,
}

/// A node of the graph.
#[derive(Debug, Serialize)]
pub struct Vertex {
    /// Its name.
    pub name: String,
    /// What it does.
    pub operator: String,
    /// What it cost and made.
    pub detail: String,
    /// `input`, `done`, `partial` or `absent`.
    pub state: &'static str,
}

/// An edge of the graph.
#[derive(Debug, Serialize)]
pub struct Edge {
    /// The node that is read.
    pub from: String,
    /// The node that reads.
    pub to: String,
    /// Whether it is what the last iteration made.
    pub last: bool,
}

impl Series {
    /// A point of a mean.
    pub fn point(x: f64, y: Interval) -> [Option<f64>; 4] {
        let band = |end: f64| (y.count > 1).then(|| round(end)).flatten();
        [round(x), round(y.mean), band(y.low), band(y.high)]
    }

    /// A point without an interval.
    pub fn plain(x: f64, y: f64) -> [Option<f64>; 4] {
        [round(x), round(y), None, None]
    }
}

/// The number in at most seven significant digits, which no screen shows more of; `None` if it is not finite.
pub fn round(value: f64) -> Option<f64> {
    value.is_finite().then(|| format!("{value:.6e}").parse().ok()).flatten()
}

impl Section {
    /// A section without blocks.
    pub fn new(id: &str, title: impl Into<String>, lead: impl Into<String>) -> Self {
        Self { id: id.to_string(), title: title.into(), lead: lead.into(), blocks: Vec::new() }
    }

    /// With one more block.
    pub fn with(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    /// With a sentence.
    pub fn note(self, text: impl Into<String>) -> Self {
        self.with(Block::Note { text: text.into() })
    }
}

impl Table {
    /// A table without rows.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_string()).collect();
        Self { title: title.to_string(), columns, rows: Vec::new(), folded: false }
    }
}
