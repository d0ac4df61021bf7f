//! The configuration file of a node that a command starts for itself: on loopback, on a port the
//! system picks, with one namespace in one file of its work directory.

use std::fmt::Write as _;

/// An item and its value.
pub(crate) type Item = (&'static str, String);

/// What differs from one such node to another.
pub(crate) struct NodeText<'a> {
    /// The work directory.
    pub(crate) work: &'a str,
    /// Items of the service section, beside the work directory.
    pub(crate) service: &'a [Item],
    /// Items of the network's service section, beside address and port.
    pub(crate) network: &'a [Item],
    /// The namespace.
    pub(crate) namespace: &'a str,
    /// The name of its file.
    pub(crate) file: &'a str,
    /// Items of its storage.
    pub(crate) storage: &'a [Item],
    /// What follows: the DCs.
    pub(crate) xdr: &'a str,
}

impl NodeText<'_> {
    /// The file's text.
    pub(crate) fn format(&self) -> String {
        let Self { work, service, network, namespace, file, storage, xdr } = self;
        let (service, network, storage) = (lines(service, 4), lines(network, 8), lines(storage, 8));
        format!(
            "service {{
    work-directory {work}
{service}}}
network {{
    service {{
        address 127.0.0.1
        port 0
{network}    }}
}}
namespace {namespace} {{
    storage-engine device {{
        file {work}/{file}
{storage}    }}
}}
{xdr}"
        )
    }
}

/// Items of a section, indented.
fn lines(items: &[Item], indent: usize) -> String {
    items.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{:indent$}{name} {value}", "");
        text
    })
}
