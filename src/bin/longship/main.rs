//! The `longship` command.

fn main() {}
