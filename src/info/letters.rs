//! Dead letters as text: `;` between letters, `:` between their fields, keys escaped.

use std::fmt::Write as _;

use crate::engine::Letter;

/// Letters in one answer; replaying what is shown makes room for the rest.
const SHOWN_MAX: usize = 1000;

/// `xdr-dead-letters:dc=D;namespace=N`: in order of their digests, empty when there are none.
pub(crate) fn text(letters: &[Letter]) -> String {
    letters.iter().take(SHOWN_MAX).map(line).collect::<Vec<_>>().join(";")
}

fn line(letter: &Letter) -> String {
    let Letter { digest, set, key, code, lut, at, is_replayed, .. } = letter;
    let (set, key) = (escaped(set.as_bytes()), escaped_key(key));
    let state = if *is_replayed { "replayed" } else { "kept" };
    let (lut, at) = (lut.ms(), at.unix_ms());
    format!("digest={digest}:set={set}:key={key}:code={code}:lut={lut}:time-ms={at}:state={state}")
}

/// Integer keys in decimal, others escaped; `null` for none.
fn escaped_key(key: &[u8]) -> String {
    match key.split_first() {
        None => "null".to_owned(),
        Some((1, value)) if value.len() == 8 => {
            let bytes = value.try_into().expect("the length was checked");
            i64::from_be_bytes(bytes).to_string()
        }
        Some((_, value)) => escaped(value),
    }
}

/// Letters, digits and `-_.` as they are, other bytes as `%XX`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Lut};

    #[test]
    fn a_letter_is_one_line_whatever_its_key() {
        let letter = |key: &[u8], is_replayed| Letter {
            dc: "west".to_owned(),
            namespace: "demo".to_owned(),
            set: "a:b".to_owned(),
            key: key.to_vec(),
            digest: Digest([0xAB; 20]),
            lut: Lut::from_ms(77),
            code: 13,
            at: Lut::from_unix_ms(1_700_000_000_000),
            is_replayed,
        };
        let check = |key: &[u8], expected: &str| {
            let text = text(&[letter(key, false)]);
            assert!(text.contains(&format!(":key={expected}:code=13:")), "{text}");
        };
        check(b"", "null");
        check(b"\x03al=ice;\n", "al%3Dice%3B%0A");
        check(b"\x01\xff\xff\xff\xff\xff\xff\xff\xfe", "-2");
        check(b"\x04\x00\xff", "%00%FF");
        let both = text(&[letter(b"", false), letter(b"", true)]);
        let lines: Vec<&str> = both.split(';').collect();
        assert!(lines[0].contains("set=a%3Ab:key=null") && lines[0].ends_with("state=kept"));
        assert!(lines[1].ends_with(":lut=77:time-ms=1700000000000:state=replayed"));
    }
}
