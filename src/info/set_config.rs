//! `set-config:context=xdr;…` and `context=namespace;…` to a [`Command`]. Source:
//! `docs/behaviour.md` section 3.

use crate::config::{nearest_name, read_seconds};
use crate::engine::{Command, Rewind};

/// Why the text of a `set-config` is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SyntaxError {
    /// A needed argument is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An `action` that does not exist or does not fit the other arguments.
    #[error("action '{0}' does not exist here: expected {1}")]
    UnknownAction(String, &'static str),
    /// A rewind that is no time.
    #[error("rewind '{0}' is not a time: expected all, or seconds, or a number with s, m, h or d")]
    BadRewind(String),
    /// A rewind of more seconds than can be counted.
    #[error("rewind '{0}' is too large: write all")]
    RewindTooLarge(String),
    /// The same argument a second time.
    #[error("'{0}=' is given twice")]
    Twice(String),
    /// An argument that the command does not take.
    #[error("'{word}' does not belong to {command}{}", meant(*.nearest))]
    Misplaced {
        /// As given.
        word: String,
        /// What takes other arguments.
        command: &'static str,
        /// The argument it takes that is spelled most like it.
        nearest: Option<&'static str>,
    },
    /// A value that is not one of the argument's.
    #[error("'{0}=' is {1}")]
    BadArgument(&'static str, &'static str),
    /// Several items in one command.
    #[error("one item at a time: '{0}' and '{1}'")]
    SeveralItems(String, String),
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean '{name}='?")).unwrap_or_default()
}

/// The arguments of a command. Each is taken by whoever understands it; none may be left over.
pub(super) struct Arguments<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Arguments<'a> {
    pub(super) fn new(arguments: &[(&'a str, &'a str)]) -> Result<Self, SyntaxError> {
        for (place, (key, _)) in arguments.iter().enumerate() {
            if arguments[..place].iter().any(|(earlier, _)| earlier == key) {
                return Err(SyntaxError::Twice((*key).to_owned()));
            }
        }
        Ok(Self(arguments.to_vec()))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().position(|(other, _)| *other == key)?;
        Some(self.0.remove(found).1)
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(other, _)| *other == key)
    }

    /// The one item that is left, to be set. `missing` says what else could have stood there.
    fn item(self, missing: &'static str) -> Result<(String, String), SyntaxError> {
        match self.0[..] {
            [] => Err(SyntaxError::Missing(missing)),
            [(key, value)] => Ok((key.to_owned(), value.to_owned())),
            [(one, _), (other, _), ..] => {
                Err(SyntaxError::SeveralItems(one.to_owned(), other.to_owned()))
            }
        }
    }

    /// Nothing may be left. `takes` is what the command would have taken.
    pub(super) fn end(
        self,
        command: &'static str,
        takes: &[&'static str],
    ) -> Result<(), SyntaxError> {
        let Some((word, _)) = self.0.first() else { return Ok(()) };
        let nearest = nearest_name(word, takes.iter().copied());
        Err(SyntaxError::Misplaced { word: (*word).to_owned(), command, nearest })
    }
}

/// Arguments, no items, of a command that names a DC.
const OF_A_DC: [&str; 4] = ["action", "namespace", "node-address-port", "rewind"];

/// Parses the arguments of a `set-config` whose context is `xdr` or `namespace`: `(key, value)` in
/// the order given.
pub(crate) fn parse(arguments: &[(&str, &str)]) -> Result<Command, SyntaxError> {
    let mut rest = Arguments::new(arguments)?;
    if rest.take("context") == Some("namespace") {
        let namespace = rest.take("namespace");
        let namespace =
            namespace.or_else(|| rest.take("id")).ok_or(SyntaxError::Missing("'id='"))?;
        let (key, value) = rest.item("the item to set")?;
        return Ok(Command::SetNamespace { namespace: namespace.to_owned(), key, value });
    }
    let Some(dc) = rest.take("dc").map(str::to_owned) else {
        if OF_A_DC.iter().any(|key| rest.has(key)) {
            return Err(SyntaxError::Missing("'dc='"));
        }
        let (key, value) = rest.item("'dc=', or the item to set,")?;
        return Ok(Command::Set { key, value });
    };
    let action = rest.take("action");
    match rest.take("namespace").map(str::to_owned) {
        Some(namespace) => of_namespace(dc, namespace, action, rest),
        None => of_dc(dc, action, rest),
    }
}

