//! memharvest-collector
fn main() {}
