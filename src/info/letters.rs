//! Dead letters as text: `;` between letters, `:` between their fields, keys escaped.

use std::fmt::Write as _;

use super::set_config::{Arguments, SyntaxError};
use crate::engine::{Letter, LetterState};
use crate::limits::LETTERS_SHOWN_MAX;
use crate::model::Digest;

/// `xdr-dead-letters:dc=D;namespace=N[;after=DIGEST][;count=C]`: in order of their digests, empty
/// when there are none. When there are `more`, the last field tells how many and where they begin:
/// `more=9000:after=DIGEST`.
pub(crate) fn text(letters: &[Letter], more: usize) -> String {
    let mut lines: Vec<String> = letters.iter().map(line).collect();
    if let Some(last) = letters.last().filter(|_| more > 0) {
        lines.push(format!("more={more}:after={}", last.digest));
    }
    lines.join(";")
}

/// What is asked of a DC's dead letters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A page of them.
    Page { after: Option<Digest>, count: usize },
    /// To ship them again.
    Replay,
}

/// Parses the arguments of `xdr-dead-letters`: DC, namespace, and what is asked.
pub(crate) fn parse<'a>(
    arguments: &[(&'a str, &'a str)],
) -> Result<(&'a str, &'a str, Asked), SyntaxError> {
    let mut rest = Arguments::new(arguments)?;
    let dc = rest.take("dc").ok_or(SyntaxError::Missing("'dc='"))?;
    let namespace = rest.take("namespace").ok_or(SyntaxError::Missing("'namespace='"))?;
    match rest.take("action") {
        Some("replay") => {
            rest.end("action=replay", &[])?;
            return Ok((dc, namespace, Asked::Replay));
        }
        Some(other) => return Err(SyntaxError::UnknownAction(other.to_owned(), "replay")),
        None => {}
    }
    let after = rest.take("after").map(|after| {
        let digest = digest_of(after);
        digest.ok_or(SyntaxError::BadArgument(
            "after",
            "the digest of a letter: 40 hexadecimal digits",
        ))
    });
    let count = match rest.take("count").map(str::parse) {
        None => LETTERS_SHOWN_MAX,
        Some(Ok(count @ 1..=LETTERS_SHOWN_MAX)) => count,
        Some(_) => return Err(SyntaxError::BadArgument("count", "a number from 1 to 1000")),
    };
    rest.end("xdr-dead-letters", &["after", "count", "action"])?;
    Ok((dc, namespace, Asked::Page { after: after.transpose()?, count }))
}

/// A digest as it is shown: 40 hexadecimal digits.
pub(crate) fn digest_of(text: &str) -> Option<Digest> {
    let mut bytes = [0; 20];
    if text.len() != 2 * bytes.len() || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Digest(bytes))
}

fn line(letter: &Letter) -> String {
    let Letter { digest, set, key, code, lut, at, state, .. } = letter;
    let (set, key) = (escaped(set.as_bytes()), escaped_key(key));
    let state = match state {
        LetterState::Kept => "kept",
        LetterState::Replayed => "replayed",
        LetterState::Leaving => "leaving",
    };
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
    use crate::model::Lut;

    #[test]
    fn what_is_asked_of_letters_is_read_or_refused_by_word() {
        let read = |text: &'static str| {
            let pairs: Vec<_> = crate::wire::info::pairs(text).collect();
            parse(&pairs).map(|(_, _, asked)| asked).map_err(|error| error.to_string())
        };
        let digest = "ab".repeat(20);
        let page = |after, count| Ok(Asked::Page { after, count });
        assert_eq!(read("dc=w;namespace=n"), page(None, LETTERS_SHOWN_MAX));
        assert_eq!(read("dc=w;namespace=n;count=7"), page(None, 7));
        let after = format!("dc=w;namespace=n;after={digest}").leak();
        assert_eq!(read(after), page(Some(Digest([0xAB; 20])), LETTERS_SHOWN_MAX));
        assert_eq!(read("dc=w;namespace=n;action=replay"), Ok(Asked::Replay));
        for (text, words) in [
            ("namespace=n", "'dc=' is missing"),
            ("dc=w", "'namespace=' is missing"),
            ("dc=w;namespace=n;action=drop", "action 'drop' does not exist here: expected replay"),
            ("dc=w;namespace=n;action=replay;count=3", "'count' does not belong to action=replay"),
            ("dc=w;namespace=n;cuont=3", "did you mean 'count='?"),
            ("dc=w;namespace=n;count=0", "'count=' is a number from 1 to 1000"),
            ("dc=w;namespace=n;after=xyz", "'after=' is the digest of a letter"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }

    #[test]
    fn a_letter_is_one_line_whatever_its_key() {
        let letter = |key: &[u8], state| Letter {
            dc: "west".to_owned(),
            namespace: "demo".to_owned(),
            set: "a:b".to_owned(),
            key: key.to_vec(),
            digest: Digest([0xAB; 20]),
            lut: Lut::from_ms(77),
            code: 13,
            at: Lut::from_unix_ms(1_700_000_000_000),
            state,
        };
        let check = |key: &[u8], expected: &str| {
            let text = text(&[letter(key, LetterState::Kept)], 0);
            assert!(text.contains(&format!(":key={expected}:code=13:")), "{text}");
        };
        check(b"", "null");
        check(b"\x03al=ice;\n", "al%3Dice%3B%0A");
        check(b"\x01\xff\xff\xff\xff\xff\xff\xff\xfe", "-2");
        check(b"\x04\x00\xff", "%00%FF");
        let both = text(&[letter(b"", LetterState::Kept), letter(b"", LetterState::Replayed)], 0);
        let lines: Vec<&str> = both.split(';').collect();
        assert!(lines[0].contains("set=a%3Ab:key=null") && lines[0].ends_with("state=kept"));
        assert!(lines[1].ends_with(":lut=77:time-ms=1700000000000:state=replayed"));
        let page = self::text(&[letter(b"", LetterState::Kept)], 9);
        let (_, next) = page.rsplit_once(";more=9:after=").unwrap();
        assert_eq!(digest_of(next), Some(Digest([0xAB; 20])));
        assert_eq!(digest_of("abé"), None);
    }
}
