//! Waiting for a condition with a deadline, which is how tests wait for anything.

use std::future::Future;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

/// How long a probe that failed rests before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Tries `probe` until it succeeds, and hands out what it gave.
///
/// # Errors
/// When `deadline` passes first: names `what` was waited for and how the last try failed. A try that hangs
/// is cut off by the deadline too.
pub async fn wait_for<T, F, Fut>(deadline: Duration, what: &str, mut probe: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + deadline;
    let mut last = anyhow::anyhow!("the first try did not end");
    loop {
        match tokio::time::timeout_at(end, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if Instant::now() + PAUSE >= end {
            return Err(last).with_context(|| format!("waited {deadline:?} in vain for {what}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A TCP port of 127.0.0.1 that nothing listens on at this moment.
///
/// For programs that cannot be told to pick a port and say which; all others get port 0.
///
/// # Errors
/// When the machine has no free port.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hands_out_the_first_success() {
        let mut tries = 0;
        let got = wait_for(Duration::from_secs(1), "the third try", || {
            tries += 1;
            let this = tries;
            async move {
                anyhow::ensure!(this == 3, "try {this}");
                Ok(this)
            }
        });
        assert_eq!(got.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_deadline_names_what_and_why() {
        let failed = wait_for(Duration::from_millis(100), "rain", || async {
            anyhow::bail!("blue sky") as anyhow::Result<()>
        });
        let message = format!("{:#}", failed.await.unwrap_err());
        assert_eq!(message, "waited 100ms in vain for rain: blue sky");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_cut_off() {
        let failed = wait_for(Duration::from_millis(100), "an answer", || async {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert!(failed.await.is_err());
    }
}
