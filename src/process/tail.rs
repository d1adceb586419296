//! The end of what a process writes to standard error.
//!
//! Knows bytes and lines, not their meaning.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The kept bytes.
const KEPT_BYTES: usize = 16 << 10;

/// The most lines and bytes in an error.
const SHOWN_LINES: usize = 15;
const SHOWN_BYTES: usize = 2000;

/// The end of a stream, read on a thread of its own.
#[derive(Debug)]
pub struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    /// Disconnected at the end of the stream.
    end: Mutex<Receiver<()>>,
}

impl Tail {
    /// Begins to read a stream.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn of(mut stream: impl Read + Send + 'static) -> io::Result<Self> {
        let kept = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT_BYTES)));
        let (sender, end) = mpsc::channel();
        let written = kept.clone();
        let read = move || {
            let _sender: mpsc::Sender<()> = sender;
            let mut bytes = [0; 4096];
            loop {
                match stream.read(&mut bytes) {
                    Ok(0) => return,
                    Ok(count) => {
                        let mut kept = written.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.extend(bytes.iter().take(count));
                        let surplus = kept.len().saturating_sub(KEPT_BYTES);
                        kept.drain(..surplus);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        };
        std::thread::Builder::new().spawn(read)?;
        Ok(Self { kept, end: Mutex::new(end) })
    }

    /// The last lines so far, after a wait of at most `limit` for the end of the stream. Empty if
    /// there are none.
    pub fn last_words(&self, limit: Duration) -> String {
        // Nothing is ever sent: the wait ends with the stream or with the limit.
        let _ = self.end.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(limit);
        let bytes: Vec<u8> = self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        last_lines(&String::from_utf8_lossy(&bytes))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    let mut shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n");
    if let Some(surplus) = shown.len().checked_sub(SHOWN_BYTES).filter(|surplus| *surplus > 0) {
        let begin = (surplus..shown.len()).find(|at| shown.is_char_boundary(*at)).unwrap_or(shown.len());
        shown = format!("…{}", &shown[begin..]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SHOWN_BYTES, Tail};

    #[test]
    fn the_last_lines_stay() {
        let text: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
        let tail = Tail::of(std::io::Cursor::new(text.into_bytes())).unwrap();
        let words = tail.last_words(Duration::from_secs(10));
        assert!(words.starts_with("line 9985\n") && words.ends_with("line 9999"), "{words}");
        let tail = Tail::of(std::io::Cursor::new("ä".repeat(9_000).into_bytes())).unwrap();
        let words = tail.last_words(Duration::from_secs(10));
        assert!(words.starts_with('…') && words.len() <= SHOWN_BYTES + 3, "{}", words.len());
    }
}
