//! The types a value can have: reading it from text, within its kind, and writing it back.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::kind::{Kind, NameRule, Unit};
use crate::config::{LIST_ENTRIES_MAX, SEED_COUNT_MAX};

/// Why a field did not take a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Malformed or out of range.
    NotAllowed,
    /// A value of the reference system that is not built yet.
    NotYet,
    /// Something of the reference system that is not built yet, by name.
    Without(&'static str),
    /// The list has this many entries, the most it may have.
    Full(usize),
}

/// A value of the configuration, whatever its type.
pub trait Field {
    /// Reads a text; lists take one more entry. Unchanged when refused.
    ///
    /// # Errors
    /// Why the text was not taken.
    fn put(&mut self, text: &str, kind: Kind) -> Result<(), Refused>;

    /// What `put` accepts, in words.
    fn allowed(&self, kind: Kind) -> String;

    /// The value as `get-config` shows it.
    fn show(&self) -> String;

    /// Whether it is a list: may be given many times.
    fn is_list(&self) -> bool {
        false
    }

    /// Takes an entry out of a list; false when it is not in there.
    fn take(&mut self, _text: &str) -> bool {
        false
    }

    /// The entries of a list that `get-config` shows numbered.
    fn numbered(&self) -> Option<Vec<String>> {
        None
    }
}

macro_rules! number_fields {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn put(&mut self, text: &str, kind: Kind) -> Result<(), Refused> {
                let value = kind.read_number(text).and_then(|value| value.try_into().ok());
                *self = value.ok_or(Refused::NotAllowed)?;
                Ok(())
            }
            fn allowed(&self, kind: Kind) -> String {
                kind.describe_number()
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )* };
}

number_fields!(u8, u16, u32, u64);

/// Enums written as words; `later` words are known but not built.
macro_rules! choice_fields {
    ($($type:ident { $($word:literal = $variant:ident),* } later [$($later:literal),*])*) => { $(
        impl Field for $type {
            fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
                *self = match text.to_ascii_lowercase().as_str() {
                    $($word => Self::$variant,)*
                    $($later => return Err(Refused::NotYet),)*
                    _ => return Err(Refused::NotAllowed),
                };
                Ok(())
            }
            fn allowed(&self, _: Kind) -> String {
                [$($word),*].join(" | ")
            }
            fn show(&self) -> String {
                match self { $(Self::$variant => $word.to_owned(),)* }
            }
        }
    )* };
}

pub(crate) use choice_fields;

