//! The text side of the protocol: info commands and their answers.
//!
//! Request body: commands, each ended by `\n`. Reply body: per command, in request order, the
//! command as received, `\t`, the value, `\n`. Command: `name`, `name/arg`, or
//! `name:key=value;key=value`. Failure value: `ERROR:<code>:<text>`. Source: `docs/wire.md` section
//! 8.1.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::ResultCode;
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType};

/// The answer to a command nobody knows.
pub const UNRECOGNIZED: &str = "ERROR:4:unrecognized command";

/// The command lines of a request body. A last line without its `\n` is dropped, as the real server
/// does.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = body.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    body[..whole].split_inclusive(|&byte| byte == b'\n').map(|line| &line[..line.len() - 1])
}

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// What is asked.
    pub name: &'a str,
    /// The text behind `name/`, up to the first `:` or `;`; empty when there is none.
    pub path: &'a str,
    /// The text behind the first `:` (or `;`): `key=value` pairs.
    pub args: &'a str,
}

impl<'a> Command<'a> {
    /// Reads a command line; `None` if it is not UTF-8.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        let (target, args) = line.split_once([':', ';']).unwrap_or((line, ""));
        let (name, path) = target.split_once('/').unwrap_or((target, ""));
        Some(Self { name, path, args })
    }

    /// The value of an argument.
    pub fn arg(&self, key: &str) -> Option<&'a str> {
        pairs(self.args).find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// The `key=value` pairs of a `;`-separated text; text without `=` is a key with an empty value.
/// Blanks around a key or a value are no part of it, as in a configuration file.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> + Clone {
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(key, value)| (key.trim_end(), value.trim_start()))
}

/// An info frame under construction: of requests or of answers.
#[derive(Debug)]
pub struct InfoFrame<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> InfoFrame<'a> {
    /// Begins a frame at the end of `out`; dropping it completes the frame.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        Self { out, start }
    }

    /// Adds a command to ask.
    pub fn ask(&mut self, command: &str) {
        push_line(self.out, command.as_bytes());
    }

    /// Adds the answer to one line of the request.
    pub fn answer(&mut self, line: &[u8], value: &str) {
        push_answer(self.out, line, value);
    }

    /// Memory of the buffer it is made in.
    pub fn capacity(&self) -> usize {
        self.out.capacity()
    }
}

/// Appends the answer to one line of a request.
pub fn push_answer(out: &mut Vec<u8>, line: &[u8], value: &str) {
    out.extend_from_slice(line);
    out.push(b'\t');
    push_line(out, value.as_bytes());
}

impl Drop for InfoFrame<'_> {
    fn drop(&mut self) {
        let body_bytes = self.out.len() - self.start - FRAME_HEADER_BYTES;
        let header = FrameHeader { kind: FrameType::Info, body_bytes }.to_bytes();
        self.out[self.start..self.start + FRAME_HEADER_BYTES].copy_from_slice(&header);
    }
}

/// Appends a line; line ends inside the text become spaces, so that lines keep matching.
fn push_line(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().map(|&byte| if byte == b'\n' { b' ' } else { byte }));
    out.push(b'\n');
}

/// A text that others chose, fit to stand between the separators of an answer: `;`, `:`, `%` and
/// what cannot be printed become `%XX`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !matches!(c, ';' | ':' | '%') && !c.is_control();
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a String does not fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    Cow::Owned(out)
}

/// Appends a request frame asking `commands`.
pub fn push_request(out: &mut Vec<u8>, commands: &[&str]) {
    let mut frame = InfoFrame::begin(out);
    commands.iter().for_each(|command| frame.ask(command));
}

/// The failure value for a code and a text.
pub fn error(code: ResultCode, text: &str) -> String {
    match code {
        ResultCode::SERVER => format!("ERROR::{text}"),
        ResultCode(code) => format!("ERROR:{code}:{text}"),
    }
}

/// The (command, value) pairs of a reply body, in order; lines that are not UTF-8 are passed over.
pub fn answers(body: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    lines(body)
        .filter_map(|line| str::from_utf8(line).ok())
        .map(|line| line.split_once('\t').unwrap_or((line, "")))
}

