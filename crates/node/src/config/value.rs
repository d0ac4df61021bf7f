//! Values of types that only a node has.

use longship::config::LIST_ENTRIES_MAX;
use longship::config::grammar::kind::{Kind, Unit};
use longship::config::grammar::value::{Field, Refused, enter};

use super::{CpuSet, Network, Networks, NodeId};

/// Shards count on from it, so the largest ones are not allowed.
impl Field for NodeId {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        let all_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let allowed = 1..1 << 60;
        let value = u64::from_str_radix(text, 16).ok();
        let value = value.filter(|value| all_digits && allowed.contains(value));
        self.0 = Some(value.ok_or(Refused::NotAllowed)?);
        Ok(())
    }

    fn allowed(&self, _: Kind) -> String {
        "1..15 hexadecimal digits, not zero".to_owned()
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "null".to_owned(), |id| format!("{id:X}"))
    }
}

impl Field for Networks {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        let network = Network::parse(text).ok_or(Refused::NotAllowed)?;
        enter(&mut self.0, network, LIST_ENTRIES_MAX)
    }

    fn allowed(&self, _: Kind) -> String {
        "an address, or a network like 10.0.0.0/8 | any | localhost".to_owned()
    }

    fn show(&self) -> String {
        self.0.iter().map(Network::to_string).collect::<Vec<_>>().join(",")
    }

    fn is_list(&self) -> bool {
        true
    }
}

impl Field for CpuSet {
    fn put(&mut self, text: &str, _: Kind) -> Result<(), Refused> {
        let mut cpus = Vec::new();
        for part in text.split(',').filter(|_| text != "all") {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let read = |digits| Unit::Count.read(digits).filter(|cpu| *cpu < CPUS_MAX);
            match (read(first), read(last)) {
                (Some(first), Some(last)) if first <= last => {
                    cpus.extend((first..=last).map(|cpu| cpu as usize));
                }
                _ => return Err(Refused::NotAllowed),
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        self.0 = cpus;
        Ok(())
    }

    fn allowed(&self, _: Kind) -> String {
        format!("CPU numbers below {CPUS_MAX} like 0-3,5 | all")
    }

    fn show(&self) -> String {
        if self.0.is_empty() { "all".to_owned() } else { self.to_string() }
    }
}

/// More CPUs than Linux can be built for.
const CPUS_MAX: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn check<F: Field + Default>(text: &str, expected: Result<&str, Refused>) {
        let mut field = F::default();
        let got = field.put(text, Kind::Plain).map(|()| field.show());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }

    const NO: Result<&str, Refused> = Err(Refused::NotAllowed);

    #[test]
    fn node_ids_leave_room_to_count_on() {
        for (text, expected) in [
            ("bb9", Ok("BB9")),
            ("FFFFFFFFFFFFFFF", Ok("FFFFFFFFFFFFFFF")),
            ("FFFFFFFFFFFFFFFF", NO),
            ("0", NO),
            ("+1", NO),
            ("xyz", NO),
        ] {
            check::<NodeId>(text, expected);
        }
    }

    #[test]
    fn cpu_sets_are_lists_of_ranges() {
        for (text, expected) in [
            ("0-3,5", Ok("0-3,5")),
            ("5,0-3,2", Ok("0-3,5")),
            ("all", Ok("all")),
            ("3-1", NO),
            ("", NO),
            ("0-99999999", NO),
            ("a", NO),
        ] {
            check::<CpuSet>(text, expected);
        }
    }
}
