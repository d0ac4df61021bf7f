//! `longship info`: asks a node info commands.

use std::error::Error;
use std::process::ExitCode;

use longship::wire::info;

use crate::client;
use crate::report;

/// Asks a node info commands, such as `namespaces` or `get-stats:context=xdr;dc=west`.
#[derive(clap::Args)]
#[command(after_long_help = longship_node::admin::answers::page())]
pub struct InfoArgs {
    /// The node.
    #[arg(long, value_name = "HOST:PORT")]
    host: String,
    /// What to ask; several answers are printed with their command in front.
    #[arg(required = true)]
    commands: Vec<String>,
}

/// Runs the command. Fails when any answer is an error.
pub fn command(args: &InfoArgs) -> Result<ExitCode, Box<dyn Error>> {
    let commands: Vec<_> = args.commands.iter().map(String::as_str).collect();
    let values = client::ask(&args.host, &commands)?;
    for (command, value) in commands.iter().zip(&values) {
        match commands.len() {
            1 => report::print(value),
            _ => report::print(&format!("{command}\t{value}")),
        }
    }
    let failed = values.iter().any(|value| info::failure(value).is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
