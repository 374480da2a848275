//! The program `keyrink`.
fn main() {}