fn of_dc(
    dc: String,
    action: Option<&str>,
    mut rest: Arguments<'_>,
) -> Result<Command, SyntaxError> {
    if let Some(seed) = rest.take("node-address-port").map(str::to_owned) {
        let (command, name) = match action {
            Some("add") => {
                let key = "node-address-port".to_owned();
                (Command::SetDc { dc, key, value: seed }, "action=add")
            }
            Some("remove") => (Command::RemoveSeed { dc, seed }, "action=remove"),
            Some(other) => {
                return Err(SyntaxError::UnknownAction(other.to_owned(), "add or remove"));
            }
            None => return Err(SyntaxError::Missing("'action=' (add or remove)")),
        };
        return rest.end(name, &[]).map(|()| command);
    }
    let (command, name) = match action {
        Some("create") => (Command::CreateDc { dc }, "action=create"),
        Some("delete") => (Command::DeleteDc { dc }, "action=delete"),
        Some("pause") => (Command::Pause { dc, paused: true }, "action=pause"),
        Some("resume") => (Command::Pause { dc, paused: false }, "action=resume"),
        Some(other) => {
            let expected = match other {
                "add" | "remove" => "'namespace=' or 'node-address-port=' beside it",
                "rewind" => "'namespace=' beside it",
                _ => "create, delete, pause or resume",
            };
            return Err(SyntaxError::UnknownAction(other.to_owned(), expected));
        }
        None => {
            let (key, value) = rest.item("'action=', or the item to set,")?;
            return Ok(Command::SetDc { dc, key, value });
        }
    };
    rest.end(name, &["node-address-port", "namespace"]).map(|()| command)
}

fn of_namespace(
    dc: String,
    namespace: String,
    action: Option<&str>,
    mut rest: Arguments<'_>,
) -> Result<Command, SyntaxError> {
    let (command, name, takes): (_, _, &[&str]) = match action {
        Some("add") => {
            let rewind = rest.take("rewind").map_or(Ok(Rewind::Now), rewind)?;
            (Command::AddNamespace { dc, namespace, rewind }, "action=add", &["rewind"])
        }
        Some("rewind") => {
            let Some(text) = rest.take("rewind") else {
                rest.end("action=rewind", &["rewind"])?;
                return Err(SyntaxError::Missing("'rewind=' (all, or a time)"));
            };
            let rewind = rewind(text)?;
            (Command::RewindNamespace { dc, namespace, rewind }, "action=rewind", &[])
        }
        Some("remove") => (Command::RemoveNamespace { dc, namespace }, "action=remove", &[]),
        Some(other) => {
            return Err(SyntaxError::UnknownAction(other.to_owned(), "add, remove or rewind"));
        }
        None if rest.has("rewind") => {
            return Err(SyntaxError::Missing("'action=' (add or rewind)"));
        }
        None => {
            let (key, value) = rest.item("'action=', or the item to set,")?;
            return Ok(Command::SetDcNamespace { dc, namespace, key, value });
        }
    };
    rest.end(name, takes).map(|()| command)
}

