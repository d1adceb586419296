//! Drawing a run's progress: bars on a terminal, plain lines in a log, JSON lines for machines.
//! Knows nothing of the nodes' work.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::terminal::{moves_the_cursor, shows_utf8, tell, time_left, visible};
use crate::operators::Progress;

/// The watcher for the situation: JSON lines if asked for, bars if standard error is a terminal
/// with a cursor, plain lines otherwise.
pub fn watcher(json: bool) -> Box<dyn Progress> {
    if json {
        Box::new(JsonLines)
    } else if moves_the_cursor() {
        Box::new(Bars::default())
    } else {
        Box::new(Lines::default())
    }
}

/// One bar a running node, with rate and time left; a line stays for every finished one.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn with(&self, node: &str, action: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(node) {
            action(bar);
        }
    }
}

impl Progress for Bars {
    fn started(&self, node: &str, unit: &'static str, done: u64, total: u64) {
        let (_, width) = console::Term::stderr().size();
        let style = style(unit, width);
        let bar = self.all.add(ProgressBar::new(total).with_style(style).with_prefix(node.to_string()).with_position(done));
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(200));
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_string(), bar);
    }

    fn measured(&self, node: &str, total: u64) {
        self.with(node, |bar| bar.set_length(total));
    }

    fn advanced(&self, node: &str, done: u64, tokens: u64) {
        self.with(node, |bar| {
            bar.set_position(done);
            let seconds = bar.elapsed().as_secs_f64();
            if tokens > 0 && seconds > 0.0 {
                bar.set_message(format!("{:.0} tokens/s", tokens as f64 / seconds));
            }
        });
    }

    fn finished(&self, node: &str, summary: &str, seconds: f64) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(node) {
            bar.finish_and_clear();
        }
        // A failed write to the terminal is no reason to stop a run.
        let _ = self.all.println(visible(&format!("{node:24} {seconds:7.1} s  {summary}")));
    }

    fn warned(&self, node: &str, message: &str) {
        let _ = self.all.println(visible(&format!("{node:24} warning: {message}")));
    }
}

/// Columns for all parts of a bar.
const WIDE: u16 = 110;

/// Columns for a bar between the name and the numbers.
const MEDIUM: u16 = 72;

/// How a bar is drawn in a terminal of so many columns: without colours, on one line.
fn style(unit: &str, width: u16) -> ProgressStyle {
    let template = match width {
        WIDE.. => format!("{{prefix:24}} {{bar:28}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{left}}  {{msg}}"),
        MEDIUM.. => format!("{{prefix:20}} {{bar:12}} {{pos}}/{{len}} {unit}  {{left}}"),
        _ => "{prefix} {pos}/{len} {left}".to_string(),
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.with_key("left", |state: &ProgressState, line: &mut dyn fmt::Write| {
        let remaining = state.len().map_or(0, |length| length.saturating_sub(state.pos()));
        let left = time_left(remaining, state.per_sec());
        // A failed write is shown as nothing.
        let _ = line.write_str(left.as_deref().unwrap_or_default());
    });
    if shows_utf8() { style } else { style.progress_chars("=> ") }
}

/// A line when a node starts, at most one every few seconds while it runs, and one when it ends.
#[derive(Default)]
struct Lines {
    running: Mutex<HashMap<String, LineState>>,
}

struct LineState {
    unit: &'static str,
    first: u64,
    total: u64,
    start: Instant,
    last: Instant,
}

/// Seconds between two progress lines of one node.
const LINE_INTERVAL_SECONDS: u64 = 10;

impl Progress for Lines {
    fn started(&self, node: &str, unit: &'static str, done: u64, total: u64) {
        let now = Instant::now();
        let state = LineState { unit, first: done, total, start: now, last: now };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_string(), state);
        if done > 0 {
            tell(format!("{node}: resumes at {done} of {total} {unit}"));
        }
    }

    fn measured(&self, node: &str, total: u64) {
        if let Some(state) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get_mut(node) {
            state.total = total;
        }
    }

    fn advanced(&self, node: &str, done: u64, tokens: u64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = running.get_mut(node) else { return };
        if state.last.elapsed().as_secs() < LINE_INTERVAL_SECONDS {
            return;
        }
        state.last = Instant::now();
        let seconds = state.start.elapsed().as_secs_f64();
        let rate = done.saturating_sub(state.first) as f64 / seconds;
        let left = time_left(state.total.saturating_sub(done), rate).map_or(String::new(), |left| format!(", {left}"));
        let unit = state.unit;
        let total = state.total;
        let speed = if tokens > 0 { format!(", {:.0} tokens/s", tokens as f64 / seconds) } else { String::new() };
        tell(format!("{node}: {done} of {total} {unit}{speed}{left}"));
    }

    fn finished(&self, node: &str, summary: &str, seconds: f64) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
        tell(format!("{node}: {summary} ({seconds:.1} s)"));
    }

    fn warned(&self, node: &str, message: &str) {
        tell(format!("{node}: warning: {message}"));
    }
}

/// One JSON object a line on standard error.
struct JsonLines;

impl Progress for JsonLines {
    fn started(&self, node: &str, unit: &'static str, done: u64, total: u64) {
        tell(serde_json::json!({"event": "started", "node": node, "unit": unit, "done": done, "total": total}));
    }

    fn measured(&self, node: &str, total: u64) {
        tell(serde_json::json!({"event": "measured", "node": node, "total": total}));
    }

    fn advanced(&self, node: &str, done: u64, tokens: u64) {
        tell(serde_json::json!({"event": "advanced", "node": node, "done": done, "tokens": tokens}));
    }

    fn finished(&self, node: &str, summary: &str, seconds: f64) {
        tell(serde_json::json!({"event": "finished", "node": node, "summary": summary, "seconds": seconds}));
    }

    fn warned(&self, node: &str, message: &str) {
        tell(serde_json::json!({"event": "warned", "node": node, "message": message}));
    }
}
