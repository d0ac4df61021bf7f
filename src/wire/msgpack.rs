//! Well-formedness of msgpack, as lists and maps use it. Values are never decoded here.

/// Whether `bytes` are exactly one array.
pub fn is_list(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x90..=0x9f | 0xdc | 0xdd)) && is_one_value(bytes)
}

/// Whether `bytes` are exactly one map.
pub fn is_map(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf)) && is_one_value(bytes)
}

/// Whether `bytes` are exactly one value.
///
/// Nesting needs no stack: what counts is how many values are still owed. Each takes at least one
/// byte, so the work is bounded by the length whatever the counts say.
pub fn is_one_value(mut bytes: &[u8]) -> bool {
    let mut owed: u64 = 1;
    while owed > 0 {
        let Some((values, rest)) = skip_head(bytes) else { return false };
        owed = owed - 1 + values;
        bytes = rest;
    }
    bytes.is_empty()
}

/// Skips one value, or a container's head; gives the number of values the container owes and what
/// follows.
#[inline]
fn skip_head(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let scalar = |length: usize| rest.get(length..).map(|rest| (0, rest));
    match tag {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => scalar(0),
        0x80..=0x8f => Some((2 * u64::from(tag & 0x0f), rest)),
        0x90..=0x9f => Some((u64::from(tag & 0x0f), rest)),
        0xa0..=0xbf => scalar(usize::from(tag & 0x1f)),
        0xc1 => None,
        0xc4 | 0xd9 => skip_counted::<1>(rest, 0),
        0xc5 | 0xda => skip_counted::<2>(rest, 0),
        0xc6 | 0xdb => skip_counted::<4>(rest, 0),
        0xc7 => skip_counted::<1>(rest, 1),
        0xc8 => skip_counted::<2>(rest, 1),
        0xc9 => skip_counted::<4>(rest, 1),
        0xcc | 0xd0 => scalar(1),
        0xcd | 0xd1 => scalar(2),
        0xca | 0xce | 0xd2 => scalar(4),
        0xcb | 0xcf | 0xd3 => scalar(8),
        0xd4..=0xd8 => scalar(1 + (1 << (tag - 0xd4))),
        0xdc => count::<2>(rest),
        0xdd => count::<4>(rest),
        0xde => count::<2>(rest).map(|(entries, rest)| (2 * entries, rest)),
        0xdf => count::<4>(rest).map(|(entries, rest)| (2 * entries, rest)),
    }
}

/// A big-endian number of `N` bytes.
fn count<const N: usize>(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<N>()?;
    Some((number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), rest))
}

/// Skips a length of `N` bytes, `extra` bytes, and as many as the length says.
fn skip_counted<const N: usize>(bytes: &[u8], extra: usize) -> Option<(u64, &[u8])> {
    let (length, rest) = count::<N>(bytes)?;
    let length = usize::try_from(length).ok()?.checked_add(extra)?;
    rest.get(length..).map(|rest| (0, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_must_be_whole_and_alone() {
        let check =
            |bytes: &[u8], valid: bool| assert_eq!(is_one_value(bytes), valid, "{bytes:x?}");
        check(&[], false);
        check(&[0x05], true);
        check(&[0x05, 0x05], false);
        check(&[0xc1], false);
        check(&[0xa2, 0x03, 0x61], true);
        check(&[0xa2, 0x03], false);
        check(&[0xd3, 0, 0, 0, 0, 0, 0, 0, 5], true);
        check(&[0xd3, 0, 0, 0, 0, 0, 0, 5], false);
        check(&[0xc4, 2, 4, 1], true);
        check(&[0xc6, 0xff, 0xff, 0xff, 0xff, 1], false);
        check(&[0xc7, 0, 1], true);
        check(&[0xc7, 0], false);
        check(&[0xd4, 1, 9], true);
        check(&[0xd8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], true);
        check(&[0x92, 0x91, 0x01, 0x80], true);
        check(&[0x92, 0x91, 0x01], false);
        check(&[0xdd, 0xff, 0xff, 0xff, 0xff], false);
        check(&[0xdf, 0xff, 0xff, 0xff, 0xff, 1, 1], false);
        check(&[0xdc, 0, 1, 0xc0], true);
        check(&[0xde, 0, 1, 0xc0, 0xc2], true);
        check(&[0xca, 0, 0, 0, 0], true);
        check(&[0xff], true);
    }

    #[test]
    fn a_key_ordered_map_starts_with_its_flags() {
        assert!(is_map(&[0x82, 0xc7, 0x00, 0x01, 0xc0, 0x02, 0x05]));
        assert!(!is_list(&[0x82, 0xc7, 0x00, 0x01, 0xc0, 0x02, 0x05]));
        assert!(is_list(&[0x92, 0xc7, 0x00, 0x01, 0x05]));
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let mut deep = vec![0x91; 1_000_000];
        deep.push(0x90);
        assert!(is_list(&deep));
        deep.pop();
        assert!(!is_list(&deep));
    }
}