fn rewind(text: &str) -> Result<Rewind, SyntaxError> {
    if text.eq_ignore_ascii_case("all") {
        return Ok(Rewind::All);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    match read_seconds(text) {
        Some(seconds) => Ok(Rewind::Seconds(seconds)),
        None if is_number => Err(SyntaxError::RewindTooLarge(text.to_owned())),
        None => Err(SyntaxError::BadRewind(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[(&str, &str)], expected: Result<Command, &str>) {
        let parsed = parse(arguments).map_err(|error| error.to_string());
        match (&parsed, expected) {
            (Ok(command), Ok(wanted)) => assert_eq!(*command, wanted),
            (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
            (_, wanted) => panic!("{arguments:?}: {parsed:?}, expected {wanted:?}"),
        }
    }

    #[test]
    fn commands_are_read_as_the_reference_spells_them() {
        let dc = || "west".to_owned();
        let namespace = || "demo".to_owned();
        check(&[("dc", "west"), ("action", "create")], Ok(Command::CreateDc { dc: dc() }));
        check(&[("dc", "west"), ("action", "delete")], Ok(Command::DeleteDc { dc: dc() }));
        for (action, paused) in [("pause", true), ("resume", false)] {
            check(&[("dc", "west"), ("action", action)], Ok(Command::Pause { dc: dc(), paused }));
        }
        let seed = [("dc", "west"), ("node-address-port", "h:3000"), ("action", "add")];
        let key = "node-address-port".to_owned();
        check(&seed, Ok(Command::SetDc { dc: dc(), key, value: "h:3000".to_owned() }));
        let seed = [("dc", "west"), ("node-address-port", "[::1]:3"), ("action", "remove")];
        check(&seed, Ok(Command::RemoveSeed { dc: dc(), seed: "[::1]:3".to_owned() }));
        let add = |rewind| Command::AddNamespace { dc: dc(), namespace: namespace(), rewind };
        let base = [("dc", "west"), ("namespace", "demo"), ("action", "add")];
        check(&base, Ok(add(Rewind::Now)));
        check(&[&base[..], &[("rewind", "all")]].concat(), Ok(add(Rewind::All)));
        for (text, seconds) in
            [("90", 90), ("1h", 3600), ("60S", 60), ("10m", 600), ("2D", 172_800)]
        {
            let arguments = [&base[..], &[("rewind", text)]].concat();
            check(&arguments, Ok(add(Rewind::Seconds(seconds))));
        }
        let rewind =
            [("dc", "west"), ("namespace", "demo"), ("action", "rewind"), ("rewind", "5m")];
        let seconds = Rewind::Seconds(300);
        let expected =
            Command::RewindNamespace { dc: dc(), namespace: namespace(), rewind: seconds };
        check(&rewind, Ok(expected));
        check(
            &[("dc", "west"), ("namespace", "demo"), ("delay-ms", "5")],
            Ok(Command::SetDcNamespace {
                dc: dc(),
                namespace: namespace(),
                key: "delay-ms".to_owned(),
                value: "5".to_owned(),
            }),
        );
        for name in ["id", "namespace"] {
            check(
                &[("context", "namespace"), (name, "demo"), ("default-ttl", "5")],
                Ok(Command::SetNamespace {
                    namespace: namespace(),
                    key: "default-ttl".to_owned(),
                    value: "5".to_owned(),
                }),
            );
        }
        check(
            &[("context", "xdr"), ("src-id", "7")],
            Ok(Command::Set { key: "src-id".to_owned(), value: "7".to_owned() }),
        );
    }

    #[test]
    fn refusals_say_what_was_expected() {
        let dc = ("dc", "w");
        let namespace = ("namespace", "n");
        let action = |name| ("action", name);
        check(&[dc], Err("'action=', or the item to set, is missing"));
        check(&[("context", "xdr")], Err("'dc=', or the item to set, is missing"));
        check(&[("DC", "w"), action("pause")], Err("'dc=' is missing"));
        check(&[dc, action("destroy")], Err("create, delete, pause or resume"));
        check(&[dc, action("add")], Err("'namespace=' or 'node-address-port=' beside it"));
        check(&[dc, namespace, action("crate")], Err("expected add, remove or rewind"));
        check(&[dc, ("node-address-port", "h:1")], Err("'action=' (add or remove) is missing"));
        let add = [dc, namespace, action("add")];
        let with = |more| [&add[..], &[more]].concat();
        check(&with(("rewind", "soon")), Err("'soon' is not a time"));
        check(&with(("rewind", "")), Err("'' is not a time"));
        check(&with(("rewind", "99999999999999999999")), Err("is too large: write all"));
        check(
            &with(("rewnd", "all")),
            Err("'rewnd' does not belong to action=add; did you mean \
            'rewind='?"),
        );
        check(&with(("forward", "true")), Err("'forward' does not belong to action=add"));
        check(&with(namespace), Err("'namespace=' is given twice"));
        check(&[dc, namespace, action("rewind")], Err("'rewind=' (all, or a time) is missing"));
        check(
            &[dc, namespace, action("rewind"), ("rewnd", "all")],
            Err("'rewnd' does not belong to action=rewind; did you mean"),
        );
        check(&[dc, action("create"), ("period-ms", "7")], Err("does not belong to action=create"));
        check(&[dc, action("delete"), ("x", "")], Err("'x' does not belong to action=delete"));
        check(
            &[dc, ("node-address-port", "h:1"), action("add"), ("rewind", "1")],
            Err("'rewind' does not belong to action=add"),
        );
        check(&[dc, namespace, ("rewind", "all")], Err("'action=' (add or rewind) is missing"));
        check(&[dc, ("a", "1"), ("b", "2")], Err("one item at a time"));
        check(&[namespace, ("forward", "true")], Err("'dc=' is missing"));
        check(&[("node-address-port", "h:1"), action("add")], Err("'dc=' is missing"));
        let of_namespace = ("context", "namespace");
        check(&[of_namespace, ("default-ttl", "1")], Err("'id=' is missing"));
        check(&[of_namespace, ("id", "demo")], Err("the item to set is missing"));
        let of_set = [of_namespace, ("id", "n"), ("set", "s"), ("default-ttl", "1")];
        check(&of_set, Err("one item at a time"));
    }
}
