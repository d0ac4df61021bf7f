//! The `xdr` context of a file.

use super::error::{ConfigErrors, ConfigNote, ItemError};
use super::grammar::kind::NameRule;
use super::grammar::reader::{Reader, read_file};
use super::grammar::set::room_for;
use super::grammar::text::Node;
use super::names::VOCABULARY;
use super::{
    DC_COUNT_MAX, DcConfig, DcNamespaceConfig, NAMESPACE_COUNT_MAX, XdrConfig, rules, table,
};

impl XdrConfig {
    /// Reads a text that holds an `xdr` context, as a node's file does, and nothing else. `file` is
    /// only for the errors' words. Which namespaces there are to ship, it does not know.
    ///
    /// # Errors
    /// Every error of the text, in line order.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<ConfigNote>), ConfigErrors> {
        read_file(text.as_bytes(), file, VOCABULARY, |reader, nodes| {
            let mut config = Self::default();
            let top = reader.items("", &[], &["xdr"], &mut (), nodes);
            for (index, node) in top.contexts.iter().enumerate() {
                if index > 0 {
                    let first_line = top.contexts[0].line;
                    reader.refuse("", node, ItemError::Twice { first_line });
                    continue;
                }
                reader.no_name("", node);
                read_xdr(reader, node.body.as_deref().unwrap_or_default(), &mut config);
            }
            config
        })
    }
}

/// A namespace that a DC ships, and where the file says so.
#[doc(hidden)]
pub struct Shipped {
    /// Line of the file, from 1.
    pub line: u32,
    /// The DC's context, spelled as errors of the file spell it.
    pub context: String,
    /// Name of the namespace at the source.
    pub name: String,
}

/// Reads what stands in the braces of `xdr`.
#[doc(hidden)]
pub fn read_xdr(
    reader: &mut Reader<'_>,
    body: &[Node<'_>],
    config: &mut XdrConfig,
) -> Vec<Shipped> {
    let found = reader.items("xdr", table::XDR, &["dc"], config, body);
    let mut shipped = Vec::new();
    for node in found.contexts {
        if let Some(dc) = read_dc(reader, node, &config.dcs, &mut shipped) {
            config.dcs.push(dc);
        }
    }
    shipped
}

fn read_dc(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    others: &[DcConfig],
    shipped: &mut Vec<Shipped>,
) -> Option<DcConfig> {
    let name = reader.name_of("xdr", node, NameRule::Dc)?;
    if let Err(error) = room_for(name, others, |other| &other.name, DC_COUNT_MAX) {
        reader.refuse("xdr", node, error);
    }
    let context = format!("xdr/dc {name}");
    let mut config = DcConfig::named(name);
    let body = node.body.as_deref().unwrap_or_default();
    let found = reader.items(&context, table::DC, &["namespace"], &mut config, body);
    for node in found.contexts {
        if let Some(namespace) = read_namespace(reader, &context, node, &config.namespaces) {
            let (context, name) = (context.clone(), namespace.name.clone());
            shipped.push(Shipped { line: node.line, context, name });
            config.namespaces.push(namespace);
        }
    }
    Some(config)
}

fn read_namespace(
    reader: &mut Reader<'_>,
    context: &str,
    node: &Node<'_>,
    others: &[DcNamespaceConfig],
) -> Option<DcNamespaceConfig> {
    let name = reader.name_of(context, node, NameRule::Namespace)?;
    if let Err(error) = room_for(name, others, |other| &other.name, NAMESPACE_COUNT_MAX) {
        reader.refuse(context, node, error);
    }
    let context = format!("{context}/namespace {name}");
    let mut config = DcNamespaceConfig::named(name);
    let body = node.body.as_deref().unwrap_or_default();
    let found = reader.items(&context, table::DC_NAMESPACE, &[], &mut config, body);
    reader.refuse_broken(&context, node.line, &found, rules::dc_namespace(&config));
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BinPolicy;

    #[test]
    fn whoever_embeds_shipping_reads_its_context_alone() {
        let text = "xdr {\n src-id 7\n dc west {\n node-address-port 10.1.0.1 3000\n namespace a {\n \
                    ship-only-specified-bins true\n }\n }\n}\n";
        let (xdr, notes) = XdrConfig::parse(text, "f").unwrap();
        let (west, namespace) = (&xdr.dcs[0], &xdr.dcs[0].namespaces[0]);
        assert_eq!((xdr.src_id, west.seeds.len(), namespace.name.as_str()), (7, 1, "a"));
        assert_eq!((namespace.bin_policy, notes.len()), (BinPolicy::OnlySpecified, 0));
        assert_eq!(XdrConfig::parse("", "f").unwrap().0, XdrConfig::default());
    }

    #[test]
    fn what_is_wrong_with_it_is_told_with_place_and_remedy() {
        let text = "service { }\nxdr {\n dc D {\n period-ms 2\n namespace a {\n hot-kye-ms 1\n \
                    delay-ms 200\n tls-name x\n xdr-period 1\n } }\n}\nxdr { }\n";
        let errors = XdrConfig::parse(text, "f").unwrap_err().to_string();
        let expected = [
            "f:1: `service`: unknown",
            "f:4: xdr/dc D: `period-ms 2`: `2` is not allowed here: expected 5..1000 ms",
            "f:6: xdr/dc D/namespace a: `hot-kye-ms 1`: unknown; did you mean `hot-key-ms`?",
            "f:8: xdr/dc D/namespace a: `tls-name x`: belongs to `xdr/dc D`, not here",
            "f:9: xdr/dc D/namespace a: `xdr-period 1`: no longer an item: write `period-ms` in the DC",
            "f:12: `xdr`: given twice, first in line 2",
        ];
        assert_eq!(errors, expected.join("\n"));
    }
}
