//! The table as a page to read.

use std::fmt::Write;

use super::table::{self, Access, Change, Item};
use super::{
    DcConfig, DcNamespaceConfig, NamespaceConfig, NetworkConfig, ServiceConfig, StorageConfig,
    XdrConfig,
};

/// Every item with its default, what it accepts, whether it changes at run time and what it does,
/// in Markdown.
///
/// The text below the module's own is this one, kept true by a test.
pub fn reference() -> String {
    let mut page = String::from(PREFACE);
    let out = &mut page;
    section(out, "service", table::SERVICE, &ServiceConfig::default());
    section(out, "network / service", table::NETWORK_SERVICE, &NetworkConfig::default());
    section(out, "namespace NAME", table::NAMESPACE, &NamespaceConfig::named(""));
    let storage = "namespace NAME / storage-engine device";
    section(out, storage, table::STORAGE, &StorageConfig::default());
    section(out, "xdr", table::XDR, &XdrConfig::default());
    section(out, "xdr / dc NAME", table::DC, &DcConfig::named(""));
    let dc_namespace = &DcNamespaceConfig::named("");
    section(out, "xdr / dc NAME / namespace NAME", table::DC_NAMESPACE, dc_namespace);
    page
}

const PREFACE: &str = "\
# Configuration items

One item per line, `name value`; contexts in braces; `#` begins a comment. Items marked *live* may
also be changed at run time with `set-config`, which does not change the file; `flush-max-ms`,
`max-record-size`, `max-write-cache` and `post-write-cache` not above their value at the start.
Items marked *list* are given once per entry. `logging` holds `console { }` and `file PATH { }`,
with lines `context MODULE LEVEL` inside: `any` is every module without a line of its own; the others
are the reference system's, such as `xdr`, `storage`, `service`; levels critical, warning, info,
debug, detail. Each sink gets what its own lines say. SIGHUP opens the files again, after a rotation.
";

fn section<T>(out: &mut String, title: &str, table: &'static [Item<T>], defaults: &T) {
    let mut text = format!("\n## {title}\n\n");
    for item in table {
        let Item { name, .. } = item;
        let default = item.kind.brief(item.show(defaults));
        // Writing to a String cannot fail.
        let _ = match (&item.access, item.field(defaults)) {
            (Access::NotYet(only), _) => {
                writeln!(text, "- `{name}`: not supported yet, only `{only}` is accepted")
            }
            (_, Some(field)) => {
                let live = if item.change == Change::Live { ", *live*" } else { "" };
                let list = if field.is_list() { ", *list*" } else { "" };
                let default = if default.is_empty() { "none" } else { &default };
                let allowed = field.allowed(item.kind);
                let about = item.about;
                writeln!(text, "- `{name}` ({default}{live}{list}): {allowed}\\\n  {about}")
            }
            (_, None) => Ok(()),
        };
    }
    out.push_str(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page is checked in, where rustdoc and readers of the repository find it. On a change of
    /// the table, write the new text there: the test prints it.
    #[test]
    fn the_checked_in_page_is_the_table() {
        let page = reference();
        assert!(page == include_str!("items.md"), "src/config/items.md should be:\n{page}");
    }
}
