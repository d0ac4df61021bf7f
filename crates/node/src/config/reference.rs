//! The table as a page to read: `items.md`, which is kept true here.

use longship::config::grammar::show::section;
use longship::config::write_sections;

use super::{NamespaceConfig, NetworkConfig, ServiceConfig, StorageConfig, table};

/// Every item of a node's file.
fn page() -> String {
    let mut page = String::from(PREFACE);
    let out = &mut page;
    section(out, "service", table::SERVICE, &ServiceConfig::default());
    section(out, "network / service", table::NETWORK_SERVICE, &NetworkConfig::default());
    section(out, "namespace NAME", table::NAMESPACE, &NamespaceConfig::named(""));
    let storage = "namespace NAME / storage-engine device";
    section(out, storage, table::STORAGE, &StorageConfig::default());
    write_sections(out);
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

/// The page is checked in, where rustdoc and readers of the repository find it. On a change of the
/// table, write the new text there: the test prints it.
#[test]
fn the_checked_in_page_is_the_table() {
    let page = page();
    assert!(page == include_str!("items.md"), "crates/node/src/config/items.md should be:\n{page}");
}
