//! memharvest-registry
fn main() {}
