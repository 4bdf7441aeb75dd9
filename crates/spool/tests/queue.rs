//! What the spool keeps, and what it refuses.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{add, content_bytes, content_id, intake, message, new_slice, open, set_state};
use relaypool_spool::{
    AddedSlice, Batch, CommitError, MAX_BATCH_BYTES, MAX_NAME_BYTES, Refusal, SliceNumber, SliceRecord, Spool,
};

fn refusal<T: std::fmt::Debug>(result: Result<T, CommitError>) -> Refusal {
    match result {
        Err(CommitError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn rows(spool: &Spool, slice: SliceNumber) -> Vec<(u32, String)> {
    let entries = spool.rows(slice).unwrap().map(|row| row.unwrap());
    entries
        .map(|(key, row)| {
            assert_eq!(key.slice, slice);
            (key.index, String::from_utf8(row).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut slice = new_slice("delivery-7.0", 1, 3);
    slice.details = b"planned".to_vec();
    let mut batch = Batch::new();
    batch.add_content(content_id(1), content_bytes(1)).add_slice(slice);
    let number = spool.commit(batch).await.unwrap().slices[0].number();
    let mut batch = Batch::new();
    batch
        .set_state(message(number, 2), b"sent".to_vec())
        .set_state(message(number, 0), b"waiting".to_vec())
        .set_note("pacer", b"20/s".to_vec())
        .set_slice_details(number, b"running".to_vec());
    spool.commit(batch).await.unwrap();

    for reopened in [false, true] {
        let spool = if reopened {
            spool.clone().close().await.unwrap();
            open(folder.path())
        } else {
            spool.clone()
        };
        let record = SliceRecord {
            number,
            id: "delivery-7.0".to_owned(),
            delivery: "newsletter".to_owned(),
            content: content_id(1),
            rows: 3,
            details: b"running".to_vec(),
        };
        assert_eq!(spool.slices().unwrap(), std::slice::from_ref(&record));
        assert_eq!(spool.slice(number).unwrap(), Some(record));
        assert_eq!(spool.content(&content_id(1)).unwrap(), Some(content_bytes(1)));
        assert_eq!(
            rows(&spool, number),
            (0..3)
                .map(|index| (index, format!("delivery-7.0 row {index}")))
                .collect::<Vec<_>>()
        );
        assert_eq!(
            spool.row(message(number, 1)).unwrap(),
            Some(b"delivery-7.0 row 1".to_vec())
        );
        assert_eq!(spool.row(message(number, 3)).unwrap(), None);
        let states: Vec<_> = spool.states(number).unwrap().map(|state| state.unwrap()).collect();
        assert_eq!(
            states,
            [
                (message(number, 0), b"waiting".to_vec()),
                (message(number, 2), b"sent".to_vec())
            ]
        );
        assert_eq!(spool.state(message(number, 1)).unwrap(), None);
        assert_eq!(spool.note("pacer").unwrap(), Some(b"20/s".to_vec()));
        assert_eq!(spool.note("warm-up").unwrap(), None);
    }
}

#[tokio::test]
async fn a_slice_is_taken_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let number = add(&spool, "a", 1, 2).await;
    spool.commit(set_state(message(number, 0), "sent")).await.unwrap();

    let mut again = new_slice("a", 2, 5);
    again.delivery = "another".to_owned();
    let mut batch = Batch::new();
    batch
        .add_content(content_id(2), content_bytes(2))
        .add_slice(again)
        .add_slice(new_slice("b", 1, 1))
        .add_slice(new_slice("b", 1, 9));
    let slices = spool.commit(batch).await.unwrap().slices;
    let [
        AddedSlice::AlreadyThere(a),
        AddedSlice::Added(b),
        AddedSlice::AlreadyThere(b_again),
    ] = slices[..]
    else {
        panic!("{slices:?}");
    };
    assert_eq!((a, b), (number, b_again));

    let record = spool.slice(number).unwrap().unwrap();
    assert_eq!((record.rows, record.delivery.as_str()), (2, "newsletter"));
    assert_eq!(rows(&spool, number).len(), 2);
    assert_eq!(rows(&spool, b).len(), 1);
    assert_eq!(spool.state(message(number, 0)).unwrap(), Some(b"sent".to_vec()));
    assert_eq!(
        spool.content(&content_id(2)).unwrap(),
        None,
        "no slice came to refer to it"
    );
}

#[tokio::test]
async fn a_content_lives_as_long_as_a_slice_refers_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let first = add(&spool, "first", 1, 1).await;
    let mut batch = Batch::new();
    batch.add_slice(new_slice("second", 1, 1));
    let second = spool.commit(batch).await.unwrap().slices[0].number();

    let mut batch = Batch::new();
    batch.remove_slice(first);
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.content(&content_id(1)).unwrap(), Some(content_bytes(1)));

    let mut batch = Batch::new();
    batch.remove_slice(second);
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.content(&content_id(1)).unwrap(), None);

    let mut batch = Batch::new();
    batch.add_slice(new_slice("third", 1, 1));
    assert_eq!(
        refusal(spool.commit(batch).await),
        Refusal::UnknownContent {
            slice: "third".to_owned(),
            content: content_id(1)
        }
    );
}

#[tokio::test]
async fn a_removed_slice_leaves_nothing_and_its_number_is_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let kept = add(&spool, "kept", 1, 2).await;
    let removed = add(&spool, "removed", 1, 2).await;
    let mut batch = Batch::new();
    batch
        .set_state(message(kept, 1), b"kept".to_vec())
        .set_state(message(removed, 1), b"removed".to_vec());
    spool.commit(batch).await.unwrap();
    let mut batch = Batch::new();
    batch.remove_slice(removed);
    spool.commit(batch).await.unwrap();

    assert_eq!(spool.slices().unwrap().len(), 1);
    assert_eq!(spool.slice(removed).unwrap(), None);
    assert_eq!(rows(&spool, removed), []);
    assert_eq!(spool.states(removed).unwrap().count(), 0);
    assert_eq!(spool.row(message(removed, 0)).unwrap(), None);
    assert_eq!(spool.state(message(removed, 1)).unwrap(), None);
    assert_eq!(rows(&spool, kept).len(), 2);
    assert_eq!(spool.state(message(kept, 1)).unwrap(), Some(b"kept".to_vec()));

    let mut batch = Batch::new();
    batch.remove_slice(removed);
    spool.commit(batch).await.unwrap();
    spool.close().await.unwrap();
    let spool = open(folder.path());
    let again = add(&spool, "removed", 1, 1).await;
    assert!(again > removed, "{again} after {removed}");
    assert_eq!(spool.states(again).unwrap().count(), 0);
}

#[tokio::test]
async fn a_refused_batch_changes_nothing_and_spares_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let number = add(&spool, "a", 1, 2).await;
    let unknown = SliceNumber::new(99);
    let bad = |change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        batch
            .set_note("spoiled", vec![1])
            .set_state(message(number, 0), b"spoiled".to_vec())
            .add_content(content_id(2), content_bytes(2))
            .add_slice(new_slice("spoiled", 2, 3))
            .remove_note("kept");
        change(&mut batch);
        batch
    };
    let unknown_slice = |batch: &mut Batch| {
        batch.set_state(message(unknown, 0), vec![1]);
    };
    let unknown_message = |batch: &mut Batch| {
        batch.set_state(message(number, 2), vec![1]);
    };
    let details_of_unknown_slice = |batch: &mut Batch| {
        batch.set_slice_details(unknown, vec![1]);
    };
    let removed_slice = |batch: &mut Batch| {
        batch.remove_slice(number).set_state(message(number, 0), vec![1]);
    };
    let unknown_content = |batch: &mut Batch| {
        batch.add_slice(new_slice("b", 9, 1));
    };
    let too_long = "n".repeat(MAX_NAME_BYTES + 1);
    let long_id = |batch: &mut Batch| {
        batch.add_slice(new_slice(&too_long, 1, 1));
    };
    let long_note = |batch: &mut Batch| {
        batch.set_note(&too_long, vec![1]);
    };
    let cases = [
        (bad(&unknown_slice), Refusal::UnknownSlice(unknown)),
        (bad(&unknown_message), Refusal::UnknownMessage(message(number, 2), 2)),
        (bad(&details_of_unknown_slice), Refusal::UnknownSlice(unknown)),
        (bad(&removed_slice), Refusal::UnknownSlice(number)),
        (
            bad(&unknown_content),
            Refusal::UnknownContent {
                slice: "b".to_owned(),
                content: content_id(9),
            },
        ),
        (bad(&long_id), Refusal::NameTooLong(MAX_NAME_BYTES + 1)),
        (bad(&long_note), Refusal::NameTooLong(MAX_NAME_BYTES + 1)),
    ];
    for (bad, expected) in cases {
        let mut good = Batch::new();
        good.set_note("kept", b"kept".to_vec())
            .set_state(message(number, 0), b"good".to_vec());
        let good = spool.submit(good).await;
        let bad = spool.submit(bad).await;
        let after = spool.submit(set_state(message(number, 1), "after")).await;
        good.await.unwrap();
        assert_eq!(refusal(bad.await), expected);
        after.await.unwrap();

        assert_eq!(spool.slices().unwrap().len(), 1);
        assert_eq!(spool.note("spoiled").unwrap(), None);
        assert_eq!(spool.note("kept").unwrap(), Some(b"kept".to_vec()));
        assert_eq!(spool.content(&content_id(2)).unwrap(), None);
        assert_eq!(spool.state(message(number, 0)).unwrap(), Some(b"good".to_vec()));
        assert_eq!(spool.state(message(number, 1)).unwrap(), Some(b"after".to_vec()));
    }
    assert_eq!(spool.statistics().refusals, 7);
}

