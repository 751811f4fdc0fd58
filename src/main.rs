//! The `topsail` command.

fn main() {}
