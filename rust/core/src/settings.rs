//! Range checks of settings, with one wording for all of them.

use crate::{Error, Result};

fn refuse<R>(name: &str, range: &str, got: impl std::fmt::Display) -> Result<R> {
    Err(Error::Config(format!("{name} must be {range}, got {got}")))
}

/// Refuses what is not a positive, finite number.
pub(crate) fn positive(name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { refuse(name, "a positive number", value) }
}

/// Refuses what is negative or not finite.
pub(crate) fn at_least_zero(name: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        Ok(())
    } else {
        refuse(name, "at least 0 and finite", value)
    }
}

/// Refuses zero and what is not finite.
pub(crate) fn nonzero(name: &str, value: f64) -> Result<()> {
    if value != 0.0 && value.is_finite() {
        Ok(())
    } else {
        refuse(name, "a finite number other than 0", value)
    }
}

/// Refuses what is not in (0, 1].
pub(crate) fn fraction(name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value <= 1.0 { Ok(()) } else { refuse(name, "in (0, 1]", value) }
}

/// Refuses what is not in [0, 1].
pub(crate) fn share(name: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { refuse(name, "a fraction in [0, 1]", value) }
}

/// Refuses what is not in [0, 1).
pub(crate) fn below_one(name: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { refuse(name, "in [0, 1)", value) }
}

/// Refuses a number that is below the least one.
pub(crate) fn at_least(name: &str, value: u32, least: u32) -> Result<()> {
    if value >= least { Ok(()) } else { refuse(name, &format!("at least {least}"), value) }
}

/// Refuses a number that is above the largest one.
pub(crate) fn at_most(name: &str, value: u32, largest: u32) -> Result<()> {
    if value <= largest { Ok(()) } else { refuse(name, &format!("at most {largest}"), value) }
}

/// Refuses numbers of bits that no converter has; `None`: there is none.
pub(crate) fn converter_bits(name: &str, bits: Option<u32>) -> Result<()> {
    match bits {
        Some(bits) if !(1..=24).contains(&bits) => refuse(name, "from 1 to 24", bits),
        _ => Ok(()),
    }
}

/// Refuses sizes that are zero.
pub(crate) fn at_least_one(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, n)| *n == 0) {
        Some((name, _)) => refuse(name, "at least 1", 0),
        None => Ok(()),
    }
}

/// A number in few digits, rounded up: what is enough stays so.
pub(crate) fn at_least_brief(value: f64) -> String {
    let enough = value * (1.0 + 1e-4);
    if (1e-2..1e5).contains(&enough) {
        format!("{enough:.4}").trim_end_matches('0').trim_end_matches('.').into()
    } else {
        format!("{enough:.3e}")
    }
}

/// The same, rounded down.
pub(crate) fn at_most_brief(value: f64) -> String {
    at_least_brief(value * (1.0 - 3e-4))
}
