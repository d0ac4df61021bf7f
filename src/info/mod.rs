//! Admin commands over the info protocol: configuration, statistics, DC control.
//!
//! Each command is answered by the shard it came to, which shows itself as one node: statistics are
//! that shard's, changes act on the whole process. Source: `docs/behaviour.md` section 3.

pub mod figure;
mod letters;
mod set_config;
mod stats;
mod table;

use std::future::Future;
use std::pin::Pin;

use crate::config::XdrConfig;
use crate::engine::{self, CommandError, ShardEngine};
use crate::host::Host;
use crate::wire::ResultCode;
use crate::wire::info::{Command, error, pairs};

pub use stats::{SHIPPED, Shipped};
pub use table::{Effect, Row, find, write_rows};

/// An answer to an info command.
pub enum Answer {
    /// Here it is.
    Now(String),
    /// Shards and marks have to follow first.
    Later(Pin<Box<dyn Future<Output = String>>>),
}

/// A command about shipping.
pub type AdminRow<H> = Row<fn(&Admin<H>, &Command<'_>) -> Answer>;

/// Answers the admin commands of one shard.
pub struct Admin<H: Host> {
    engine: ShardEngine<H>,
}

impl<H: Host> Admin<H> {
    /// Over the engine of a shard.
    pub fn new(engine: ShardEngine<H>) -> Self {
        Self { engine }
    }

    /// Commands about shipping.
    pub const TABLE: &'static [AdminRow<H>] = &[
        Row::reads(
            "get-config",
            ":context=xdr[;dc=D[;namespace=N]]",
            "every item of shipping, of a DC, or of a namespace of it",
            |admin, command| Answer::Now(admin.get_xdr_config(command)),
        ),
        Row::reads(
            "get-stats",
            ":context=xdr;dc=D[;namespace=N]",
            "figures of a DC, or of a namespace of it",
            |admin, command| Answer::Now(admin.get_stats(command)),
        ),
        Row::changes(
            Effect::Changes,
            "set-config",
            ":context=xdr|namespace[;dc=D][;namespace=N];ITEM=VALUE|action=ACTION",
            "sets an item, makes, deletes, pauses or rewinds; `ok` when all shards have followed",
            Self::set_config,
        ),
        Row::reads(
            "xdr-check",
            ":dc=D",
            "for each namespace what was taken and what became of it, and whether it adds up",
            |admin, command| Answer::Now(admin.check(command)),
        ),
        Row::changes(
            Effect::ChangesWith("action"),
            "xdr-dead-letters",
            ":dc=D;namespace=N[;after=DIGEST][;count=C][;action=replay]",
            "what was given up, or another try for it (`ok;replayed=N;kept=M`)",
            Self::dead_letters,
        ),
    ];

    /// The row of a command about shipping.
    pub fn row(command: &Command<'_>) -> Option<&'static AdminRow<H>> {
        // What else there is to get is not shipping's.
        let is_other = command.name == "get-config" && command.arg("context") != Some("xdr");
        find(Self::TABLE, command.name).filter(|_| !is_other)
    }

    /// The answer; `None` for a command that is not about shipping.
    pub fn answer(&self, command: &Command<'_>) -> Option<Answer> {
        let row = Self::row(command)?;
        let refusal = row.refusal(command).map(Answer::Now);
        Some(refusal.unwrap_or_else(|| (row.answer)(self, command)))
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
        let found = report.namespaces.iter().find(|of| of.name == namespace);
        found.map_or_else(
            || {
                let text = format!("namespace '{namespace}' is not shipped to DC '{name}'");
                error(ResultCode::PARAMETER, &text)
            },
            |of| stats::of_namespace(of, report.now),
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
