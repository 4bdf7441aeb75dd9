//! Runs that come to their end, in one piece or in several.

use serde_json::{Value, json};

use super::support::{Files, count, delivery, pool, relaypool, rows, simulator};
use super::{CONNECTIONS, accepted, one_delivery, provider, recipients};

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_run_says_so_and_is_not_repeated() {
    let (simulator, files) = one_delivery(0, "0s").await;
    let mut list = rows(50, "inbox.example");
    list.extend(
        [
            "user3@INBOX.example,Twice",
            "nonsense,No one",
            "lost@nowhere.example,Lost",
        ]
        .map(str::to_owned),
    );
    files.write("3-news.yaml", &delivery("news", "main", &list, ""));

    let first = files.run().await.success();
    assert_eq!(first.errors, "");
    let status = first.status("news");
    assert_eq!(status["phase"], "Completed", "{status:#}");
    let counts = ["total", "sent", "failed", "ignored"].map(|part| count(&status, part));
    assert_eq!(counts, [53, 50, 1, 2], "{status:#}");
    assert_eq!(recipients(&simulator).len(), 50);
    let beginning = "---\napiVersion: relaypool.dev/v1alpha1\nkind: Delivery\n";
    assert!(first.output.starts_with(beginning), "{first}");

    let books = simulator.books().summary();
    let again = files.run().await.success().status("news");
    for part in [
        "phase",
        "counts",
        "success",
        "reasons",
        "messages",
        "plan",
        "startedAt",
        "completedAt",
    ] {
        assert_eq!(again[part], status[part], "{part}: {again:#}");
    }
    assert_eq!(simulator.books().summary(), books, "no connection, no message");

    // The same as JSON, specs and all.
    let mut command = relaypool();
    command.args(["local", "--json", "--file"]).arg(files.yaml());
    let output = command.arg("--state").arg(files.state()).output().await.unwrap();
    let deliveries: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(deliveries[0]["status"]["counts"], status["counts"]);
    assert_eq!(deliveries[0]["spec"]["pool"], "main");
}

/// At each moment of a kill, at most two messages of each open connection are done and not recorded.
#[tokio::test(flavor = "multi_thread")]
async fn killed_runs_lose_nothing_and_repeat_little() {
    let (simulator, files) = one_delivery(600, "20ms").await;
    let mut kills = 0;
    for messages in [0, 60, 200, 400] {
        let mut run = files.start();
        accepted(&simulator, messages).await;
        run.kill9();
        let ended = run.ended().await;
        assert_eq!(ended.exit.code(), None, "ended by itself: {ended}");
        kills += 1;
    }
    let status = files.run().await.success().status("news");

    assert_eq!(count(&status, "sent"), 600, "{status:#}");
    assert_eq!(recipients(&simulator).len(), 600, "nothing is lost");
    let repeats = simulator.books().duplicates().len();
    assert!(repeats <= 2 * CONNECTIONS * kills, "{repeats} messages were repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pools_send_from_their_own_addresses_by_their_own_policies() {
    let world = json!({ "providers": [provider("inbox", "50ms"), provider("other", "0s")] });
    let simulator = simulator(world).await;
    let policy = "kind: MxPolicy\nmetadata: { name: narrow }\nspec:\n  pools: [slow]\n  match: { domains: ['*'] }\n  limits: { maxConnections: 2 }\n";
    let files = Files::new();
    files
        .write("fast.yaml", &pool("fast", "127.0.0.1", &simulator))
        .write("slow.yml", &pool("slow", "127.0.0.2", &simulator))
        .write("policy.yaml", policy)
        .write("news.yaml", &delivery("news", "fast", &rows(60, "inbox.example"), ""))
        .write(
            "offers.yaml",
            &delivery("offers", "slow", &rows(20, "other.example"), ""),
        );
    files.write("both.yaml", &delivery("both", "slow", &rows(40, "inbox.example"), ""));
    let ended = files.run().await.success();
    for (name, sent) in [("news", 60), ("offers", 20), ("both", 40)] {
        assert_eq!(count(&ended.status(name), "sent"), sent, "{ended}");
    }
    let from = |address: &str, provider: &str| {
        let accepted = simulator.books().accepted();
        let fitting = accepted.iter().filter(|message| message.source.to_string() == address);
        fitting.filter(|message| &*message.provider == provider).count()
    };
    assert_eq!((from("127.0.0.1", "inbox"), from("127.0.0.1", "other")), (60, 0));
    assert_eq!((from("127.0.0.2", "inbox"), from("127.0.0.2", "other")), (40, 20));
    let at_once = |address: &str| {
        let source = address.parse().unwrap();
        simulator.books().read(|books| books.highest_open("inbox", source))
    };
    assert!(at_once("127.0.0.2") <= 2, "the policy is for this pool");
    assert!(at_once("127.0.0.1") > 2, "and not for that one");
}

/// Other providers, names and so on make no difference to a plan that is made: messages of one run are all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_begun_goes_on_as_planned_and_another_run_id_makes_another() {
    let (simulator, files) = one_delivery(5, "0s").await;
    files.run().await.success();
    files.replace("3-news.yaml", "good day", "good night");
    let status = files.run().await.success().status("news");
    let conditions = status["conditions"].as_array().unwrap();
    let changed = conditions.iter().find(|condition| condition["type"] == "NotInEffect");
    assert_eq!(changed.unwrap()["reason"], "ChangedAfterStart", "{status:#}");
    assert_eq!(simulator.books().accepted().len(), 5);

    files.replace(
        "3-news.yaml",
        "  pool: main\n",
        "  pool: main\n  runId: second/../run\n",
    );
    let status = files.run().await.success().status("news");
    assert_eq!(count(&status, "sent"), 5, "{status:#}");
    let contents = simulator.books().accepted();
    assert_eq!(contents.len(), 10);
    let text = String::from_utf8_lossy(contents[9].content.as_deref().unwrap()).into_owned();
    assert!(text.contains("good night"), "{text}");
}
