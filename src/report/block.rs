//! The parts of a report: sections of blocks. Knows their names in the template and in the script,
//! not their look.

use serde::Serialize;

use super::statistics::Interval;

/// A part of the report under a title.
#[derive(Debug, Serialize)]
pub struct Section {
    /// The name in links.
    pub id: String,
    /// The title.
    pub title: String,
    /// One sentence about the content.
    pub lead: String,
    /// The blocks.
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
        /// The property that they share.
        title: String,
        /// The pairs.
        pairs: Vec<PairText>,
    },
    /// A folded text, shown without changes.
    Code {
        /// The title.
        title: String,
        /// The text.
        text: String,
    },
    /// A sign of over-optimization.
    Alarm {
        /// The node and the iteration.
        place: String,
        /// The numbers.
        text: String,
        /// What to do.
        advice: String,
    },
    /// A sentence about omitted things, or about the meaning of a word.
    Note {
        /// The sentence.
        text: String,
    },
}

/// Rows under titles.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    /// The title.
    pub title: String,
    /// The columns' titles; a title of a numeric column begins with `#`.
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
    /// The messages of the prompt: the speaker (empty in a plain text) and the text.
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
    /// The text after the beginning.
    pub folded: String,
    /// How many characters after that are left out.
    pub left_out: usize,
}

/// A picture of numbers.
#[derive(Debug, Serialize)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// How to read it; may be empty.
    pub note: String,
    /// The title of the horizontal axis.
    pub x: String,
    /// The title of the vertical axis.
    pub y: String,
    /// The marks.
    #[serde(flatten)]
    pub marks: Marks,
}

/// The marks of a chart.
#[derive(Debug, Serialize)]
#[serde(tag = "marks", rename_all = "snake_case")]
pub enum Marks {
    /// Curves, with bands where there are intervals.
    Lines {
        /// The curves.
        series: Vec<Series>,
        /// Every name with a colour here and in the charts beside it.
        colors: Vec<String>,
        /// A value to compare with.
        rule: Option<f64>,
        /// The ends of the parts, on the horizontal axis.
        breaks: Vec<f64>,
        /// The lowest and highest value to show, so that several charts have the same range.
        range: Option<(f64, f64)>,
        /// Whether values to the right are whole numbers.
        whole: bool,
    },
    /// One dot for each of many things, with its interval.
    Dots {
        /// The dots.
        dots: Vec<Dot>,
        /// Every name with a colour.
        colors: Vec<String>,
        /// Every name with a shape.
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
        /// Every name with a colour.
        colors: Vec<String>,
    },
    /// Nodes, and the edges from a node to its readers.
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
    /// The name of its colour.
    pub color: String,
    /// The name of its shape; may be empty.
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
    /// The name of its colour.
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
    /// The piece's name, also the name of its colour.
    pub piece: String,
    /// How long it is.
    pub value: f64,
}

/// A node of the graph.
#[derive(Debug, Serialize)]
pub struct Vertex {
    /// Its name.
    pub name: String,
    /// The operator.
    pub operator: String,
    /// Its costs and its rows.
    pub detail: String,
    /// `input`, `done`, `partial` or `absent`.
    pub state: &'static str,
}

/// An edge of the graph.
#[derive(Debug, Serialize)]
pub struct Edge {
    /// The node at the start of the edge.
    pub from: String,
    /// The reader.
    pub to: String,
    /// Whether it reads the output of the last iteration.
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

/// The number in at most seven significant digits, more than a screen can show; `None` if it is not
/// finite.
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