#[tokio::test]
async fn names_and_batches_have_a_largest_size() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let longest = "n".repeat(MAX_NAME_BYTES);
    let mut batch = intake(&longest, 1, 1);
    batch.set_note(&longest, vec![1]);
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.note(&longest).unwrap(), Some(vec![1]));
    assert_eq!(spool.slices().unwrap()[0].id, longest);

    let mut batch = Batch::new();
    batch.set_note("large", vec![7; MAX_BATCH_BYTES]);
    let bytes = batch.bytes();
    assert_eq!(refusal(spool.commit(batch).await), Refusal::TooLarge(bytes));

    // Larger than the queue: it goes alone.
    let mut batch = Batch::new();
    batch.set_note("large", vec![7; 32 << 20]);
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.note("large").unwrap().map(|note| note.len()), Some(32 << 20));
}

#[tokio::test]
async fn many_slices_are_removed_in_bounded_steps() {
    const ROWS: u32 = 27_000;
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut numbers = Vec::new();
    for index in 0..5 {
        numbers.push(add(&spool, &format!("slice-{index}"), 1, ROWS).await);
    }
    let mut all = Batch::new();
    for number in &numbers {
        all.remove_slice(*number);
    }
    assert_eq!(refusal(spool.commit(all).await), Refusal::TooManyChanges);
    assert_eq!(spool.slices().unwrap().len(), 5);

    let mut commits = Vec::new();
    let groups = spool.statistics().groups;
    for number in &numbers {
        let mut batch = Batch::new();
        batch.remove_slice(*number);
        commits.push(spool.submit(batch).await);
    }
    for commit in commits {
        commit.await.unwrap();
    }
    assert_eq!(
        spool.statistics().groups - groups,
        5,
        "each is as large as a group may be"
    );
    assert_eq!(spool.slices().unwrap(), []);
    assert!(numbers.iter().all(|number| rows(&spool, *number).is_empty()));

    let slice = new_slice("too many", 1, 140_000);
    let mut batch = Batch::new();
    batch.add_content(content_id(1), content_bytes(1)).add_slice(slice);
    assert_eq!(refusal(spool.commit(batch).await), Refusal::TooManyChanges);
}

