//! Which processors there are to use, and pinning a thread to one of them.
//!
//! A container's share of processors is usually a cgroup quota, which the affinity mask doesn't show.

use std::fs;
use std::path::{Path, PathBuf};

/// The processors the calling thread may run on. To be asked before any thread is pinned: it reads the caller's own mask.
pub fn available() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// As many reactors as there are processors to use: the affinity mask or the cgroup's quota, whichever is less; at least 1.
pub fn default_reactors() -> usize {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    reactors(available().len(), quota(Path::new("/sys/fs/cgroup"), &membership))
}

/// Pins the calling thread to one processor, and says whether the kernel agreed. Threads it starts inherit the pin.
pub fn pin(core: usize) -> bool {
    core < libc::CPU_SETSIZE as usize && core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

fn reactors(processors: usize, quota: Option<usize>) -> usize {
    processors.min(quota.unwrap_or(usize::MAX)).max(1)
}

/// The least quota of the cgroups of a process and those above them, in processors, rounded up.
fn quota(root: &Path, membership: &str) -> Option<usize> {
    membership.lines().filter_map(controller).flat_map(|(unified, path)| quotas(root, unified, path)).min()
}

/// `hierarchy:controllers:path` (cgroups(7)): whether it is the unified hierarchy, and the path, if it can hold a quota.
fn controller(line: &str) -> Option<(bool, &str)> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let unified = number == "0" && controllers.is_empty();
    (unified || controllers.split(',').any(|name| name == "cpu")).then_some((unified, path))
}

/// The quotas of a cgroup and its ancestors. Where the path isn't visible (a container without a cgroup namespace),
/// what is mounted at the root is the container's own.
fn quotas(root: &Path, unified: bool, path: &str) -> Vec<usize> {
    let root = if unified { root.to_path_buf() } else { root.join("cpu") };
    let below = PathBuf::from(path.trim_start_matches('/'));
    below.ancestors().filter_map(|ancestor| quota_of(&root.join(ancestor), unified)).collect()
}

fn quota_of(directory: &Path, unified: bool) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    if unified {
        return parse_quota(&read("cpu.max")?);
    }
    parse_quota(&format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()))
}

/// `quota period` in microseconds, as processors rounded up; `None` for `max` and for -1: no limit.
fn parse_quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    if period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period).max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_processors_rounded_up() {
        let check = |text: &str, expected: Option<usize>| assert_eq!(parse_quota(text), expected, "{text:?}");
        check("max 100000\n", None);
        check("-1 100000", None);
        check("150000 100000\n", Some(2));
        check("100000 100000\n", Some(1));
        check("1000 100000\n", Some(1));
        check("100001 100000", Some(2));
        check("100000 0", None);
        check("", None);
        check("lots of", None);
    }

    #[test]
    fn the_lines_that_can_hold_a_quota() {
        let check = |line: &str, expected: Option<(bool, &str)>| assert_eq!(controller(line), expected, "{line:?}");
        check("0::/user.slice/x:y", Some((true, "/user.slice/x:y")));
        check("4:cpu,cpuacct:/docker/a", Some((false, "/docker/a")));
        check("5:cpuset:/", None);
        check("1:name=systemd:/init", None);
        check("nonsense", None);
    }

    #[test]
    fn the_least_quota_of_the_ancestors_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("cpu.max"), "max 100000\n").unwrap();
        fs::write(root.path().join("a/cpu.max"), "250000 100000\n").unwrap();
        assert_eq!(quota(root.path(), "0::/a/b\n"), Some(3));
        assert_eq!(quota(root.path(), "0::/elsewhere\n"), None);
        let legacy = root.path().join("cpu");
        fs::create_dir_all(&legacy).unwrap();
        fs::write(legacy.join("cpu.cfs_quota_us"), "50000\n").unwrap();
        fs::write(legacy.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota(root.path(), "3:cpu,cpuacct:/docker/not-visible\n0::/a/b\n"), Some(1));
    }

    #[test]
    fn reactors_never_exceed_processors_nor_fall_below_one() {
        let check = |processors, quota, expected| assert_eq!(reactors(processors, quota), expected);
        check(8, None, 8);
        check(8, Some(2), 2);
        check(2, Some(8), 2);
        check(0, None, 1);
    }

    #[test]
    fn a_thread_can_be_pinned_to_what_is_available_only() {
        let cores = available();
        assert!(default_reactors() <= cores.len());
        let pinned = std::thread::spawn(move || (pin(cores[0]), available() == [cores[0]], pin(usize::MAX)));
        assert_eq!(pinned.join().unwrap(), (true, true, false));
    }
}
