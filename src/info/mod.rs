//! Admin commands over the info protocol: configuration, statistics, DC control.
//!
//! Each command is answered by the shard it came to, which shows itself as one node: statistics are
//! that shard's, changes act on the whole process. Source: `docs/behaviour.md` section 3.

pub mod figure;
mod letters;
mod set_config;
mod stats;

use std::future::Future;
use std::pin::Pin;

use crate::config::XdrConfig;
use crate::engine::{self, CommandError, ShardEngine};
use crate::host::Host;
use crate::wire::ResultCode;
use crate::wire::info::{Command, error, pairs};

pub use stats::{SHIPPED, Shipped};

/// An answer to an info command.
pub enum Answer {
    /// Here it is.
    Now(String),
    /// Shards and marks have to follow first.
    Later(Pin<Box<dyn Future<Output = String>>>),
}

/// Whether a command changes the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
    /// With this argument.
    ChangesWith(&'static str),
}

/// What each command does to the node that is answered here, or that the server answers and which
/// changes something. The one list of it: a command that is missing is not known.
const COMMANDS: &[(&str, Effect)] = &[
    ("get-config", Effect::Reads),
    ("get-stats", Effect::Reads),
    (crate::wire::hello::FEATURE, Effect::Changes),
    ("set-config", Effect::Changes),
    ("xdr-check", Effect::Reads),
    ("xdr-dead-letters", Effect::ChangesWith("action")),
];

fn effect_of(name: &str) -> Option<Effect> {
    COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, effect)| *effect)
}

/// Whether a command changes the node, so that not everybody may give it.
pub fn changes_state(command: &Command<'_>) -> bool {
    match effect_of(command.name) {
        None | Some(Effect::Reads) => false,
        Some(Effect::Changes) => true,
        Some(Effect::ChangesWith(key)) => command.arg(key).is_some(),
    }
}

/// Answers the admin commands of one shard.
pub struct Admin<H: Host> {
    engine: ShardEngine<H>,
}

impl<H: Host> Admin<H> {
    /// Over the engine of a shard.
    pub fn new(engine: ShardEngine<H>) -> Self {
        Self { engine }
    }

    /// The answer; `None` for a command that is not about shipping.
    pub fn answer(&self, command: &Command<'_>) -> Option<Answer> {
        effect_of(command.name)?;
        let answer = match command.name {
            // What else can be asked for is not shipping's.
            "get-config" if command.arg("context") != Some("xdr") => return None,
            "get-config" => Answer::Now(self.get_xdr_config(command)),
            "get-stats" => Answer::Now(self.get_stats(command)),
            "set-config" => self.set_config(command),
            "xdr-check" => Answer::Now(self.check(command)),
            "xdr-dead-letters" => self.dead_letters(command),
            _ => return None,
        };
        Some(answer)
    }

    /// What is shipped where, as it is now.
    fn xdr(&self) -> XdrConfig {
        let dcs = self.engine.configs();
        XdrConfig {
            src_id: self.engine.src_id().0,
            dcs: dcs.iter().map(|dc| (**dc).clone()).collect(),
        }
    }

    fn get_xdr_config(&self, command: &Command<'_>) -> String {
        let xdr = self.xdr();
        let Some(name) = command.arg("dc") else { return xdr.info_text() };
        let Some(dc) = xdr.dc(name) else { return self.unknown_dc(name) };
        match command.arg("namespace") {
            None => dc.info_text(),
            Some(namespace) => dc.namespace_info_text(namespace),
        }
    }

    fn get_stats(&self, command: &Command<'_>) -> String {
        if command.arg("context") != Some("xdr") {
            return error(ResultCode::PARAMETER, "get-stats knows context=xdr only");
        }
        let Some(name) = command.arg("dc") else {
            return error(ResultCode::PARAMETER, "'dc=' is missing");
        };
        let Some(report) = self.engine.report(name) else { return self.unknown_dc(name) };
        let Some(namespace) = command.arg("namespace") else { return stats::of_dc(report) };
        let found = report.namespaces.iter().find(|(name, _)| name == namespace);
        found.map_or_else(
            || {
                let text = format!("namespace '{namespace}' is not shipped to DC '{name}'");
                error(ResultCode::PARAMETER, &text)
            },
            |(_, stats)| stats::of_namespace(stats, report.now),
        )
    }

