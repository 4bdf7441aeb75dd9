//! Processor time of this process.

use anyhow::Context;

/// Ticks of the kernel's clock in a second: `USER_HZ`, 100 on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time, user and system, that this process has used so far.
pub fn seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The second field is the name in parentheses and may hold spaces; utime and stime are the 12th and 13th behind it.
    let behind_name = stat.rsplit_once(')').context("unexpected /proc/self/stat")?.1;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks: f64 = fields
        .get(11..13)
        .context("unexpected /proc/self/stat")?
        .iter()
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS_PER_SECOND)
}
