//! Items as they are now, and as a page to read.

use std::fmt::Write;

use super::item::{Access, Change, Item};
use super::value::Field;

/// One `name=value` per item of the table; file lists are numbered, as `file[0]=PATH`.
pub fn entries<T>(table: &'static [Item<T>], config: &T, prefix: &str) -> Vec<String> {
    let show = |item: &Item<T>| {
        let name = format!("{prefix}{}", item.shown);
        match item.field(config).map(Field::numbered) {
            Some(Some(values)) => {
                let number = |(index, value)| format!("{name}[{index}]={value}");
                values.into_iter().enumerate().map(number).collect()
            }
            _ => vec![format!("{name}={}", item.show(config))],
        }
    };
    table.iter().flat_map(show).collect()
}

/// Every item of a table with its default, what it accepts, whether it changes at run time and what
/// it does, in Markdown.
pub fn section<T>(out: &mut String, title: &str, table: &'static [Item<T>], defaults: &T) {
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
