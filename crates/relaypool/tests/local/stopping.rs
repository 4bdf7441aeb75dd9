//! Runs that are stopped, held back, or cannot begin because another one is under way.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::{count, delivery, pool, rows, simulator};
use super::{accepted, one_delivery, provider, recipients, until};

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
        assert_eq!(
            ended.errors,
            "Error: interrupted: run the same command again to continue\n"
        );
        assert_eq!(ended.status("news")["phase"], "Sending", "{ended}");
        assert!(recipients(&simulator).len() < 300, "it was stopped on its way");
    }
    let status = files.run().await.success().status("news");
    assert_eq!(count(&status, "sent"), 300, "{status:#}");
    assert_eq!(recipients(&simulator).len(), 300);
    assert_eq!(simulator.books().duplicates(), [], "open transactions finish");
}

/// The host sits on every message for ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_get_some_time_unless_there_is_a_second_signal() {
    let (simulator, files) = one_delivery(20, "10m").await;
    let run = files.start();
    until(&simulator, |books| books.transactions_open() > 0).await;
    let asked = Instant::now();
    run.signal("TERM");
    let ended = run.ended().await;
    let took = asked.elapsed().as_secs();
    assert!((15..30).contains(&took), "{took} s: {ended}");
    assert_eq!(ended.exit.code(), Some(1));
    assert!(
        ended
            .errors
            .contains("some transactions did not finish in time and will be repeated"),
        "{ended}"
    );
    assert!(
        ended
            .errors
            .ends_with("Error: interrupted: run the same command again to continue\n"),
        "{ended}"
    );

    // The provider still sits on the transactions of before.
    let abandoned = simulator.books().read(|books| books.transactions_open());
    let run = files.start();
    until(&simulator, |books| books.transactions_open() > abandoned).await;
    let asked = Instant::now();
    let ended = run.insist("INT").await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(ended.exit.code(), Some(1), "{ended}");
    assert_eq!(recipients(&simulator).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_suspended_ends_the_run_with_advice_and_can_be_resumed_or_canceled() {
    let (simulator, files) = one_delivery(40, "50ms").await;
    files.write(
        "other.yaml",
        &delivery("other", "main", &rows(7, "inbox.example"), "  suspend: true\n"),
    );
    let run = files.start();
    accepted(&simulator, 10).await;
    run.signal("INT");
    run.ended().await;

    // One is suspended on its way, the other goes to its end.
    files.replace("3-news.yaml", "  pool: main\n", "  pool: main\n  suspend: true\n");
    files.replace("other.yaml", "suspend: true", "suspend: false");
    let before = simulator.books().accepted().len();
    let ended = files.run().await.success();
    let news = ended.status("news");
    assert_eq!(news["phase"], "Suspended", "{news:#}");
    assert_eq!(ended.status("other")["phase"], "Completed");
    assert_eq!(
        simulator.books().accepted().len(),
        before + 7,
        "nothing of it slipped out"
    );
    let advice = "Delivery news is suspended: take spec.suspend out and run the same command again to continue\n";
    assert_eq!(ended.errors, advice);

    files.replace("3-news.yaml", "suspend: true", "cancel: true");
    let ended = files.run().await.success();
    let canceled = ended.status("news");
    assert_eq!(canceled["phase"], "Canceled", "{canceled:#}");
    assert_eq!(
        count(&canceled, "sent") + count(&canceled, "canceled"),
        40,
        "{canceled:#}"
    );
    assert_eq!(count(&canceled, "sent") as usize, before, "{canceled:#}");
    assert_eq!(simulator.books().accepted().len(), before + 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_not_among_the_files_any_more_is_not_sent() {
    let (simulator, files) = one_delivery(100, "50ms").await;
    let run = files.start();
    accepted(&simulator, 10).await;
    run.signal("TERM");
    run.ended().await;
    let before = simulator.books().accepted().len();
    files.remove("3-news.yaml");
    files.write("other.yaml", &delivery("other", "main", &rows(5, "inbox.example"), ""));
    let ended = files.run().await.success();
    assert_eq!(count(&ended.status("other"), "sent"), 5);
    assert_eq!(simulator.books().accepted().len(), before + 5);
    assert!(
        ended.errors.contains("not among the files") && ended.errors.contains("news"),
        "{ended}"
    );
}

/// Two processes on one spool would send everything twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_belongs_to_one_run_at_a_time() {
    let (simulator, files) = one_delivery(60, "50ms").await;
    let run = files.start();
    accepted(&simulator, 1).await;
    let refusal = files.refusal().await;
    assert!(refusal.contains("spool") && refusal.contains("in use"), "{refusal}");
    run.ended().await.success();
    assert_eq!(simulator.books().duplicates(), []);
}

/// Without them a run could only wait, for as long as its messages are valid.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_lacks_to_go_on_is_said_before_anything_is_sent() {
    let simulator = simulator(json!({ "providers": [provider("inbox", "50ms")] })).await;
    let files = super::support::Files::new();
    files
        .write("1-pool.yaml", &pool("main", "127.0.0.1", &simulator))
        .write(
            "2-key.yaml",
            &super::refusing::key("Ed25519", &super::refusing::ed25519()),
        )
        .write("3-news.yaml", &delivery("news", "main", &rows(60, "inbox.example"), ""));
    let run = files.start();
    accepted(&simulator, 5).await;
    run.signal("TERM");
    run.ended().await;
    let before = simulator.books().accepted().len();

    let signed = std::fs::read_to_string(files.yaml().join("2-key.yaml")).unwrap();
    files.write(
        "2-key.yaml",
        &super::refusing::key("Ed25519", &super::refusing::ed25519()),
    );
    let refusal = files.refusal().await;
    assert!(
        refusal.contains("Delivery news was planned to be signed with s1._domainkey.shop.example"),
        "{refusal}"
    );
    files.write("2-key.yaml", &signed);

    files.replace("1-pool.yaml", "  pool: main\n", "  pool: main\n  suspend: true\n");
    let refusal = files.refusal().await;
    assert!(refusal.contains("Delivery news could only wait"), "{refusal}");
    files.replace("1-pool.yaml", "suspend: true", "suspend: false");

    files.replace("1-pool.yaml", "name: main\n", "name: another\n");
    let refusal = files.refusal().await;
    assert!(
        refusal.contains("Delivery news: there is no RelayPool main"),
        "{refusal}"
    );
    files.replace("1-pool.yaml", "name: another\n", "name: main\n");

    let plan = std::fs::read_dir(files.state().join("plans"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let whole = std::fs::read(&plan).unwrap();
    std::fs::write(&plan, &whole[..whole.len() / 2]).unwrap();
    let refusal = files.refusal().await;
    assert!(
        refusal.contains("is damaged") && refusal.contains(plan.to_str().unwrap()),
        "{refusal}"
    );
    std::fs::write(&plan, whole).unwrap();

    assert_eq!(simulator.books().accepted().len(), before);
    files.run().await.success();
    assert_eq!(recipients(&simulator).len(), 60);
    assert_eq!(simulator.books().duplicates(), []);
}
