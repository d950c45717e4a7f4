//! Readings to forecasts, harvest and violations.

pub mod backoff;
pub mod boundary;
pub mod breaker;
pub mod cold_start;
pub mod coverage;
pub mod domain;
pub mod guard;
pub mod judge;
pub mod labels;
pub mod model;
pub mod violation;
pub mod vm;