#[tokio::test]
async fn slices_come_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut commits = Vec::new();
    for index in 0..600 {
        commits.push(spool.submit(intake(&format!("slice-{index}"), 1, 1)).await);
    }
    let mut numbers = Vec::new();
    for commit in commits {
        numbers.push(commit.await.unwrap().slices[0].number());
    }
    assert!(numbers.is_sorted());
    let slices = spool.slices().unwrap();
    assert_eq!(slices.iter().map(|slice| slice.number).collect::<Vec<_>>(), numbers);
    assert!((0..600).all(|index| slices[index].id == format!("slice-{index}")));
}

#[tokio::test]
async fn a_scan_shows_the_moment_at_which_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let number = add(&spool, "a", 1, 1_000).await;
    let mut scan = spool.rows(number).unwrap();
    assert!(scan.next().unwrap().is_ok());
    let mut batch = Batch::new();
    batch.remove_slice(number);
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.rows(number).unwrap().count(), 0);
    assert_eq!(scan.filter(|row| row.is_ok()).count(), 999);
}

#[tokio::test]
async fn free_space_is_that_of_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let output = std::process::Command::new("df")
        .args(["--output=avail", "--block-size=1"])
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let expected: u64 = text.lines().nth(1).unwrap().trim().parse().unwrap();
    // Others use the disk as well: equal to within a gibibyte.
    assert!(spool.free_space().unwrap().abs_diff(expected) < 1 << 30);
}

#[tokio::test]
async fn notes_are_found_by_the_start_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut batch = Batch::new();
    batch.add_content(content_id(1), content_bytes(1));
    batch.add_slice(new_slice("lane/", 1, 1));
    for name in ["lane/b", "lane/a", "lane", "lanes/a", "Lane/a", "warm-up/a"] {
        batch.set_note(name, name.as_bytes().to_vec());
    }
    spool.commit(batch).await.unwrap();
    let names = |prefix: &str| {
        let notes = spool.notes(prefix).unwrap().map(Result::unwrap);
        notes
            .inspect(|(name, value)| assert_eq!(name.as_bytes(), value))
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names("lane/"), ["lane/a", "lane/b"]);
    assert_eq!(names("nothing"), [""; 0]);
    assert_eq!(names("").len(), 6);

    let before = spool.notes("lane/").unwrap();
    let mut batch = Batch::new();
    batch.remove_note("lane/a");
    spool.commit(batch).await.unwrap();
    assert_eq!(names("lane/"), ["lane/b"]);
    assert_eq!(before.count(), 2, "as it was when the iterator was made");
}