/// The code and text of a failure value; `None` for other values.
pub fn failure(value: &str) -> Option<(ResultCode, &str)> {
    let prefixes = ["ERROR:", "FAIL:", "ERROR=", "error="];
    let rest = prefixes.iter().find_map(|prefix| value.strip_prefix(prefix))?;
    let (code, text) = rest.split_once(':').unwrap_or(("", rest));
    match code.parse() {
        Ok(code) => Some((ResultCode(code), text)),
        Err(_) => Some((ResultCode::SERVER, if code.is_empty() { text } else { rest })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::next_frame;

    #[test]
    fn names_of_others_cannot_forge_an_answer() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check("demo", "demo");
        check("my set/é=1", "my set/é=1");
        check("x;ns=test:set=y", "x%3Bns=test%3Aset=y");
        check("a\nb\tc%\u{85}", "a%0Ab%09c%25%C2%85");
    }

    #[test]
    fn lines_end_where_the_line_end_is() {
        let check = |body: &[u8], expected: &[&[u8]]| {
            assert_eq!(lines(body).collect::<Vec<_>>(), expected, "{body:?}");
        };
        check(b"node\nbuild\n", &[b"node", b"build"]);
        check(b"node\nbuild", &[b"node"]);
        check(b"\nnode\n", &[b"", b"node"]);
        check(b"node", &[]);
        check(b"", &[]);
    }

    #[test]
    fn commands_split_into_name_path_and_arguments() {
        let check = |line: &str, name: &str, path: &str, args: &str| {
            assert_eq!(
                Command::parse(line.as_bytes()),
                Some(Command { name, path, args }),
                "{line}"
            );
        };
        check("node", "node", "", "");
        check("", "", "", "");
        check("namespace/test", "namespace", "test", "");
        check("sets/test/demo", "sets", "test/demo", "");
        check("racks:", "racks", "", "");
        check("get-stats:context=xdr;dc=D", "get-stats", "", "context=xdr;dc=D");
        check("replicas:max=1", "replicas", "", "max=1");
        check("get-config;x=a/b", "get-config", "", "x=a/b");
        check("add:path=a/b:80", "add", "", "path=a/b:80");
        assert_eq!(Command::parse(&[0xff]), None);
    }

    #[test]
    fn arguments_are_found_by_key() {
        let command = Command::parse(b"set-config:context=xdr;dc=D;node-address-port=h:3000;;last");
        let command = command.unwrap();
        assert_eq!(command.arg("dc"), Some("D"));
        assert_eq!(command.arg("node-address-port"), Some("h:3000"));
        assert_eq!(command.arg("last"), Some(""));
        assert_eq!(command.arg("d"), None);
    }

    #[test]
    fn blanks_around_keys_and_values_are_no_part_of_them() {
        let read = |text| pairs(text).collect::<Vec<_>>();
        assert_eq!(read("dc=D; ignore-set = my set ;"), [("dc", "D"), ("ignore-set", "my set")]);
        assert_eq!(read(" ;; "), []);
    }

    /// Frame A of `docs/wire.md` section 13.
    #[test]
    fn the_seed_request_and_its_answer_are_as_captured() {
        let mut out = Vec::new();
        push_request(&mut out, &["node", "partition-generation", "build"]);
        assert_eq!(out[..8], [2, 1, 0, 0, 0, 0, 0, 0x20]);
        assert_eq!(&out[8..], b"node\npartition-generation\nbuild\n");
        let request = next_frame(&out).unwrap().unwrap();
        let mut reply = Vec::new();
        let mut frame = InfoFrame::begin(&mut reply);
        for (line, value) in lines(request.body).zip(["A1", "4098", "8.1.2.0"]) {
            frame.answer(line, value);
        }
        drop(frame);
        assert_eq!(reply[..8], [2, 1, 0, 0, 0, 0, 0, 0x30]);
        assert_eq!(&reply[8..], b"node\tA1\npartition-generation\t4098\nbuild\t8.1.2.0\n");
        let read: Vec<_> = answers(&reply[8..]).collect();
        assert_eq!(read, [("node", "A1"), ("partition-generation", "4098"), ("build", "8.1.2.0")]);
    }

    #[test]
    fn a_value_cannot_break_the_lines() {
        let mut out = Vec::new();
        InfoFrame::begin(&mut out).answer(b"x", "a\nb");
        assert_eq!(answers(&out[8..]).collect::<Vec<_>>(), [("x", "a b")]);
    }

    #[test]
    fn failures_are_written_and_recognised() {
        let check = |value: &str, expected| assert_eq!(failure(value), expected, "{value}");
        assert_eq!(error(ResultCode::SERVER, "no"), "ERROR::no");
        assert_eq!(error(ResultCode::PARAMETER, "unrecognized command"), UNRECOGNIZED);
        check(UNRECOGNIZED, Some((ResultCode::PARAMETER, "unrecognized command")));
        check("ERROR::no", Some((ResultCode::SERVER, "no")));
        check("ERROR:7:unstable: x", Some((ResultCode(7), "unstable: x")));
        check("FAIL:bad thing", Some((ResultCode::SERVER, "bad thing")));
        check("error=some", Some((ResultCode::SERVER, "some")));
        check("ok", None);
        check("", None);
    }
}
