//! How far a long computation is, for a person who waits at a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const WIDTH: u64 = 30;

/// A bar on standard error that is drawn anew at every per cent; nothing where that is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    what: String,
    done: AtomicU64,
    /// The per cent that was drawn last; none where nothing is drawn.
    drawn: Option<Mutex<u64>>,
}

impl Progress {
    /// A bar of `total` readings.
    pub(super) fn of(total: u64) -> Self {
        Self::labelled(total, &format!("{total} readings"))
    }

    /// A bar of `total` parts of something.
    pub(super) fn labelled(total: u64, what: &str) -> Self {
        let shown = std::io::stderr().is_terminal() && total > 0;
        Self { total, what: what.to_owned(), done: AtomicU64::new(0), drawn: shown.then(|| Mutex::new(0)) }
    }

    /// Counts readings as done with.
    pub(super) fn add(&self, readings: u64) {
        self.draw(self.done.fetch_add(readings, Ordering::Relaxed) + readings);
    }

    /// So much is done with.
    pub(super) fn reach(&self, done: u64) {
        self.draw(self.done.fetch_max(done, Ordering::Relaxed).max(done));
    }

    fn draw(&self, done: u64) {
        let Some(drawn) = &self.drawn else { return };
        let percent = (done.saturating_mul(100) / self.total).min(100);
        if let Ok(mut drawn) = drawn.try_lock()
            && percent > *drawn
        {
            *drawn = percent;
            say(&format!("\r{}", bar(percent, &self.what)));
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if self.drawn.is_some() {
            say("\r\x1b[2K");
        }
    }
}

fn bar(percent: u64, what: &str) -> String {
    let filled = percent * WIDTH / 100;
    let [full, empty] = [("#", filled), ("-", WIDTH - filled)]
        .map(|(sign, times)| (0..times).map(|_| sign).collect::<String>());
    format!("[{full}{empty}] {percent:>3} % of {what}")
}

/// That nobody sees a bar is no failure.
fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_wide_at_any_time() {
        assert_eq!(bar(0, "7 readings"), format!("[{}]   0 % of 7 readings", "-".repeat(30)));
        assert_eq!(
            bar(50, "7 readings"),
            format!("[{}{}]  50 % of 7 readings", "#".repeat(15), "-".repeat(15))
        );
        assert_eq!(bar(100, "7 readings"), format!("[{}] 100 % of 7 readings", "#".repeat(30)));
    }
}
