//! What the documents say of the code is there.

use std::fs;
use std::path::Path;

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let named = text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs"));
    let files: Vec<_> = named.flat_map(each).collect();
    assert!(files.len() > 40, "{files:?}");
    for file in files {
        let is_there = [format!("src/{file}"), file.clone(), in_crate(&file)]
            .iter()
            .any(|path| root.join(path).is_file());
        assert!(is_there, "ARCHITECTURE.md names {file}");
    }
}

/// `node/a.rs` stands for `crates/node/src/a.rs`.
fn in_crate(file: &str) -> String {
    file.split_once('/')
        .map_or_else(String::new, |(room, file)| format!("crates/{room}/src/{file}"))
}

/// `a/{b,c}.rs` names two files.
fn each(name: &str) -> Vec<String> {
    match name.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        None => vec![name.to_owned()],
        Some((head, (names, tail))) => {
            names.split(',').map(|name| format!("{head}{name}{tail}")).collect()
        }
    }
}
