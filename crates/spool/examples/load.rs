use relaypool_spool::*;
use std::time::{Duration, Instant};
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn rss() -> String {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("RssAnon")).collect::<Vec<_>>().join(" ")
}
fn du(p: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut t = 0;
    for e in std::fs::read_dir(p).unwrap().flatten() {
        let Ok(m) = e.metadata() else { continue };
        if m.is_dir() { t += du(&e.path()) } else { t += m.blocks() * 512 }
    }
    t
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let rate: f64 = a[1].parse().unwrap();
    let tasks: u64 = a[2].parse().unwrap();
    let secs: u64 = a[3].parse().unwrap();
    let interval: u64 = a[4].parse().unwrap();
    let mem: usize = a[5].parse().unwrap();
    let size: usize = a[6].parse().unwrap();
    let noop = a.len() > 7;
    let dir = std::path::PathBuf::from("/work/main/target/spool-load");
    let _ = std::fs::remove_dir_all(&dir);
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async {
        let spool = Spool::open(&dir, Options { group_interval: Duration::from_micros(interval), memtable_bytes: mem << 20, ..Options::default() }).unwrap();
        let mut slices = vec![];
        for s in 0..200u64 {
            let mut b = Batch::new();
            let c = ContentId::new([s as u8; 32]);
            b.add_content(c, vec![1; 1000]);
            b.add_slice(NewSlice { id: format!("s{s}"), delivery: "d".into(), content: c, details: vec![0; 100], rows: vec![vec![7; 300]; 1000] });
            slices.push(spool.commit(b).await.unwrap().slices[0].number());
        }
        let before = spool.statistics();
        let c0 = cpu();
        let t0 = Instant::now();
        let mut js = vec![];
        for t in 0..tasks {
            let spool = spool.clone();
            let slices = slices.clone();
            js.push(tokio::spawn(async move {
                let mut n = 0u64;
                let mut lat = vec![];
                let period = Duration::from_secs_f64(if rate > 0.0 { tasks as f64 / rate } else { 0.0 });
                let mut next = t0 + period.mul_f64(t as f64 / tasks as f64);
                while t0.elapsed() < Duration::from_secs(secs) {
                    if rate > 0.0 { tokio::time::sleep_until(next.into()).await; next += period; }
                    let k = n * tasks + t;
                    let mut b = Batch::new();
                    b.set_state(MessageKey { slice: slices[(k / 1000 % 200) as usize], index: (k % 1000) as u32 }, vec![k as u8; size]);
                    let s = Instant::now();
                    if !noop { spool.commit(b).await.unwrap(); }
                    lat.push(s.elapsed().as_micros() as u32);
                    n += 1;
                }
                lat
            }));
        }
        let mut lat = vec![];
        for j in js { lat.extend(j.await.unwrap()); }
        let el = t0.elapsed().as_secs_f64();
        let c = cpu() - c0;
        lat.sort();
        let st = spool.statistics();
        let n = lat.len();
        println!("rate {rate} tasks {tasks} interval {interval} mem {mem}M size {size}: {:.0}/s groups {:.0}/s cpu {:.1}us/commit ({:.0}% core) p50 {} p99 {} p999 {} max {} us | {} | disk {} MB", n as f64 / el, (st.groups - before.groups) as f64 / el, c * 1e6 / n as f64, c / el * 100.0, lat[n/2], lat[n*99/100], lat[n*999/1000], lat[n-1], rss(), du(&dir) >> 20);
        let t = Instant::now();
        spool.close().await.unwrap();
        println!("close {:?}", t.elapsed());
        let t = Instant::now();
        let spool = Spool::open(&dir, Options::default()).unwrap();
        println!("open {:?} slices {}", t.elapsed(), spool.slices().unwrap().len());
    });
}
