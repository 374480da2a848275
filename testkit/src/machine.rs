//! What the machine says about processes and folders (Linux).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::thread::{CpuSet, Pid, sched_setaffinity};

use crate::error::{At, Error};

/// Resident memory of process `id` in octets; 0 if it is gone.
pub fn resident_octets(id: u32) -> u64 {
    status_octets(id, "VmRSS:")
}

/// The most resident memory that process `id` ever had, in octets; 0 if it is gone.
pub fn most_resident_octets(id: u32) -> u64 {
    status_octets(id, "VmHWM:")
}

/// How many files this process may have open at the same time.
pub fn open_files_max() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    soft.unwrap_or(u64::MAX)
}

fn status_octets(id: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// CPU time that process `id` has used, in the kernel too.
pub fn cpu_time(id: u32) -> Duration {
    /// Clock ticks a second, the same on every Linux.
    const TICKS: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name between parentheses may hold spaces; user and system time are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Octets that the files below `folder` take on the disk.
pub fn disk_octets(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_octets(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Keeps this thread on one core; false if that core does not exist.
pub fn pin_to_core(core: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).is_ok()
}

/// Lets all threads of process `id` run on these cores, and those that they will start.
///
/// # Errors
/// When the process is gone or no such core exists. A thread that has ended meanwhile is none.
pub fn allow_cores(id: u32, cores: &[usize]) -> Result<(), Error> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    let place = format!("/proc/{id}/task");
    for task in fs::read_dir(&place).at(&place)? {
        let name = task.at(&place)?.file_name();
        let thread = name.to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        sched_setaffinity(thread, &set)
            .map_err(std::io::Error::from)
            .at(&place)?;
    }
    Ok(())
}

/// Processor, cores, kernel and how busy the machine is, in one line for the head of a table of figures.
pub fn description() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = || {
        processors
            .lines()
            .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
    };
    let name = names().next().map_or("unknown processor", |(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (cores, kernel, load) = (names().count(), kernel.trim(), load_average());
    let warning = if load > 0.5 { ": TOO BUSY, figures are low" } else { "" };
    format!("{cores} x {name}, Linux {kernel}, load average before {load:.1}{warning}")
}

/// Programs that wanted to run during the last minute.
fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}
