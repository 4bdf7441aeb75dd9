use relaypool_spool::*;
use std::time::Instant;
fn rss() -> String {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("RssAnon")).collect::<Vec<_>>().join(" ")
}
fn du(p: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut t = 0;
    for e in std::fs::read_dir(p).into_iter().flatten().flatten() {
        let Ok(m) = e.metadata() else { continue };
        if m.is_dir() { t += du(&e.path()) } else { t += m.blocks() * 512 }
    }
    t
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let keep: usize = a[1].parse().unwrap();
    let total: u64 = a[2].parse().unwrap();
    let dir = std::path::PathBuf::from("/work/main/target/spool-churn");
    let _ = std::fs::remove_dir_all(&dir);
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async {
        let spool = Spool::open(&dir, Options { memtable_bytes: a[3].parse::<usize>().unwrap() << 20, ..Options::default() }).unwrap();
        let mut live = std::collections::VecDeque::new();
        let t0 = Instant::now();
        for s in 0..total {
            let mut b = Batch::new();
            let mut id = [0; 32]; id[..8].copy_from_slice(&s.to_be_bytes());
            let c = ContentId::new(id);
            b.add_content(c, vec![s as u8; 20_000]);
            b.add_slice(NewSlice { id: format!("s{s}"), delivery: "d".into(), content: c, details: vec![0; 100], rows: vec![vec![7; 300]; 1000] });
            let n = spool.commit(b).await.unwrap().slices[0].number();
            live.push_back(n);
            for round in 0..3u8 {
                let mut w = vec![];
                for i in 0..1000 {
                    let mut b = Batch::new();
                    b.set_state(MessageKey { slice: n, index: i }, vec![round; 100]);
                    w.push(spool.submit(b).await);
                }
                for w in w { w.await.unwrap(); }
            }
            if live.len() > keep {
                let mut b = Batch::new();
                b.remove_slice(live.pop_front().unwrap());
                spool.commit(b).await.unwrap();
            }
            if s % (total / 3) == total / 3 - 1 {
                let k = dir.join("queue/database/keyspaces");
                println!("{s}: {:.1}s disk {} MB, tables {} MB, live about {} MB {}", t0.elapsed().as_secs_f64(), du(&dir) >> 20, du(&k) >> 20, live.len() * 420_000 >> 20, rss());
            }
        }
        let cpu = { let s = std::fs::read_to_string("/proc/self/stat").unwrap(); let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect(); (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0 };
        println!("cpu {cpu} s = {:.1} us/message", cpu * 1e3 / total as f64);
        spool.close().await.unwrap();
        let t = Instant::now();
        let s = Spool::open(&dir, Options::default()).unwrap();
        println!("open {:?} {} {}", t.elapsed(), s.slices().unwrap().len(), rss());
    });
}
