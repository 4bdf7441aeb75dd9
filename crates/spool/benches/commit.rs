//! Commits of a 300-byte state, by one task and by fifty at once. Every commit is waited for: this is the time until it
//! is on disk.

#![allow(missing_docs)] // criterion's macros make public functions
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relaypool_spool::{Batch, ContentId, MessageKey, NewSlice, Options, SliceNumber, Spool};
use tokio::runtime::Runtime;

const MESSAGES: u32 = 10_000;

fn commits(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("commit of 300 bytes");
    group.measurement_time(Duration::from_secs(10)).sample_size(20);
    for tasks in [1, 50] {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Options::default()).unwrap();
        let slice = runtime.block_on(take_in(&spool));
        group.throughput(Throughput::Elements(u64::from(tasks)));
        group.bench_with_input(BenchmarkId::new("tasks", tasks), &tasks, |bencher, tasks| {
            bencher.iter_custom(|rounds| runtime.block_on(commit_from(&spool, slice, *tasks, rounds)));
        });
        runtime.block_on(spool.close()).unwrap();
    }
}

async fn take_in(spool: &Spool) -> SliceNumber {
    let content = ContentId::new([0; 32]);
    let mut batch = Batch::new();
    batch.add_content(content, vec![0; 1_000]).add_slice(NewSlice {
        id: "slice".to_owned(),
        delivery: "delivery".to_owned(),
        content,
        details: Vec::new(),
        rows: vec![vec![0; 300]; MESSAGES as usize],
    });
    spool.commit(batch).await.unwrap().slices[0].number()
}

/// The time in which each of the tasks commits this many times, one after another.
async fn commit_from(spool: &Spool, slice: SliceNumber, tasks: u32, rounds: u64) -> Duration {
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let spool = spool.clone();
            tokio::spawn(async move {
                for round in 0..rounds {
                    let index = (u64::from(task) * 200 + round) % u64::from(MESSAGES);
                    let key = MessageKey {
                        slice,
                        index: index as u32,
                    };
                    let mut batch = Batch::new();
                    batch.set_state(key, vec![round as u8; 300]);
                    spool.commit(batch).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    start.elapsed()
}

criterion_group!(benches, commits);
criterion_main!(benches);
