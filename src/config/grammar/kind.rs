//! What a value may be: ranges, units, steps and the characters of names.

use std::net::Ipv6Addr;

use crate::config::NAME_BYTES_MAX;
use crate::config::error::ItemError;
use crate::model::{BIN_NAME_BYTES_MAX, SET_NAME_BYTES_MAX};

/// What the table says about an item's value besides its Rust type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The Rust type decides alone what is allowed.
    Plain,
    /// A number in a range.
    Number {
        /// The lowest number allowed.
        min: u64,
        /// The highest number allowed.
        max: u64,
        /// What the number counts.
        unit: Unit,
        /// Which of them.
        step: Step,
    },
    /// A text of 1..=`bytes_max` bytes of certain characters.
    Name(NameRule),
    /// Host and port: two words in a file, `HOST:PORT` at run time.
    HostPort,
    /// A text that people may write two of, and what it is one of.
    Single(&'static str),
}

/// What a number counts, and so which suffixes it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things; no suffix.
    Count,
    /// K, M, G, T: powers of 1024.
    Bytes,
    /// s, m, h, d.
    Seconds,
    /// Milliseconds; no suffix.
    Ms,
    /// Parts of a hundred; no suffix.
    Percent,
}

/// Which numbers of the range are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every number of the range.
    Any,
    /// 1, 2, 4 and so on.
    PowerOfTwo,
    /// Those that it divides.
    MultipleOf(u64),
    /// 0, or any number from here on.
    ZeroOrFrom(u64),
}

/// A kind of name: its length and characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Of a namespace.
    Namespace,
    /// Of a destination.
    Dc,
    /// Of a cluster.
    Cluster,
    /// Of a set.
    Set,
    /// Of a bin.
    Bin,
    /// Of a machine, or its address.
    Host,
}

impl NameRule {
    const fn bytes_max(self) -> usize {
        match self {
            Self::Namespace | Self::Dc => NAME_BYTES_MAX,
            Self::Cluster => 63,
            Self::Set => SET_NAME_BYTES_MAX,
            Self::Bin => BIN_NAME_BYTES_MAX,
            Self::Host => 255,
        }
    }

    /// Names of DCs, namespaces and clusters are restricted; sets and bins only need to survive the
    /// lists of the info protocol.
    pub fn allows(self, text: &str) -> bool {
        let length_fits = (1..=self.bytes_max()).contains(&text.len());
        length_fits
            && match self {
                Self::Namespace | Self::Cluster => text.chars().all(is_name_character),
                Self::Dc => text.chars().all(is_name_character) && text != "null",
                Self::Set | Self::Bin => {
                    !text.chars().any(|c| c.is_control() || c == ';' || c == ',')
                }
                Self::Host if text.contains(':') => text.parse::<Ipv6Addr>().is_ok(),
                Self::Host => !text
                    .chars()
                    .any(|c| c.is_control() || c.is_whitespace() || ";,/[]".contains(c)),
            }
    }

    /// What is allowed, in words.
    pub fn allowed(self) -> String {
        let bytes_max = self.bytes_max();
        match self {
            Self::Namespace | Self::Cluster => {
                format!("1..{bytes_max} characters of A-Z a-z 0-9 _ - $")
            }
            Self::Dc => format!("1..{bytes_max} characters of A-Z a-z 0-9 _ - $, not `null`"),
            Self::Set | Self::Bin => format!("a name of 1..{bytes_max} bytes without `;` and `,`"),
            Self::Host => "a host name or address".to_owned(),
        }
    }

    /// Checks a name that is not an item's value, as in `namespace NAME`.
    ///
    /// # Errors
    /// The text is not allowed.
    pub fn check(self, text: &str) -> Result<(), ItemError> {
        if self.allows(text) {
            return Ok(());
        }
        let (given, allowed) = (text.to_owned(), self.allowed());
        Err(ItemError::Value { given, allowed, instead: None })
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-$".contains(c)
}

impl Kind {
    /// A number from `min` to `max`, any of them.
    pub const fn number(min: u64, max: u64, unit: Unit) -> Self {
        Self::Number { min, max, unit, step: Step::Any }
    }

    /// Some numbers of a range.
    pub const fn stepped(min: u64, max: u64, unit: Unit, step: Step) -> Self {
        Self::Number { min, max, unit, step }
    }

    /// The number that a text says, if it is allowed.
    pub fn read_number(self, text: &str) -> Option<u64> {
        let Self::Number { min, max, unit, step } = self else {
            return None;
        };
        let value = unit.read(text)?;
        let on_step = match step {
            Step::Any => true,
            Step::PowerOfTwo => value.is_power_of_two(),
            Step::MultipleOf(n) => value.is_multiple_of(n),
            Step::ZeroOrFrom(n) => value == 0 || value >= n,
        };
        (on_step && (min..=max).contains(&value)).then_some(value)
    }

