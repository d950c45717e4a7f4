//! Trying again, with pauses that grow and are spread by chance.

use std::time::Duration;

use rand::{Rng, RngExt};
use tonic::{Code, Status};

/// Pauses between attempts: each is drawn from the upper half of a span that doubles from `base` up to `cap`. As an
/// iterator it never ends; `.take(n)` bounds the attempts.
#[derive(Debug, Clone)]
pub struct Backoff<R> {
    base: Duration,
    cap: Duration,
    next: Duration,
    rng: R,
}

impl<R: Rng> Backoff<R> {
    /// Pauses from `base` to `cap`, spread by `rng` (such as `rand::rngs::StdRng` from `rand::make_rng()`).
    pub fn new(base: Duration, cap: Duration, rng: R) -> Self {
        Self { base, cap, next: base.min(cap), rng }
    }

    /// Starts again with the shortest pause: the thing worked.
    pub fn reset(&mut self) {
        self.next = self.base.min(self.cap);
    }
}

impl<R: Rng> Iterator for Backoff<R> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let span = self.next;
        self.next = span.saturating_mul(2).min(self.cap);
        Some(span.mul_f64(self.rng.random_range(0.5..=1.0)))
    }
}

/// Whether the same call may succeed later.
#[must_use]
pub fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted
    )
}

/// Makes the call, and again after each of `pauses` as long as it fails for a passing reason. Only for calls that
/// may be made twice.
///
/// # Errors
/// The first lasting error, or the last passing one.
pub async fn retry<T, F, Fut>(pauses: impl IntoIterator<Item = Duration>, mut call: F) -> Result<T, Status>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let mut pauses = pauses.into_iter();
    loop {
        let status = match call().await {
            Ok(value) => return Ok(value),
            Err(status) if !is_transient(&status) => return Err(status),
            Err(status) => status,
        };
        let Some(pause) = pauses.next() else { return Err(status) };
        tracing::debug!(code = ?status.code(), message = status.message(), ?pause, "trying again");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_are_spread() {
        let pauses = |seed| -> Vec<Duration> {
            let rng = StdRng::seed_from_u64(seed);
            Backoff::new(Duration::from_millis(100), Duration::from_secs(1), rng).take(8).collect()
        };
        for (i, pause) in pauses(1).iter().enumerate() {
            let span = Duration::from_millis((100 << i).min(1000));
            assert!(*pause >= span / 2 && *pause <= span, "{i}: {pause:?}");
        }
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
        let mut backoff =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(1), StdRng::seed_from_u64(1));
        assert!(backoff.by_ref().nth(5).unwrap() >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.next().unwrap() <= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn tries_again_only_what_may_pass() {
        let calls = AtomicU32::new(0);
        let attempt = |codes: &'static [Code]| {
            let call = calls.fetch_add(1, Ordering::Relaxed) as usize;
            async move { codes.get(call).map_or(Ok(call), |code| Err(Status::new(*code, "no"))) }
        };
        let passing = &[Code::Unavailable, Code::ResourceExhausted, Code::Aborted, Code::DeadlineExceeded];
        assert_eq!(retry([Duration::ZERO; 4], || attempt(passing)).await.unwrap(), 4);
        calls.store(0, Ordering::Relaxed);
        assert_eq!(retry([Duration::ZERO; 2], || attempt(passing)).await.unwrap_err().code(), Code::Aborted);
        calls.store(0, Ordering::Relaxed);
        let lasting = &[Code::Unavailable, Code::InvalidArgument, Code::Unavailable];
        assert_eq!(
            retry([Duration::ZERO; 9], || attempt(lasting)).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
}