impl Field for bool {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        *self = match text.to_ascii_lowercase().as_str() {
            "true" | "yes" => true,
            "false" | "no" => false,
            _ => return Err(Refused::NotAllowed),
        };
        Ok(())
    }

    fn allowed(&self, _: Kind) -> String {
        "true | false".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A name that may be unset, written `null`.
impl Field for Option<String> {
    fn put(&mut self, text: &str, kind: Kind) -> Result<(), Refused> {
        if text == "null" {
            *self = None;
            return Ok(());
        }
        match kind {
            Kind::Name(rule) if !rule.allows(text) => Err(Refused::NotAllowed),
            _ => {
                *self = Some(text.to_owned());
                Ok(())
            }
        }
    }

    fn allowed(&self, kind: Kind) -> String {
        match kind {
            Kind::Name(rule) => rule.allowed(),
            _ => "a text".to_owned(),
        }
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_else(|| "null".to_owned())
    }
}

/// A list of names, given one by one.
impl Field for Vec<String> {
    fn put(&mut self, text: &str, kind: Kind) -> Result<(), Refused> {
        match kind {
            Kind::Name(rule) if !rule.allows(text) => return Err(Refused::NotAllowed),
            _ => {}
        }
        enter(self, text.to_owned(), LIST_ENTRIES_MAX)
    }

    fn allowed(&self, kind: Kind) -> String {
        match kind {
            Kind::Name(rule) => rule.allowed(),
            _ => "a text".to_owned(),
        }
    }

    fn show(&self) -> String {
        self.join(",")
    }

    fn is_list(&self) -> bool {
        true
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.iter().position(|entry| entry == text);
        found.map(|index| self.remove(index)).is_some()
    }
}

/// Adds an entry that is not there yet to a list that has room.
///
/// # Errors
/// The list is full.
pub fn enter<T: PartialEq>(list: &mut Vec<T>, entry: T, max: usize) -> Result<(), Refused> {
    if list.contains(&entry) {
        return Ok(());
    }
    if list.len() >= max {
        return Err(Refused::Full(max));
    }
    list.push(entry);
    Ok(())
}

/// What a path is called in messages.
pub const PATH: &str = "a path";

impl Field for PathBuf {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        if text.is_empty() {
            return Err(Refused::NotAllowed);
        }
        *self = PathBuf::from(text);
        Ok(())
    }

    fn allowed(&self, _: Kind) -> String {
        PATH.to_owned()
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Files or devices, in an order that matters.
impl Field for Vec<PathBuf> {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        if text.is_empty() {
            return Err(Refused::NotAllowed);
        }
        if self.len() >= LIST_ENTRIES_MAX {
            return Err(Refused::Full(LIST_ENTRIES_MAX));
        }
        self.push(PathBuf::from(text));
        Ok(())
    }

    fn allowed(&self, _: Kind) -> String {
        PATH.to_owned()
    }

    fn show(&self) -> String {
        self.numbered().unwrap_or_default().join(",")
    }

    fn is_list(&self) -> bool {
        true
    }

    fn numbered(&self) -> Option<Vec<String>> {
        Some(self.iter().map(|path| path.display().to_string()).collect())
    }
}

impl Field for IpAddr {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        *self = match text {
            "any" => Self::V4(Ipv4Addr::UNSPECIFIED),
            "localhost" => Self::V4(Ipv4Addr::LOCALHOST),
            _ => text.parse().map_err(|_| Refused::NotAllowed)?,
        };
        Ok(())
    }

    fn allowed(&self, _: Kind) -> String {
        "an IPv4 or IPv6 address | any | localhost".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::V4(Ipv4Addr::UNSPECIFIED) => "any".to_owned(),
            other => other.to_string(),
        }
    }
}

/// Seeds: host and port. IPv6 addresses stand in brackets in the text, without them in the field.
impl Field for Vec<(String, u16)> {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        let seed = read_seed(text).ok_or_else(|| match text.rsplit_once(':') {
            Some((seed, _)) if read_seed(seed).is_some() => Refused::Without(NO_TLS_NAME),
            _ => Refused::NotAllowed,
        })?;
        enter(self, seed, SEED_COUNT_MAX)
    }

    fn allowed(&self, _: Kind) -> String {
        "a host and a port of 1..65535".to_owned()
    }

    fn show(&self) -> String {
        let seeds: Vec<String> = self.iter().map(|(host, port)| show_seed(host, port)).collect();
        seeds.join(",")
    }

    fn is_list(&self) -> bool {
        true
    }

    fn take(&mut self, text: &str) -> bool {
        let Some(seed) = read_seed(text) else { return false };
        let found = self.iter().position(|entry| *entry == seed);
        found.map(|index| self.remove(index)).is_some()
    }
}

/// Why a third part of a seed is refused.
pub const NO_TLS_NAME: &str = "there is no TLS yet: give host and port";

/// Host and port of `HOST:PORT`.
pub fn read_seed(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None => host,
    };
    let port = Kind::number(1, 65_535, Unit::Count).read_number(port)?;
    NameRule::Host.allows(host).then(|| (host.to_owned(), port as u16))
}

