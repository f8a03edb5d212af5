//! Memory: how much something takes is reckoned before it is taken, for an allocation that fails
//! ends the process.

use std::fs::read_to_string;

use crate::{Error, Result};

/// What is not worth a look at how much there is.
const SMALL: u128 = 1 << 28;

/// The product of sizes, which no integer overflows.
pub fn product(sizes: &[usize]) -> u128 {
    sizes.iter().fold(1u128, |all, &n| all.saturating_mul(n as u128))
}

/// Refuses what takes more bytes than there are.
///
/// # Errors
/// [`Error::Config`] with both numbers.
pub fn check(bytes: u128, what: impl FnOnce() -> String) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    let most = available();
    if bytes <= most {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{} needs {bytes} bytes of memory, but only {most} are available: make it smaller",
        what()
    )))
}

/// The bytes that the process may still take, by what the operating system tells; all of them where
/// it tells nothing.
fn available() -> u128 {
    let free = field("/proc/meminfo", "MemAvailable:").map(|kib| kib << 10);
    let group = group_left();
    let limit = field("/proc/self/limits", "Max address space");
    let space = limit
        .map(|most| most.saturating_sub(field("/proc/self/status", "VmSize:").unwrap_or(0) << 10));
    let most = isize::MAX as u128;
    [free, group, space].into_iter().flatten().fold(most, u128::min)
}

/// What the control group of the process may still take.
fn group_left() -> Option<u128> {
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u128>().ok();
    let most = number("/sys/fs/cgroup/memory.max")?;
    Some(most.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)))
}

/// The first number after a name in a file of the operating system.
fn field(path: &str, name: &str) -> Option<u128> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_in_bytes() {
        assert!(check(SMALL - 1, String::new).is_ok());
        let error = check(u128::MAX, || "the map".into()).expect_err("too much").to_string();
        assert!(
            error.contains("the map needs") && error.contains(&u128::MAX.to_string()),
            "{error}"
        );
        assert_eq!(product(&[usize::MAX; 4]), u128::MAX);
        assert!(check(product(&[usize::MAX, usize::MAX]), || "it".into()).is_err());
    }
}