    fn set_config(&self, command: &Command<'_>) -> Answer {
        match command.arg("context") {
            Some("xdr" | "namespace") => {}
            None => return refuse("'context=' is missing"),
            Some(other) => {
                let text = format!(
                    "context '{other}' cannot be changed at run time, as xdr and namespace can: put \
                     it into the file and restart"
                );
                return refuse(&text);
            }
        }
        let arguments: Vec<(&str, &str)> = pairs(command.args).collect();
        match set_config::parse(&arguments) {
            Err(problem) => refuse(&problem.to_string()),
            Ok(command) => self.carry_out(command),
        }
    }

    fn carry_out(&self, command: engine::Command) -> Answer {
        let done = self.engine.command(command);
        Answer::Later(Box::pin(async move {
            done.await.unwrap_or_else(|text| error(ResultCode::PARAMETER, &text))
        }))
    }

    /// `xdr-check:dc=D`: whether every change is accounted for.
    fn check(&self, command: &Command<'_>) -> String {
        let Some(name) = command.arg("dc") else {
            return error(ResultCode::PARAMETER, "'dc=' is missing");
        };
        self.engine
            .report(name)
            .map_or_else(|| self.unknown_dc(name), |report| stats::check(&report))
    }

    /// `xdr-dead-letters:dc=D;namespace=N[;after=DIGEST][;count=C][;action=replay]`. Those of a
    /// namespace that is no longer attached are shown, too.
    fn dead_letters(&self, command: &Command<'_>) -> Answer {
        let arguments: Vec<(&str, &str)> = pairs(command.args).collect();
        let (dc, namespace, asked) = match letters::parse(&arguments) {
            Ok(asked) => asked,
            Err(problem) => return refuse(&problem.to_string()),
        };
        if !self.engine.configs().iter().any(|known| known.name == dc) {
            return Answer::Now(self.unknown_dc(dc));
        }
        if !self.engine.namespaces().iter().any(|known| known == namespace) {
            let known = self.engine.namespaces().iter().map(String::as_str);
            return refuse(&CommandError::unknown_namespace(namespace, known).to_string());
        }
        match asked {
            letters::Asked::Replay => {
                let (dc, namespace) = (dc.to_owned(), namespace.to_owned());
                self.carry_out(engine::Command::Replay { dc, namespace })
            }
            letters::Asked::Page { after, count } => {
                let found = self.engine.letters(dc, namespace, after, count);
                Answer::Later(Box::pin(async move {
                    let (letters, more) = found.await;
                    letters::text(&letters, more)
                }))
            }
        }
    }

    fn unknown_dc(&self, name: &str) -> String {
        let known = self.engine.configs();
        let known = known.iter().map(|dc| dc.name.as_str());
        error(ResultCode::PARAMETER, &CommandError::unknown_dc(name, known).to_string())
    }
}

fn refuse(text: &str) -> Answer {
    Answer::Now(error(ResultCode::PARAMETER, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_node_is_known_by_its_command() {
        let check = |line: &str, expected| {
            let command = Command::parse(line.as_bytes()).unwrap();
            assert_eq!(changes_state(&command), expected, "{line}");
        };
        check("set-config:context=xdr;dc=west;action=create", true);
        check("set-config", true);
        check("longship-hello:origin=1", true);
        check("xdr-dead-letters:dc=west;namespace=demo", false);
        check("xdr-dead-letters:dc=west;namespace=demo;action=replay", true);
        check("get-config:context=xdr", false);
        check("statistics", false);
        check("no-such-command:action=x", false);
    }
}
