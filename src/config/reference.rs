//! The table as a page to read: `items.md`, which is kept true here.

use super::grammar::show::section;
use super::{DcConfig, DcNamespaceConfig, XdrConfig, table};

/// Every item of shipping with its default, what it accepts, whether it changes at run time and what
/// it does, in Markdown.
#[doc(hidden)]
pub fn write_sections(out: &mut String) {
    section(out, "xdr", table::XDR, &XdrConfig::default());
    section(out, "xdr / dc NAME", table::DC, &DcConfig::named(""));
    let dc_namespace = &DcNamespaceConfig::named("");
    section(out, "xdr / dc NAME / namespace NAME", table::DC_NAMESPACE, dc_namespace);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &str = "\
# Items of shipping

One item per line, `name value`; contexts in braces; `#` begins a comment. Items marked *live* may
also be changed at run time with `set-config`. Items marked *list* are given once per entry.
";

    /// The page is checked in, where rustdoc and readers of the repository find it. On a change of
    /// the table, write the new text there: the test prints it.
    #[test]
    fn the_checked_in_page_is_the_table() {
        let mut page = String::from(PREFACE);
        write_sections(&mut page);
        assert!(page == include_str!("items.md"), "src/config/items.md should be:\n{page}");
    }
}
