//! The command `echotune-simulator`.

fn main() {}