/// `HOST:PORT`, IPv6 addresses in brackets.
pub fn show_seed(host: &str, port: impl Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::super::kind::Step;
    use super::*;

    fn check<F: Field + Default>(kind: Kind, text: &str, expected: Result<&str, Refused>) {
        let mut field = F::default();
        let got = field.put(text, kind).map(|()| field.show());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }

    const NO: Result<&str, Refused> = Err(Refused::NotAllowed);

    #[test]
    fn numbers_take_the_suffixes_of_their_unit_and_stay_in_range() {
        let bytes = Kind::number(0, 1 << 43, Unit::Bytes);
        let seconds = Kind::number(0, 86_400, Unit::Seconds);
        let count = Kind::number(5, 1000, Unit::Count);
        for (text, expected) in [
            ("0", Ok("0")),
            ("4K", Ok("4096")),
            ("4k", Ok("4096")),
            ("1M", Ok("1048576")),
            ("2G", Ok("2147483648")),
            ("8T", Ok("8796093022208")),
            ("9T", NO),
            ("1s", NO),
            ("K", NO),
            ("", NO),
            ("-1", NO),
            ("+1", NO),
            ("1.5M", NO),
            ("99999999999999999999", NO),
            ("18446744073709551615T", NO),
        ] {
            check::<u64>(bytes, text, expected);
        }
        for (text, expected) in [
            ("90", Ok("90")),
            ("2m", Ok("120")),
            ("24h", Ok("86400")),
            ("1d", Ok("86400")),
            ("3s", Ok("3")),
            ("25h", NO),
            ("1K", NO),
        ] {
            check::<u32>(seconds, text, expected);
        }
        for (text, expected) in
            [("5", Ok("5")), ("1000", Ok("1000")), ("4", NO), ("1001", NO), ("1K", NO)]
        {
            check::<u32>(count, text, expected);
        }
    }

    #[test]
    fn booleans_are_read_in_any_case() {
        for (text, expected) in
            [("true", Ok("true")), ("TRUE", Ok("true")), ("Yes", Ok("true")), ("No", Ok("false"))]
        {
            check::<bool>(Kind::Plain, text, expected);
        }
        check::<bool>(Kind::Plain, "on", NO);
    }

    #[test]
    fn slips_of_a_unit_are_understood_in_any_case() {
        let ms = Kind::number(1, 100_000, Unit::Ms);
        for (text, meant) in
            [("1s", "1000"), ("1S", "1000"), ("100ms", "100"), ("100MS", "100"), ("1m", "60000")]
        {
            assert_eq!(ms.respell(text).as_deref(), Some(meant), "{text}");
        }
        let bytes = Kind::number(0, 1 << 40, Unit::Bytes);
        for text in ["4GB", "4gb", "4GiB", "4gib", "4G;"] {
            let meant = bytes.respell(text).map(|meant| meant.to_ascii_uppercase());
            assert_eq!(meant.as_deref(), Some("4G"), "{text}");
        }
        assert_eq!(ms.respell("1é"), None);
    }

    #[test]
    fn steps_are_kept() {
        let power = Kind::stepped(1024, 1 << 20, Unit::Count, Step::PowerOfTwo);
        let hundreds = Kind::stepped(0, 10_000, Unit::Count, Step::MultipleOf(100));
        let port = Kind::stepped(0, 65_535, Unit::Count, Step::ZeroOrFrom(1024));
        for (kind, text, expected) in [
            (power, "1024", Ok("1024")),
            (power, "1025", NO),
            (power, "512", NO),
            (hundreds, "0", Ok("0")),
            (hundreds, "500", Ok("500")),
            (hundreds, "550", NO),
            (port, "0", Ok("0")),
            (port, "1023", NO),
            (port, "3000", Ok("3000")),
        ] {
            check::<u32>(kind, text, expected);
        }
    }

    #[test]
    fn seeds_are_hosts_with_ports() {
        for (text, expected) in [
            ("10.0.0.1:3000", Ok("10.0.0.1:3000")),
            ("[::1]:3000", Ok("[::1]:3000")),
            ("db.example.org:1", Ok("db.example.org:1")),
            ("host", NO),
            ("host:0", NO),
            ("host:65536", NO),
            ("host:3000:tls", Err(Refused::Without(NO_TLS_NAME))),
            ("[::1]:3000:tls", Err(Refused::Without(NO_TLS_NAME))),
            ("[::1]", NO),
            (" host:3000", NO),
            ("host :3000", NO),
            ("a b:3000", NO),
            ("host:1:3000", Err(Refused::Without(NO_TLS_NAME))),
            (":3000", NO),
        ] {
            check::<Vec<(String, u16)>>(Kind::HostPort, text, expected);
        }
    }
}
