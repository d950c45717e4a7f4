//! memharvest-gateway
fn main() {}
