//! Lines of five numbers, as `ipvsadm -Ln --stats` and `--rate` print them.

use std::fmt::Write as _;

use crate::control::api::{RealStatus, TrafficRates, TrafficTotals};

/// Connections, packets in and out, bytes in and out.
pub(super) struct Numbers([u64; 5]);

impl From<&TrafficTotals> for Numbers {
    fn from(it: &TrafficTotals) -> Self {
        Self([
            it.connections,
            it.packets_in,
            it.packets_out,
            it.bytes_in,
            it.bytes_out,
        ])
    }
}

impl From<&TrafficRates> for Numbers {
    fn from(it: &TrafficRates) -> Self {
        Self([
            it.connections,
            it.packets_in,
            it.packets_out,
            it.bytes_in,
            it.bytes_out,
        ])
    }
}

impl From<&RealStatus> for Numbers {
    fn from(it: &RealStatus) -> Self {
        Self([
            it.connections,
            it.packets_in,
            it.packets_out,
            it.bytes_in,
            it.bytes_out,
        ])
    }
}

/// How a number is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// With all its digits.
    Whole,
    /// From 100,000,000 on in thousands (`K`), and so on: nine places hold it.
    Short,
}

impl Column {
    /// A column of numbers that grow large.
    pub(super) const fn large(exact: bool) -> Self {
        if exact { Self::Whole } else { Self::Short }
    }

    fn text(self, number: u64) -> String {
        /// Below which number which unit is used.
        const UNITS: [(u64, u64, &str); 4] = [
            (100_000_000, 1, ""),
            (1_000_000_000, 1_000, "K"),
            (100_000_000_000, 1_000_000, "M"),
            (100_000_000_000_000, 1_000_000_000, "G"),
        ];
        if self == Self::Whole {
            return number.to_string();
        }
        let unit = UNITS.iter().find(|(below, ..)| number < *below);
        let (size, letter) = unit.map_or((1_000_000_000_000, "T"), |(_, size, letter)| {
            (*size, letter)
        });
        format!("{}{letter}", number / size)
    }
}

/// Stands for a number that is not known.
pub(super) const UNKNOWN: &str = "-";

/// Writes a line: the name in 33 places, then each number in nine, if they are known.
pub(super) fn write_line(
    text: &mut String,
    name: &str,
    numbers: Option<Numbers>,
    columns: [Column; 5],
) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{name:<33}");
    for (number, column) in columns.into_iter().enumerate() {
        let shown = match &numbers {
            Some(numbers) => column.text(numbers.0[number]),
            None => UNKNOWN.to_owned(),
        };
        let _ = write!(text, " {shown:>8}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_shortened_where_ipvsadm_does() {
        for (number, shown) in [
            (99_999_999, "99999999"),
            (100_000_000, "100000K"),
            (999_999_999, "999999K"),
            (1_000_000_000, "1000M"),
            (99_999_999_999, "99999M"),
            (100_000_000_000, "100G"),
            (99_999_999_999_999, "99999G"),
            (100_000_000_000_000, "100T"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(Column::Short.text(number), shown);
            assert_eq!(Column::Whole.text(number), number.to_string());
        }
    }
}
