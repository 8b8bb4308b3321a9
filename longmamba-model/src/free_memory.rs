//! How much memory a process may still take.

use std::fs;

/// Free memory in bytes: what the system says is available, or the limit of the container where that is less.
/// `None` where it is not known.
pub(crate) fn bytes() -> Option<u64> {
    let available = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = limits.iter().filter_map(|path| fs::read_to_string(path).ok());
    // The first is "max" where there is no limit.
    Some(limits.filter_map(|text| text.trim().parse().ok()).fold(available, u64::min))
}

/// Whether something of so many bytes takes at most half of what is free.
pub(crate) fn fits(bytes: u64, free: Option<u64>) -> bool {
    free.is_some_and(|free| bytes <= free / 2)
}

/// What `/proc/meminfo` says of it.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_nothing_else_is_taken_for_it() {
        let meminfo = "MemTotal:       24683600 kB\nMemAvailable:   23860020 kB\n";
        assert_eq!(available(meminfo), Some(23_860_020 * 1024));
        for other in
            ["", "MemTotal: 1 kB", "MemAvailable: 1 MB", "MemAvailable: -1 kB", "MemAvailable:"]
        {
            assert_eq!(available(other), None, "{other}");
        }
        let huge = format!("MemAvailable: {} kB", u64::MAX);
        assert_eq!(available(&huge), None);
    }

    #[test]
    fn half_of_what_is_free_fits_and_no_more() {
        assert!(fits(50, Some(100)) && fits(0, Some(0)) && fits(u64::MAX / 2, Some(u64::MAX)));
        assert!(!fits(51, Some(101)) && !fits(1, Some(1)) && !fits(0, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_says_it() {
        assert!(bytes().is_some_and(|free| free > 0));
    }
}
