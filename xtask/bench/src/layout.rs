//! Figures of the benchmark in tables.

use crate::sheet::Spread;

pub(crate) use xtask_support::table::{grouped, table};

/// A median. `~` says that fewer than two samples were undisturbed.
pub(crate) fn value(spread: Spread, decimals: usize) -> String {
    let mark = if spread.disturbed { "~" } else { "" };
    format!("{mark}{}", grouped(spread.median, decimals))
}

/// A ratio, with the range around its median.
pub(crate) fn times(spread: Spread) -> String {
    let mark = if spread.disturbed { "~" } else { "" };
    format!("{mark}{:.2}× ({:.2}–{:.2})", spread.median, spread.min, spread.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let of = |median, decimals| {
            value(Spread { median, min: 0.0, max: 0.0, disturbed: false }, decimals)
        };
        assert_eq!(of(1_234_567.0, 0), "1,234,567");
        assert_eq!(of(-123.45, 1), "-123.5");
        assert_eq!(of(0.25, 2), "0.25");
    }
}
