//! Runs that are stopped, held back, or cannot begin because another one is under way.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::{count, delivery, pool, rows, simulator};
use super::{accepted, one_delivery, provider, recipients};

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_a_run_and_the_next_one_continues() {
    let (simulator, files) = one_delivery(300, "20ms").await;
    for (signal, messages) in [("TERM", 30), ("INT", 120)] {
        let run = files.start();
        accepted(&simulator, messages).await;
        let asked = Instant::now();
        run.signal(signal);
        let ended = run.ended().await;
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        assert_eq!(ended.exit.code(), Some(1), "{ended}");
        assert_eq!(ended.errors, "Error: interrupted: run the same command again to continue\n");
        assert_eq!(ended.status("news")["phase"], "Sending", "{ended}");
        assert!(recipients(&simulator).len() < 300, "it was stopped on its way");
    }
    let status = files.run().await.success().status("news");
    assert_eq!(count(&status, "sent"), 300, "{status:#}");
    assert_eq!(recipients(&simulator).len(), 300);
    assert_eq!(simulator.books().duplicates(), [], "open transactions finish");
}

/// The host sits on every message for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_get_some_time_and_a_second_signal_ends_that() {
    let (simulator, files) = one_delivery(20, "60s").await;
    for (signals, least, most) in [(1, 15, 30), (2, 0, 10)] {
        let run = files.start();
        simulator.books().wait_until(|books| books.transactions_open() > 0).await;
        run.signal("INT");
        let asked = Instant::now();
        if signals == 2 {
            // Sent again until it is felt: the first one may still be on its way to the program.
            let again = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    run.signal("INT");
                }
            };
            tokio::pin!(again);
        }
        let ended = run.ended().await;
        let took = asked.elapsed().as_secs();
        assert!((least..most).contains(&took), "{took} s: {ended}");
        assert_eq!(ended.exit.code(), Some(1));
        simulator.books().wait_until(|books| books.open_connections() == 0).await;
    }
}
