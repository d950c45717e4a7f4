//! memharvest-predictor
fn main() {}
