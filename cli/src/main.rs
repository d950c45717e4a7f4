//! memharvest
fn main() {}
