//! `set-config:context=xdr;…` and `context=namespace;…` to a [`Command`]. Source: behaviour reference section 3.

use crate::engine::{Command, Rewind};

/// Why the text of a `set-config` is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SyntaxError {
    /// A needed argument is missing.
    #[error("'{0}=' is missing")]
    Missing(&'static str),
    /// An `action` that does not exist or does not fit the other arguments.
    #[error("action '{0}' does not exist here: expected {1}")]
    UnknownAction(String, &'static str),
    /// A rewind that is neither a number of seconds nor `all`.
    #[error("rewind '{0}' is neither a number of seconds nor 'all'")]
    BadRewind(String),
    /// Nothing to set.
    #[error("no item is given")]
    NoItem,
    /// Several items in one command.
    #[error("one item at a time: '{0}' and '{1}'")]
    SeveralItems(String, String),
}

/// Parses the arguments of a `set-config` whose context is `xdr` or `namespace`: `(key, value)` in
/// the order given.
pub(crate) fn parse(arguments: &[(&str, &str)]) -> Result<Command, SyntaxError> {
    let find = |key: &str| arguments.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    if find("context") == Some("namespace") {
        let namespace = find("namespace").or(find("id")).ok_or(SyntaxError::Missing("id"))?;
        let item = only_item(arguments, &["context", "namespace", "id"]);
        let (key, value) = item.map_err(|error| match error {
            SyntaxError::Missing(_) => SyntaxError::NoItem,
            other => other,
        })?;
        return Ok(Command::SetNamespace { namespace: namespace.to_owned(), key, value });
    }
    let Some(dc) = find("dc").map(str::to_owned) else {
        let (key, value) = only_item(arguments, &["context"])?;
        return Ok(Command::Set { key, value });
    };
    let action = find("action");
    if let Some(seed) = find("node-address-port") {
        return seed_command(dc, seed, action);
    }
    match (find("namespace").map(str::to_owned), action) {
        (None, Some("create")) => Ok(Command::CreateDc { dc }),
        (None, Some("delete")) => Ok(Command::DeleteDc { dc }),
        (None, Some("pause")) => Ok(Command::Pause { dc, paused: true }),
        (None, Some("resume")) => Ok(Command::Pause { dc, paused: false }),
        (None, Some(other)) => {
            let expected = "create, delete, pause or resume";
            Err(SyntaxError::UnknownAction(other.to_owned(), expected))
        }
        (Some(namespace), Some("add")) => {
            Ok(Command::AddNamespace { dc, namespace, rewind: rewind(find("rewind"))? })
        }
        (Some(namespace), Some("remove")) => Ok(Command::RemoveNamespace { dc, namespace }),
        (Some(_), Some(other)) => {
            Err(SyntaxError::UnknownAction(other.to_owned(), "add or remove"))
        }
        (Some(namespace), None) => {
            let (key, value) = only_item(arguments, &["context", "dc", "namespace"])?;
            Ok(Command::SetDcNamespace { dc, namespace, key, value })
        }
        (None, None) => {
            let (key, value) = only_item(arguments, &["context", "dc"])?;
            Ok(Command::SetDc { dc, key, value })
        }
    }
}

fn seed_command(dc: String, seed: &str, action: Option<&str>) -> Result<Command, SyntaxError> {
    let seed = seed.to_owned();
    match action {
        Some("add") => Ok(Command::SetDc { dc, key: "node-address-port".to_owned(), value: seed }),
        Some("remove") => Ok(Command::RemoveSeed { dc, seed }),
        Some(other) => Err(SyntaxError::UnknownAction(other.to_owned(), "add or remove")),
        None => Err(SyntaxError::Missing("action")),
    }
}

fn rewind(value: Option<&str>) -> Result<Rewind, SyntaxError> {
    match value {
        None => Ok(Rewind::Now),
        Some("all") => Ok(Rewind::All),
        Some(seconds) => {
            let seconds = seconds.parse();
            seconds
                .map(Rewind::Seconds)
                .map_err(|_| SyntaxError::BadRewind(value.unwrap_or_default().to_owned()))
        }
    }
}

/// The one argument that is not part of the address.
fn only_item(
    arguments: &[(&str, &str)],
    address: &[&str],
) -> Result<(String, String), SyntaxError> {
    let mut items = arguments.iter().filter(|(key, _)| !address.contains(key));
    let (key, value) = items.next().ok_or(SyntaxError::Missing("action"))?;
    match items.next() {
        None => Ok(((*key).to_owned(), (*value).to_owned())),
        Some((other, _)) => Err(SyntaxError::SeveralItems((*key).to_owned(), (*other).to_owned())),
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
        check(&[&base[..], &[("rewind", "90")]].concat(), Ok(add(Rewind::Seconds(90))));
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
        check(&[("dc", "west")], Err("'action=' is missing"));
        check(&[("dc", "west"), ("action", "destroy")], Err("create, delete, pause or resume"));
        check(&[("dc", "w"), ("node-address-port", "h:1")], Err("'action=' is missing"));
        let base = [("dc", "w"), ("namespace", "n"), ("action", "add"), ("rewind", "soon")];
        check(&base, Err("'soon' is neither"));
        check(&[("dc", "w"), ("a", "1"), ("b", "2")], Err("one item at a time"));
        check(&[("context", "namespace"), ("default-ttl", "1")], Err("'id=' is missing"));
        check(&[("context", "namespace"), ("id", "demo")], Err("no item is given"));
        let of_set = [("context", "namespace"), ("id", "n"), ("set", "s"), ("default-ttl", "1")];
        check(&of_set, Err("one item at a time"));
    }
}
