use relaypool_spool::*;
use std::collections::VecDeque;
fn main() {
    let dir = std::path::PathBuf::from("/tmp/spool-rec");
    let _ = std::fs::remove_dir_all(&dir);
    let mem: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let n: u32 = std::env::args().nth(2).unwrap().parse().unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let spool = Spool::open(&dir, Options { memtable_bytes: mem << 10, ..Options::default() }).unwrap();
        let mut queue = VecDeque::new();
        for round in 0..n {
            let mut batch = Batch::new();
            let mut id = [0; 32];
            id[..4].copy_from_slice(&round.wrapping_mul(2654435761).to_be_bytes());
            let content = ContentId::new(id);
            batch.add_content(content, vec![1; 20 << 10]).add_slice(NewSlice { id: format!("slice-{round}"), delivery: "newsletter".to_owned(), content, details: Vec::new(), rows: vec![vec![2; 800]; 100] });
            let number = spool.commit(batch).await.unwrap().slices[0].number();
            let mut batch = Batch::new();
            for index in 0..100 { batch.set_state(MessageKey { slice: number, index }, vec![3; 100]); }
            spool.commit(batch).await.unwrap();
            if round % 50 != 0 { queue.push_back(number); }
            if queue.len() > 40 { let mut b = Batch::new(); b.remove_slice(queue.pop_front().unwrap()); spool.commit(b).await.unwrap(); }
            if round % (n / 5) == n / 5 - 1 {
                let o = std::process::Command::new("sh").arg("-c").arg("cd /tmp/spool-rec/queue/database/keyspaces; du -sk 1 2 3 4 | tr '\\n' ' '; for i in 1 2 3 4; do ls $i/tables | wc -l; done | tr '\\n' ' '").output().unwrap();
                println!("{round} {}", String::from_utf8_lossy(&o.stdout));
            }
        }
    });
}