    /// What was probably meant by a number that was refused: `4G` for `4GB` or `4G;`, or for `4 G`
    /// joined; `5000` for `5s` where milliseconds are counted.
    pub fn respell(self, text: &str) -> Option<String> {
        let Self::Number { unit, .. } = self else { return None };
        let bare = text.trim_end_matches([';', ',']).replace('_', "");
        let spellings = unit.slips().iter().filter_map(|&(suffix, factor)| {
            let at = bare.len().checked_sub(suffix.len())?;
            let (digits, end) = bare.split_at_checked(at)?;
            end.eq_ignore_ascii_case(suffix).then_some(())?;
            match factor {
                1 => Some(digits.to_owned()),
                _ => Some(Unit::Count.read(digits)?.checked_mul(factor)?.to_string()),
            }
        });
        spellings.into_iter().find(|text| self.read_number(text).is_some())
    }

    /// A shown value in the shortest exact form: `1M` for 1048576 bytes.
    pub fn brief(self, shown: String) -> String {
        match (self, shown.parse()) {
            (Self::Number { unit, .. }, Ok(value)) => unit.show(value),
            _ => shown,
        }
    }

    /// The allowed range of a number, in words.
    pub fn describe_number(self) -> String {
        let Self::Number { min, max, unit, step } = self else {
            return "a number".to_owned();
        };
        let (low, high) = (unit.show(min), unit.show(max));
        let tail = unit.tail();
        match step {
            Step::Any => format!("{low}..{high}{tail}"),
            Step::PowerOfTwo => format!("a power of two, {low}..{high}{tail}"),
            Step::MultipleOf(n) => format!("a multiple of {n}, {low}..{high}{tail}"),
            Step::ZeroOrFrom(n) => format!("0 or {n}..{high}{tail}"),
        }
    }
}

impl Unit {
    const BYTES: [(char, u64); 4] =
        [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];
    const SECONDS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

    const fn suffixes(self) -> &'static [(char, u64)] {
        match self {
            Self::Bytes => &Self::BYTES,
            Self::Seconds => &Self::SECONDS,
            Self::Count | Self::Ms | Self::Percent => &[],
        }
    }

    /// Suffixes that are written by mistake, and by how much what stands before them counts.
    const fn slips(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Bytes => &[("", 1), ("iB", 1), ("B", 1), ("bytes", 1)],
            Self::Ms => &[("", 1), ("ms", 1), ("s", 1000), ("m", 60_000)],
            Self::Percent => &[("", 1), ("%", 1)],
            Self::Seconds => &[("", 1), ("sec", 1), ("min", 60), ("w", 7 * 86_400)],
            Self::Count => &[("", 1)],
        }
    }

    /// The number that a text says, with its suffix.
    pub fn read(self, text: &str) -> Option<u64> {
        let (digits, factor) = self
            .suffixes()
            .iter()
            .find_map(|&(suffix, factor)| {
                let either = [suffix.to_ascii_uppercase(), suffix.to_ascii_lowercase()];
                let digits = text.strip_suffix(either)?;
                Some((digits, factor))
            })
            .unwrap_or((text, 1));
        // `parse` alone would take a leading plus sign.
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| all_digits)?.checked_mul(factor)
    }

    /// The shortest exact form, for messages: `8M`, `1d`, `5000`.
    fn show(self, value: u64) -> String {
        let suffixes = self.suffixes().iter().filter(|(_, factor)| *factor > 1);
        let exact =
            suffixes.into_iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
        match exact {
            Some((suffix, factor)) => format!("{}{suffix}", value / factor),
            None => value.to_string(),
        }
    }

    const fn tail(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => " bytes (K, M, G, T)",
            Self::Seconds => " seconds (s, m, h, d)",
            Self::Ms => " ms",
            Self::Percent => " percent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_lengths_and_characters() {
        let cases = [
            (NameRule::Namespace, "test_1-a$", true),
            (NameRule::Namespace, "", false),
            (NameRule::Namespace, "a.b", false),
            (NameRule::Namespace, "null", true),
            (NameRule::Namespace, "a234567890123456789012345678901", true),
            (NameRule::Namespace, "a2345678901234567890123456789012", false),
            (NameRule::Dc, "null", false),
            (NameRule::Dc, "nullable", true),
            (NameRule::Bin, "fifteen-bytes!!", true),
            (NameRule::Bin, "sixteen-bytes!!!", false),
            (NameRule::Set, "a,b", false),
            (NameRule::Set, "grüße", true),
        ];
        for (rule, text, expected) in cases {
            assert_eq!(rule.check(text).is_ok(), expected, "{rule:?} {text}");
        }
    }
}
