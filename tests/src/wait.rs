//! Waiting for a condition, with an error that says what was seen last.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// Time between two looks at a condition: short enough to be no delay worth speaking of, long enough to leave a
/// small machine to the processes that are waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Polls `check` until it returns `Ok(Some(value))`, and returns the value.
///
/// `Ok(None)` means "not yet". An error means "not yet" too, because a server that is starting or away answers with
/// errors; the last one becomes part of the failure. `what` says what is waited for and completes the sentence
/// "timed out waiting for …".
///
/// # Errors
/// When `timeout` passes first. A check that is still running at that moment is cancelled.
pub async fn eventually<T>(
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last_error = None;
    let mut checks = 0_u64;
    loop {
        let Ok(outcome) = timeout_at(deadline, check()).await else {
            let Some(error) = last_error else {
                bail!(
                    "timed out after {timeout:?} waiting for {what} (check {} did not return)",
                    checks + 1
                );
            };
            return Err(anyhow::Error::context(
                error,
                format!(
                    "timed out after {timeout:?} waiting for {what}, last error (the check after it did not return)"
                ),
            ));
        };
        checks += 1;
        match outcome {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => last_error = None,
            Err(error) => last_error = Some(error),
        }
        if Instant::now() + POLL_INTERVAL >= deadline {
            break;
        }
        sleep(POLL_INTERVAL).await;
    }
    match last_error {
        Some(error) => Err(error.context(format!("timed out after {timeout:?} waiting for {what}, last error"))),
        None => bail!("timed out after {timeout:?} waiting for {what} ({checks} checks: not yet)"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn returns_the_value_once_it_is_there() {
        let mut looks = 0;
        let value = eventually("the third look", Duration::from_secs(30), async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn failure_names_the_condition_and_the_last_error() {
        let error = eventually::<()>("a pig to fly", Duration::from_millis(10), async || {
            Err(anyhow!("still on the ground"))
        })
        .await
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("waiting for a pig to fly"), "{text}");
        assert!(text.contains("still on the ground"), "{text}");
    }

    #[tokio::test]
    async fn a_check_that_hangs_is_cancelled() {
        let error = eventually::<()>("silence", Duration::from_millis(10), async || {
            std::future::pending().await
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("did not return"), "{error}");
    }
}
