//! Processor time of a process and its children.

use anyhow::Context;

/// Ticks of the kernel's clock in a second: `USER_HZ`, 100 on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that a process and its children have used, the children that have ended included.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds_of_family(parent: u32) -> anyhow::Result<f64> {
    let own = Usage::read(parent).with_context(|| format!("process {parent} is gone"))?;
    let processes = std::fs::read_dir("/proc").context("cannot read /proc")?;
    let children = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Usage::read)
        .filter(|usage| usage.parent == parent);
    let ticks = own.ticks + own.ticks_of_ended_children + children.map(|child| child.ticks).sum::<f64>();
    Ok(ticks / TICKS_PER_SECOND)
}

struct Usage {
    parent: u32,
    ticks: f64,
    ticks_of_ended_children: f64,
}

impl Usage {
    /// `None` when the process has ended.
    fn read(process: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The second field is the name in parentheses and may hold spaces. Behind it: state, parent, and from the 12th
        // on utime, stime, cutime, cstime (proc(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks: ticks(11)? + ticks(12)?,
            ticks_of_ended_children: ticks(13)? + ticks(14)?,
        })
    }
}
